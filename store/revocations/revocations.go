// Package revocations is the index of what is revoked: tokens, sessions,
// tasks, agents.
//
// Promises: a check takes no lock, allocates nothing and costs the same with
// a million entries as with none; an entry costs at most 40 bytes here; what
// has been saved is durable; what has expired stops counting by itself. It
// may not know tokens, requests or the audit log: Save and Enforce are
// separate so that the audit log's writer can put a revocation into force at
// its place in the log's order.
package revocations

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyvault/caddyvault/store"
	"github.com/go-json-experiment/json"
)

// Limits of a revocation.
const (
	// MaxID is the longest id, in bytes.
	MaxID = 256
	// MaxReason is the longest reason, in characters.
	MaxReason = 256
)

// ErrInvalid: a revocation has no or too long an id, too long a reason, or a
// kind that does not exist.
var ErrInvalid = errors.New("revocation invalid")

// Kind is what an id names.
type Kind uint8

// The kinds.
const (
	Token Kind = iota + 1
	Session
	Task
	Agent
	kindEnd
)

var kindNames = [kindEnd]string{"", "token", "session", "task", "agent"}

// String returns "token", "session", "task" or "agent".
func (k Kind) String() string {
	if k == 0 || k >= kindEnd {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// ParseKind is the inverse of String.
func ParseKind(s string) (Kind, bool) {
	i := slices.Index(kindNames[1:], s)
	return Kind(i + 1), i >= 0
}

// Revocation is one thing revoked.
type Revocation struct {
	Kind Kind
	ID   string // at most MaxID bytes

	// Owner is the agent whose token, session or task of that id is meant, at
	// most MaxID bytes; empty means whoever's it is. Agents choose the ids of
	// sessions and tasks themselves, so one id may be several agents'.
	Owner string

	Reason  string // at most MaxReason characters
	Since   time.Time
	Expires time.Time // when it stops counting; zero: never
}

// Key is a keyed 128-bit hash of a kind and an id. It is good for one Set
// only and may be kept, for instance with a verified token. The zero Key
// stands for nothing and is never revoked.
type Key [2]uint64

// Options of a Set; the zero value is usable.
type Options struct {
	Now func() time.Time // default: time.Now
}

// Set is what is revoked. All methods may be called concurrently.
type Set struct {
	st    store.Store
	now   func() time.Time
	seeds [2]maphash.Seed

	table atomic.Pointer[table]
	mu    sync.Mutex // writers of table
	hooks atomic.Pointer[[]func(Revocation)]
}

// record is the value in the store; kind, id and expiry are the key's and
// the entry's.
type record struct {
	Reason string `json:"reason,omitempty"`
	Since  int64  `json:"since"` // Unix milliseconds

	// Owner and ID are those of a revocation with an owner: its key holds
	// their digest, as the two together may be too long for one.
	Owner string `json:"owner,omitempty"`
	ID    string `json:"id,omitempty"`
}

// owned is added to the kind in a Key that has an owner, and ownedSuffix to
// its name in the store.
const (
	owned       = 8
	ownedSuffix = "-of"
)

// Open loads all live revocations of st.
func Open(ctx context.Context, st store.Store, opts Options) (*Set, error) {
	s := &Set{st: st, now: opts.Now, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	if s.now == nil {
		s.now = time.Now
	}
	t := newTable(0)
	var bad error
	err := store.Range(ctx, st, store.Revocations, func(e store.Entry) bool {
		kind, _, id, ok := splitKey(e.Key)
		if !ok {
			// Not ours to drop: an unknown kind may be a newer version's
			// kill switch.
			bad = fmt.Errorf("revocations: unknown entry %q", e.Key)
			return false
		}
		if t.full() {
			// Nobody reads yet. Room for many is soon needed, and what is too
			// much is given back below.
			t = t.moved(4*t.used, 0)
		}
		t.set(s.Key(kind, id), millis(e.Expires))
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return nil, fmt.Errorf("load revocations: %w", err)
	}
	s.table.Store(t.rebuilt(s.now().UnixMilli()))
	return s, nil
}

// Key returns the key of an id; the zero Key for an empty id.
func (s *Set) Key(kind Kind, id string) Key {
	if id == "" {
		return Key{}
	}
	// The kind goes in front of the hash rather than of the string, which
	// would have to be copied.
	k := Key{
		mix(maphash.String(s.seeds[0], id), uint64(kind)),
		mix(maphash.String(s.seeds[1], id), uint64(kind)),
	}
	if k[0] == 0 { // marks an empty slot
		k[0] = 1
	}
	return k
}

// OwnedKey is Key for what is an owner's only; the zero Key for an empty id or
// owner. See Revocation.Owner.
func (s *Set) OwnedKey(kind Kind, owner, id string) Key {
	if id == "" || owner == "" {
		return Key{}
	}
	return s.Key(kind+owned, ownedID(owner, id))
}

// key returns the key of a revocation.
func (s *Set) key(r Revocation) Key {
	if r.Owner != "" {
		return s.OwnedKey(r.Kind, r.Owner, r.ID)
	}
	return s.Key(r.Kind, r.ID)
}

// ownedID stands in for an owner and an id. The length keeps two pairs apart
// that read the same one after the other.
func ownedID(owner, id string) string {
	b := make([]byte, 0, 128)
	b = append(strconv.AppendInt(b, int64(len(owner)), 10), ':')
	sum := sha256.Sum256(append(append(b, owner...), id...))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// mix spreads h and the kind over 64 bits, one-to-one for a given kind
// (the finalizer of SplitMix64).
func mix(h, kind uint64) uint64 {
	h += kind * 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// Save makes r durable. It is not in force until Enforce; a crash in between
// puts it into force at the next Open.
func (s *Set) Save(ctx context.Context, r Revocation) error {
	key, err := storeKey(r.Kind, r.Owner, r.ID)
	if err != nil {
		return err
	}
	if len(r.Reason) > 4*MaxReason || len([]rune(r.Reason)) > MaxReason {
		return fmt.Errorf("%w: reason longer than %d characters", ErrInvalid, MaxReason)
	}
	rec := record{Reason: strings.ToValidUTF8(r.Reason, "\uFFFD"), Since: r.Since.UnixMilli()}
	if r.Owner != "" {
		rec.Owner, rec.ID = r.Owner, r.ID
	}
	value, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("revocation of a %s: %w", r.Kind, err)
	}
	if _, err := s.st.Put(ctx, key, value, store.AnyRev, r.Expires); err != nil {
		return fmt.Errorf("save revocation of a %s: %w", r.Kind, err)
	}
	return nil
}

// Enforce puts r into force at once and then calls the hooks. It does no
// I/O. An id that Save would refuse is ignored.
func (s *Set) Enforce(r Revocation) {
	if _, err := storeKey(r.Kind, r.Owner, r.ID); err != nil {
		return
	}
	s.put(s.key(r), millis(r.Expires))
	if hooks := s.hooks.Load(); hooks != nil {
		for _, f := range *hooks {
			f(r)
		}
	}
}

// Lift undoes a revocation: durably, then in force. The owner is that of the
// revocation, empty if it has none. store.ErrNotFound if there is none.
func (s *Set) Lift(ctx context.Context, kind Kind, owner, id string) error {
	key, err := storeKey(kind, owner, id)
	if err != nil {
		return err
	}
	if _, err := s.st.Delete(ctx, key, store.AnyRev); err != nil {
		return fmt.Errorf("lift revocation of a %s: %w", kind, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.table.Load().find(s.key(Revocation{Kind: kind, Owner: owner, ID: id})); e != nil {
		e.exp.Store(lifted)
	}
	return nil
}

// Revoked reports whether k is revoked at now.
func (s *Set) Revoked(k Key, now time.Time) bool {
	if k == (Key{}) {
		return false
	}
	e := s.table.Load().find(k)
	return e != nil && !past(e.exp.Load(), now.UnixMilli())
}

// Any returns the index of the first of keys that is revoked at now, or -1.
func (s *Set) Any(now time.Time, keys ...Key) int {
	t, ms := s.table.Load(), now.UnixMilli()
	for i, k := range keys {
		if k == (Key{}) {
			continue
		}
		if e := t.find(k); e != nil && !past(e.exp.Load(), ms) {
			return i
		}
	}
	return -1
}

// List returns what the store holds, sorted by kind and id.
func (s *Set) List(ctx context.Context) ([]Revocation, error) {
	var list []Revocation
	err := store.Range(ctx, s.st, store.Revocations, func(e store.Entry) bool {
		_, kind, id, ok := splitKey(e.Key)
		if !ok {
			return true
		}
		r := Revocation{Kind: kind, ID: strings.Clone(id), Expires: e.Expires}
		var v record
		if json.Unmarshal(e.Value, &v) == nil { // what is revoked is, whatever its reason
			r.Reason, r.Since = v.Reason, time.UnixMilli(v.Since)
			if v.Owner != "" {
				r.Owner, r.ID = v.Owner, v.ID
			}
		}
		list = append(list, r)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("list revocations: %w", err)
	}
	slices.SortFunc(list, func(a, b Revocation) int {
		if a.Kind != b.Kind {
			return int(a.Kind) - int(b.Kind)
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, nil
}

// OnEnforce has f called for every later Enforce, once the revocation is in
// force, by the goroutine that enforces: f must be quick.
func (s *Set) OnEnforce(f func(Revocation)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var hooks []func(Revocation)
	if old := s.hooks.Load(); old != nil {
		hooks = slices.Clone(*old)
	}
	hooks = append(hooks, f)
	s.hooks.Store(&hooks)
}

// put sets the expiry of k. Readers go on with the old table while a new
// one is built; as only the writer claims slots, nothing is missed.
func (s *Set) put(k Key, exp int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if t.full() {
		t = t.rebuilt(s.now().UnixMilli())
		t.set(k, exp)
		s.table.Store(t)
		return
	}
	t.set(k, exp)
}

// millis returns t in Unix milliseconds, rounded up; 0 for the zero time.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	ms := t.UnixMilli()
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return max(ms, lifted) // 0 means never
}

func storeKey(kind Kind, owner, id string) (string, error) {
	switch {
	case kind == 0 || kind >= kindEnd || kind == Agent && owner != "":
		return "", fmt.Errorf("%w: no such kind", ErrInvalid)
	case id == "":
		return "", fmt.Errorf("%w: empty id", ErrInvalid)
	case len(id) > MaxID || len(owner) > MaxID:
		return "", fmt.Errorf("%w: id longer than %d bytes", ErrInvalid, MaxID)
	case owner != "":
		return store.Revocations + kind.String() + ownedSuffix + "/" + ownedID(owner, id), nil
	}
	return store.Revocations + kind.String() + "/" + id, nil
}

// splitKey returns the kind as Key takes it, the kind alone, and the id or what
// stands in for it.
func splitKey(key string) (hashed, kind Kind, id string, ok bool) {
	name, id, ok := strings.Cut(strings.TrimPrefix(key, store.Revocations), "/")
	if !ok || id == "" {
		return 0, 0, "", false
	}
	base, isOwned := strings.CutSuffix(name, ownedSuffix)
	if kind, ok = ParseKind(base); !ok || isOwned && kind == Agent {
		return 0, 0, "", false
	}
	if isOwned {
		return kind + owned, kind, id, true
	}
	return kind, kind, id, true
}
