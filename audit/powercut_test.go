package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// cutFS knows what a power cut would leave: content that was synced, under
// names that were.
type cutFS struct {
	fsys

	mu     sync.Mutex
	live   map[string]*inode
	synced map[string]*inode
}

type inode struct {
	data, synced []byte
}

func (d *cutFS) names(err error, change func()) error {
	if err == nil {
		d.mu.Lock()
		change()
		d.mu.Unlock()
	}
	return err
}

func (d *cutFS) Create(name string) (file, error) {
	f, err := d.fsys.Create(name)
	n := new(inode)
	return &cutFile{f, n, d}, d.names(err, func() { d.live[name] = n })
}

func (d *cutFS) Open(name string) (file, error) {
	f, err := d.fsys.Open(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	return &cutFile{f, d.live[name], d}, err
}

func (d *cutFS) Link(from, to string) error {
	return d.names(d.fsys.Link(from, to), func() { d.live[to] = d.live[from] })
}

func (d *cutFS) Rename(from, to string) error {
	return d.names(d.fsys.Rename(from, to), func() { d.live[to] = d.live[from]; delete(d.live, from) })
}

func (d *cutFS) Remove(name string) error {
	return d.names(d.fsys.Remove(name), func() { delete(d.live, name) })
}

func (d *cutFS) SyncDir() error { return d.names(nil, func() { d.synced = maps.Clone(d.live) }) }

type cutFile struct {
	file
	n *inode
	d *cutFS
}

func (f *cutFile) Write(b []byte) (int, error) {
	n, err := f.file.Write(b)
	return n, f.d.names(err, func() { f.n.data = append(f.n.data, b...) })
}

func (f *cutFile) Truncate(size int64) error {
	return f.d.names(f.file.Truncate(size), func() { f.n.data = bytes.Clone(f.n.data[:size]) })
}

func (f *cutFile) Sync() error {
	return f.d.names(nil, func() { f.n.synced = bytes.Clone(f.n.data) })
}

// left is what one power cut leaves: of what was not synced all, nothing, or
// anything in between.
func (d *cutFS) left(t *testing.T, r *rand.Rand, some func() bool) (dir string) {
	dir = t.TempDir()
	d.mu.Lock()
	defer d.mu.Unlock()
	names := maps.Clone(d.synced)
	if some() { // renames and removals are journalled in their order: all of them
		names = maps.Clone(d.live)
	}
	first := map[*inode]string{}
	for name, n := range names {
		if also := first[n]; also != "" {
			if err := os.Link(filepath.Join(dir, also), filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		first[n] = name
		content := n.synced
		if some() && len(n.data) > len(content) && bytes.HasPrefix(n.data, content) {
			content = n.data[:len(content)+r.IntN(len(n.data)-len(content)+1)]
			if r.IntN(4) == 0 { // the size came, the data did not
				content = append(bytes.Clone(content), make([]byte, r.IntN(5000))...)
			}
		}
		writeLog(t, filepath.Join(dir, name), string(content))
	}
	return dir
}

// TestPowerCut cuts the power at every operation, and forgets what was not
// synced: no acknowledged record is missing, and no revocation.
func TestPowerCut(t *testing.T) {
	r, most := rand.New(rand.NewPCG(rand.Uint64(), 6)), 24
	if os.Getenv("CADDYVAULT_POWERCUTS") == "all" {
		most = 1
	}
	for _, mode := range []struct {
		name string
		some func() bool
	}{
		{"forgets everything", func() bool { return false }},
		{"forgets nothing", func() bool { return true }},
		{"forgets some", func() bool { return r.IntN(2) == 0 }},
	} {
		t.Run(mode.name, func(t *testing.T) {
			// A few of them, or with CADDYVAULT_POWERCUTS=all every operation.
			for k := 1; ; k += 1 + r.IntN(most) {
				failed := 0
				synctest.Test(t, func(t *testing.T) { failed = cutRun(t, k, r, mode.some) })
				if t.Failed() || failed == 0 {
					t.Logf("%d operations", k-1)
					return
				}
			}
		})
	}
}

func cutRun(t *testing.T, k int, r *rand.Rand, some func() bool) (failed int) {
	dir := t.TempDir()
	real, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	cut := &cutFS{fsys: real, live: map[string]*inode{}, synced: map[string]*inode{}}
	f := &faultFS{fsys: cut, err: syscall.EIO, failAt: k, repeat: 1 << 30, through: true}
	acked := map[uint64]string{}
	revoked := false
	l, err := Open(Options{Dir: dir, SegmentSize: 700, KeepFor: 3 * time.Hour, Carry: map[string]func([]byte) (string, bool){
		"token.revoked": func([]byte) (string, bool) { return "revoked", true },
	}, fs: f})
	if err == nil {
		for i := range 10 {
			event := "test"
			if i == 1 {
				event = "token.revoked"
			}
			id := fmt.Sprintf("call-%d", i)
			seq, err := l.Append(context.Background(), Entry{Record: Record{Event: event, CallID: id}})
			if err == nil {
				acked[seq] = id
				revoked = revoked || i == 1
			} else if !errors.Is(err, ErrUnavailable) {
				t.Fatalf("k=%d: %v", k, err)
			}
			_ = l.Enqueue(Entry{Record: Record{Event: "test"}})
			if i%2 == 0 && !f.hasFailed() { // without power nothing grows old
				time.Sleep(time.Hour)
			}
		}
		_ = l.Close()
	} else if f.failed == 0 {
		t.Fatal(err)
	}
	after := cut.left(t, r, some)
	replayed := false
	l, err = Open(Options{Dir: after, CheckpointEvery: -1, Replay: map[string]func([]byte){"token.revoked": func([]byte) { replayed = true }}})
	if err != nil {
		t.Fatalf("k=%d: %v\n%q", k, err, mapsKeys(after, t))
	}
	appendOK(t, l, Record{Event: "test"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if revoked && !replayed {
		t.Fatalf("k=%d: the revocation is forgotten", k)
	}
	rep := verifyOK(t, after)
	for i, line := range logLines(t, after) {
		seq := rep.Dropped + uint64(i+1)
		if id, _ := fieldString([]byte(line), callIDKey); acked[seq] != "" && acked[seq] != string(id) {
			t.Fatalf("k=%d: record %d is %s, acknowledged was %s", k, seq, line, acked[seq])
		}
		delete(acked, seq)
	}
	for seq := range acked {
		if seq > rep.Dropped {
			t.Fatalf("k=%d: record %d was acknowledged and is missing", k, seq)
		}
	}
	return f.failed
}

func mapsKeys(dir string, t *testing.T) (names []string) {
	for name := range readDir(t, dir) {
		names = append(names, filepath.Base(name))
	}
	return names
}
