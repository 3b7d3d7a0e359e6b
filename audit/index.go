package audit

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// An index says in which lines of a segment a field may have a value. It is
// only a hint: every line that it names is read and compared, so what it
// says wrongly costs time.
//
// Fields are those of the record or of its context. An entry is the hash of
// field and value, 32 bits, before the offset of the line, 32 bits.

// indexed reports whether an index knows a field.
func indexed(field string) bool {
	switch field {
	case "event", "service", "agentId", "tokenId", "sessionId", "taskId":
		return true
	}
	return false
}

// indexedKey is indexed for bytes.
func indexedKey(b []byte) bool {
	switch string(b) {
	case "event", "service", "agentId", "tokenId", "sessionId", "taskId":
		return true
	}
	return false
}

// indexBlock is about how much of a segment one timeBlock is of.
const indexBlock = 64 << 10

// timeBlock is when the records of a stretch of lines are from. The clock
// may have stepped, so neither the first nor the last need be the bounds.
type timeBlock struct {
	off      int64 // where it begins
	min, max int64
}

// overlaps reports whether a record between since and until may be there; 0
// does not bound.
func overlaps(minTS, maxTS, since, until int64) bool {
	return (since == 0 || maxTS >= since) && (until == 0 || minTS <= until)
}

// memIndex is an index in memory: of the segment that grows, or of one that
// gets its file.
type memIndex struct {
	seed    uint64
	covered int64 // bytes
	runs    [][]uint64
	tail    []uint64 // not sorted
	blocks  []timeBlock

	hash xxhash.Digest
}

// indexRun is how many entries are sorted together.
const indexRun = 32 << 10

// key hashes a field and the text of its value, which is still escaped.
func (x *memIndex) key(field, text []byte) uint32 { return indexKey(&x.hash, x.seed, field, text) }

// indexKey is seeded, so that an agent cannot choose names that fall
// together with another's.
func indexKey(d *xxhash.Digest, seed uint64, field, text []byte) uint32 {
	d.ResetWithSeed(seed)
	_, _ = d.Write(field)
	_, _ = d.Write([]byte{':'})
	_, _ = d.Write(text)
	return uint32(d.Sum64())
}

// add takes over whole lines that begin at x.covered.
func (x *memIndex) add(lines []byte) {
	off := x.covered
	for line := range linesOf(lines) {
		x.line(line, off)
		off += int64(len(line)) + 1
	}
	x.covered += int64(len(lines))
}

func (x *memIndex) line(line []byte, off int64) {
	ts, _, ok := parseHead(line)
	if n := len(x.blocks); n == 0 || off-x.blocks[n-1].off >= indexBlock {
		x.blocks = append(x.blocks, timeBlock{off: off, min: math.MaxInt64, max: math.MinInt64})
	}
	b := &x.blocks[len(x.blocks)-1]
	if ok {
		b.min, b.max = min(b.min, ts), max(b.max, ts)
	} else { // a record that nobody can date is in no bounds, and hides none
		b.min, b.max = math.MinInt64, math.MaxInt64
	}
	for field, text := range fieldsOf(line) {
		if indexedKey(field) {
			x.entry(uint64(x.key(field, text))<<32 | uint64(off))
		}
	}
}

func (x *memIndex) entry(e uint64) {
	if x.tail == nil {
		x.tail = make([]uint64, 0, indexRun)
	}
	x.tail = append(x.tail, e)
	if len(x.tail) == indexRun {
		sortEntries(x.tail)
		x.runs = append(x.runs, slices.Compact(x.tail))
		x.tail = nil
	}
}

// sortEntries sorts entries by their hashes, and those of one hash stay in the
// order in which they stood, that of their offsets. It goes by digits of the
// hash, so what it takes is several times less than comparing does.
func sortEntries(entries []uint64) {
	const digit = 11
	from, to := entries, make([]uint64, len(entries))
	for shift := 32; shift < 64; shift += digit {
		var at [1 << digit]int
		for _, e := range from {
			at[e>>shift&(1<<digit-1)]++
		}
		sum := 0
		for d, n := range at {
			at[d], sum = sum, sum+n
		}
		for _, e := range from {
			d := e >> shift & (1<<digit - 1)
			to[at[d]] = e
			at[d]++
		}
		from, to = to, from
	}
	copy(entries, from) // of three passes, the last was into the other
}

