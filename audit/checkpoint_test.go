package audit

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidwall/gjson"
	"golang.org/x/mod/sumdb/note"
)

// signed writes a log of some records with a checkpoint after every fourth,
// and returns its files, by name.
func signed(t testing.TB, dir string, segmentSize int64, records int) map[string]string {
	t.Helper()
	run := func(t *testing.T) {
		real, err := openDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		l := open(t, Options{Dir: dir, SegmentSize: segmentSize, fs: &faultFS{fsys: real}})
		for i := range records {
			appendOK(t, l, Record{Event: "test", CallID: fmt.Sprintf("%04d", i), Context: &Context{AgentID: "tony"}})
			if i%4 == 3 {
				time.Sleep(DefaultCheckpointEvery)
				synctest.Wait()
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t.(*testing.T), run)
	return readDir(t, dir)
}

func readDir(t testing.TB, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}

// writeDir writes files to a new directory.
func writeDir(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		writeLog(t, filepath.Join(dir, name), content)
	}
	return dir
}

// with returns files with one of them changed; an empty content removes it.
func with(files map[string]string, name, content string) map[string]string {
	out := map[string]string{}
	for n, c := range files {
		out[n] = c
	}
	out[name] = content
	if content == "" {
		delete(out, name)
	}
	return out
}

// rechain numbers and chains lines anew from index k on, as somebody would
// who knows the format and has no key.
func rechain(lines []string, k int) []string {
	out := slices.Clone(lines[:k])
	c := newChain()
	for _, line := range out {
		c = chainAt(c.seq+1, sha256.Sum256([]byte(strings.TrimSuffix(line, "\n"))))
	}
	for _, line := range lines[k:] {
		head := line[:strings.LastIndex(line, seqKey)]
		b := c.appendTail([]byte(head), 0)
		out = append(out, string(b)+"\n")
	}
	return out
}

func splitLines(s string) []string {
	lines := strings.SplitAfter(s, "\n")
	return lines[:len(lines)-1]
}

func TestCheckpoints(t *testing.T) {
	dir := t.TempDir()
	files := signed(t, dir, 1<<20, 12)
	r := verifyOK(t, dir)
	if r.Checkpoints != 3 || r.Checked != r.LastSeq-1 && r.Checked != r.LastSeq || !r.KeyUnproven || r.Own.Size != r.Checked {
		t.Fatalf("%+v", r)
	}
	var sizes []uint64
	for _, line := range splitLines(files[currentName]) {
		if gjson.Get(line, "event").Str == EventCheckpoint {
			sizes = append(sizes, gjson.Get(line, "lastSeq").Uint())
			if n := gjson.Get(line, "checkpoint").Str; len(n) > MaxText-10 || strings.Count(n, "\n") != 5 {
				t.Fatalf("%d: %q", len(n), n)
			}
		}
	}
	if !slices.Equal(sizes, []uint64{4, 9, 14}) {
		t.Fatal(sizes)
	}
	for name, mode := range map[string]os.FileMode{keyName: 0o600, publicName: 0o600, checkpointName: 0o600} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode() != mode {
			t.Fatalf("%s: %v, %v", name, fi.Mode(), err)
		}
	}
	// Nothing is signed for checkpoints alone, and nothing that is signed
	// already.
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour) // the clock of a bubble begins in the same second
		l := open(t, Options{Dir: dir})
		time.Sleep(10 * time.Second)
		if l.Seq() != r.LastSeq {
			t.Fatalf("%d records, after %d", l.Seq(), r.LastSeq)
		}
		appendOK(t, l, Record{Event: "test"})
		time.Sleep(10 * time.Second)
		if l.Seq() != r.LastSeq+2 || l.Checkpoint().Size != r.LastSeq+1 {
			t.Fatalf("%d records, after %d", l.Seq(), r.LastSeq)
		}
		l.Reconfigure(Options{CheckpointEvery: -1})
		appendOK(t, l, Record{Event: "test"})
		time.Sleep(10 * time.Second)
		_ = l.Close()
		if l.Checkpoint().Size != r.LastSeq+1 {
			t.Fatal("checkpoints were switched off")
		}
	})
	verifyOK(t, dir)
}

