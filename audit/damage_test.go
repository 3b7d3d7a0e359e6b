package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// build writes a log of some records and returns the lines of its files, by
// name, with the newline.
func build(t testing.TB, segmentSize int64, records int) (dir string, files map[string][]string) {
	t.Helper()
	dir = t.TempDir()
	l := open(t, Options{Dir: dir, SegmentSize: segmentSize, CheckpointEvery: -1, Durability: Async})
	for i := range records {
		appendOK(t, l, Record{Event: "test", CallID: fmt.Sprintf("%04d", i), Context: &Context{AgentID: "tony"}})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string][]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = strings.SplitAfter(strings.TrimSuffix(string(b), "\n")+"\n", "\n")
		files[e.Name()] = files[e.Name()][:len(files[e.Name()])-1]
	}
	return dir, files
}

func writeLog(t testing.TB, name string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// expectDamage holds Verify and Open to naming the same damage.
func expectDamage(t testing.TB, dir, what string, seq uint64, kinds ...Kind) {
	t.Helper()
	var d *Damage
	if _, err := Verify(dir, nil); !errors.As(err, &d) || d.Seq != seq || !slices.Contains(kinds, d.Kind) {
		t.Fatalf("%s: want record %d %v, got %v", what, seq, kinds, err)
	}
	l, err := Open(Options{Dir: dir})
	if err == nil {
		_ = l.Close()
		t.Fatalf("%s: opened", what)
	}
	if !errors.As(err, &d) || d.Seq != seq {
		t.Fatalf("%s: Open says %v", what, err)
	}
}

// TestDamage deletes, doubles, swaps and alters every record but the last.
func TestDamage(t *testing.T) {
	dir, files := build(t, 1<<20, 8)
	name := filepath.Join(dir, currentName)
	lines := files[currentName]
	for i := range len(lines) - 1 {
		seq := uint64(i + 1)
		writeLog(t, name, slices.Delete(slices.Clone(lines), i, i+1)...)
		expectDamage(t, dir, "deleted", seq, Missing)

		writeLog(t, name, slices.Insert(slices.Clone(lines), i, lines[i])...)
		expectDamage(t, dir, "doubled", seq, Duplicated)

		if i < len(lines)-2 {
			swapped := slices.Clone(lines)
			swapped[i], swapped[i+1] = lines[i+1], lines[i]
			writeLog(t, name, swapped...)
			expectDamage(t, dir, "swapped", seq, Reordered)
		}
	}
	// The chain anew from a record on, after its content was changed, but
	// for the ones behind.
	forged := slices.Clone(lines)
	forged[3] = strings.Replace(lines[3], "tony", "anna", 1)
	h := hashLine([]byte(strings.TrimSuffix(forged[3], "\n")))
	_, prev, _ := parseTail([]byte(strings.TrimSuffix(lines[4], "\n")))
	forged[4] = strings.Replace(lines[4], string(prev), string(h[:]), 1)
	writeLog(t, name, forged...)
	expectDamage(t, dir, "partly chained anew", 5, Altered)

	writeLog(t, name, lines...)
	verifyOK(t, dir)
}

// TestBitFlips flips every bit of a record in the middle, its newline too.
func TestBitFlips(t *testing.T) {
	dir, files := build(t, 1<<20, 5)
	name := filepath.Join(dir, currentName)
	lines := files[currentName]
	for at := range len(lines[2]) {
		for bit := range 8 {
			b := []byte(lines[2])
			b[at] ^= 1 << bit
			flipped := slices.Clone(lines)
			flipped[2] = string(b)
			writeLog(t, name, flipped...)
			var d *Damage
			if _, err := Verify(dir, nil); !errors.As(err, &d) || d.Seq != 3 || d.Kind != Altered {
				t.Fatalf("bit %d of byte %d (%q): %v", bit, at, lines[2][at], err)
			}
		}
	}
}

// TestSegmentDamage loses, empties, renames and cuts sealed segments.
func TestSegmentDamage(t *testing.T) {
	dir, files := build(t, 900, 24)
	var firsts []uint64
	for name := range files {
		if first, ok := parseSealed(name); ok {
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	if len(firsts) < 3 {
		t.Fatalf("segments: %v", firsts)
	}
	second := filepath.Join(dir, sealedName(firsts[1]))
	lines := files[sealedName(firsts[1])]
	restore := func() { writeLog(t, second, lines...) }

	_ = os.Remove(second)
	expectDamage(t, dir, "segment deleted", firsts[1], Missing)
	writeLog(t, second)
	expectDamage(t, dir, "segment emptied", firsts[1], Truncated)
	restore()
	for cut := 1; cut < len(lines); cut++ {
		writeLog(t, second, lines[:len(lines)-cut]...)
		expectDamage(t, dir, "segment cut", firsts[2]-uint64(cut), Truncated)
		b := strings.Join(lines[:len(lines)-cut], "")
		writeLog(t, second, b[:len(b)-5])
		expectDamage(t, dir, "segment torn", firsts[2]-uint64(cut)-1, Truncated)
	}
	restore()
	_ = os.Rename(second, filepath.Join(dir, sealedName(firsts[1]+1)))
	expectDamage(t, dir, "segment renamed", firsts[1], Misnamed)
	_ = os.Rename(filepath.Join(dir, sealedName(firsts[1]+1)), second)

	altered := slices.Clone(lines)
	altered[len(altered)-1] = strings.Replace(altered[len(altered)-1], `"ts":1`, `"ts":2`, 1)
	writeLog(t, second, altered...)
	expectDamage(t, dir, "last of a segment altered", firsts[2]-1, Altered)
	restore()

	cur := filepath.Join(dir, currentName)
	_ = os.Rename(cur, cur+".away")
	var d *Damage
	if _, err := Verify(dir, nil); !errors.As(err, &d) || d.Kind != Missing || d.File != currentName {
		t.Fatal(err)
	}
	seq := d.Seq
	if _, err := Open(Options{Dir: dir}); !errors.As(err, &d) || d.Kind != Missing || d.Seq != seq {
		t.Fatal(err)
	}
	if _, err := os.Lstat(cur); err == nil {
		t.Fatal("a missing log was replaced by an empty one")
	}
	_ = os.Rename(cur+".away", cur)
	verifyOK(t, dir)
}

// TestTruncation cuts the log at every byte of its last three records and
// reopens it: what is whole stays, what is torn is moved aside.
func TestTruncation(t *testing.T) {
	_, files := build(t, 1<<20, 6)
	lines := files[currentName]
	all := strings.Join(lines, "")
	for cut := len(strings.Join(lines[:3], "")); cut <= len(all); cut++ {
		dir := t.TempDir()
		writeLog(t, filepath.Join(dir, currentName), all[:cut])
		whole := strings.Count(all[:cut], "\n")
		torn := all[strings.LastIndexByte(all[:cut], '\n')+1 : cut]
		var d *Damage
		if _, err := Verify(dir, nil); torn == "" && err != nil ||
			torn != "" && (!errors.As(err, &d) || d.Kind != Truncated || d.Seq != uint64(whole+1)) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		real, err := openDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		l, err := Open(Options{Dir: dir, CheckpointEvery: -1, fs: &faultFS{fsys: real}}) // which does not sync
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		appendOK(t, l, Record{Event: "after"})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		verifyOK(t, dir)
		got := logLines(t, dir)
		want := whole + 1
		if torn != "" {
			want++
			aside, _ := filepath.Glob(filepath.Join(dir, tornPrefix+"*"))
			if len(aside) != 1 {
				t.Fatalf("cut at %d: %v", cut, aside)
			}
			if b, err := os.ReadFile(aside[0]); err != nil || string(b) != torn {
				t.Fatalf("cut at %d: %q, %v", cut, b, err)
			}
			if !strings.Contains(got[whole], `"event":"audit.recovered"`) || !strings.Contains(got[whole], filepath.Base(aside[0])) {
				t.Fatalf("cut at %d: %s", cut, got[whole])
			}
		}
		if len(got) != want || strings.Join(got[:whole], "\n")+"\n" != all[:cut-len(torn)] {
			t.Fatalf("cut at %d: %d lines, want %d", cut, len(got), want)
		}
	}
}

// TestTornTails are ends of a file as a power cut may leave them.
func TestTornTails(t *testing.T) {
	_, files := build(t, 1<<20, 4)
	lines := files[currentName]
	good := strings.Join(lines[:3], "")
	holed := []byte(lines[3])
	copy(holed[10:], make([]byte, 40))
	for name, tail := range map[string]string{
		"NULs":               strings.Repeat("\x00", 5000),
		"a whole bad line":   "rubbish\n",
		"bad lines":          "rubbish\n\n\x00\n{}\nmore",
		"half of the last":   lines[3][:len(lines[3])/2] + "\n",
		"a hole in the last": string(holed),
		"only a newline":     "\n",
		"a megabyte":         strings.Repeat("x", 3<<20),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeLog(t, filepath.Join(dir, currentName), good+tail)
			l := open(t, Options{Dir: dir, CheckpointEvery: -1})
			if seq := appendOK(t, l, Record{Event: "after"}); seq != 5 {
				t.Fatalf("seq %d", seq)
			}
			_ = l.Close()
			verifyOK(t, dir)
			aside, _ := filepath.Glob(filepath.Join(dir, tornPrefix+"*"))
			if len(aside) != 1 {
				t.Fatal(aside)
			}
			if b, _ := os.ReadFile(aside[0]); !bytes.Equal(b, []byte(tail)) {
				t.Fatalf("%d bytes aside, want %d", len(b), len(tail))
			}
		})
	}
}

// TestRefusedFiles are files that are not a private log.
func TestRefusedFiles(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T, dir, cur string) error
		want error
		says string
	}{
		{"readable by others", func(_ *testing.T, _, cur string) error { return os.Chmod(cur, 0o640) }, ErrInsecure, "chmod 600 "},
		{"symbolic link", func(_ *testing.T, _, cur string) error {
			return errors.Join(os.Rename(cur, cur+".x"), os.Symlink(filepath.Base(cur)+".x", cur))
		}, ErrInsecure, "not a regular file"},
		{"hard link", func(_ *testing.T, dir, cur string) error { return os.Link(cur, dir+"/copy") }, ErrInsecure, "hard links"},
		{"directory", func(_ *testing.T, _, cur string) error {
			return errors.Join(os.Remove(cur), os.Mkdir(cur, 0o700))
		}, ErrInsecure, "not a regular file"},
		{"older system", func(t *testing.T, _, cur string) error {
			writeLog(t, cur, `{"ts":1700000000000,"event":"token.issued","service":"github"}`+"\n", "{}\n")
			return nil
		}, ErrLegacy, "caddyvault vault import "},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, _ := build(t, 1<<20, 2)
			if err := c.make(t, dir, filepath.Join(dir, currentName)); err != nil {
				t.Fatal(err)
			}
			l, err := Open(Options{Dir: dir})
			if err == nil {
				_ = l.Close()
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Fatal(err)
			}
		})
	}
}

