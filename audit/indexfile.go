package audit

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/bits"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// An index file is pages of 4096 bytes, each of which ends in a CRC-32C of
// what is before it and in its number, so that a query checks what it reads
// and reads no more than it needs. The first page says what of; the others
// hold numbers of 64 bits, little endian:
//
//	fanout   for the first bits of the hash: where its entries begin, and at last how many there are
//	blocks   offset, and the bounds of the time, of each
//	entries  hash<<32 | offset, sorted
//
// What is damaged, or of another version or content of the segment, is made
// anew.
const (
	indexSuffix  = ".idx"
	indexMagic   = "cvaudit1"
	indexPage    = 4096
	indexPayload = indexPage - 8
	indexUnits   = indexPayload / 8 // numbers in a page

	// maxIndexed is the largest segment that gets an index, which is made in
	// memory and takes about a tenth of that. Every segment is smaller, unless
	// it could not be sealed for long.
	maxIndexed = MaxSegmentSize + 256<<20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errIndex is wrapped if an index does not hold what it should.
var errIndex = errors.New("not a valid index")

func indexName(first uint64) string {
	return namePrefix + strconv.FormatUint(first, 10) + indexSuffix
}

// parseIndexName returns the first seq that the name of an index gives.
func parseIndexName(name string) (first uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, indexSuffix)
	if !ok {
		return 0, false
	}
	return parseSealed(digits + nameSuffix)
}

// indexHead is the first page.
type indexHead struct {
	first uint64   // of the segment
	size  int64    // of what of it counts
	end   prevHash // the hash of its last line, which vouches for all others
	seed  uint64

	min, max int64 // bounds of the time
	bits     int   // of the fanout
	blocks   int64
	entries  int64
}

func (h *indexHead) fanout() int64 { return 1<<h.bits + 1 }
func (h *indexHead) units() int64  { return h.fanout() + 3*h.blocks + h.entries }
func (h *indexHead) pages() int64  { return 1 + (h.units()+indexUnits-1)/indexUnits }

// encode appends the first page.
func (h *indexHead) encode(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, indexMagic...)
	for _, v := range [...]uint64{
		h.first, uint64(h.size), h.seed, uint64(h.min), uint64(h.max), uint64(h.bits), uint64(h.blocks), uint64(h.entries),
	} {
		dst = le.AppendUint64(dst, v)
	}
	dst = append(dst, h.end[:]...)
	return seal(dst, start)
}

// seal fills a page that begins at start up and ends it.
func seal(dst []byte, start int) []byte {
	n := start / indexPage
	dst = append(dst, make([]byte, start+indexPayload-len(dst))...)
	sum := crc32.Update(crc32.Checksum(dst[start:], castagnoli), castagnoli, le.AppendUint32(nil, uint32(n)))
	return le.AppendUint32(le.AppendUint32(dst, sum), uint32(n))
}

// checkPage returns the payload of page n.
func checkPage(page []byte, n int64) ([]byte, error) {
	payload, trailer := page[:indexPayload], page[indexPayload:]
	sum := crc32.Update(crc32.Checksum(payload, castagnoli), castagnoli, trailer[4:])
	if le.Uint32(trailer) != sum || int64(le.Uint32(trailer[4:])) != n {
		return nil, fmt.Errorf("page %d: %w", n, errIndex)
	}
	return payload, nil
}

func decodeHead(page []byte) (h indexHead, err error) {
	b, err := checkPage(page, 0)
	if err != nil {
		return h, err
	}
	if string(b[:len(indexMagic)]) != indexMagic {
		return h, fmt.Errorf("another version: %w", errIndex)
	}
	b = b[len(indexMagic):]
	next := func() uint64 {
		v := le.Uint64(b)
		b = b[8:]
		return v
	}
	h.first, h.size, h.seed = next(), int64(next()), next()
	h.min, h.max = int64(next()), int64(next())
	fanout, blocks, entries := next(), next(), next()
	copy(h.end[:], b)
	if fanout > 16 || blocks > maxIndexed || entries > maxIndexed || h.size < 0 || h.size > maxIndexed {
		return h, fmt.Errorf("sizes: %w", errIndex)
	}
	h.bits, h.blocks, h.entries = int(fanout), int64(blocks), int64(entries)
	return h, nil
}

// encodeIndex makes the file of x for a segment, whose last line has the hash
// end.
func encodeIndex(x *memIndex, p part, end prevHash) []byte {
	entries := x.entries(p.size)
	blocks := x.blocks
	for len(blocks) > 0 && blocks[len(blocks)-1].off >= p.size {
		blocks = blocks[:len(blocks)-1]
	}
	h := indexHead{
		first: p.first, size: p.size, end: end, seed: x.seed, min: math.MaxInt64, max: math.MinInt64,
		bits: min(12, bits.Len(uint(len(entries)/256))), blocks: int64(len(blocks)), entries: int64(len(entries)),
	}
	for _, b := range blocks {
		h.min, h.max = min(h.min, b.min), max(h.max, b.max)
	}
	out := h.encode(make([]byte, 0, h.pages()*indexPage))
	start := len(out)
	put := func(v uint64) {
		if len(out)-start == indexPayload {
			out = seal(out, start)
			start = len(out)
		}
		out = le.AppendUint64(out, v)
	}
	at := 0
	for bucket := range h.fanout() - 1 {
		for at < len(entries) && int64(entries[at]>>(64-h.bits)) < bucket && h.bits > 0 {
			at++
		}
		put(uint64(at))
	}
	put(uint64(len(entries)))
	for _, b := range blocks {
		put(uint64(b.off))
		put(uint64(b.min))
		put(uint64(b.max))
	}
	for _, e := range entries {
		put(e)
	}
	return seal(out, start)
}

