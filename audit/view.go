package audit

import (
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
}

func newHandle(f file) *handle {
	h := &handle{file: f}
	h.refs.Store(1)
	return h
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
	v.mu.Unlock()
	if old != nil {
		old.release()
	}
}
