package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// faultFS fails the operation number failAt, and as many after it as repeat
// says. A failed write leaves half of its data behind.
type faultFS struct {
	fsys
	err error

	mu      sync.Mutex
	n       int
	failAt  int
	repeat  int
	short   bool // a write reports less than it was given, and no error
	failed  int
	through bool // syncs reach what is below
	after   bool // a failing change of names happens all the same

	block func(op string) // if set, is called before each operation
}

func (f *faultFS) step(op string) error {
	if f.block != nil {
		f.block(op)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	if f.failAt > 0 && f.n >= f.failAt && f.n <= f.failAt+f.repeat {
		f.failed++
		return fmt.Errorf("%s: %w", op, f.err)
	}
	return nil
}

// hasFailed reports whether an operation has failed yet.
func (f *faultFS) hasFailed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed > 0
}

func (f *faultFS) wrap(file file, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return &faultFile{file, f}, nil
}

func (f *faultFS) Open(name string) (file, error) {
	if err := f.step("open"); err != nil {
		return nil, err
	}
	return f.wrap(f.fsys.Open(name))
}

func (f *faultFS) OpenRead(name string) (file, error) {
	if err := f.step("open"); err != nil {
		return nil, err
	}
	return f.wrap(f.fsys.OpenRead(name))
}

func (f *faultFS) Create(name string) (file, error) {
	if err := f.step("create"); err != nil {
		return nil, err
	}
	return f.wrap(f.fsys.Create(name))
}

func (f *faultFS) Lstat(name string) (fs.FileInfo, error) {
	if err := f.step("lstat"); err != nil {
		return nil, err
	}
	return f.fsys.Lstat(name)
}

func (f *faultFS) List() ([]string, error) {
	if err := f.step("list"); err != nil {
		return nil, err
	}
	return f.fsys.List()
}

func (f *faultFS) names(op string, do func() error) error {
	if err := f.step(op); err != nil {
		if f.after {
			_ = do()
		}
		return err
	}
	return do()
}

func (f *faultFS) Link(from, to string) error {
	return f.names("link", func() error { return f.fsys.Link(from, to) })
}

func (f *faultFS) Rename(from, to string) error {
	return f.names("rename", func() error { return f.fsys.Rename(from, to) })
}

func (f *faultFS) Remove(name string) error {
	return f.names("remove", func() error { return f.fsys.Remove(name) })
}

func (f *faultFS) SyncDir() error {
	if err := f.step("syncdir"); err != nil || !f.through {
		return err
	}
	return f.fsys.SyncDir()
}

type faultFile struct {
	file
	fs *faultFS
}

func (f *faultFile) Write(b []byte) (int, error) {
	if err := f.fs.step("write"); err != nil {
		n, werr := f.file.Write(b[:len(b)/2])
		if f.fs.short && werr == nil {
			err = nil
		}
		return n, err
	}
	return f.file.Write(b)
}

func (f *faultFile) Sync() error {
	// No machine crashes in these tests, so the disk itself is left alone.
	if err := f.fs.step("sync"); err != nil || !f.fs.through {
		return err
	}
	return f.file.Sync()
}

func (f *faultFile) Allocate(off, end int64) (bool, error) {
	if err := f.fs.step("allocate"); err != nil {
		return true, err
	}
	return f.file.Allocate(off, end)
}

func (f *faultFile) Truncate(size int64) error {
	if err := f.fs.step("truncate"); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

func (f *faultFile) Stat() (fs.FileInfo, error) {
	if err := f.fs.step("stat"); err != nil {
		return nil, err
	}
	return f.file.Stat()
}

func (f *faultFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.fs.step("read"); err != nil {
		return 0, err
	}
	return f.file.ReadAt(b, off)
}

// TestFaults fails operation k, for k = 1, 2, 3… until a run sees no
// failure, and holds the log to its promises after each.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		repeat int
		short  bool
		after  bool
		async  Durability
		old    bool // with checkpoints and segments that are dropped
	}{
		{name: "EIO", err: syscall.EIO},
		{name: "EIO, though done", err: syscall.EIO, after: true},
		{name: "EIO for a while", err: syscall.EIO, repeat: 25},
		{name: "ENOSPC", err: syscall.ENOSPC},
		{name: "ENOSPC for a while", err: syscall.ENOSPC, repeat: 40},
		{name: "short write", err: syscall.ENOSPC, short: true},
		{name: "EIO, async", err: syscall.EIO, async: Async},
		{name: "EIO, dropping", err: syscall.EIO, old: true},
		{name: "EIO, though done, dropping", err: syscall.EIO, after: true, old: true},
		{name: "ENOSPC for a while, dropping", err: syscall.ENOSPC, repeat: 15, old: true},
		{name: "short write, dropping", err: syscall.ENOSPC, short: true, old: true},
		{name: "ENOSPC for a while, async", err: syscall.ENOSPC, repeat: 25, async: Async},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k := 1; ; k++ {
				failed := 0
				synctest.Test(t, func(t *testing.T) {
					f := &faultFS{err: c.err, failAt: k, repeat: c.repeat, short: c.short, after: c.after}
					faultRun(t, f, c.async, c.old, k)
					failed = f.failed
				})
				if t.Failed() || failed == 0 {
					t.Logf("%d operations", k-1)
					return
				}
			}
		})
	}
}

