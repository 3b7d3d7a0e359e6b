package audit

import (
	"bytes"
	"crypto/sha256"
	"io"
	"runtime"

	"golang.org/x/mod/sumdb/tlog"
)

// scanner verifies the chain of one file. Blocks of it are read and hashed by
// several workers: whether two neighbours fit can be seen without those
// before.
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

// block is what a worker looks at: the lines that begin in one stretch of a
// file.
type block struct {
	buf  []byte
	data []byte // of buf: whole lines
	off  int64  // where they begin
	over bool   // what follows them is no line, or is longer than one can be
	last bool   // nothing follows them
	err  error  // of reading

	// What a worker found.
	lines  []line
	sums   [][sha256.Size]byte // of the lines that fit
	good   int                 // how many of the lines fit to the one before
	calls  blockCalls
	replay []span
	notes  []span // checkpoints
	levels *levels
}

type span struct{ from, to int }

// line is one line of a block.
type line struct {
	span
	seq uint64
}

// scan returns an error only if reading fails. What does not fit shows as
// good being less than size.
func (s *scanner) scan(f io.ReaderAt) (scanResult, error) {
	workers := s.workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	res := scanResult{end: s.from, lastAt: -1}
	err := readBlocks(f, s.size, workers, s.check, func(b *block) bool {
		more := s.join(&res, b)
		if s.progress != nil {
			s.progress(int64(len(b.data)))
		}
		return more
	})
	return res, err
}

// check looks at the lines of a block.
func (s *scanner) check(b *block) {
	b.lines, b.sums, b.good, b.replay, b.notes, b.levels = b.lines[:0], b.sums[:0], 0, b.replay[:0], b.notes[:0], nil
	if s.calls != nil {
		b.calls.reset()
	}
	for at := 0; at < len(b.data); {
		n := bytes.IndexByte(b.data[at:], '\n')
		seq, _, ok := parseTail(b.data[at : at+n])
		if k := len(b.lines); !ok || k > 0 && seq != b.lines[k-1].seq+1 {
			b.over = true
			break
		}
		b.lines = append(b.lines, line{span{at, at + n}, seq})
		at += n + 1
	}
	b.sums = hashLines(b.sums, b.data, b.lines)
	for i := range b.lines {
		if i > 0 && !shows(prevOf(b.line(i)), &b.sums[i-1]) {
			b.over = true
			break
		}
		b.good++
		if s.calls != nil || s.tree != nil {
			s.note(b, b.lines[i].span)
		}
	}
	b.sums = b.sums[:b.good]
	if s.tree != nil && b.good > 0 {
		var leaves []tlog.Hash
		b.levels, leaves = s.tree.take()
		b.levels.build(b.lines[0].seq-1, leafHashes(leaves, b.sums))
	}
}

// line returns line i of the block without its newline.
func (b *block) line(i int) []byte { return b.data[b.lines[i].from:b.lines[i].to] }

// note keeps what Open wants to know of a line.
func (s *scanner) note(b *block, at span) {
	line := b.data[at.from:at.to]
	_, event, ok := parseHead(line)
	if !ok {
		return
	}
	if string(event) == EventCheckpoint {
		b.notes = append(b.notes, at)
	}
	if s.calls == nil {
		return
	}
	b.calls.note(event, line, at.from)
	if s.replay[string(event)] != nil {
		b.replay = append(b.replay, at)
	}
}

// join puts a block behind what was found so far and reports whether all of
// it fits.
func (s *scanner) join(res *scanResult, b *block) bool {
	if len(b.data) == 0 { // a long line goes through all of it
		return !b.over
	}
	if b.good == 0 || b.off != res.good || b.lines[0].seq != res.end.seq+1 ||
		string(prevOf(b.line(0))) != string(res.end.hash[:]) && !(s.anyPrev && res.records == 0) {
		return false
	}
	last := b.lines[b.good-1]
	res.end = chainAt(last.seq, b.sums[b.good-1])
	res.good = b.off + int64(last.to) + 1
	res.lastAt = b.off + int64(last.from)
	res.records += uint64(b.good)
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
	return !b.over
}