// TestTampering does to a log what somebody could who can write its files,
// but has no key, and holds Verify and Open to what they say.
func TestTampering(t *testing.T) {
	old := signed(t, t.TempDir(), 1<<20, 9)
	oldDir := writeDir(t, old)
	dir := writeDir(t, old)
	files := signed(t, dir, 1<<20, 9)
	lines := splitLines(files[currentName])
	key := strings.TrimSpace(files[publicName])
	elsewhere := VerifyOptions{Key: key, Checkpoints: []string{files[checkpointName]}}

	dirOf := func(content string) string {
		dir := writeDir(t, with(files, currentName, ""))
		writeLog(t, filepath.Join(dir, currentName), content)
		return dir
	}
	expect := func(dir, what string, o VerifyOptions, ok func(d *Damage) bool) {
		t.Helper()
		var d *Damage
		if _, err := VerifyWith(dir, o); !errors.As(err, &d) || !ok(d) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	refused := func(dir, what string) {
		t.Helper()
		l, err := Open(Options{Dir: dir})
		if err == nil {
			_ = l.Close()
			t.Fatalf("%s: opened", what)
		}
	}

	t.Run("cut", func(t *testing.T) {
		all, whole, at := files[currentName], uint64(0), 0
		for cut := 0; cut < len(all); cut++ {
			if all[:cut] != "" && all[cut-1] == '\n' {
				whole++
				at = cut
			}
			if cut != at && cut%7 != 0 {
				continue
			}
			dir := dirOf(all[:cut])
			expect(dir, fmt.Sprint("cut at ", cut), VerifyOptions{}, func(d *Damage) bool {
				return d.Seq == whole+1 && d.Kind == Truncated
			})
			refused(dir, fmt.Sprint("cut at ", cut))
			if got := readDir(t, dir); got[currentName] != all[:cut] {
				t.Fatal("what is damaged was changed")
			}
		}
	})
	t.Run("altered", func(t *testing.T) {
		for i := range lines {
			seq := uint64(i + 1)
			changed := slices.Clone(lines)
			changed[i] = strings.Replace(lines[i], `{"ts":9`, `{"ts":8`, 1)
			dir := dirOf(strings.Join(changed, ""))
			expect(dir, fmt.Sprint("altered ", seq), VerifyOptions{}, func(d *Damage) bool {
				// No line vouches for the last; the checkpoint does.
				return d.Kind == Altered && (d.Seq == seq || seq == uint64(len(lines)) && d.Seq <= seq && d.Last == seq)
			})
			refused(dir, "altered")
		}
	})
	t.Run("last line", func(t *testing.T) {
		last := lines[len(lines)-1]
		before := strings.Join(lines[:len(lines)-1], "")
		for at := range len(last) {
			for bit := range 8 {
				b := []byte(last)
				b[at] ^= 1 << bit
				dir := dirOf(before + string(b))
				var d *Damage
				if _, err := Verify(dir, nil); !errors.As(err, &d) || d.Last != 0 && d.Last != uint64(len(lines)) || d.Seq > uint64(len(lines)) {
					t.Fatalf("bit %d of byte %d: %v", bit, at, err)
				}
			}
		}
	})
	t.Run("chained anew", func(t *testing.T) {
		for k := range lines {
			seq := uint64(k + 1)
			if gjson.Get(lines[k], "event").Str != "test" {
				continue
			}
			changed := slices.Clone(lines)
			changed[k] = strings.Replace(lines[k], "tony", "anna", 1)
			dir := dirOf(strings.Join(rechain(changed, k), ""))
			within := func(d *Damage) bool { return d.Kind == Altered && d.Seq <= seq && seq <= d.Last }
			expect(dir, fmt.Sprint("chained anew from ", seq), VerifyOptions{}, within)
			expect(dir, fmt.Sprint("chained anew from ", seq), elsewhere, within)
			refused(dir, "chained anew")

			changed = slices.Delete(slices.Clone(lines), k, k+1)
			dir = dirOf(strings.Join(rechain(changed, k), ""))
			expect(dir, fmt.Sprint("without ", seq), VerifyOptions{}, func(d *Damage) bool {
				return d.Seq <= seq && seq <= d.Last && (d.Kind == Altered || d.Kind == Missing || d.Kind == Truncated)
			})
			// Without any checkpoint to be seen, only the one elsewhere tells.
			changed = slices.DeleteFunc(slices.Clone(changed), func(l string) bool { return gjson.Get(l, "event").Str == EventCheckpoint })
			dir = writeDir(t, with(with(files, currentName, strings.Join(rechain(changed, 0), "")), checkpointName, ""))
			verifyOK(t, dir)
			expect(dir, "no checkpoints", VerifyOptions{Key: key}, func(d *Damage) bool { return d.Kind == Missing && d.File == checkpointName })
			expect(dir, "no checkpoints", elsewhere, func(d *Damage) bool { return d.Kind == RolledBack || d.Kind == Altered && d.Seq <= seq })
		}
	})
	t.Run("old directory", func(t *testing.T) {
		verifyOK(t, oldDir)
		n := uint64(len(splitLines(old[currentName])))
		expect(oldDir, "rolled back", elsewhere, func(d *Damage) bool {
			return d.Kind == RolledBack && d.Seq == n+1 && d.Last == uint64(len(lines))
		})
		// The old log beside the new checkpoint.
		dir := writeDir(t, with(old, checkpointName, files[checkpointName]))
		expect(dir, "old log", VerifyOptions{}, func(d *Damage) bool { return d.Kind == Truncated && d.Seq == n+1 })
		refused(dir, "old log")
		// The old checkpoint beside the new log: a copy taken in that order.
		dir = writeDir(t, with(files, checkpointName, old[checkpointName]))
		verifyOK(t, dir)
		l := open(t, Options{Dir: dir})
		appendOK(t, l, Record{Event: "after"})
		_ = l.Close()
		verifyOK(t, dir)
	})
	t.Run("forged", func(t *testing.T) {
		other := signed(t, t.TempDir(), 1<<20, 9)
		isFile := func(d *Damage) bool { return d.Kind == Forged && d.File == checkpointName }
		for name, content := range map[string]string{
			"another key's":    other[checkpointName],
			"another size":     strings.Replace(files[checkpointName], "\n2", "\n1", 1),
			"cut":              files[checkpointName][:50],
			"rubbish":          "hello\n",
			"another spelling": strings.Replace(files[checkpointName], "\n", "\n0", 1),
		} {
			dir := writeDir(t, with(files, checkpointName, content))
			expect(dir, name, VerifyOptions{}, isFile)
			refused(dir, name)
		}
		// All of it, signed anew with another key: the key held elsewhere
		// tells.
		dir := writeDir(t, other)
		verifyOK(t, dir)
		expect(dir, "another key", VerifyOptions{Key: key}, isFile)
		// One of the records.
		i := slices.IndexFunc(lines, func(l string) bool { return gjson.Get(l, "event").Str == EventCheckpoint })
		for _, c := range [][2]string{{"— caddyvault/audit/", "— caddyvault/audit/x"}, {`\n4\n`, `\n3\n`}, {`"checkpoint":"`, `"checkpoint":"x`}, {`"checkpoint":"`, `"checkpoin":"`}} {
			changed := slices.Clone(lines)
			changed[i] = strings.Replace(lines[i], c[0], c[1], 1)
			dir := dirOf(strings.Join(rechain(changed, i), ""))
			expect(dir, c[1], VerifyOptions{}, func(d *Damage) bool { return d.Kind == Forged && d.Seq == uint64(i+1) })
			refused(dir, c[1])
		}
	})
	t.Run("missing", func(t *testing.T) {
		for _, name := range []string{keyName, checkpointName, currentName} {
			refused(writeDir(t, with(files, name, "")), name)
		}
		refused(writeDir(t, with(files, currentName, "")), "log")
		empty := writeDir(t, files)
		writeLog(t, filepath.Join(empty, currentName), "")
		refused(empty, "emptied log")
		refused(writeDir(t, with(files, publicName, signed(t, t.TempDir(), 1<<20, 1)[publicName])), "another public key")
		refused(writeDir(t, with(files, keyName, signed(t, t.TempDir(), 1<<20, 1)[keyName])), "another key")
		// The public key is had from the private one.
		dir := writeDir(t, with(files, publicName, ""))
		l := open(t, Options{Dir: dir})
		_ = l.Close()
		if got := readDir(t, dir)[publicName]; got != files[publicName] {
			t.Fatal(got)
		}
	})
	verifyOK(t, dir)
	if _, err := VerifyWith(dir, elsewhere); err != nil {
		t.Fatal(err)
	}
}

// TestLateCheckpoint has a checkpoint recorded far behind what it is over.
func TestLateCheckpoint(t *testing.T) {
	dir := t.TempDir()
	files := signed(t, dir, 1<<20, 4)
	lines := splitLines(files[currentName])
	i := slices.IndexFunc(lines, func(l string) bool { return gjson.Get(l, "event").Str == EventCheckpoint })
	filler := strings.Repeat("x", 200<<10)
	all := slices.Clone(lines[:i])
	for n := range 400 {
		all = append(all, fmt.Sprintf(`{"ts":%d,"event":"test","x":"%s","seq":0,"prev":""}`+"\n", n+1, filler))
	}
	all = append(all, lines[i])
	all = rechain(all, i)
	write := func(lines []string) string {
		return writeDir(t, with(with(files, currentName, strings.Join(lines, "")), checkpointName, ""))
	}
	dir = write(all)
	if r := verifyOK(t, dir); r.Checkpoints != 1 {
		t.Fatalf("%+v", r)
	}
	all[1] = strings.Replace(all[1], "tony", "anna", 1)
	dir = write(rechain(all, 1))
	var d *Damage
	if _, err := Verify(dir, nil); !errors.As(err, &d) || d.Kind != Altered || d.Seq != 1 || d.Last != 4 {
		t.Fatal(err)
	}
}

func FuzzCheckpoint(f *testing.F) {
	private, err := newKey()
	if err != nil {
		f.Fatal(err)
	}
	signer, _ := note.NewSigner(private)
	public, _ := publicOf(private)
	v, err := ParseKey(public)
	if err != nil {
		f.Fatal(err)
	}
	sign := func(text string) string {
		b, err := note.Sign(&note.Note{Text: text}, signer)
		if err != nil {
			return ""
		}
		return string(b)
	}
	root := base64.StdEncoding.EncodeToString(make([]byte, 32))
	f.Add(v.Name() + "\n5\n" + root + "\n")
	f.Add(v.Name() + "\n05\n" + root + "\n")
	f.Add(v.Name() + "\n-5\n" + root + "\nmore\n")
	f.Add("x\n5\n" + root + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := openCheckpoint(text, v); err == nil {
			t.Fatal("not signed")
		}
		// What the key has signed has one meaning and one spelling.
		c, err := openCheckpoint(sign(text), v)
		if err == nil && (c.text(v.Name()) != text || strings.Count(text, "\n") != 3) {
			t.Fatalf("%q is read as %s", text, strconv.Quote(c.text(v.Name())))
		}
	})
}
