//go:build !purego

package audit

import (
	"bytes"
	"crypto/fips140"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/cpu"
)

// wide says that this machine hashes sixteen messages at once, and that they
// come out as crypto/sha256 has them. Who wants a validated module (FIPS 140)
// gets that.
var wide = !fips140.Enabled() && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && wideWorks()

// wideState is the state of as many hashes, word by word.
type wideState [8][lanes]uint32

// compress16 takes blocks of 64 bytes into the states: the first of each
// message is at its offset from base. Only those whose bit is set in which
// change; the others' offsets must be good to read, too.
//
//go:noescape
func compress16(state *wideState, base *byte, off *[lanes]uint32, blocks int, which uint32)

// initial is the state at the beginning, FIPS 180-4, section 5.3.3.
var initial = func() (s wideState) {
	for i, v := range [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19} {
		for l := range lanes {
			s[i][l] = v
		}
	}
	return s
}()

// sum returns the hash in a lane.
func (s *wideState) sum(l int) (h [sha256.Size]byte) {
	for i := range s {
		binary.BigEndian.PutUint32(h[4*i:], s[i][l])
	}
	return h
}

// longest is how many blocks the longest message of a group may have that
// the shortest has not, beside the one or two at its end.
const longest = 2

// hashLinesWide puts the SHA-256 of each line of data into dst.
func hashLinesWide(dst [][sha256.Size]byte, data []byte, lines []line) {
	// Lines of one length fill all lanes to their end.
	order := make([]int, len(lines))
	for i := range order {
		order[i] = i
	}
	whole := func(i int) int { return (lines[i].to - lines[i].from) / sha256.BlockSize }
	slices.SortFunc(order, func(a, b int) int { return whole(a) - whole(b) })
	const room = (longest + 2) * sha256.BlockSize
	var rest [lanes * room]byte // what comes behind the blocks that all lines have, padded
	for ; len(order) >= lanes; order = order[lanes:] {
		group := order[:lanes]
		common := whole(group[0])
		var off, left [lanes]uint32
		clear(rest[:])
		for l, i := range group {
			off[l] = uint32(lines[i].from)
			if whole(i) > common+longest {
				continue
			}
			b := rest[l*room : (l+1)*room]
			n := copy(b, data[lines[i].from+common*sha256.BlockSize:lines[i].to])
			b[n] = 0x80
			end := (n + 1 + 8 + sha256.BlockSize - 1) / sha256.BlockSize * sha256.BlockSize
			binary.BigEndian.PutUint64(b[end-8:], uint64(lines[i].to-lines[i].from)*8)
			left[l] = uint32(end / sha256.BlockSize)
		}
		state := initial
		if common > 0 {
			compress16(&state, &data[0], &off, common, 1<<lanes-1)
		}
		for n := range uint32(longest + 2) {
			which := uint32(0)
			for l := range lanes {
				off[l] = uint32(l)*room + n*sha256.BlockSize
				if left[l] > n {
					which |= 1 << l
				}
			}
			if which == 0 {
				break
			}
			compress16(&state, &rest[0], &off, 1, which)
		}
		for l, i := range group {
			if left[l] == 0 {
				dst[i] = sha256.Sum256(data[lines[i].from:lines[i].to])
			} else {
				dst[i] = state.sum(l)
			}
		}
	}
	for _, i := range order {
		dst[i] = sha256.Sum256(data[lines[i].from:lines[i].to])
	}
}

// padded hashes messages of one length, each of which lies in the blocks of a
// lane with its padding.
type padded struct {
	room []byte
	off  [lanes]uint32
	size int // of a lane
}

// newPadded makes room for messages of n bytes that begin with first.
func newPadded(first byte, n int) *padded {
	p := &padded{size: (n + 1 + 8 + sha256.BlockSize - 1) / sha256.BlockSize * sha256.BlockSize}
	p.room = make([]byte, lanes*p.size)
	for l := range lanes {
		b := p.room[l*p.size : (l+1)*p.size]
		b[0], b[n] = first, 0x80
		binary.BigEndian.PutUint64(b[p.size-8:], uint64(n)*8)
		p.off[l] = uint32(l * p.size)
	}
	return p
}

func (p *padded) sums() wideState {
	state := initial
	compress16(&state, &p.room[0], &p.off, p.size/sha256.BlockSize, 1<<lanes-1)
	return state
}

// leafHashesWide is leafHashes for as many as fill all lanes; it returns how
// many these are.
func leafHashesWide(dst []tlog.Hash, sums [][sha256.Size]byte) int {
	p := newPadded(0, 1+sha256.Size)
	done := 0
	for ; len(sums)-done >= lanes; done += lanes {
		for l := range lanes {
			copy(p.room[l*p.size+1:], sums[done+l][:])
		}
		state := p.sums()
		for l := range lanes {
			dst[done+l] = state.sum(l)
		}
	}
	return done
}

// nodeHashesWide is the same for nodes.
func nodeHashesWide(dst, below []tlog.Hash) int {
	p := newPadded(1, 1+2*sha256.Size)
	done := 0
	for ; len(below)/2-done >= lanes; done += lanes {
		for l := range lanes {
			b := p.room[l*p.size+1:]
			copy(b, below[2*(done+l)][:])
			copy(b[sha256.Size:], below[2*(done+l)+1][:])
		}
		state := p.sums()
		for l := range lanes {
			dst[done+l] = state.sum(l)
		}
	}
	return done
}

// wideWorks compares one of everything.
func wideWorks() bool {
	data := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz"), 16)
	lines := make([]line, 3*lanes)
	sums := make([][sha256.Size]byte, len(lines))
	for i := range lines {
		lines[i].span = span{i, i + 11*i}
	}
	hashLinesWide(sums, data, lines)
	for i, l := range lines {
		if sums[i] != sha256.Sum256(data[l.from:l.to]) {
			return false
		}
	}
	leaves, nodes := make([]tlog.Hash, len(sums)), make([]tlog.Hash, len(sums)/2)
	for i := range leaves[:leafHashesWide(leaves, sums)] {
		if leaves[i] != leafHash(sums[i]) {
			return false
		}
	}
	for i := range nodes[:nodeHashesWide(nodes, leaves)] {
		if nodes[i] != tlog.NodeHash(leaves[2*i], leaves[2*i+1]) {
			return false
		}
	}
	return true
}