// fieldsOf yields the keys of a line, at every depth, with the text of their
// values where these are strings or numbers. Strings are still escaped: there
// is one way in which a record shows a string.
func fieldsOf(line []byte) func(yield func(key, text []byte) bool) {
	return func(yield func(key, text []byte) bool) {
		for i := 0; ; {
			j := bytes.IndexByte(line[i:], '"')
			if j < 0 {
				return
			}
			from := i + j + 1
			to := stringEnd(line, from)
			if to < 0 {
				return
			}
			i = to + 1
			if i >= len(line) || line[i] != ':' {
				continue // a value
			}
			i++
			var text []byte
			if i < len(line) && line[i] == '"' {
				end := stringEnd(line, i+1)
				if end < 0 {
					return
				}
				text = line[i+1 : end]
				i = end + 1
			} else {
				end := i
				for end < len(line) && (line[end] >= '0' && line[end] <= '9' || line[end] == '-' || line[end] == '.') {
					end++
				}
				if text = line[i:end]; len(text) == 0 {
					continue
				}
				i = end
			}
			if !yield(line[from:to], text) {
				return
			}
		}
	}
}

// stringEnd returns where the quote is that ends the string whose content
// begins at from; -1 if there is none.
func stringEnd(line []byte, from int) int {
	for i := from; i < len(line); {
		j := bytes.IndexByte(line[i:], '"')
		if j < 0 {
			return -1
		}
		i += j
		slashes := 0
		for k := i - 1; k >= from && line[k] == '\\'; k-- {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
		i++
	}
	return -1
}

// readIndex makes the index of the first size bytes of f.
func readIndex(f io.ReaderAt, size int64, seed uint64, stop func() bool) (*memIndex, error) {
	x := &memIndex{seed: seed}
	err := readLines(f, size, func(_ int64, lines []byte) bool {
		x.add(lines)
		return !stop()
	})
	if err == nil && x.covered != size {
		err = fmt.Errorf("%d of %d bytes are whole lines", x.covered, size)
	}
	return x, err
}

// view returns the index as it is now; x may go on growing.
func (x *memIndex) view() *memIndex {
	return &memIndex{seed: x.seed, covered: x.covered, runs: slices.Clip(x.runs), tail: slices.Clip(x.tail), blocks: slices.Clone(x.blocks)}
}

// entries returns all entries of lines before size, sorted.
func (x *memIndex) entries(size int64) []uint64 {
	n := len(x.tail)
	for _, r := range x.runs {
		n += len(r)
	}
	all := make([]uint64, 0, n)
	for _, r := range x.runs {
		all = append(all, r...)
	}
	all = append(all, x.tail...)
	all = slices.DeleteFunc(all, func(e uint64) bool { return int64(e&math.MaxUint32) >= size })
	sortEntries(all) // each run is of lines behind those of the one before
	return slices.Compact(all)
}

// postings are the offsets of the lines that an index names for one hash,
// the smallest first.
type postings interface {
	len() int
	at(i int) (int64, error)
}

// segmentIndex is an index as a query uses it.
type segmentIndex interface {
	// until is how many bytes of the segment it covers.
	until() int64
	find(field, text []byte) (postings, error)
	times() ([]timeBlock, error)
}

type offsets []uint32

func (o offsets) len() int                { return len(o) }
func (o offsets) at(i int) (int64, error) { return int64(o[i]), nil }

func (x *memIndex) until() int64                { return x.covered }
func (x *memIndex) times() ([]timeBlock, error) { return x.blocks, nil }

func (x *memIndex) find(field, text []byte) (postings, error) {
	key := x.key(field, text)
	var out offsets
	for _, r := range x.runs {
		i, _ := slices.BinarySearch(r, uint64(key)<<32)
		for ; i < len(r) && uint32(r[i]>>32) == key; i++ {
			out = append(out, uint32(r[i]))
		}
	}
	for _, e := range x.tail {
		if uint32(e>>32) == key && (len(out) == 0 || out[len(out)-1] != uint32(e)) {
			out = append(out, uint32(e))
		}
	}
	return out, nil
}

// mayHold reports whether the block of the line at off has a record between the
// bounds.
func mayHold(blocks []timeBlock, off, since, until int64) bool {
	i, found := slices.BinarySearchFunc(blocks, off, func(b timeBlock, off int64) int { return cmp.Compare(b.off, off) })
	if !found {
		i--
	}
	return i < 0 || overlaps(blocks[i].min, blocks[i].max, since, until)
}

var le = binary.LittleEndian
