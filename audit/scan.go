package audit

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"runtime"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// scanBlock is how much of a file a worker takes at a time.
const scanBlock = 1 << 20

// scanner verifies the chain of one file. Lines are hashed by several
// workers: whether two neighbours fit can be seen without those before.
type scanner struct {
	size    int64 // how much of the file counts
	workers int   // 0: one for each processor
	from    chain // what comes before the file
	anyPrev bool  // from has no hash

	// calls and replay, if set, are told of records as Open needs it.
	calls    *openCalls
	part     int // for calls
	replay   map[string]func(line []byte)
	progress func(n int64)

	// tree, if set, is told of all records; name is the file for it.
	tree *treeCheck
	name string
}

// scanResult is what a scan found.
type scanResult struct {
	end     chain // the last record that fits
	good    int64 // where it ends
	lastAt  int64 // where it begins; -1 if there is none
	records uint64
}

// block is a stretch of whole lines.
type block struct {
	data []byte
	off  int64
	done chan struct{}

	// What a worker found.
	seq    uint64 // of the first line
	prev   []byte // of the first line
	end    chain  // the last line that fits to the one before
	bad    int    // where the first that does not begins; len(data) if none
	lastAt int
	lines  uint64
	calls  blockCalls
	replay []span
	notes  []span // checkpoints
	levels *levels
}

type span struct{ from, to int }

// scan returns an error only if reading fails. What does not fit shows as
// good being less than size.
func (s *scanner) scan(f io.ReaderAt) (scanResult, error) {
	workers := s.workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var (
		todo    = make(chan *block)
		ordered = make(chan *block, 2*workers)
		stop    = make(chan struct{})
		wg      sync.WaitGroup
		readErr error
		blocks  = sync.Pool{New: func() any { return new(block) }}
	)
	for range workers {
		wg.Go(func() {
			for b := range todo {
				s.check(b)
				close(b.done)
			}
		})
	}
	wg.Go(func() {
		defer close(ordered)
		defer close(todo)
		b := blocks.Get().(*block)
		readErr = readBlocks(f, s.size, b.data, func(off int64, lines []byte) (bool, []byte) {
			full := b
			b = blocks.Get().(*block) // for what follows, which the reader fills
			full.data, full.off, full.done = lines, off, make(chan struct{})
			select {
			case ordered <- full:
			case <-stop:
				return false, nil
			}
			todo <- full
			return true, b.data
		})
	})

	res := scanResult{end: s.from, lastAt: -1}
	stopped := false
	for b := range ordered {
		<-b.done
		if stopped {
			continue
		}
		if !s.join(&res, b) {
			stopped = true
			close(stop)
		}
		if s.progress != nil {
			s.progress(int64(len(b.data)))
		}
		blocks.Put(b)
	}
	wg.Wait()
	return res, readErr
}

// readLines calls f with stretches of whole lines until f says no. What
// follows the last newline is left out.
func readLines(r io.ReaderAt, size int64, f func(off int64, lines []byte) bool) error {
	return readBlocks(r, size, nil, func(off int64, lines []byte) (bool, []byte) {
		return f(off, lines), lines
	})
}

// readBlocks is readLines for an f that keeps what it is called with, and
// gives another buffer for it, as buf is the first.
func readBlocks(r io.ReaderAt, size int64, buf []byte, f func(off int64, lines []byte) (more bool, buf []byte)) error {
	least := int(min(scanBlock, max(size, 1)))
	room := func(b []byte, n int) []byte {
		b = b[:cap(b)]
		if len(b) < n {
			b = make([]byte, n)
		}
		return b
	}
	buf = room(buf, least)
	var off int64 // of buf
	have := 0
	for off+int64(have) < size {
		if have == len(buf) { // no newline in all of it
			buf = append(buf, make([]byte, len(buf))...)
		}
		n := int(min(int64(len(buf)-have), size-off-int64(have)))
		n, err := r.ReadAt(buf[have:have+n], off+int64(have))
		if err != nil && !(errors.Is(err, io.EOF) && n > 0) {
			if errors.Is(err, io.EOF) { // shorter than it was
				return nil
			}
			return err
		}
		fresh := buf[have : have+n]
		end := bytes.LastIndexByte(fresh, '\n') + 1
		if end == 0 {
			have += n
			continue
		}
		end += have
		have += n
		rest := buf[end:have]
		more, next := f(off, buf[:end])
		if !more {
			return nil
		}
		next = room(next, max(least, len(rest)))
		have = copy(next, rest)
		buf = next
		off += int64(end)
	}
	return nil
}

// check looks at the lines of a block.
func (s *scanner) check(b *block) {
	b.bad, b.lastAt, b.lines, b.replay, b.notes = len(b.data), -1, 0, b.replay[:0], b.notes[:0]
	if s.calls != nil {
		b.calls.reset()
	}
	var leaves []tlog.Hash
	if s.tree != nil {
		b.levels, leaves = s.tree.take()
	}
	for at := 0; at < len(b.data); {
		n := bytes.IndexByte(b.data[at:], '\n')
		line := b.data[at : at+n]
		seq, prev, ok := parseTail(line)
		if ok && at > 0 {
			ok = seq == b.end.seq+1 && string(prev) == string(b.end.hash[:])
		}
		if !ok {
			b.bad = at
			break
		}
		if at == 0 {
			b.seq, b.prev = seq, prev
		}
		b.end = chainAt(seq, sha256.Sum256(line))
		if s.calls != nil || s.tree != nil {
			s.note(b, line, at)
		}
		if s.tree != nil {
			leaves = append(leaves, leafHash(b.end.sum))
		}
		b.lastAt = at
		b.lines++
		at += n + 1
	}
	if s.tree != nil && b.lines > 0 {
		b.levels.build(b.seq-1, leaves)
	}
}

// note keeps what Open wants to know of a line.
func (s *scanner) note(b *block, line []byte, at int) {
	_, event, ok := parseHead(line)
	if !ok {
		return
	}
	if string(event) == EventCheckpoint {
		b.notes = append(b.notes, span{at, at + len(line)})
	}
	if s.calls == nil {
		return
	}
	b.calls.note(event, line, at)
	if s.replay[string(event)] != nil {
		b.replay = append(b.replay, span{at, at + len(line)})
	}
}

// join puts a block behind what was found so far and reports whether all of
// it fits.
func (s *scanner) join(res *scanResult, b *block) bool {
	if b.lines == 0 || b.seq != res.end.seq+1 ||
		string(b.prev) != string(res.end.hash[:]) && !(s.anyPrev && res.records == 0) {
		return false
	}
	res.end = b.end
	res.good = b.off + int64(b.bad)
	res.lastAt = b.off + int64(b.lastAt)
	res.records += b.lines
	if s.calls != nil {
		s.calls.join(&b.calls, s.part, b.off)
	}
	if s.tree != nil {
		s.tree.join(b.levels, s.name, func(yield func([]byte) bool) {
			for _, n := range b.notes {
				if !yield(b.data[n.from:n.to]) {
					return
				}
			}
		})
		if s.tree.bad != nil {
			return false
		}
	}
	for _, r := range b.replay {
		line := b.data[r.from:r.to]
		_, event, _ := parseHead(line)
		s.replay[string(event)](line)
	}
	return b.bad == len(b.data)
}
