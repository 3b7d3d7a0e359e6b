package audit

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// sleepTick lets the fake clock of a synctest bubble move on.
func sleepTick() { time.Sleep(100 * time.Millisecond) }

// hanging is a directory in which an operation hangs, from hang until mend.
func hanging(t *testing.T, dir, operation string) (f *faultFS, hang, mend func()) {
	t.Helper()
	real, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	mended := make(chan struct{})
	var hangs atomic.Bool
	f = &faultFS{fsys: real, block: func(op string) {
		if op == operation && hangs.Load() {
			<-mended
		}
	}}
	return f, func() { hangs.Store(true) }, func() {
		hangs.Store(false)
		close(mended)
	}
}

// TestStall has a disk that hangs in a sync: callers are refused after the
// deadline, later ones at once, and service returns with the disk.
func TestStall(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f, hang, mend := hanging(t, dir, "sync")
		l := open(t, Options{Dir: dir, fs: f})
		appendOK(t, l, Record{Event: "before"})
		hang()

		start := time.Now()
		seq, err := l.Append(context.Background(), Entry{Record: Record{Event: "assigned"}})
		var u *UnavailableError
		if !errors.As(err, &u) || seq != 2 || u.Seq != 2 {
			t.Fatalf("seq %d, %v", seq, err)
		}
		if d := time.Since(start); d != DefaultDeadline {
			t.Fatalf("refused after %v", d)
		}
		time.Sleep(time.Millisecond)
		start = time.Now()
		if seq, err := l.Append(context.Background(), Entry{Record: Record{Event: "refused"}}); !errors.Is(err, ErrUnavailable) || seq != 0 {
			t.Fatalf("seq %d, %v", seq, err)
		}
		if time.Since(start) != 0 {
			t.Fatal("a failing log does not refuse at once")
		}
		if l.Err() == nil {
			t.Fatal("a failing log is healthy")
		}
		if err := l.Enqueue(Entry{Record: Record{Event: "enqueued"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Query(context.Background(), Query{}); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("query: %v", err)
		}
		mend()
		synctest.Wait()
		if err := l.Err(); err != nil {
			t.Fatal(err)
		}
		appendOK(t, l, Record{Event: "after"})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		want := []string{"before", "assigned", "enqueued", "after"}
		lines := logLines(t, dir)
		if len(lines) != len(want) {
			t.Fatalf("%q", lines)
		}
		for i, w := range want {
			if !strings.Contains(lines[i], `"event":"`+w+`"`) {
				t.Fatalf("line %d: %s", i+1, lines[i])
			}
		}
	})
}

// TestAbandoned has a caller give up while its entry still waits: it is
// never written, and no seq is spent on it.
func TestAbandoned(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f, hang, mend := hanging(t, dir, "sync")
		l := open(t, Options{Dir: dir, fs: f})
		hang()
		go func() { _, _ = l.Append(context.Background(), Entry{Record: Record{Event: "first"}}) }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		go func() { time.Sleep(time.Millisecond); cancel() }()
		asked := false
		seq, err := l.Append(ctx, Entry{Record: Record{Event: "abandoned"}, Guard: func() string { asked = true; return "" }})
		if seq != 0 || !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Fatalf("seq %d, %v", seq, err)
		}
		mend()
		synctest.Wait()
		if seq := appendOK(t, l, Record{Event: "after"}); seq != 2 || asked {
			t.Fatalf("seq %d, guard asked: %v", seq, asked)
		}
		_ = l.Close()
	})
}

// TestQueueFull has more wait for a hanging disk than there is room for.
func TestQueueFull(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f, hang, mend := hanging(t, dir, "write")
		l := open(t, Options{Dir: dir, fs: f, QueueBytes: 10_000})
		hang()
		taken := 0
		for range 1000 {
			err := l.Enqueue(Entry{Record: Record{Event: "x"}})
			if errors.Is(err, ErrUnavailable) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			taken++
			synctest.Wait()
		}
		if taken < 20 || taken == 1000 {
			t.Fatalf("%d taken", taken)
		}
		mend()
		synctest.Wait()
		res, err := l.Query(context.Background(), Query{Limit: 1000})
		if err != nil || len(res.Lines) != taken {
			t.Fatalf("%d of %d, %v", len(res.Lines), taken, err)
		}
		_ = l.Close()
		if _, err := l.Append(context.Background(), Entry{}); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		if err := l.Enqueue(Entry{}); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	})
}

