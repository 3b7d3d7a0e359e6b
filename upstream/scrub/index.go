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
	window = 24

	// block is how many bytes are looked at to decide how far to leap.
	block = 3

	// tableBits is the size of the table of leaps, 32 KiB.
	tableBits = 15
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
	longest  int       // bytes that a match can have
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
		x.longest = max(x.longest, len(p.elems)*longestEscape)
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

// find appends to found what stands in d, in the order of where it starts and,
// of those that start together, the longest first. It stops before hold, the
// first place from which a match may reach beyond d: len(d) if final says that
// nothing follows.
func (x *index) find(d []byte, final bool, found []match) (_ []match, hold int) {
	hold = len(d)
	if !final {
		hold = x.open(d)
	}
	found = x.findLiteral(d, hold, found)
	found = x.findEscaped(d, hold, '%', found)
	found = x.findEscaped(d, hold, '\\', found)
	if len(found) > 1 {
		slices.SortFunc(found, func(a, b match) int {
			return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(b.end, a.end), cmp.Compare(a.ref, b.ref))
		})
		found = slices.Compact(found)
	}
	return found, hold
}

// open returns the first place in d where a match may begin that d does not
// have the end of, len(d) if there is none.
func (x *index) open(d []byte) int {
	for i := max(0, len(d)-x.longest); i < len(d); i++ {
		if !x.starts[d[i]] {
			continue
		}
		for _, p := range x.patterns {
			if _, o := p.match(d, i); o == partial {
				return i
			}
		}
	}
	return len(d)
}

// findLiteral leaps through d.
func (x *index) findLiteral(d []byte, hold int, found []match) []match {
	for i := x.size; i <= len(d); {
		// The last byte of a window is d[i-1]; size is more than four.
		leap := x.leaps[hash(binary.LittleEndian.Uint32(d[i-4:])>>8)]
		if leap > 0 {
			i += int(leap)
			continue
		}
		if start := i - x.size; start < hold {
			for _, p := range x.patterns {
				found = p.appendMatch(d, start, found)
			}
		}
		i++
	}
	return found
}

// findEscaped goes from one escape that begins with intro to the next.
func (x *index) findEscaped(d []byte, hold int, intro byte, found []match) []match {
	for i := 0; ; i++ {
		n := bytes.IndexByte(d[i:], intro)
		if n < 0 {
			return found
		}
		i += n
		e, o := decode(d[i:])
		if o != yes {
			continue
		}
		for _, from := range x.escapes[e.bytes[0]] {
			start := i - from.at
			if start >= 0 && start < hold && from.p.literal(d[start:i]) {
				found = from.p.appendMatch(d, start, found)
			}
		}
	}
}

// literal reports whether the pattern begins with d.
func (p *pattern) literal(d []byte) bool {
	// From the end: that is where most differ.
	for i := len(d) - 1; i >= 0; i-- {
		if !p.elems[i].has(d[i]) {
			return false
		}
	}
	return true
}

// appendMatch appends the match of p at start, if there is one.
func (p *pattern) appendMatch(d []byte, start int, found []match) []match {
	if end, _ := p.match(d, start); end > 0 {
		found = append(found, match{start, end, p.ref})
	}
	return found
}
