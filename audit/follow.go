package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// Limits of following.
const (
	// followBlock is how much of the log is looked at before Next returns
	// what it has found.
	followBlock = 256 << 10

	// followPause is the least time between two looks at a log that grows,
	// so that many who follow cost the writer little.
	followPause = 50 * time.Millisecond
)

// Follower reads the log in its own order and at its own pace: what it has
// not read yet waits on disk, and the writer never waits for it. It is for
// one goroutine.
type Follower struct {
	l       *Log
	filters filters
	since   int64
	until   int64
	turns   *turns

	next    uint64    // seq to go on with
	missing [2]uint64 // of the next batch
	file    file      // where that is, nil if it is to be looked for
	cur     *handle
	part    part // else
	off     int64

	buf    []byte
	lines  [][]byte
	looked time.Time
}

// FollowOptions say what to follow.
type FollowOptions struct {
	// After is the seq of the last record that is not wanted; 0 for all. One
	// that the log has not given out yet, because a crash took records that
	// were not on disk, is taken for the last.
	After uint64

	// Apart is for one who must not fall behind because of others who follow:
	// it does not take turns with them.
	Apart bool

	// Filters, Agents, Since and Until are those of Query.
	Filters      map[string]string
	Agents       []string
	Since, Until int64
}

// Batch is what a Follower has read.
type Batch struct {
	// Lines are records that match, in their order, byte for byte as in the
	// log. They are good until the next call.
	Lines [][]byte

	// Seq is the last record looked at, so that After with it goes on behind
	// this batch. There may be progress without Lines.
	Seq uint64

	// Missing are the first and last of records that retention has dropped
	// before they were read; 0 if there are none. They come before Lines.
	Missing [2]uint64
}

// Follow begins to read. Close ends it.
func (l *Log) Follow(o FollowOptions) (*Follower, error) {
	f := &Follower{l: l, since: o.Since, until: o.Until, next: o.After + 1, turns: &l.turns}
	if o.Apart {
		f.turns = newTurns()
	}
	var err error
	if f.filters, err = newFilters(o.Filters, o.Agents); err != nil {
		return nil, err
	}
	if last := l.Seq(); o.After > last {
		f.next = last + 1
	}
	return f, nil
}

// Close ends the following.
func (f *Follower) Close() { f.leave() }

// leave forgets the file.
func (f *Follower) leave() {
	switch {
	case f.cur != nil:
		f.cur.release()
	case f.file != nil:
		_ = f.file.Close()
	}
	f.file, f.cur = nil, nil
}

// Next waits for records behind those it has returned. The error is ErrClosed
// if the log is closed, or why ctx ended.
func (f *Follower) Next(ctx context.Context) (Batch, error) {
	for {
		if err := f.turns.take(ctx, f.l.done); err != nil {
			return Batch{}, err
		}
		b, wait, err := f.read()
		f.turns.give(b)
		if err != nil || b.Seq != 0 {
			return b, err
		}
		select {
		case <-wait:
			if err := f.pause(ctx); err != nil {
				return Batch{}, err
			}
		case <-f.l.done:
			return Batch{}, ErrClosed
		case <-ctx.Done():
			return Batch{}, context.Cause(ctx)
		}
	}
}

