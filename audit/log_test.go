package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if child() {
		return
	}
	goleak.VerifyTestMain(m)
}

// open opens a log in dir and closes it with the test. A real disk may be
// busy: only tests that bring their own have the default deadline.
func open(t testing.TB, o Options) *Log {
	t.Helper()
	if o.Deadline == 0 && o.fs == nil {
		o.Deadline = closeWait
	}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func appendOK(t testing.TB, l *Log, r Record) uint64 {
	t.Helper()
	seq, err := l.Append(context.Background(), Entry{Record: r})
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

// lines returns the lines of all parts in dir.
func logLines(t testing.TB, dir string) []string {
	t.Helper()
	d, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	parts, _, _, err := listParts(d)
	if err != nil {
		t.Fatal(err)
	}
	parts = append(parts, openPart{name: currentName})
	if err := openAll(d, dir, parts, d.OpenRead, true); err != nil {
		t.Fatal(err)
	}
	defer closeParts(parts)
	var out []string
	for _, p := range parts {
		b := make([]byte, p.size)
		if _, err := p.f.ReadAt(b, 0); err != nil && p.size > 0 {
			t.Fatal(err)
		}
		for line := range linesOf(b) {
			out = append(out, string(line))
		}
	}
	return out
}

func verifyOK(t testing.TB, dir string) Report {
	t.Helper()
	r, err := Verify(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLineFormat(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	l := open(t, Options{Dir: dir, CheckpointEvery: -1})
	for i := range 3 {
		if seq := appendOK(t, l, Record{Event: "proxy.call", Service: "github", Status: 200}); seq != uint64(i+1) {
			t.Fatalf("seq = %d, want %d", seq, i+1)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	lines := logLines(t, dir)
	if len(lines) != 3 || !strings.HasSuffix(lines[0], `,"seq":1,"prev":"`+strings.Repeat("A", 43)+`"}`) {
		t.Fatalf("lines: %q", lines)
	}
	fi, err := os.Stat(filepath.Join(dir, currentName))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", fi.Mode(), err)
	}
	if r := verifyOK(t, dir); r.Records != 3 || r.LastSeq != 3 {
		t.Fatalf("report %+v", r)
	}
	l = open(t, Options{Dir: dir, CheckpointEvery: -1})
	if seq := appendOK(t, l, Record{Event: "proxy.call"}); seq != 4 {
		t.Fatalf("seq after reopening = %d", seq)
	}
	if _, err := l.Append(context.Background(), Entry{Record: Record{Event: "a.started"}, Guard: func() string { return "TOKEN_REVOKED" }}); err == nil {
		t.Fatal("guard passed")
	} else if d := (*Denied)(nil); !errors.As(err, &d) || d.Code != "TOKEN_REVOKED" {
		t.Fatal(err)
	}
	res, err := l.Query(context.Background(), Query{Filters: map[string]string{"error": "TOKEN_REVOKED"}})
	if err != nil || len(res.Lines) != 1 || !strings.Contains(string(res.Lines[0]), `"event":"a.denied"`) {
		t.Fatalf("%q, %v", res.Lines, err)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, SegmentSize: 2000, CheckpointEvery: -1})
	for i := range 200 {
		appendOK(t, l, Record{Event: "proxy.call", CallID: fmt.Sprint(i)})
	}
	res, err := l.Query(context.Background(), Query{Filters: map[string]string{"callId": "17"}})
	if err != nil || len(res.Lines) != 1 {
		t.Fatalf("%q, %v", res.Lines, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := verifyOK(t, dir)
	if len(r.Segments) < 10 || r.Records != 200+uint64(len(r.Segments))-1 {
		t.Fatalf("%d records in %d segments", r.Records, len(r.Segments))
	}
	l = open(t, Options{Dir: dir, SegmentSize: 2000, CheckpointEvery: -1})
	appendOK(t, l, Record{Event: "proxy.call"})
}
