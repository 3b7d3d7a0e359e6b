package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// countingFS counts the files that are open at once.
type countingFS struct {
	fsys
	open, most int
}

func (c *countingFS) OpenRead(name string) (file, error) {
	f, err := c.fsys.OpenRead(name)
	if err != nil {
		return nil, err
	}
	c.open++
	c.most = max(c.most, c.open)
	return &countingFile{f, c}, nil
}

type countingFile struct {
	file
	c *countingFS
}

func (f *countingFile) Close() error {
	f.c.open--
	return f.file.Close()
}

// TestManySegments opens, verifies, proves and reads a log of more segments
// than stay open together.
func TestManySegments(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, SegmentSize: 1, Durability: Async, Deadline: closeWait})
	for range maxOpen + 50 {
		appendOK(t, l, Record{Event: EventCallStarted, CallID: "c"})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c := &countingFS{fsys: d}
	v := verification{fs: c, dir: dir, prove: 7}
	if err := v.run(); err != nil {
		t.Fatal(err)
	}
	if _, err := v.proof(); err != nil {
		t.Fatal(err)
	}
	closeParts(v.parts)
	if c.most > 10 || c.open != 0 {
		t.Fatalf("%d files were open at once, %d are", c.most, c.open)
	}
	n := uint64(0)
	if err := ReadDir(context.Background(), dir, FollowOptions{}, func([]byte) error { n++; return nil }); err != nil || n != v.report.Records {
		t.Fatalf("%d records of %d: %v", n, v.report.Records, err)
	}
	l = open(t, Options{Dir: dir})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	verifyOK(t, dir)

	// A file that is put in the place of one that rests is not it.
	v = verification{fs: c, dir: dir}
	if err := v.open(); err != nil {
		t.Fatal(err)
	}
	defer func() { closeParts(v.parts) }()
	name := filepath.Join(dir, v.parts[3].name)
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(name, name+".old"), os.WriteFile(name, content, 0o600), v.loadCheckpoints("")); err != nil {
		t.Fatal(err)
	}
	if err := v.scan(); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Fatalf("a replaced segment: %v", err)
	}
}
