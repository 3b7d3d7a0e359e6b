package scrub

import (
	"cmp"
	"encoding/binary"
	"slices"
)

const (
	// window is how many bytes of a match the index looks at, at most. A
	// longer one leaps further and knows more blocks.
	window = 48

	// block is how many bytes are looked at to decide how far to leap, and
	// again is at how many more of them, one before the other, if the first
	// can be part of a match.
	block = 3
	again = 2

	// tableBits is the size of the table of blocks: 2^17 bits are 16 KiB.
	tableBits = 17
	firstBits = 13
)

// index finds the places where a pattern may begin. Whatever of it is escaped,
// a match has a byte for each element at least; and of its first size bytes
// any three in a row are in a table of blocks that is made beforehand, from
// every way to write the elements. A block that is not in the table therefore
// rules out every beginning from which it would be among the first bytes, and
// the search leaps over all of them.
type index struct {
	size      int                         // bytes of a match that the index knows
	starts    [256]uint16                 // by the first byte of a match, which of begins
	begins    [][]*pattern                // the patterns that may begin so
	ambiguous bool                        // one of the patterns has % or \ for a character
	blocks    [1 << tableBits / 64]uint64 // the table, a bit for each hash
	firsts    [1 << firstBits / 64]uint64 // the same of the blocks that a match begins with
}

// match is a pattern found in d[start:end].
type match struct {
	start, end int
	ref        string
}

// newIndex indexes at least one pattern; each has at least MinLength elements.
func newIndex(all []*pattern) *index {
	x := &index{size: window, begins: [][]*pattern{nil}}
	for _, p := range all {
		x.size = min(x.size, len(p.elems))
		x.ambiguous = x.ambiguous || p.ambiguous
	}
	for b := range x.starts {
		x.starts[b] = x.list(all, func(p *pattern) bool {
			// What it may be a part of is known only when it is read.
			return b == '%' || b == '\\' || p.elems[0].has(byte(b))
		})
	}
	t := table{index: x}
	for _, p := range all {
		t.add(p)
	}
	return x
}

// list returns which of begins has the patterns of which may is true.
func (x *index) list(all []*pattern, may func(*pattern) bool) uint16 {
	var list []*pattern
	for _, p := range all {
		if may(p) {
			list = append(list, p)
		}
	}
	for i, known := range x.begins {
		if slices.Equal(known, list) {
			return uint16(i)
		}
	}
	x.begins = append(x.begins, list)
	return uint16(len(x.begins) - 1)
}

// hash mixes the three bytes of a block.
func hash(v uint32) uint32 { return v * 0x9E3779B1 >> (32 - tableBits) }

// has reports whether the block d[1:4] can be part of a match.
func (x *index) has(d []byte) bool {
	h := hash(binary.LittleEndian.Uint32(d) >> 8)
	return x.blocks[h/64]>>(h%64)&1 != 0
}

// begun reports whether a match can begin with the block d[:3].
func (x *index) begun(d []byte) bool {
	h := hash(binary.LittleEndian.Uint32(d)<<8>>8) >> (tableBits - firstBits)
	return x.firsts[h/64]>>(h%64)&1 != 0
}

// at returns the patterns that may begin with d. Those that a whole escape is
// no beginning of are left out.
func (x *index) at(d []byte) []*pattern {
	c := d[0]
	switch {
	case c != '%' && c != '\\' || x.ambiguous:
	case c == '%' && len(d) > 2:
		high, low := nibble[d[1]], nibble[d[2]]
		if high|low > 15 {
			return nil
		}
		c = high<<4 | low
	case c == '\\' && len(d) > 1 && d[1] != 'u':
		if c = short[d[1]]; c == 0 {
			return nil
		}
	case c == '\\':
		if ascii, ok := asciiEscape(d); ok {
			c = ascii
		}
	}
	return x.begins[x.starts[c]]
}

// finder is one search.
type finder struct {
	*index
	d     []byte
	final bool     // nothing follows d
	hold  int      // the first place from which a match may reach beyond d
	found *[]match // behind a pointer, so that d need not live on the heap
}

// find appends to found what stands in d, in the order of where it starts and,
// of those that start together, the longest first. It stops before hold, the
// first place from which a match may reach beyond d: len(d) if final says that
// nothing follows.
func (x *index) find(d []byte, final bool, found []match) (_ []match, hold int) {
	f := finder{index: x, d: d, final: final, hold: len(d), found: &found}
	f.leap()
	f.tail()
	if len(found) > 0 {
		found = slices.DeleteFunc(found, func(m match) bool { return m.start >= f.hold })
		slices.SortFunc(found, func(a, b match) int {
			return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(b.end, a.end), cmp.Compare(a.ref, b.ref))
		})
		found = slices.Compact(found)
	}
	return found, f.hold
}

// leap goes through d from one possible end of the first bytes, d[i-size:i], to
// the next. size is more than four.
func (f *finder) leap() {
	d, x := f.d, f.index
	full := x.size - block + 1
next:
	for i := x.size; i <= len(d); {
		if !x.has(d[i-4:]) {
			i += full
			// Most leaps are full ones. Four of them at once do not wait for
			// each other.
			for i+3*full <= len(d) && !x.has(d[i-4:]) && !x.has(d[i+full-4:]) && !x.has(d[i+2*full-4:]) && !x.has(d[i+3*full-4:]) {
				i += 4 * full
			}
			continue
		}
		for back := block; back <= again*block && back+block < x.size; back += block {
			if !x.has(d[i-back-4:]) {
				i += full - back
				continue next
			}
		}
		if start := i - x.size; x.begun(d[start:]) {
			for _, p := range x.at(d[start:]) {
				f.try(p, start)
			}
		}
		i++
	}
}

// try looks whether p stands at start.
func (f *finder) try(p *pattern, start int) {
	end, o := p.match(f.d, start)
	switch {
	case o == partial && !f.final:
		f.hold = min(f.hold, start)
	case end > 0:
		*f.found = append(*f.found, match{start, end, p.ref})
	}
}

// tail looks for beginnings of matches of which d has less than the first
// bytes.
func (f *finder) tail() {
	if f.final {
		return
	}
	for i := max(0, len(f.d)-f.size+1); i < f.hold; i++ {
		if f.starts[f.d[i]] == 0 {
			continue
		}
		for _, p := range f.at(f.d[i:]) {
			if _, o := p.match(f.d, i); o == partial {
				f.hold = i
				return
			}
		}
	}
}