// TestHalfTurned opens what a crash between the two names of a segment
// leaves, and copies that nobody finished.
func TestHalfTurned(t *testing.T) {
	dir, _ := build(t, 1<<20, 3)
	cur := filepath.Join(dir, currentName)
	if err := os.Link(cur, filepath.Join(dir, sealedName(1))); err != nil {
		t.Fatal(err)
	}
	writeLog(t, filepath.Join(dir, tempPrefix+"00"), "half")
	verifyOK(t, dir)
	l := open(t, Options{Dir: dir, CheckpointEvery: -1})
	if seq := appendOK(t, l, Record{Event: "after"}); seq != 4 {
		t.Fatal(seq)
	}
	_ = l.Close()
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Fatal(entries)
	}
	verifyOK(t, dir)

	// A segment that still ends in what the next begins with.
	dir, files := build(t, 600, 8)
	var first uint64
	for name := range files {
		if f, ok := parseSealed(name); ok && f > first {
			first = f
		}
	}
	name := filepath.Join(dir, sealedName(first))
	sealed, next := files[sealedName(first)], files[currentName]
	writeLog(t, name, append(slices.Clone(sealed), next[0], next[0][:20])...)
	r := verifyOK(t, dir)
	if got := r.Segments[len(r.Segments)-2].Repeated; got != int64(len(next[0])+20) {
		t.Fatalf("repeated: %d", got)
	}
	l = open(t, Options{Dir: dir})
	appendOK(t, l, Record{Event: "after"})
}

