package audit

import (
	"crypto/sha256"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// The Merkle tree of RFC 6962, section 2.1, over the records. Leaf i is the
// record with seq i+1, and its data are the 32 bytes of that line's SHA-256,
// which the next line names as prev: an inclusion proof needs no record but
// the one it is about, and the tree costs the writer no second pass over the
// lines.

// leafHash is the hash of the leaf of a line with the SHA-256 sum.
func leafHash(sum [sha256.Size]byte) tlog.Hash {
	var b [1 + sha256.Size]byte // 0x00, section 2.1
	copy(b[1:], sum[:])
	return sha256.Sum256(b[:])
}

// frontier is the right edge of a tree of n leaves: for every bit l that is
// set in n, hash[l] is the root of a whole subtree of 1<<l leaves.
type frontier struct {
	n    uint64
	hash [64]tlog.Hash
}

// push puts a whole subtree of 1<<level leaves behind those that are there,
// whose number is a multiple of that. made, if set, is told of every subtree
// that becomes whole.
func (f *frontier) push(level int, h tlog.Hash, made func(level int, index uint64, h tlog.Hash)) {
	n := f.n
	l := level
	for ; n>>l&1 == 1; l++ {
		if made != nil {
			made(l, n>>l, h)
		}
		h = tlog.NodeHash(f.hash[l], h)
	}
	if made != nil {
		made(l, n>>l, h)
	}
	f.hash[l] = h
	f.n += 1 << level
}

// root is the hash of the tree.
func (f *frontier) root() tlog.Hash {
	if f.n == 0 {
		return sha256.Sum256(nil)
	}
	l := bits.TrailingZeros64(f.n)
	h := f.hash[l]
	for rest := f.n >> l >> 1; rest != 0; rest >>= 1 {
		l++
		if rest&1 == 1 {
			h = tlog.NodeHash(f.hash[l], h)
		}
	}
	return h
}

// peaks are the hashes of the frontier, the largest subtree first.
func (f *frontier) peaks() []tlog.Hash {
	var p []tlog.Hash
	for l := 63; l >= 0; l-- {
		if f.n>>l&1 == 1 {
			p = append(p, f.hash[l])
		}
	}
	return p
}

// newFrontier is the opposite of peaks. It is not ok if there are too many
// or too few.
func newFrontier(n uint64, peaks []tlog.Hash) (f frontier, ok bool) {
	if n > 1<<62 || bits.OnesCount64(n) != len(peaks) {
		return f, false
	}
	f.n = n
	for l := 63; l >= 0; l-- {
		if n>>l&1 == 1 {
			f.hash[l], peaks = peaks[0], peaks[1:]
		}
	}
	return f, true
}

// levels are all whole subtrees over a stretch of leaves: rows[l][i] is the
// one of 1<<l leaves with the index first[l]+i.
type levels struct {
	lo, hi uint64 // the leaves
	first  []uint64
	rows   [][]tlog.Hash
}

// build makes the levels over leaves, of which the first has the index lo.
// It takes the leaves over, and lends them back through rows[0].
func (v *levels) build(lo uint64, leaves []tlog.Hash) {
	v.lo, v.hi = lo, lo+uint64(len(leaves))
	v.first = append(v.first[:0], lo)
	rows := v.rows[:cap(v.rows)]
	if len(rows) == 0 {
		rows = append(rows, nil)
	}
	rows[0] = leaves
	n := 1
	for l := 0; ; l++ {
		below, first := rows[l], v.first[l]
		next := (first + 1) / 2
		skip := int(2*next - first)
		if len(below) < skip+2 {
			break
		}
		if n == len(rows) {
			rows = append(rows, nil)
		}
		rows[n] = nodeHashes(rows[n][:0], below[skip:])
		v.first = append(v.first, next)
		n++
	}
	v.rows = rows[:n]
}

// node returns the root of the subtree of 1<<level leaves with an index, if
// all of it is in the stretch.
func (v *levels) node(level int, index uint64) (h tlog.Hash, ok bool) {
	if level >= len(v.rows) || index < v.first[level] || index-v.first[level] >= uint64(len(v.rows[level])) {
		return h, false
	}
	return v.rows[level][index-v.first[level]], true
}

// advance puts the leaves of v up to n behind those of f. The leaves of v
// begin where f ends, or before.
func (f *frontier) advance(v *levels, n uint64, made func(level int, index uint64, h tlog.Hash)) {
	for f.n < n {
		l := bits.Len64(n-f.n) - 1
		if f.n != 0 {
			l = min(l, bits.TrailingZeros64(f.n))
		}
		h, ok := v.node(l, f.n>>l)
		if !ok {
			panic("audit: tree is not contiguous") // by construction
		}
		f.push(l, h, made)
	}
}