// openIndex opens the index of a segment and checks what it is of, but not
// that its last line is that of the segment.
func openIndex(d fsys, dir string, p part) (_ *indexFile, err error) {
	name := indexName(p.first)
	f, err := d.OpenRead(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkFile(filepath.Join(dir, name), fi); err != nil {
		return nil, err
	}
	x, err := readHead(f, fi.Size())
	if err == nil && (x.first != p.first || x.size != p.size) {
		err = fmt.Errorf("of another segment: %w", errIndex)
	}
	if err != nil {
		return nil, err
	}
	return x, nil
}

// indexFile is an open index. It is for one query.
type indexFile struct {
	indexHead
	f interface {
		io.ReaderAt
		io.Closer
	}

	hash  xxhash.Digest
	cache *pageCache
}

// pageCache holds the pages that were read last.
type pageCache struct {
	of   [8]int64 // 0: none, as the first page is not kept here
	next int
	b    [8][indexPage]byte
}

var pageCaches = sync.Pool{New: func() any { return new(pageCache) }}

// readHead reads the first page of an index of a size in bytes.
func readHead(f interface {
	io.ReaderAt
	io.Closer
}, size int64,
) (*indexFile, error) {
	page := make([]byte, indexPage)
	if n, err := f.ReadAt(page, 0); n < indexPage {
		return nil, fmt.Errorf("first page: %w", errors.Join(errIndex, err))
	}
	h, err := decodeHead(page)
	if err != nil {
		return nil, err
	}
	if h.pages()*indexPage != size {
		return nil, fmt.Errorf("%d bytes instead of %d: %w", size, h.pages()*indexPage, errIndex)
	}
	return &indexFile{indexHead: h, f: f}, nil
}

func (x *indexFile) close() {
	if x.cache != nil {
		pageCaches.Put(x.cache)
		x.cache = nil
	}
	_ = x.f.Close()
}

// unit returns a number of the file.
func (x *indexFile) unit(i int64) (uint64, error) {
	n := 1 + i/indexUnits
	if x.cache == nil {
		x.cache = pageCaches.Get().(*pageCache)
		x.cache.of = [8]int64{}
	}
	c := x.cache
	for slot, of := range c.of {
		if of == n {
			return le.Uint64(c.b[slot][i%indexUnits*8:]), nil
		}
	}
	slot := c.next
	c.next = (slot + 1) % len(c.of)
	c.of[slot] = 0
	if m, err := x.f.ReadAt(c.b[slot][:], n*indexPage); m < indexPage {
		return 0, fmt.Errorf("page %d: %w", n, errors.Join(errIndex, err))
	}
	if _, err := checkPage(c.b[slot][:], n); err != nil {
		return 0, err
	}
	c.of[slot] = n
	return le.Uint64(c.b[slot][i%indexUnits*8:]), nil
}

func (x *indexFile) until() int64 { return x.size }

func (x *indexFile) times() ([]timeBlock, error) {
	out := make([]timeBlock, x.blocks)
	for i := range out {
		var v [3]uint64
		for j := range v {
			var err error
			if v[j], err = x.unit(x.fanout() + 3*int64(i) + int64(j)); err != nil {
				return nil, err
			}
		}
		out[i] = timeBlock{int64(v[0]), int64(v[1]), int64(v[2])}
		if i > 0 && out[i].off <= out[i-1].off || out[i].off < 0 || out[i].off >= x.size {
			return nil, fmt.Errorf("block %d: %w", i, errIndex)
		}
	}
	return out, nil
}

// find looks for the entries of a hash.
func (x *indexFile) find(field, text []byte) (postings, error) {
	key := indexKey(&x.hash, x.seed, field, text)
	bucket := int64(uint64(key) << 32 >> (64 - x.bits) & (1<<x.bits - 1))
	from, err := x.unit(bucket)
	if err != nil {
		return nil, err
	}
	to, err := x.unit(bucket + 1)
	if err != nil {
		return nil, err
	}
	if from > to || to > uint64(x.entries) {
		return nil, fmt.Errorf("fanout: %w", errIndex)
	}
	lo, err := x.search(int64(from), int64(to), uint64(key)<<32)
	if err != nil {
		return nil, err
	}
	hi, err := x.search(lo, int64(to), (uint64(key)+1)<<32)
	if key == math.MaxUint32 {
		hi, err = int64(to), nil
	}
	return filePostings{x, key, lo, hi}, err
}

// search returns the first entry between lo and hi that is not below e.
func (x *indexFile) search(lo, hi int64, e uint64) (int64, error) {
	for lo < hi {
		mid := lo + (hi-lo)/2
		v, err := x.unit(x.fanout() + 3*x.blocks + mid)
		if err != nil {
			return 0, err
		}
		if v < e {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, nil
}

// filePostings are a stretch of the entries.
type filePostings struct {
	x      *indexFile
	key    uint32
	lo, hi int64
}

func (p filePostings) len() int { return int(p.hi - p.lo) }

func (p filePostings) at(i int) (int64, error) {
	v, err := p.x.unit(p.x.fanout() + 3*p.x.blocks + p.lo + int64(i))
	if err != nil {
		return 0, err
	}
	if uint32(v>>32) != p.key {
		return 0, fmt.Errorf("entries: %w", errIndex)
	}
	return int64(uint32(v)), nil
}
