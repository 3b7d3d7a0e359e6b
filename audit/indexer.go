package audit

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// indexes keeps the indexes of a log: in memory that of the segment that
// grows, beside each sealed segment a file. A goroutine of its own makes
// them, so the writer never waits for one, and a log without them answers
// all the same, by looking at every line.
type indexes struct {
	l    *Log
	wake chan struct{} // holds one
	done chan struct{}

	mu   sync.Mutex
	live *liveIndex
	// sealed are those of segments that are sealed and have no file yet.
	sealed map[uint64]*liveIndex
	// heads are the first pages of the files, by the first seq of their
	// segments, once they are known to be of the segment's content; nil if
	// there is none that is good.
	heads map[uint64]*indexHead
	again time.Time // not before is a file tried that could not be made
}

// liveIndex is the index of an open file.
type liveIndex struct {
	memIndex
	file  *handle // holds a reference
	first uint64
	off   bool // cannot go on
}

const (
	// liveIndexed bounds what is indexed in memory, in bytes of the log; it
	// takes about a tenth of that.
	liveIndexed = 512 << 20

	// indexStep is how much is indexed at once, and how much the log grows
	// before the goroutine looks.
	indexStep = 1 << 20

	indexRetry = time.Minute
)

func (x *indexes) init(l *Log) {
	x.l = l
	x.wake, x.done = make(chan struct{}, 1), make(chan struct{})
	x.sealed, x.heads = make(map[uint64]*liveIndex), make(map[uint64]*indexHead)
}

// run makes indexes until the log is closed.
func (x *indexes) run() {
	defer close(x.done)
	defer x.release()
	for {
		x.work()
		timer := time.NewTimer(indexRetry)
		select {
		case <-x.wake:
		case <-timer.C:
		case <-x.l.closing:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// poke makes the goroutine look.
func (x *indexes) poke() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

func (x *indexes) closing() bool {
	select {
	case <-x.l.closing:
		return true
	default:
		return false
	}
}

func (x *indexes) release() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drop(x.live)
	x.live = nil
	for first, s := range x.sealed {
		x.drop(s)
		delete(x.sealed, first)
	}
}

func (x *indexes) drop(v *liveIndex) {
	if v != nil && !v.off {
		v.off = true
		v.file.release()
	}
}

// snapshot returns what a query sees, with the index of the current file, or
// nil. The handle must be released. What is not indexed yet of the current
// file is indexed now, at most a step of it for the goroutine.
func (x *indexes) snapshot(most int64) (snapshot, *memIndex, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	v := x.l.view.snapshot()
	if v.cur == nil || x.closing() {
		return v, nil, false
	}
	x.follow(v)
	if !x.grow(x.live, v.size, most) {
		return v, nil, false
	}
	return v, x.live.view(), x.live.covered < min(v.size, liveIndexed)
}

// grow indexes lines up to size, at most about that many bytes. It reports
// whether there is an index.
func (x *indexes) grow(live *liveIndex, size, most int64) bool {
	if live.off {
		return false
	}
	n := min(size, liveIndexed) - live.covered
	if n <= 0 {
		return true
	}
	err := readLines(io.NewSectionReader(live.file, live.covered, n), n, func(_ int64, lines []byte) bool {
		live.add(lines)
		most -= int64(len(lines))
		return most > 0
	})
	if err != nil {
		x.l.opts.Logger.Warn("audit index: reading a segment", zap.Error(err))
		x.drop(live)
	}
	return err == nil
}

// follow goes on to another current file, and keeps the index of the one
// before for its segment.
func (x *indexes) follow(v snapshot) {
	if x.live != nil && x.live.file == v.cur {
		x.live.first = v.first
		return
	}
	if old := x.live; old != nil {
		i := slices.IndexFunc(v.sealed, func(p part) bool { return p.first == old.first })
		if i >= 0 && old.first != 0 && x.grow(old, v.sealed[i].size, liveIndexed) {
			x.sealed[old.first] = old
		} else {
			x.drop(old)
		}
	}
	v.cur.refs.Add(1)
	x.live = &liveIndex{memIndex: memIndex{seed: rand.Uint64()}, file: v.cur, first: v.first}
}

// work does everything there is to do.
func (x *indexes) work() {
	for !x.closing() {
		v, _, more := x.snapshot(indexStep)
		if v.cur == nil {
			return
		}
		v.cur.release()
		if more {
			continue
		}
		x.tidy(v)
		for _, p := range slices.Backward(v.sealed) {
			if x.closing() {
				return
			}
			if x.head(p) == nil {
				x.make(p)
			}
		}
		return
	}
}

// tidy removes indexes of segments that are gone.
func (x *indexes) tidy(v snapshot) {
	there := make(map[uint64]bool, len(v.sealed))
	for _, p := range v.sealed {
		there[p.first] = true
	}
	x.mu.Lock()
	for first := range x.heads {
		if !there[first] {
			delete(x.heads, first)
		}
	}
	for first, s := range x.sealed {
		if !there[first] {
			x.drop(s)
			delete(x.sealed, first)
		}
	}
	x.mu.Unlock()
	names, err := x.l.opts.fs.List()
	if err != nil {
		return
	}
	for _, name := range names {
		if first, ok := parseIndexName(name); ok && !there[first] {
			_ = x.l.opts.fs.Remove(name) // it does no harm
		}
	}
}

// head returns the first page of the index of a segment, nil if there is no
// good one. It looks at the disk the first time.
func (x *indexes) head(p part) *indexHead {
	x.mu.Lock()
	h, known := x.heads[p.first]
	x.mu.Unlock()
	if known && (h == nil || h.size == p.size) {
		return h
	}
	h = x.check(p)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.heads[p.first] = h
	return h
}

// check looks whether there is an index of just this content.
func (x *indexes) check(p part) *indexHead {
	f, err := openIndex(x.l.opts.fs, x.l.opts.Dir, p)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			x.l.opts.Logger.Warn("audit index is made anew", zap.String("name", indexName(p.first)), zap.Error(err))
		}
		return nil
	}
	defer f.close()
	end, err := x.lastHash(p)
	if err != nil || end != f.end {
		x.l.opts.Logger.Warn("audit index is made anew", zap.String("name", indexName(p.first)), zap.NamedError("segment", err))
		return nil
	}
	h := f.indexHead
	return &h
}