func faultRun(t *testing.T, f *faultFS, durability Durability, old bool, k int) {
	dir := t.TempDir()
	var err error
	if f.fsys, err = openDir(dir); err != nil {
		t.Fatal(err)
	}
	acked := map[uint64]string{}
	must := map[string]bool{} // enqueued
	o := Options{Dir: dir, SegmentSize: 600, Durability: durability, Carry: carrySecrets, fs: f}
	if old {
		o.KeepFor = 2 * time.Hour
	}
	l, err := Open(o)
	opened := err == nil
	versions := uint64(0)
	if err == nil {
		for i := range 8 {
			id := fmt.Sprintf("call-%d", i)
			seq, err := l.Append(context.Background(), Entry{Record: Record{Event: "test", CallID: id}})
			switch {
			case err == nil:
				if was, ok := acked[seq]; ok {
					t.Fatalf("k=%d: seq %d is %s and %s", k, seq, was, id)
				}
				acked[seq] = id
			case !errors.Is(err, ErrUnavailable):
				t.Fatalf("k=%d: %v", k, err)
			}
			if err := l.Enqueue(Entry{Record: Record{Event: "test", CallID: "end-" + id}}); err != nil {
				t.Fatalf("k=%d: enqueue: %v", k, err)
			}
			must["end-"+id] = true
			if old && i%2 == 1 {
				if _, err := l.Append(context.Background(), Entry{Record: Record{Event: "secret.set", SecretRef: "s", SecretVersion: uint64(i)}}); err == nil {
					versions = uint64(i)
				}
				time.Sleep(time.Hour) // checkpoints, and what is old goes
			}
		}
		// Service comes back by itself, in bounded time.
		back := false
		for range 400 {
			seq, err := l.Append(context.Background(), Entry{Record: Record{Event: "test", CallID: "back"}})
			if err == nil {
				acked[seq], back = "back", true
				break
			}
			sleepTick()
		}
		if !back {
			t.Fatalf("k=%d: service does not return: %v", k, l.Err())
		}
		if err := l.Err(); err != nil {
			t.Fatalf("k=%d: healthy, but Err = %v", k, err)
		}
		res, err := l.Query(context.Background(), Query{Limit: 1000})
		f.mu.Lock()
		faulty := f.failed > 0 && f.n <= f.failAt+f.repeat+20
		f.mu.Unlock()
		if err != nil && !faulty {
			t.Fatalf("k=%d: query: %v", k, err)
		}
		if err == nil && !old && len(res.Lines) < len(must)+len(acked) {
			t.Fatalf("k=%d: query returns %d lines of at least %d", k, len(res.Lines), len(must)+len(acked))
		}
		if err := l.Close(); err != nil {
			// Only if the very last operations failed.
			if f.n > f.failAt+f.repeat+20 {
				t.Fatalf("k=%d: close: %v", k, err)
			}
			must = nil
			if durability == Async {
				acked = nil
			}
		}
	} else if f.failed == 0 {
		t.Fatal(err)
	}

	got := map[string]uint64{}
	l, err = Open(Options{Dir: dir, Replay: replaySecrets(got)})
	if err != nil {
		t.Fatalf("k=%d: reopen: %v", k, err)
	}
	if got["s"] < versions {
		t.Fatalf("k=%d: version %d was set, replayed is %d", k, versions, got["s"])
	}
	appendOK(t, l, Record{Event: "test"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Verify(dir, nil)
	if err != nil {
		t.Fatalf("k=%d: %v", k, err)
	}
	lines := logLines(t, dir)
	if uint64(len(lines))+r.Dropped != r.LastSeq {
		t.Fatalf("k=%d: %d lines, last seq %d", k, len(lines), r.LastSeq)
	}
	if f.failed == 0 && opened && old != (r.Dropped > 0 && r.Checkpoints > 0) {
		t.Fatalf("k=%d: %d dropped, %d checkpoints", k, r.Dropped, r.Checkpoints)
	}
	for seq := range acked {
		if seq <= r.Dropped {
			delete(acked, seq)
		}
	}
	if r.Dropped > 0 {
		must = nil
	}
	seen := map[string]int{}
	for i, line := range lines {
		id, _ := fieldString([]byte(line), callIDKey)
		seen[string(id)]++
		seq := r.Dropped + uint64(i+1)
		if want, ok := acked[seq]; ok && string(id) != want {
			t.Fatalf("k=%d: acknowledged record %d is %q, not %q", k, seq, id, want)
		}
		delete(acked, seq)
	}
	for id := range must {
		if seen[id] != 1 {
			t.Fatalf("k=%d: %s is there %d times", k, id, seen[id])
		}
	}
	if len(acked) > 0 {
		t.Fatalf("k=%d: acknowledged records are missing: %v", k, acked)
	}
}
