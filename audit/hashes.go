package audit

import (
	"crypto/sha256"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// To verify a log is to hash: each line, a leaf for it, and a node of the tree
// for that. What is here hashes many at once, where the machine can: what one
// machine finds wrong, another one does.

// lanes is how many messages are hashed at once.
const lanes = 16

// hashLines appends the SHA-256 of each line of data.
func hashLines(dst [][sha256.Size]byte, data []byte, lines []line) [][sha256.Size]byte {
	if wide && len(lines) >= lanes {
		n := len(dst)
		dst = slices.Grow(dst, len(lines))[:n+len(lines)]
		hashLinesWide(dst[n:], data, lines)
		return dst
	}
	for _, l := range lines {
		dst = append(dst, sha256.Sum256(data[l.from:l.to]))
	}
	return dst
}

// leafHashes appends the leaf of each line whose SHA-256 is given.
func leafHashes(dst []tlog.Hash, sums [][sha256.Size]byte) []tlog.Hash {
	if wide && len(sums) >= lanes {
		n := len(dst)
		dst = slices.Grow(dst, len(sums))[:n+len(sums)]
		done := leafHashesWide(dst[n:], sums)
		dst, sums = dst[:n+done], sums[done:]
	}
	for i := range sums {
		dst = append(dst, leafHash(sums[i]))
	}
	return dst
}

// nodeHashes appends the node above every two of below. An odd one at the end
// is left out.
func nodeHashes(dst, below []tlog.Hash) []tlog.Hash {
	if wide && len(below)/2 >= lanes {
		n := len(dst)
		dst = slices.Grow(dst, len(below)/2)[:n+len(below)/2]
		done := nodeHashesWide(dst[n:], below)
		dst, below = dst[:n+done], below[2*done:]
	}
	for i := 0; i+1 < len(below); i += 2 {
		dst = append(dst, tlog.NodeHash(below[i], below[i+1]))
	}
	return dst
}