// lastHash returns the hash of a segment's last line.
func (x *indexes) lastHash(p part) (prevHash, error) {
	f, err := x.l.opts.fs.OpenRead(p.name)
	if err != nil {
		return prevHash{}, err
	}
	defer f.Close()
	line, _, _, err := lastLine(f, p.size)
	return hashLine(line), err
}

// make makes the file of a segment's index.
func (x *indexes) make(p part) {
	if p.size > maxIndexed || time.Now().Before(x.again) {
		return
	}
	x.mu.Lock()
	s := x.sealed[p.first]
	x.mu.Unlock()
	if err := x.write(p, s); err != nil {
		if errors.Is(err, fs.ErrNotExist) { // the segment was dropped
			return
		}
		x.again = time.Now().Add(indexRetry)
		x.l.opts.Logger.Warn("audit index cannot be made, queries take longer", zap.String("name", indexName(p.first)), zap.Error(err))
		return
	}
	h := x.check(p)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.heads[p.first] = h
	if h != nil && s != nil {
		delete(x.sealed, p.first)
		x.drop(s)
	}
}

func (x *indexes) write(p part, s *liveIndex) error {
	end, err := x.lastHash(p)
	if err != nil {
		return err
	}
	var mem *memIndex
	if s != nil && s.covered >= p.size {
		mem = &s.memIndex
	} else if mem, err = x.read(p); err != nil || x.closing() {
		if x.closing() {
			return nil
		}
		return err
	}
	d := x.l.opts.fs
	temp := tempPrefix + "index-" + randomHex()
	f, err := d.Create(temp)
	if err != nil {
		return err
	}
	// A crash may leave less than this; that shows.
	b := encodeIndex(mem, p, end)
	n, err := f.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.Rename(temp, indexName(p.first))
	}
	if err != nil {
		_ = d.Remove(temp)
	}
	return err
}

func (x *indexes) read(p part) (*memIndex, error) {
	f, err := x.l.opts.fs.OpenRead(p.name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readIndex(f, p.size, rand.Uint64(), x.closing)
}

// open returns the index of a sealed segment as a query uses it, or nil, and
// what to call when done.
func (x *indexes) open(p part) (segmentIndex, *indexHead, func()) {
	none := func() {}
	x.mu.Lock()
	s := x.sealed[p.first]
	if s != nil && s.covered >= p.size {
		v := s.view()
		x.mu.Unlock()
		return v, nil, none
	}
	x.mu.Unlock()
	h := x.head(p)
	if h == nil {
		return nil, nil, none
	}
	f, err := openIndex(x.l.opts.fs, x.l.opts.Dir, p)
	if err != nil || f.indexHead != *h {
		if err == nil {
			f.close()
		}
		x.bad(p, err)
		return nil, nil, none
	}
	return f, h, f.close
}

// bad has an index made anew.
func (x *indexes) bad(p part, err error) {
	if errors.Is(err, fs.ErrNotExist) && !x.l.view.has(p) {
		return
	}
	x.l.opts.Logger.Warn("audit index is made anew", zap.String("name", indexName(p.first)), zap.Error(err))
	x.mu.Lock()
	x.heads[p.first] = nil
	x.mu.Unlock()
	x.poke()
}