// pause keeps looks at a log that grows apart.
func (f *Follower) pause(ctx context.Context) error {
	left := followPause - time.Since(f.looked)
	if left <= 0 {
		return nil
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-t.C:
	case <-f.l.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// read returns what is there, or what to wait for.
func (f *Follower) read() (b Batch, wait <-chan struct{}, err error) {
	f.looked = time.Now()
	for try := 0; ; try++ {
		v := f.l.view.snapshot()
		if v.cur == nil {
			f.leave()
			return Batch{}, nil, ErrClosed
		}
		b, err = f.readFrom(v)
		if b.Seq == 0 && err == nil {
			wait = f.l.view.wait(v)
		}
		v.cur.release()
		if err != nil && errors.Is(err, fs.ErrNotExist) && try < 3 {
			f.leave()
			continue // dropped meanwhile
		}
		if err != nil {
			err = fmt.Errorf("follow audit log: %w", err)
		}
		return b, wait, err
	}
}

func (f *Follower) readFrom(v snapshot) (b Batch, err error) {
	if f.file != nil && f.cur != v.cur && (f.cur != nil || !slices.Contains(v.sealed, f.part)) {
		f.leave() // it is another, or sealed, now
	}
	for {
		if f.file == nil {
			found, err := f.find(v)
			if err != nil || !found {
				return b, err
			}
		}
		size := f.part.size
		if f.cur != nil {
			size = v.size
		}
		if f.off < size {
			return b, f.block(size, &b)
		}
		if f.cur != nil {
			return b, nil
		}
		f.leave() // to the next segment
	}
}

// find finds the file with the record to go on with. It reports whether
// there is one yet.
func (f *Follower) find(v snapshot) (bool, error) {
	oldest := v.first
	if len(v.sealed) > 0 {
		oldest = v.sealed[0].first
	}
	if oldest == 0 {
		return false, nil
	}
	if f.next < oldest {
		f.missing = [2]uint64{f.next, oldest - 1}
		f.next = oldest
	}
	i := len(v.sealed)
	if v.first == 0 || f.next < v.first {
		i, _ = slices.BinarySearchFunc(v.sealed, f.next+1, func(p part, seq uint64) int {
			if p.first < seq {
				return -1
			}
			return 1
		})
		i--
	}
	for ; i >= 0 && i < len(v.sealed) && f.skips(v.sealed[i]); i++ {
		if f.next = v.first; i+1 < len(v.sealed) {
			f.next = v.sealed[i+1].first
		}
		if f.next == 0 { // which is not known before there is one
			f.next = v.sealed[i].first
			break
		}
	}
	size := v.size
	if i < 0 || i == len(v.sealed) {
		v.cur.refs.Add(1)
		f.cur, f.file = v.cur, v.cur
	} else {
		var err error
		f.part, f.cur = v.sealed[i], nil
		if f.file, err = f.l.opts.fs.OpenRead(f.part.name); err != nil {
			f.file = nil
			return false, err
		}
		size = f.part.size
	}
	var err error
	f.off, err = seekSeq(f.file, size, f.next)
	if err != nil || f.cur == nil && f.off == size && v.first == 0 {
		f.leave()
		return false, err
	}
	return true, nil
}

// block reads one block of lines.
func (f *Follower) block(size int64, b *Batch) error {
	f.lines = f.lines[:0]
	for want := int64(followBlock); ; want *= 2 {
		n := min(want, size-f.off)
		f.buf = slices.Grow(f.buf[:0], int(n))[:n]
		if m, err := f.file.ReadAt(f.buf, f.off); err != nil && int64(m) < n {
			return fmt.Errorf("read: %w", err)
		}
		end := bytes.LastIndexByte(f.buf, '\n') + 1
		if end == 0 {
			if n == size-f.off {
				return fmt.Errorf("no whole line at byte %d", f.off)
			}
			continue
		}
		last := bytes.LastIndexByte(f.buf[:end-1], '\n') + 1
		seq, _, ok := parseTail(f.buf[last : end-1])
		if !ok || seq < f.next {
			return fmt.Errorf("no record to go on with at byte %d", f.off)
		}
		for line := range f.filters.candidates(f.buf[:end]) {
			if f.filters.match(line) && f.inTime(line) {
				f.lines = append(f.lines, line)
			}
		}
		f.off += int64(end)
		f.next = seq + 1
		b.Lines, b.Seq, b.Missing = f.lines, seq, f.missing
		f.missing = [2]uint64{}
		return nil
	}
}

// skips reports whether no record of a segment is of the time.
func (f *Follower) skips(p part) bool {
	if f.since == 0 && f.until == 0 || !f.l.opts.index {
		return false
	}
	h := f.l.index.head(p)
	return h != nil && !overlaps(h.min, h.max, f.since, f.until)
}

func (f *Follower) inTime(line []byte) bool {
	if f.since == 0 && f.until == 0 {
		return true
	}
	ts, _, ok := parseHead(line)
	return ok && overlaps(ts, ts, f.since, f.until)
}

// LineSeq returns the seq of a line of a log.
func LineSeq(line []byte) (seq uint64, ok bool) {
	seq, _, ok = parseTail(line)
	return seq, ok
}

// LineEvent returns the event of a line of a log.
func LineEvent(line []byte) string {
	_, event, _ := parseHead(line)
	return string(event)
}
