package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// search is a query at work, from the newest record to older ones.
type search struct {
	ctx          context.Context
	l            *Log
	filters      filters
	since, until int64
	without      string
	before       uint64
	limit        int
	budget       int64

	found [][]byte // newest first
	next  uint64
	end   bool
	newer uint64 // first seq behind the file in hand; 0 if that is not known
	buf   []byte
}

func (s *search) run(v snapshot, live *memIndex) error {
	if v.first != 0 {
		var ix segmentIndex
		if live != nil {
			ix = live
		}
		if err := s.file(v.cur, v.first, v.size, ix); err != nil {
			return err
		}
	}
	s.newer = v.first
	for _, p := range slices.Backward(v.sealed) {
		if s.end {
			break
		}
		if err := s.sealed(p); err != nil {
			if errors.Is(err, fs.ErrNotExist) && !s.l.view.has(p) {
				break // dropped meanwhile, and everything older with it
			}
			return fmt.Errorf("%s: %w", p.name, err)
		}
		s.newer = p.first
	}
	if s.next == 1 { // nothing is before the first
		s.next = 0
	}
	return nil
}

// sealed searches a sealed segment, with its index if there is one.
func (s *search) sealed(p part) error {
	if s.before != 0 && s.before <= p.first {
		return nil
	}
	ix, head, done := s.l.index.open(p)
	defer done()
	if head != nil && !overlaps(head.min, head.max, s.since, s.until) {
		return nil
	}
	f := &lazyFile{open: func() (file, error) { return s.l.opts.fs.OpenRead(p.name) }}
	defer f.close()
	found := len(s.found)
	err := s.file(f, p.first, p.size, ix)
	if errors.Is(err, errIndex) {
		s.l.index.bad(p, err)
		s.found, s.end, s.next = s.found[:found], false, 0
		err = s.file(f, p.first, p.size, nil)
	}
	if errors.Is(err, fs.ErrNotExist) && !s.l.view.has(p) {
		return nil // it was dropped meanwhile, and what is older before it
	}
	return err
}

// lazyFile is opened when it is read.
type lazyFile struct {
	open func() (file, error)
	f    file
}

func (f *lazyFile) ReadAt(b []byte, off int64) (int, error) {
	if f.f == nil {
		var err error
		if f.f, err = f.open(); err != nil {
			return 0, err
		}
	}
	return f.f.ReadAt(b, off)
}

func (f *lazyFile) close() {
	if f.f != nil {
		_ = f.f.Close()
	}
}

// file searches the first size bytes of f.
func (s *search) file(f io.ReaderAt, first uint64, size int64, ix segmentIndex) error {
	if s.before != 0 {
		if s.before <= first {
			return nil
		}
		if s.newer == 0 || s.before < s.newer {
			var err error
			if size, err = seekSeq(f, size, s.before); err != nil {
				return err
			}
		}
	}
	if ix == nil {
		return s.scan(f, 0, size)
	}
	if until := ix.until(); until < size {
		if err := s.scan(f, until, size); err != nil {
			return err
		}
		size = until
	}
	var lists []postings
	for i := range s.filters.all {
		m := &s.filters.all[i]
		if !indexed(m.field) {
			continue
		}
		list, err := ix.find(m.key())
		if err != nil {
			return err
		}
		if list.len() == 0 {
			return nil
		}
		lists = append(lists, list)
	}
	var blocks []timeBlock
	if s.since != 0 || s.until != 0 {
		var err error
		if blocks, err = ix.times(); err != nil {
			return err
		}
	}
	switch {
	case lists != nil:
		return s.hits(f, lists, size, blocks)
	case blocks != nil:
		return s.stretches(f, size, blocks)
	default:
		return s.scan(f, 0, size)
	}
}

// hits searches the lines before size that every list names.
func (s *search) hits(f io.ReaderAt, lists []postings, size int64, blocks []timeBlock) error {
	slices.SortFunc(lists, func(a, b postings) int { return a.len() - b.len() })
	left := make([]int, len(lists)) // how many of each list are not behind us
	for i, list := range lists {
		left[i] = list.len()
	}
	off := size - 1
next:
	for off >= 0 && !s.end {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		s.budget -= hitCost
		target := off
		for i, list := range lists {
			n, at, err := lastUpTo(list, left[i], target)
			if err != nil || n == 0 {
				return err
			}
			left[i] = n
			if at < target {
				if target = at; i > 0 {
					off = target
					if s.budget <= 0 {
						break // and look at it, to say where to go on
					}
					continue next
				}
			}
		}
		off = target - 1
		if s.budget > 0 && blocks != nil && !mayHold(blocks, target, s.since, s.until) {
			continue
		}
		line, err := s.line(f, target, size)
		if err != nil {
			return err
		}
		s.budget -= int64(len(line))
		s.take(line)
		if s.budget <= 0 && !s.end {
			s.stop(line)
		}
	}
	return nil
}

