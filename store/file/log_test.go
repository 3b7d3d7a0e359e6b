package file

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/fsx"
)

// clock is a settable time.Now.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(time.Now().UnixMilli())
	return c
}
func (c *clock) now() time.Time          { return time.UnixMilli(c.ms.Load()) }
func (c *clock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// putMany puts n entries from many sides at once, as group commit wants it.
func putMany(t *testing.T, s *Store, prefix string, n int, expires time.Time) {
	t.Helper()
	var wg sync.WaitGroup
	const sides = 200
	for side := range sides {
		wg.Go(func() {
			for i := side; i < n; i += sides {
				if _, err := s.Put(t.Context(), fmt.Sprintf("%s%d", prefix, i), []byte(`{}`), store.AnyRev, expires); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestExpiredAreDropped fills the log with entries that expire: a later
// write, or a start, leaves only the live ones in file and memory.
func TestExpiredAreDropped(t *testing.T) {
	for _, how := range []string{"write", "start"} {
		t.Run(how, func(t *testing.T) {
			c := newClock()
			o := dirOptions(t)
			o.Now = c.now
			s := mustOpen(t, o)
			mustPut(t, s, "revocations/agent/keep", `{"reason":"x"}`)
			putMany(t, s, "revocations/token/", 3*compactMin, c.now().Add(time.Hour))
			c.advance(2 * time.Hour)
			if how == "start" {
				s.Close()
				s = mustOpen(t, o)
			}
			mustPut(t, s, "revocations/agent/more", `{}`)
			if _, err := s.Barrier(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Close() // waits for the writer
			fi, err := os.Stat(filepath.Join(o.DataDir, logName))
			if err != nil || fi.Size() > 1024 {
				t.Fatalf("the log has %d bytes, %v", fi.Size(), err)
			}
			s = mustOpen(t, o)
			list, err := s.List(t.Context(), store.Revocations)
			if err != nil || len(list) != 2 || list[0].Key != "revocations/agent/keep" || string(list[0].Value) != `{"reason":"x"}` {
				t.Fatalf("list: %v, %v", list, err)
			}
		})
	}
}

// TestLogReplaced removes, then changes the log under a running store.
func TestLogReplaced(t *testing.T) {
	o := dirOptions(t)
	s := mustOpen(t, o)
	path := filepath.Join(o.DataDir, logName)
	mustPut(t, s, "revocations/agent/a", `{}`)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "revocations/agent/b", `{}`)
	s.Close()
	s = mustOpen(t, o)
	if list, err := s.List(t.Context(), store.Revocations); err != nil || len(list) != 2 {
		t.Fatalf("list: %v, %v", list, err)
	}
	if err := os.Truncate(path, int64(len(logHeader))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "revocations/agent/c", []byte(`{}`), store.AnyRev, time.Time{}); !errors.Is(err, ErrDamaged) {
		t.Fatalf("put to a log that was cut: %v", err)
	}
}

// TestSlowWatcher lets changes be forgotten that a watcher has not seen.
func TestSlowWatcher(t *testing.T) {
	s := mustOpen(t, dirOptions(t))
	slow := mustWatch(t, s, "revocations/")
	other := mustWatch(t, s, "secrets/")
	from, _ := s.Barrier(t.Context())
	putMany(t, s, "revocations/token/", historyEvents+1, time.Time{})
	if _, err := slow.Next(t.Context()); !errors.Is(err, store.ErrSlow) {
		t.Fatalf("slow watcher: %v", err)
	}
	if _, err := s.Watch(t.Context(), "revocations/", from); !errors.Is(err, store.ErrCompacted) {
		t.Fatalf("late watcher: %v", err)
	}
	rev := mustPut(t, s, "secrets/a", `{}`)
	if ev := next(t, other); ev.Rev != rev {
		t.Fatalf("a flood of revocations pushed out %v", ev)
	}
}

// TestPlantedTemps puts links where a guess at temporary names might land,
// and leftovers of a crash: neither is followed, the latter go.
func TestPlantedTemps(t *testing.T) {
	o := dirOptions(t)
	mustOpen(t, o).Close()
	victim := filepath.Join(t.TempDir(), "victim")
	writeFile(t, victim, "untouched", 0o600)
	left := filepath.Join(o.DataDir, ".tmp-secrets.enc-0123456789abcdef")
	for _, name := range []string{left, filepath.Join(o.DataDir, "secrets.enc.tmp"), filepath.Join(o.DataDir, ".tmp-secrets.enc")} {
		if err := os.Symlink(victim, name); err != nil {
			t.Fatal(err)
		}
	}
	s := mustOpen(t, o)
	mustPut(t, s, "secrets/a", `{}`)
	if b, _ := os.ReadFile(victim); string(b) != "untouched" {
		t.Fatalf("a link was followed: %q", b)
	}
	if _, err := os.Lstat(left); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("leftover: %v", err)
	}
	// A link in the place of the file itself is replaced, not followed.
	path := filepath.Join(o.DataDir, "services", "a.json")
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "services/a", `{}`)
	if fi, err := os.Lstat(path); err != nil || !fi.Mode().IsRegular() {
		t.Fatalf("%v, %v", fi, err)
	}
	if b, _ := os.ReadFile(victim); string(b) != "untouched" {
		t.Fatalf("a link was followed: %q", b)
	}
}

// TestServicesReplaced puts another directory in the place of the one that
// is watched, then one that others can write.
func TestServicesReplaced(t *testing.T) {
	o := dirOptions(t)
	o.PollInterval = 30 * time.Millisecond
	s := mustOpen(t, o)
	w := mustWatch(t, s, "services/")
	dir := filepath.Join(o.DataDir, "services")
	mustPut(t, s, "services/a", `{}`)
	next(t, w)
	if err := errors.Join(os.Mkdir(dir+".new", 0o700), os.WriteFile(dir+".new/a.json", []byte(`{"n":2}`), 0o600),
		os.Rename(dir, dir+".old"), os.Rename(dir+".new", dir)); err != nil {
		t.Fatal(err)
	}
	if ev := next(t, w); string(ev.Value) != `{"n":2}` {
		t.Fatalf("event %v", ev)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := s.Put(t.Context(), "services/b", []byte(`{}`), store.AnyRev, time.Time{})
	if !errors.Is(err, fsx.ErrInsecure) || !strings.Contains(err.Error(), "chmod go-w "+dir) {
		t.Fatalf("put: %v", err)
	}
}

func TestLines(t *testing.T) {
	for _, r := range []logRecord{
		{rev: 1, key: []byte("revocations/token/a"), value: []byte(`{}`)},
		{rev: 2, expires: 1795468064545, key: []byte("revocations/agent/a b%\n\xff"), value: []byte("x y\nz")},
		{rev: maxRev, key: []byte("k"), value: nil},
		{rev: 3, key: []byte("k"), del: true},
	} {
		line := appendLine(nil, r)
		if bytes.Count(line, []byte("\n")) != 1 {
			t.Fatalf("%q is not one line", line)
		}
		got, err := parseLine(line[:len(line)-1])
		if err != nil || got.rev != r.rev || got.expires != r.expires || got.del != r.del ||
			!bytes.Equal(got.key, r.key) || !bytes.Equal(got.value, r.value) {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte("00000000 1 0 p k v"))
	f.Add(bytes.TrimSuffix(appendLine(nil, logRecord{rev: 9, key: []byte("a b"), value: []byte("c\nd")}), []byte("\n")))
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, err := parseLine(line); err == nil {
			again, err := parseLine(bytes.TrimSuffix(appendLine(nil, r), []byte("\n")))
			if err != nil || !bytes.Equal(again.key, r.key) || !bytes.Equal(again.value, r.value) {
				t.Fatalf("%q: %+v, %v", line, again, err)
			}
		}
	})
}

func FuzzParseSealed(f *testing.F) {
	f.Add([]byte(`{"v":2,"rev":3,"entries":{"secrets/a":{"rev":1,"value":{}},"keyset/a":{"rev":2,"expires":5,"base64":"AA=="}}}`))
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, rev, err := parseSealed(b)
		if err != nil {
			return
		}
		out, err := formatSealed(entries, rev)
		if err != nil {
			t.Fatal(err)
		}
		if again, rev2, err := parseSealed(out); err != nil || rev2 != rev || len(again) != len(entries) {
			t.Fatalf("%s: %v", out, err)
		}
	})
}

func FuzzParseMark(f *testing.F) {
	f.Add(formatMark(65536))
	f.Add("1 \n")
	f.Fuzz(func(t *testing.T, s string) {
		if rev, ok := parseMark(s); ok && formatMark(rev) != s {
			t.Fatal("two spellings")
		}
	})
}
