package scrub

import "math/bits"

// A pattern that has % or \ for a character is read in several ways at once:
// what looks like an escape may be one, or stand for itself. The places that
// those ways have come to in the pattern are the bits of a set, so that all of
// them go on together.

// ring is how many sets are under way: an escape leads to one of the next.
const ring = 2*longestEscape + 1

// newMasks returns by byte the set of the elements that it can stand for.
func newMasks(elems []element) *[256][]uint64 {
	var masks [256][]uint64
	for at, e := range elems {
		for _, b := range e {
			if masks[b] == nil {
				masks[b] = make([]uint64, len(elems)/64+1)
			}
			masks[b][at/64] |= 1 << (at % 64)
		}
	}
	return &masks
}

// matchAmbiguous does what match does, for ambiguous patterns. Of several ends
// it returns the last; it is partial as long as there may be a later one.
func (p *pattern) matchAmbiguous(d []byte, i int) (end int, o outcome) {
	if i < len(d) && d[i] != '%' && d[i] != '\\' && !p.elems[0].has(d[i]) {
		return 0, no
	}
	words := len(p.elems)/64 + 1
	var room [4 * ring]uint64
	sets := room[:]
	if words > 4 {
		sets = make([]uint64, words*ring)
	}
	set := func(i int) []uint64 { return sets[i%ring*words:][:words] }
	last, done := len(p.elems)/64, uint64(1)<<(len(p.elems)%64)

	open := false
	set(i)[0] = 1
	for ahead := i; i <= ahead; i++ {
		here := set(i)
		if here[last]&done != 0 {
			here[last] &^= done
			end, o = i, yes
		}
		if empty(here) {
			continue
		}
		if i == len(d) {
			open = true
			break
		}
		if step(set(i+1), here, p.masks[d[i]]) {
			ahead = max(ahead, i+1)
		}
		if e, o := decode(d[i:]); o == partial {
			open = open || p.mayGoOn(here, d[i:])
		} else if o == yes && p.escape(set(i+e.size), here, e) {
			ahead = max(ahead, i+e.size)
		}
		clear(here)
	}
	if open {
		return end, partial
	}
	return end, o
}

func empty(set []uint64) bool {
	for _, w := range set {
		if w != 0 {
			return false
		}
	}
	return true
}

// step adds to a set what comes behind those elements of another that are in
// the mask, and reports whether there are any.
func step(to, from, mask []uint64) bool {
	if mask == nil {
		return false
	}
	var carry, all uint64
	for w := range from {
		v := from[w] & mask[w]
		to[w] |= v<<1 | carry
		carry, all = v>>63, all|v
	}
	return all != 0
}

// escape does the same for an escape, which may stand for several elements.
func (p *pattern) escape(to, from []uint64, e escaped) bool {
	if e.n == 1 {
		return step(to, from, p.masks[e.bytes[0]])
	}
	found := false
next:
	for at := range members(from) {
		if at+e.n > len(p.elems) {
			continue
		}
		for k := range e.n {
			if !p.elems[at+k].has(e.bytes[k]) {
				continue next
			}
		}
		to[(at+e.n)/64] |= 1 << ((at + e.n) % 64)
		found = true
	}
	return found
}

// mayGoOn reports whether the cut escape d can be completed to one of the
// elements of a set.
func (p *pattern) mayGoOn(set []uint64, d []byte) bool {
	for at := range members(set) {
		if p.mayBecome(d, at) {
			return true
		}
	}
	return false
}

// members are what a set has.
func members(set []uint64) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i, w := range set {
			for ; w != 0; w &= w - 1 {
				if !yield(i*64 + bits.TrailingZeros64(w)) {
					return
				}
			}
		}
	}
}