// lastUpTo returns how many of the first n offsets are at most off, and the
// last of these.
func lastUpTo(list postings, n int, off int64) (count int, at int64, err error) {
	lo, hi := 0, n // the first lo are at most off, those from hi on are above
	for step := 1; lo < hi; {
		i := hi - step
		if i < lo || step == 0 {
			i = lo + (hi-lo)/2
		}
		v, err := list.at(i)
		if err != nil {
			return 0, 0, err
		}
		if v <= off {
			lo, at, step = i+1, v, 0 // it lies between, and near
		} else {
			hi, step = i, 2*step
		}
	}
	return lo, at, nil
}

// line reads the line at off, which an index has named.
func (s *search) line(f io.ReaderAt, off, size int64) ([]byte, error) {
	from := max(off-1, 0)
	for want := int64(2 << 10); ; want *= 4 {
		n := min(want, size-from)
		s.buf = slices.Grow(s.buf[:0], int(n))[:n]
		if m, err := f.ReadAt(s.buf, from); err != nil && int64(m) < n {
			return nil, fmt.Errorf("read: %w", err)
		}
		line := s.buf[off-from:]
		if off > 0 && s.buf[0] != '\n' {
			return nil, fmt.Errorf("no line at byte %d: %w", off, errIndex)
		}
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			return line[:i], nil
		}
		if n < want {
			return nil, fmt.Errorf("no whole line at byte %d: %w", off, errIndex)
		}
	}
}

// stretches scans those blocks before size that hold records of the time.
func (s *search) stretches(f io.ReaderAt, size int64, blocks []timeBlock) error {
	for _, b := range slices.Backward(blocks) {
		if s.end {
			break
		}
		if b.off < size && overlaps(b.min, b.max, s.since, s.until) {
			if err := s.scan(f, b.off, size); err != nil {
				return err
			}
		}
		size = min(size, b.off)
	}
	return nil
}

// scan searches the lines between from and size backwards, piece by piece.
func (s *search) scan(f io.ReaderAt, from, size int64) error {
	want := int64(queryBlock)
	for size > from && !s.end {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		n := min(want, size-from)
		s.buf = slices.Grow(s.buf[:0], int(n))[:n]
		if m, err := f.ReadAt(s.buf, size-n); err != nil && int64(m) < n {
			return fmt.Errorf("read: %w", err)
		}
		lines := s.buf
		if n < size-from { // the first line may have begun before
			i := bytes.IndexByte(lines, '\n')
			if i < 0 || i == len(lines)-1 {
				want *= 2
				continue
			}
			lines = lines[i+1:]
		}
		s.block(lines)
		size -= int64(len(lines))
		s.budget -= int64(len(lines))
		want = queryBlock
		if s.budget <= 0 && !s.end {
			s.stop(firstLine(lines))
		}
	}
	return nil
}

func firstLine(b []byte) []byte {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i]
	}
	return b
}

// block searches whole lines, the last first.
func (s *search) block(b []byte) {
	if !s.filters.maybe(b) {
		return
	}
	for end := len(b); end > 0 && !s.end; {
		start := bytes.LastIndexByte(b[:end-1], '\n') + 1
		s.take(b[start : end-1])
		end = start
	}
}

// take looks at one line.
func (s *search) take(line []byte) {
	if !s.match(line) {
		return
	}
	s.found = append(s.found, bytes.Clone(line))
	if len(s.found) == s.limit {
		s.stop(line)
	}
}

// stop ends the search at a line that was looked at.
func (s *search) stop(line []byte) {
	s.end = true
	if seq, _, ok := parseTail(line); ok {
		s.next = seq
	}
}

func (s *search) match(line []byte) bool {
	if !s.filters.match(line) {
		return false
	}
	if s.since == 0 && s.until == 0 && s.without == "" {
		return true
	}
	ts, event, ok := parseHead(line)
	return ok && overlaps(ts, ts, s.since, s.until) && (s.without == "" || string(event) != s.without)
}

// seekSeq returns where in the first size bytes of f, which are whole lines,
// the first line with a seq of at least seq begins; size if there is none.
func seekSeq(f io.ReaderAt, size int64, seq uint64) (int64, error) {
	lo, hi := int64(0), size // both are where lines begin; the answer is in [lo, hi]
	for lo < hi {
		// The line that begins first behind the middle, or the one at lo.
		mid := lo + (hi-lo)/2
		at := lo
		if mid > lo {
			l, err := lineAt(f, mid)
			if err != nil {
				return 0, err
			}
			if at = mid + int64(len(l)) + 1; at >= hi {
				at = lo
			}
		}
		line, err := lineAt(f, at)
		if err != nil {
			return 0, err
		}
		got, _, ok := parseTail(line)
		if !ok {
			return 0, fmt.Errorf("no record at byte %d", at)
		}
		switch {
		case got < seq:
			lo = at + int64(len(line)) + 1
		case at == lo:
			return lo, nil
		default:
			hi = at
		}
	}
	return lo, nil
}