// TestUnknownCalls closes what a crash has left open.
func TestUnknownCalls(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, SegmentSize: 2000})
	ctx := &Context{AgentID: "tony", SessionID: "s\x1b1", Tool: "x"}
	for i := range 40 {
		id := fmt.Sprintf("c%d", i)
		appendOK(t, l, Record{Event: EventCallStarted, CallID: id, Service: "github", Action: "repo.get", TokenID: "t", Context: ctx})
		switch {
		case i%10 == 3: // left open
		case i%10 == 4:
			appendOK(t, l, Record{Event: EventCallDenied, CallID: id})
		default:
			appendOK(t, l, Record{Event: EventCall, CallID: id})
		}
	}
	_ = l.Close()
	var issued []string
	for range 2 { // the second time there is nothing to close
		issued = nil
		l = open(t, Options{Dir: dir, Replay: map[string]func([]byte){
			EventCallUnknown: func(line []byte) { issued = append(issued, string(line)) },
		}})
		_ = l.Close()
	}
	if len(issued) != 4 {
		t.Fatalf("%q", issued)
	}
	for i, line := range issued {
		want := fmt.Sprintf(`"service":"github","action":"repo.get","context":{"agentId":"tony","sessionId":"s\u001b1","tool":"x"},"tokenId":"t","callId":"c%d3"`, i)
		if !strings.Contains(line, want) && !strings.Contains(strings.Replace(line, `"callId":"c3"`, `"callId":"c03"`, 1), want) {
			t.Fatalf("%s\nlacks %s", line, want)
		}
	}
	verifyOK(t, dir)
}

// FuzzOpen opens whatever is in the file: it refuses, or goes on with a
// chain that verifies and loses nothing that was chained.
func FuzzOpen(f *testing.F) {
	_, files := build(f, 1<<20, 3)
	all := strings.Join(files[currentName], "")
	f.Add([]byte(all))
	f.Add([]byte(all[:len(all)-3]))
	f.Add([]byte(strings.Replace(all, "0001", "0009", 1)))
	f.Add([]byte("\n\n"))
	f.Add([]byte{0})
	f.Add([]byte(`{"ts":1,"event":"x"}`))
	f.Add([]byte(strings.Repeat("A", 200)))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		writeLog(t, filepath.Join(dir, currentName), string(b))
		real, err := openDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		l, err := Open(Options{Dir: dir, fs: &faultFS{fsys: real}})
		if err != nil {
			return
		}
		appendOK(t, l, Record{Event: "after"})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		verifyOK(t, dir)
	})
}