// TestTouched has somebody else touch the file of a running log.
func TestTouched(t *testing.T) {
	type env struct {
		dir, cur string
	}
	write := func(t *testing.T, name, content string) {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		touch func(t *testing.T, e env) error
		lost  bool
		undo  func(e env) error
	}{
		{"renamed", func(_ *testing.T, e env) error { return os.Rename(e.cur, e.cur+".1") }, false, nil},
		{"removed", func(_ *testing.T, e env) error { return os.Remove(e.cur) }, false, nil},
		{"replaced", func(t *testing.T, e env) error {
			write(t, e.cur+".x", "{}\n")
			return os.Rename(e.cur+".x", e.cur)
		}, false, nil},
		{"replaced by a link", func(_ *testing.T, e env) error {
			if err := os.Rename(e.cur, e.cur+".1"); err != nil {
				return err
			}
			return os.Symlink(e.cur+".1", e.cur)
		}, false, nil},
		{"renamed to the sealed name", func(_ *testing.T, e env) error { return os.Rename(e.cur, e.dir+"/"+sealedName(1)) }, false, nil},
		{"sealed name taken", func(t *testing.T, e env) error {
			write(t, e.dir+"/"+sealedName(1), "hello")
			return os.Rename(e.cur, e.cur+".1")
		}, false, nil},
		{"appended to", func(_ *testing.T, e env) error {
			f, err := os.OpenFile(e.cur, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString(`{"ts":1,"event":"forged"}` + "\n")
			return err
		}, false, nil},
		{
			"hard link", func(_ *testing.T, e env) error { return os.Link(e.cur, e.dir+"/copy") }, false,
			func(e env) error { return os.Remove(e.dir + "/copy") },
		},
		{"truncated to nothing", func(_ *testing.T, e env) error { return os.Truncate(e.cur, 0) }, true, nil},
		{"truncated within", func(_ *testing.T, e env) error { return os.Truncate(e.cur, 200) }, true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				l := open(t, Options{Dir: dir})
				for range 3 {
					appendOK(t, l, Record{Event: "test"})
				}
				e := env{dir, dir + "/" + currentName}
				if err := c.touch(t, e); err != nil {
					t.Fatal(err)
				}
				_, err := l.Append(context.Background(), Entry{Record: Record{Event: "noticed"}})
				if c.undo != nil {
					if !errors.Is(err, ErrUnavailable) || l.Err() == nil {
						t.Fatalf("not noticed: %v", err)
					}
					if err := c.undo(e); err != nil {
						t.Fatal(err)
					}
					time.Sleep(2 * time.Second)
				}
				if c.lost {
					var d *Damage
					if !errors.As(err, &d) || d.Kind != Truncated || !errors.As(l.Err(), &d) {
						t.Fatalf("%v; %v", err, l.Err())
					}
					if err := l.Enqueue(Entry{}); !errors.As(err, &d) {
						t.Fatal(err)
					}
					if err := l.Close(); !errors.As(err, &d) {
						t.Fatal(err)
					}
					// It shows from now on, to everybody.
					var again *Damage
					if _, err := Open(Options{Dir: dir}); !errors.As(err, &again) || again.Seq != d.Seq {
						t.Fatalf("%v, after %v", err, d)
					}
					return
				}
				appendOK(t, l, Record{Event: "after"})
				if l.Err() != nil {
					t.Fatal(l.Err())
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l = open(t, Options{Dir: dir})
				appendOK(t, l, Record{Event: "reopened"})
				_ = l.Close()
				verifyOK(t, dir)
				all := strings.Join(logLines(t, dir), "\n")
				if n := strings.Count(all, `"event":"test"`); n != 3 || !strings.Contains(all, EventRecovered) {
					t.Fatalf("%s", all)
				}
			})
		})
	}
}
