package revocations

import (
	"math/bits"
	"sync/atomic"
)

// slot holds one key and until when it is revoked: 24 bytes.
//
// A slot is claimed for a key once and keeps it as long as its table lives;
// only exp changes afterwards. h0 is stored last, so a reader that sees it
// sees the rest.
type slot struct {
	h0, h1 atomic.Uint64
	exp    atomic.Int64 // Unix milliseconds; 0: never; 1: not revoked any more
}

// lifted as an expiry means that the slot's key is not revoked any more.
const lifted int64 = 1

// table is an open-addressing hash table with linear probing. Any number of
// goroutines may read while one writes.
type table struct {
	slots []slot
	used  int // claimed slots; for the writer only
}

// A table is rebuilt when maxLoad of it is used, to be at most newLoad full;
// so at 24 bytes a slot an entry costs 30 to 40 bytes.
const (
	minSlots       = 64
	maxNum, maxDen = 8, 10
	newNum, newDen = 8, 5 // slots for each live entry: 1.6
)

func newTable(live int) *table {
	return &table{slots: make([]slot, max(minSlots, live*newNum/newDen))}
}

// home is the first slot to look at: the high bits of h scaled to the table,
// which needs no power of two.
func (t *table) home(h uint64) int {
	hi, _ := bits.Mul64(h, uint64(len(t.slots)))
	return int(hi)
}

// find returns the slot that holds k or nil. Lock-free.
func (t *table) find(k Key) *slot {
	for i := t.home(k[0]); ; {
		s := &t.slots[i]
		switch h := s.h0.Load(); {
		case h == 0:
			return nil
		case h == k[0] && s.h1.Load() == k[1]:
			return s
		}
		if i++; i == len(t.slots) {
			i = 0
		}
	}
}

// full reports whether the table must be rebuilt before a new key is put in.
func (t *table) full() bool { return t.used*maxDen >= len(t.slots)*maxNum }

// set puts k in or changes its expiry. For the writer only; the table must
// not be full. It reports whether a slot was claimed for k.
func (t *table) set(k Key, exp int64) bool {
	for i := t.home(k[0]); ; {
		s := &t.slots[i]
		switch h := s.h0.Load(); {
		case h == 0:
			s.exp.Store(exp)
			s.h1.Store(k[1])
			s.h0.Store(k[0])
			t.used++
			return true
		case h == k[0] && s.h1.Load() == k[1]:
			s.exp.Store(exp)
			return false
		}
		if i++; i == len(t.slots) {
			i = 0
		}
	}
}

// rebuilt returns a copy without what has expired at now (Unix milliseconds),
// with room for more.
func (t *table) rebuilt(now int64) *table {
	live := 0
	for i := range t.slots {
		if s := &t.slots[i]; s.h0.Load() != 0 && !past(s.exp.Load(), now) {
			live++
		}
	}
	return t.moved(live, now)
}

// moved returns a copy with room for live entries, without what has expired.
func (t *table) moved(live int, now int64) *table {
	n := newTable(live)
	for i := range t.slots {
		s := &t.slots[i]
		if h0, exp := s.h0.Load(), s.exp.Load(); h0 != 0 && !past(exp, now) {
			n.set(Key{h0, s.h1.Load()}, exp)
		}
	}
	return n
}

func past(exp, now int64) bool { return exp != 0 && exp <= now }
