package scrub

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

const (
	// window is how many elements of a pattern the index knows at most. A
	// longer one leaps further and fills the table more.
	window = 48

	// block is how many bytes are looked at to decide how far to leap.
	block = 3

	// tableBits is the size of the table of leaps, 8 KiB: a part of what a
	// processor has closest.
	tableBits = 13
)

// index finds the places where a pattern may begin, by two searches that
// leave none out. Either the first size elements of a match are all literal:
// then they are found by leaps, as Wu and Manber do it, from one block of
// three bytes to the next that can be the last of those elements. Or one of
// them is escaped: then the first escape leads back to the beginning, because
// what stands before it is literal.
type index struct {
	patterns []*pattern
	size     int       // elements of each pattern that the index knows
	starts   [256]bool // first bytes of a match

	leaps   [1 << tableBits]uint8 // by the hash of a block, how far to go on
	escapes [256][]origin         // by what an escape stands for, what it may be part of
}

// origin is a place in a pattern.
type origin struct {
	p  *pattern
	at int
}

// match is a pattern found in d[start:end].
type match struct {
	start, end int
	ref        string
}

// newIndex indexes at least one pattern; each has at least MinLength elements.
func newIndex(all []*pattern) *index {
	x := &index{patterns: all, size: window}
	for _, p := range all {
		x.size = min(x.size, len(p.elems))
		for _, b := range p.elems[0] {
			x.starts[b] = true
		}
	}
	x.starts['%'], x.starts['\\'] = true, true

	for i := range x.leaps {
		x.leaps[i] = uint8(x.size - block + 1)
	}
	for _, p := range all {
		for at, e := range p.elems[:x.size] {
			x.escapes[e[0]] = append(x.escapes[e[0]], origin{p, at})
			if e[1] != e[0] {
				x.escapes[e[1]] = append(x.escapes[e[1]], origin{p, at})
			}
			if at+block > x.size {
				continue
			}
			leap := uint8(x.size - block - at)
			for choice := range 1 << block {
				var v uint32
				for k := range block {
					v |= uint32(p.elems[at+k][choice>>k&1]) << (8 * k)
				}
				x.leaps[hash(v)] = min(x.leaps[hash(v)], leap)
			}
		}
	}
	return x
}

// hash mixes the three bytes of a block.
func hash(v uint32) uint32 { return v * 0x9E3779B1 >> (32 - tableBits) }

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
	f.literal()
	f.percent()
	f.backslash()
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

// literal leaps through d from one possible end of a window to the next.
func (f *finder) literal() {
	d, x := f.d, f.index
	full := x.size - block + 1
	for i := x.size; i <= len(d); {
		// Most leaps are full ones. Four of them at once do not wait for each
		// other. The last byte of a window is d[i-1]; size is more than four.
		for i+3*full <= len(d) &&
			int(x.leap(d[i-4:])) == full && int(x.leap(d[i+full-4:])) == full &&
			int(x.leap(d[i+2*full-4:])) == full && int(x.leap(d[i+3*full-4:])) == full {
			i += 4 * full
		}
		if i > len(d) {
			return
		}
		if leap := x.leap(d[i-4:]); leap > 0 {
			i += int(leap)
			continue
		}
		for _, p := range x.patterns {
			f.try(p, i-x.size)
		}
		i++
	}
}

// leap returns how far to go on from the block that is d[1:4].
func (x *index) leap(d []byte) uint8 {
	return x.leaps[hash(binary.LittleEndian.Uint32(d)>>8)]
}

// percent goes from one percent escape to the next.
func (f *finder) percent() {
	d := f.d
	for i := 0; i+2 < len(d); {
		if d[i] != '%' {
			n := bytes.IndexByte(d[i:], '%')
			if n < 0 {
				return
			}
			i += n
			continue
		}
		high, low := nibble[d[i+1]], nibble[d[i+2]]
		if high|low > 15 {
			i++
			continue
		}
		f.back(i, high<<4|low)
		i += 3
	}
}

// backslash goes from one JSON escape to the next.
func (f *finder) backslash() {
	d := f.d
	for i := 0; i+1 < len(d); i++ {
		if d[i] != '\\' {
			n := bytes.IndexByte(d[i:], '\\')
			if n < 0 {
				return
			}
			if i += n; i+1 == len(d) {
				return
			}
		}
		if c := short[d[i+1]]; c != 0 {
			f.back(i, c)
		} else if c, ok := asciiEscape(d[i:]); ok {
			f.back(i, c)
		} else if d[i+1] == 'u' {
			if e, o := decode(d[i:]); o == yes {
				f.back(i, e.bytes[0])
			}
		}
	}
}

// back goes back from an escape that stands for c, or for a character that
// begins with it, to where a match would begin that has its first escape here.
func (f *finder) back(i int, c byte) {
	if from := f.escapes[c]; len(from) > 0 { // of most there is none
		f.backTo(i, from)
	}
}

func (f *finder) backTo(i int, origins []origin) {
	for _, from := range origins {
		start := i - from.at
		if start < 0 || from.at > 0 && !from.p.elems[from.at-1].has(f.d[i-1]) {
			continue
		}
		if from.p.begins(f.d[start:i]) {
			f.try(from.p, start)
		}
	}
}

// tail looks for matches of which d ends before the elements that the index
// knows. The other searches have seen all that go on further.
func (f *finder) tail() {
	if f.final {
		return
	}
	for i := max(0, len(f.d)-f.size*longestEscape-2*longestEscape); i < f.hold; i++ {
		if !f.starts[f.d[i]] {
			continue
		}
		for _, p := range f.patterns {
			if _, o := p.match(f.d, i); o == partial {
				f.hold = i
				return
			}
		}
	}
}

// begins reports whether the pattern begins with d, literally.
func (p *pattern) begins(d []byte) bool {
	// From the end: that is where most differ.
	for i := len(d) - 1; i >= 0; i-- {
		if !p.elems[i].has(d[i]) {
			return false
		}
	}
	return true
}
