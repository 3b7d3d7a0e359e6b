package file

import (
	"math/bits"
)

// logIndex maps the hash of a key to where its line is: 16 bytes a slot, at
// most 80 % full, so an entry costs 20 to 26 bytes and never its key. Two
// keys may share a hash; the caller compares the line's key.
type logIndex struct {
	slots []indexSlot
	used  int // slots not free
	live  int // slots that hold a line
}

// indexSlot is free if off is 0, which is where the log's header is.
type indexSlot struct {
	hash uint64
	off  int64 // -1: was removed
}

const removed int64 = -1

func newLogIndex(live int) *logIndex {
	return &logIndex{slots: make([]indexSlot, max(64, live*8/5))}
}

func (x *logIndex) home(h uint64) int {
	hi, _ := bits.Mul64(h, uint64(len(x.slots)))
	return int(hi)
}

// find returns the slot of hash whose offset satisfies is, or nil.
func (x *logIndex) find(hash uint64, is func(off int64) bool) *indexSlot {
	for i := x.home(hash); x.slots[i].off != 0; {
		if s := &x.slots[i]; s.hash == hash && s.off != removed && is(s.off) {
			return s
		}
		if i++; i == len(x.slots) {
			i = 0
		}
	}
	return nil
}

// has reports whether the line at off, whose key has hash, is current.
func (x *logIndex) has(hash uint64, off int64) bool {
	return x.find(hash, func(o int64) bool { return o == off }) != nil
}

// add puts in a key that is not there.
func (x *logIndex) add(hash uint64, off int64) {
	if x.used*10 >= len(x.slots)*8 {
		n := newLogIndex(x.live + 1)
		for _, s := range x.slots {
			if s.off > 0 {
				n.insert(s.hash, s.off)
			}
		}
		*x = *n
	}
	x.insert(hash, off)
}

func (x *logIndex) insert(hash uint64, off int64) {
	i := x.home(hash)
	for x.slots[i].off != 0 {
		if i++; i == len(x.slots) {
			i = 0
		}
	}
	x.slots[i] = indexSlot{hash, off}
	x.used++
	x.live++
}

// remove takes the key of s out.
func (x *logIndex) remove(s *indexSlot) {
	s.off = removed
	x.live--
}
