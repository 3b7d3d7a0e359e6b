package audit

import (
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
)

// view is what queries see: the log up to the last finished batch.
type view struct {
	mu     sync.Mutex
	sealed []part
	cur    *handle
	first  uint64 // first seq in cur; 0 if it is empty
	size   int64  // of cur

	// poke, if set, is called as the view has grown by a step or turned, and
	// may not wait; seen is the size it was called at.
	poke func()
	seen int64

	// changed, if set, is closed with the next change.
	changed chan struct{}
}

// part is a sealed segment.
type part struct {
	name  string
	first uint64
	size  int64 // what counts; the file may be longer after a failed write
}

// handle is an open file that is closed when nobody uses it any longer.
type handle struct {
	file
	refs atomic.Int32
	is   fs.FileInfo // the writer's; nil before it has looked
}

func newHandle(f file) *handle {
	h := &handle{file: f}
	h.refs.Store(1)
	return h
}

// identity returns what tells the file from others.
func (h *handle) identity() (_ fs.FileInfo, err error) {
	if h.is == nil {
		h.is, err = h.Stat()
	}
	return h.is, err
}

func (h *handle) release() {
	if h.refs.Add(-1) == 0 {
		_ = h.Close()
	}
}

// snapshot is a view that does not change. Its handle must be released.
type snapshot struct {
	sealed []part
	cur    *handle
	first  uint64
	size   int64
}

// last returns the last seq that the snapshot shows; 0 if there is none.
func (s snapshot) last(d fsys) (uint64, error) {
	f, size := file(s.cur), s.size
	if s.first == 0 {
		if len(s.sealed) == 0 {
			return 0, nil
		}
		p := s.sealed[len(s.sealed)-1]
		var err error
		if f, err = d.OpenRead(p.name); err != nil {
			return 0, err
		}
		defer f.Close()
		size = p.size
	}
	line, _, _, err := lastLine(f, size)
	if err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	seq, _, _ := parseTail(line)
	return seq, nil
}

func (v *view) snapshot() snapshot {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cur != nil {
		v.cur.refs.Add(1)
	}
	return snapshot{v.sealed, v.cur, v.first, v.size}
}

// grow shows more of the current file.
func (v *view) grow(first uint64, size int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.first, v.size = first, size
	if v.poke != nil && size-v.seen >= indexStep {
		v.seen = size
		v.poke()
	}
	v.tell()
}

func (v *view) setPoke(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.poke = f
}

// tell lets go on whoever waits for a change.
func (v *view) tell() {
	if v.changed != nil {
		close(v.changed)
		v.changed = nil
	}
}

// wait returns what is closed once the view is another than s.
func (v *view) wait(s snapshot) <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed == nil {
		v.changed = make(chan struct{})
	}
	c := v.changed
	if v.cur != s.cur || v.size != s.size || v.first != s.first {
		v.tell()
	}
	return c
}

// has reports whether a sealed segment is there.
func (v *view) has(p part) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Contains(v.sealed, p)
}

// turn shows another current file, and the one before as sealed if it has a
// name. The view takes over one reference to cur and gives up its old one.
func (v *view) turn(sealed part, cur *handle, first uint64, size int64) {
	v.mu.Lock()
	old := v.cur
	if sealed.name != "" {
		v.sealed = append(slices.Clip(v.sealed), sealed)
	}
	v.cur, v.first, v.size = cur, first, size
	v.seen = size
	if v.poke != nil {
		v.poke()
	}
	v.tell()
	v.mu.Unlock()
	if old != nil {
		old.release()
	}
}

// drop hides the oldest segment.
func (v *view) drop(p part) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sealed = slices.DeleteFunc(slices.Clone(v.sealed), func(q part) bool { return q == p })
	if v.poke != nil { // its index goes, too
		v.poke()
	}
	v.tell()
}
