package audit

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidwall/gjson"
)

// carrySecrets carries the newest of each secret.
var carrySecrets = map[string]func([]byte) (string, bool){
	"secret.set":    func(line []byte) (string, bool) { return gjson.GetBytes(line, "secretRef").Str, true },
	"secret.remove": func(line []byte) (string, bool) { return gjson.GetBytes(line, "secretRef").Str, false },
}

// replaySecrets replays into a map of versions.
func replaySecrets(into map[string]uint64) map[string]func([]byte) {
	return map[string]func([]byte){
		"secret.set": func(line []byte) {
			into[gjson.GetBytes(line, "secretRef").Str] = gjson.GetBytes(line, "secretVersion").Uint()
		},
		"secret.remove": func(line []byte) { delete(into, gjson.GetBytes(line, "secretRef").Str) },
	}
}

// retained writes a log whose old segments go, and returns what it kept.
func retained(t *testing.T, dir string) map[string]string {
	synctest.Test(t, func(t *testing.T) {
		real, err := openDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		l := open(t, Options{Dir: dir, SegmentSize: 900, KeepFor: 24 * time.Hour, Carry: carrySecrets, fs: &faultFS{fsys: real}})
		for i := range 60 {
			appendOK(t, l, Record{Event: "secret.set", SecretRef: fmt.Sprint("s", i%3), SecretVersion: uint64(i + 1)})
			if i == 20 {
				appendOK(t, l, Record{Event: "secret.remove", SecretRef: "s1"})
				appendOK(t, l, Record{Event: "secret.set", SecretRef: "once", SecretVersion: 7})
			}
			time.Sleep(time.Hour)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
	return readDir(t, dir)
}

func TestRetention(t *testing.T) {
	dir := t.TempDir()
	files := retained(t, dir)
	r := verifyOK(t, dir)
	if r.Dropped < 50 || r.Records+r.Dropped != r.LastSeq || r.Checkpoints == 0 || r.Checked < r.LastSeq-2 {
		t.Fatalf("%+v", r)
	}
	if _, ok := files[sealedName(1)]; ok || r.Segments[0].First != r.Dropped+1 {
		t.Fatal("the oldest segment is there")
	}
	lines := logLines(t, dir)
	last := time.UnixMilli(gjson.Get(lines[len(lines)-1], "ts").Int())
	if first := time.UnixMilli(gjson.Get(lines[0], "ts").Int()); last.Sub(first) > 36*time.Hour || last.Sub(first) < 23*time.Hour {
		t.Fatalf("%v of records are left", last.Sub(first))
	}
	if !strings.Contains(strings.Join(lines, "\n"), `"event":"audit.dropped"`) {
		t.Fatal("dropping is not on record")
	}
	got := map[string]uint64{}
	l := open(t, Options{Dir: dir, Replay: replaySecrets(got)})
	_ = l.Close()
	if want := map[string]uint64{"s0": 58, "s1": 59, "s2": 60, "once": 7}; !maps.Equal(got, want) {
		t.Fatalf("replayed %v, want %v", got, want)
	}
	verifyOK(t, dir)

	for _, name := range slices.Sorted(maps.Keys(files)) {
		if first, ok := parseIndexName(name); ok && first <= r.Dropped {
			t.Errorf("%s is still there", name)
		}
	}

	// A crash before the segment was removed.
	first := files[r.Segments[0].Name]
	dir2 := writeDir(t, with(files, sealedName(1), first))
	verifyOK(t, dir2)
	l = open(t, Options{Dir: dir2})
	_ = l.Close()
	if _, ok := readDir(t, dir2)[sealedName(1)]; ok {
		t.Fatal("the dropped segment is still there")
	}

	for name, c := range map[string]struct {
		files map[string]string
		kind  Kind
	}{
		"without the file":     {with(files, droppedName, ""), Missing},
		"another segment gone": {with(files, r.Segments[0].Name, ""), Missing},
		"kept line changed":    {with(files, droppedName, strings.Replace(files[droppedName], `\"secretVersion\":7`, `\"secretVersion\":6`, 1)), Forged},
		"kept line removed":    {with(files, droppedName, strings.Replace(files[droppedName], "once", "twice", 1)), Forged},
		"size changed":         {with(files, droppedName, strings.Replace(files[droppedName], fmt.Sprintf(`\n%d\n`, r.Dropped), fmt.Sprintf(`\n%d\n`, r.Dropped-1), 1)), Forged},
		"rubbish":              {with(files, droppedName, "{}"), Forged},
		"first record changed": {with(files, r.Segments[0].Name, strings.Replace(first, `{"ts":9`, `{"ts":8`, 1)), Altered},
		"chained anew, all":    {rechainAll(files, r), Altered},
	} {
		dir := writeDir(t, c.files)
		var d *Damage
		if _, err := Verify(dir, nil); !errors.As(err, &d) || d.Kind != c.kind {
			t.Errorf("%s: %v", name, err)
		}
		if l, err := Open(Options{Dir: dir}); err == nil {
			_ = l.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

// rechainAll changes the first record that is left and chains all others to
// it.
func rechainAll(files map[string]string, r Report) map[string]string {
	out := maps.Clone(files)
	c := chain{}
	for i, s := range r.Segments {
		content := ""
		for j, line := range splitLines(files[s.Name]) {
			l := strings.TrimSuffix(line, "\n")
			if i == 0 && j == 0 {
				_, prev, _ := parseTail([]byte(l))
				c = chain{seq: s.First - 1, hash: prevHash(prev)}
				l = strings.Replace(l, `{"ts":9`, `{"ts":8`, 1)
			}
			content += string(c.appendTail([]byte(l[:strings.LastIndex(l, seqKey)]), 0)) + "\n"
		}
		out[s.Name] = content
	}
	return out
}

// TestRetentionKeeps are segments that may not go yet.
func TestRetentionKeeps(t *testing.T) {
	for _, c := range []struct {
		name    string
		o       Options
		started bool
		wait    time.Duration
		drops   bool
	}{
		{"by size", Options{KeepBytes: 2000}, false, 2 * time.Hour, true},
		{"too young", Options{KeepBytes: 2000}, false, 0, false},
		{"an open call", Options{KeepBytes: 2000}, true, 2 * time.Hour, false},
		{"large enough", Options{KeepBytes: 1 << 20}, false, 2 * time.Hour, false},
		{"everything", Options{}, false, 1000 * time.Hour, false},
		{"no checkpoints", Options{KeepFor: time.Hour, CheckpointEvery: -1}, false, 1000 * time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				o := c.o
				o.Dir, o.SegmentSize = dir, 900
				l := open(t, o)
				appendOK(t, l, Record{Event: EventCallStarted, CallID: "a"})
				if !c.started {
					appendOK(t, l, Record{Event: EventCall, CallID: "a"})
				}
				for i := range 30 {
					appendOK(t, l, Record{Event: "test", CallID: fmt.Sprint(i)})
				}
				time.Sleep(c.wait)
				appendOK(t, l, Record{Event: "test"})
				time.Sleep(5 * time.Second)
				_, err := os.Stat(filepath.Join(dir, sealedName(1)))
				if dropped := err != nil; dropped != c.drops {
					t.Errorf("dropped: %v", dropped)
				}
				if c.started { // until it ends
					appendOK(t, l, Record{Event: EventCall, CallID: "a"})
					for range 10 {
						appendOK(t, l, Record{Event: "test"})
					}
					time.Sleep(5 * time.Second)
					if _, err := os.Stat(filepath.Join(dir, sealedName(1))); err == nil {
						t.Error("not dropped when the call had ended")
					}
				}
				_ = l.Close()
			})
			verifyOK(t, dir)
		})
	}
}

// TestClock has the clock set back and forth.
func TestClock(t *testing.T) {
	dir := t.TempDir()
	var events []string
	synctest.Test(t, func(t *testing.T) {
		var off atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
		l := open(t, Options{Dir: dir, Now: now})
		for _, o := range []time.Duration{0, 500 * time.Millisecond, time.Hour, time.Hour, -time.Minute} {
			off.Store(int64(o))
			appendOK(t, l, Record{Event: "test"})
			time.Sleep(10 * time.Minute)
		}
		_ = l.Close()
		off.Store(int64(-24 * time.Hour))
		l = open(t, Options{Dir: dir, Now: now})
		appendOK(t, l, Record{Event: "test"})
		_ = l.Close()
	})
	for _, line := range logLines(t, dir) {
		if e := gjson.Get(line, "event").Str; e != EventCheckpoint {
			events = append(events, e+" "+gjson.Get(line, "reason").Str)
		}
	}
	want := []string{
		"test ", "test ", "audit.clock the clock was set by +3599.500 s, or the machine slept", "test ", "test ",
		"audit.clock the clock was set by -3660.000 s, or the machine slept", "test ",
	}
	if len(events) != 9 || !slices.Equal(events[:7], want) || !strings.HasPrefix(events[7], "audit.clock the clock is 85") {
		t.Fatalf("%q", events)
	}
	verifyOK(t, dir)
}
