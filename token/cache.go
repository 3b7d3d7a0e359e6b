package token

import (
	"hash/maphash"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"
)

const (
	// stripes is how many parts of the cache can be written at once.
	stripes = 64

	// ways is how many places one token may be in.
	ways = 8

	// typicalEntry is about what an ordinary token costs; it decides how many
	// places there are for a bound in bytes.
	typicalEntry = 2 << 10
)

// cache remembers verified tokens under their whole text. Looking one up takes
// no lock and, for a token in use, writes nothing that other processors read.
//
// It is a table of sets of eight places. A token's keyed hash, which nobody
// outside the process can predict, names its set; the full text decides. The
// places of a stripe share a bound in bytes, and a hand that goes around them
// gives every token that was used since its last visit a second chance.
type cache struct {
	seed    maphash.Seed
	shift   int // hash >> shift is the set
	slots   []atomic.Pointer[entry]
	stripes [stripes]stripe
	budget  int // bytes of a stripe
}

// stripe guards the writing of a contiguous range of places.
type stripe struct {
	mu    sync.Mutex
	bytes int
	hand  int
	_     [40]byte // a cache line of its own
}

// entry is a remembered token. Only used changes.
type entry struct {
	hash     uint64
	raw      string
	verified Verified
	life
	cost int
	used atomic.Bool
}

func newCache(size int) *cache {
	sets := max(stripes, 1<<bits.Len(uint(size/typicalEntry/ways)))
	return &cache{
		seed:   maphash.MakeSeed(),
		shift:  64 - bits.Len(uint(sets-1)),
		slots:  make([]atomic.Pointer[entry], sets*ways),
		budget: size / stripes,
	}
}

func (c *cache) hash(raw string) uint64 { return maphash.String(c.seed, raw) }

// set returns the places of a hash.
func (c *cache) set(hash uint64) []atomic.Pointer[entry] {
	i := int(hash>>c.shift) * ways
	return c.slots[i : i+ways : i+ways]
}

// stripeOf returns the stripe of a hash and its places.
func (c *cache) stripeOf(hash uint64) (*stripe, []atomic.Pointer[entry]) {
	n := len(c.slots) / stripes
	i := int(hash >> (64 - 6)) // the top bits: a stripe is a run of sets
	return &c.stripes[i], c.slots[i*n : (i+1)*n]
}

// get returns the entry of raw, or nil. The caller looks at its times.
func (c *cache) get(hash uint64, raw string) *entry {
	set := c.set(hash)
	for i := range set {
		// Two texts with one hash do not happen by an attacker's choice, so
		// how long the comparison takes tells nothing.
		if e := set[i].Load(); e != nil && e.hash == hash && e.raw == raw {
			if !e.used.Load() {
				e.used.Store(true)
			}
			return e
		}
	}
	return nil
}

// put remembers v as what raw says, and returns what is remembered: if another
// caller was faster, what that one put there.
func (c *cache) put(hash uint64, raw string, v *Verified, l life, now int64) *Verified {
	cost := cost(raw, v)
	if cost > c.budget {
		return v
	}
	st, slots := c.stripeOf(hash)
	st.mu.Lock()
	defer st.mu.Unlock()

	set := c.set(hash)
	victim := st.hand % ways // where all are equally good, not always the same
	for i := range set {
		e := set[i].Load()
		if e != nil && e.hash == hash && e.raw == raw {
			if e.in(now) {
				return &e.verified
			}
			victim = i
			break
		}
		if better(e, set[victim].Load(), now) {
			victim = i
		}
	}
	if e := set[victim].Load(); e != nil && e.used.Load() {
		// All of the set is in use: each has to be used again to stay.
		st.hand++
		for i := range set {
			if e := set[i].Load(); e != nil {
				e.used.Store(false)
			}
		}
	}
	// The caller's string may be a piece of a whole request.
	e := &entry{hash: hash, raw: strings.Clone(raw), verified: *v, life: l, cost: cost}
	st.replace(&set[victim], e)
	for st.bytes > c.budget {
		st.advance(slots, e, now)
	}
	return &e.verified
}

// better reports whether a is a better place to give up than b: an empty one,
// then one past its time, then one that was not used lately.
func better(a, b *entry, now int64) bool {
	rank := func(e *entry) int {
		switch {
		case e == nil:
			return 3
		case !e.in(now):
			return 2
		case !e.used.Load():
			return 1
		}
		return 0
	}
	return rank(a) > rank(b)
}

// replace puts e, or nothing, into slot and keeps count.
func (st *stripe) replace(slot *atomic.Pointer[entry], e *entry) {
	if old := slot.Swap(e); old != nil {
		st.bytes -= old.cost
	}
	if e != nil {
		st.bytes += e.cost
	}
}

// advance moves the hand by one place and drops what is there, unless it has
// been used since the hand was last here, or is keep.
func (st *stripe) advance(slots []atomic.Pointer[entry], keep *entry, now int64) {
	st.hand = (st.hand + 1) % len(slots)
	slot := &slots[st.hand]
	e := slot.Load()
	if e == nil || e == keep {
		return
	}
	if e.in(now) && e.used.Swap(false) {
		return
	}
	st.replace(slot, nil)
}

// cost is about how many bytes an entry takes: itself, its strings as the
// allocator rounds them, and something for Ext.
func cost(raw string, v *Verified) int {
	const ext = 256
	str := func(s string) int { return (len(s) + 15) &^ 15 }
	n := int(unsafe.Sizeof(entry{})) + ext + str(raw)
	for _, s := range []string{
		v.Subject, v.Audience, v.Issuer, v.ID, v.Service,
		v.Context.AgentID, v.Context.SessionID, v.Context.TaskID, v.Context.SkillID, v.Context.Tool,
	} {
		n += str(s)
	}
	for _, list := range [...][]string{v.Scope, v.Groups} {
		n += cap(list) * int(unsafe.Sizeof(""))
		for _, s := range list {
			n += str(s)
		}
	}
	if v.Limits != nil || v.Chain != nil || v.Bound != nil {
		// What these hold was in the token, in base64 and with its names.
		const ancestor = 512 // with what Derive makes of it
		n += 2*len(raw) + len(v.Chain)*ancestor
	}
	return n
}
