package token

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyvault/caddyvault/store/fsx"
)

// State is where a key of a Ring is in its life.
type State string

// The states, in their order.
const (
	Published  State = "published"   // others may learn it; it does not sign yet
	Active     State = "active"      // it signs
	VerifyOnly State = "verify-only" // another has taken over, and its tokens are good to their end
	Retired    State = "retired"     // its tokens are good no more
)

// verifyFor is how long a key verifies after another has taken over: the
// longest life of a token, and room for clocks.
const verifyFor = MaxTTL + 2*time.Minute

// keepRetired is how many retired keys are remembered, by their ids.
const keepRetired = 100

// RingKey is one key of a Ring.
type RingKey struct {
	Key
	Created    time.Time // zero for a key of before there were rings
	ActiveFrom time.Time
	Retired    time.Time // zero unless it is

	kid, alg string // of a retired key, of which no more is kept
}

// Kid returns the key's id.
func (k RingKey) Kid() string {
	if k.m == nil {
		return k.kid
	}
	return k.m.kid
}

// Algorithm returns the key's algorithm.
func (k RingKey) Algorithm() string {
	if k.m == nil {
		return k.alg
	}
	return k.m.method.Alg()
}

// Ring is the set of keys that the vault makes for itself, in one private
// file. What state a key is in follows from the clock alone: of each algorithm
// the newest whose time has come signs. It is safe for use by many goroutines.
type Ring struct {
	path string
	now  func() time.Time

	mu   sync.Mutex // of changes
	view atomic.Pointer[ringView]
}

// ringView is what a Ring holds at one time; it never changes.
type ringView struct {
	gen  uint64
	keys []RingKey // by ActiveFrom
}

// OpenRing reads the keys in the file at path (PEM, mode 0600). No file is an
// empty ring. A key whose id retired has is one of which the caller knows that
// it was retired, though the file may be an older copy that does not.
//
// Links and other file types, a file that others can read, and one that holds
// anything but keys are errors: a signing key is never made in the place of
// another.
func OpenRing(path string, now func() time.Time, retired func(kid string) bool) (*Ring, error) {
	r := &Ring{path: path, now: now}
	dir, err := fsx.OpenDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	defer dir.Close()
	var keys []RingKey
	switch data, err := dir.ReadPrivate(filepath.Base(path)); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("signing key: %w", err)
	default:
		if keys, err = parseKeys(data); err != nil {
			return nil, fmt.Errorf("signing key %s: %w", path, err)
		}
	}
	for i, k := range keys {
		if k.m != nil && retired != nil && retired(k.Kid()) {
			keys[i] = tombstone(k, now())
		}
	}
	r.view.Store(newView(0, keys))
	return r, nil
}

func newView(gen uint64, keys []RingKey) *ringView {
	slices.SortStableFunc(keys, func(a, b RingKey) int { return a.ActiveFrom.Compare(b.ActiveFrom) })
	return &ringView{gen, keys}
}

// tombstone is what is left of a key that is retired.
func tombstone(k RingKey, at time.Time) RingKey {
	return RingKey{kid: k.Kid(), alg: k.Algorithm(), Created: k.Created, ActiveFrom: k.ActiveFrom, Retired: at}
}

// state returns where the i-th key is at now, and false once its last token
// has expired and it is of no more use.
func (v *ringView) state(i int, now time.Time) (State, bool) {
	k := v.keys[i]
	if !k.Retired.IsZero() {
		return Retired, true
	}
	if k.ActiveFrom.After(now) {
		return Published, true
	}
	for _, next := range v.keys[i+1:] {
		// One that has signed took over, though it may be retired since.
		signed := next.Retired.IsZero() || !next.Retired.Before(next.ActiveFrom)
		if signed && next.Algorithm() == k.Algorithm() && !next.ActiveFrom.After(now) {
			return VerifyOnly, now.Before(next.ActiveFrom.Add(verifyFor))
		}
	}
	return Active, true
}

// signing returns the key of an algorithm that signs at now.
func (v *ringView) signing(alg string, now time.Time) (Key, bool) {
	for i := len(v.keys) - 1; i >= 0; i-- {
		if s, _ := v.state(i, now); s == Active && v.keys[i].Algorithm() == alg {
			return v.keys[i].Key, true
		}
	}
	return Key{}, false
}

// next returns when a state changes next without anyone's doing.
func (v *ringView) next(now time.Time) (at time.Time) {
	consider := func(t time.Time) {
		if t.After(now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for _, k := range v.keys {
		consider(k.ActiveFrom)
		consider(k.ActiveFrom.Add(verifyFor)) // of the one before it
	}
	return at
}

// Ensure returns the key of an algorithm that signs now. If there is none it
// is made and on disk before it is returned; without mayCreate, that there is
// no file at all is an error that matches fs.ErrNotExist.
func (r *Ring) Ensure(alg string, mayCreate bool) (Key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, now := r.view.Load(), r.now()
	if k, ok := v.signing(alg, now); ok {
		return k, nil
	}
	if len(v.keys) == 0 && !mayCreate {
		return Key{}, fmt.Errorf("signing key %s: %w", r.path, fs.ErrNotExist)
	}
	k, err := r.add(v, alg, now, now)
	return k.Key, err
}

// Rotate makes a key that signs from a time on.
func (r *Ring) Rotate(alg string, from time.Time) (RingKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.add(r.view.Load(), alg, r.now(), from)
}

func (r *Ring) add(v *ringView, alg string, now, from time.Time) (RingKey, error) {
	k, err := newKey(alg)
	if err != nil {
		return RingKey{}, fmt.Errorf("signing key: %w", err)
	}
	added := RingKey{Key: k, Created: now, ActiveFrom: from}
	return added, r.save(v, append(slices.Clone(v.keys), added), now)
}

// Retire ends a key: its tokens are good no more, here from the moment Kill is
// called, and after a restart in any case. If it is the one that signs,
// another takes its place at once, and is returned; else next has no id. The
// error matches fs.ErrNotExist if there is no such key.
func (r *Ring) Retire(kid string) (dead, next RingKey, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, now := r.view.Load(), r.now()
	i := slices.IndexFunc(v.keys, func(k RingKey) bool { return k.m != nil && k.Kid() == kid })
	if i < 0 {
		return dead, next, fmt.Errorf("signing key: no such key: %w", fs.ErrNotExist)
	}
	keys := slices.Clone(v.keys)
	dead = keys[i]
	state, _ := v.state(i, now)
	keys[i] = tombstone(dead, now)
	if state == Active {
		k, err := newKey(dead.Algorithm())
		if err != nil {
			return dead, next, fmt.Errorf("signing key: %w", err)
		}
		next = RingKey{Key: k, Created: now, ActiveFrom: now}
		keys = append(keys, next)
	}
	return dead, next, r.save(v, keys, now)
}

// Kill puts the retirement of a key into force, for tokens that are remembered
// and calls under way too.
func (k Key) Kill() {
	if k.m != nil {
		k.m.dead.Store(true)
	}
}

// Dead reports whether Kill was called.
func (k Key) Dead() bool { return k.m != nil && k.m.dead.Load() }

// save writes the keys that are of any use, and shows them.
func (r *Ring) save(old *ringView, keys []RingKey, now time.Time) error {
	v := newView(old.gen+1, keys)
	retired := 0
	for i := len(v.keys) - 1; i >= 0; i-- {
		s, useful := v.state(i, now)
		if s == Retired {
			retired++
		}
		if !useful || retired > keepRetired {
			v.keys = slices.Delete(v.keys, i, i+1)
		}
	}
	data, err := formatKeys(v.keys)
	if err != nil {
		return fmt.Errorf("signing key: %w", err)
	}
	if err := fsx.WriteAtomic(filepath.Dir(r.path), filepath.Base(r.path), data, 0o600); err != nil {
		return fmt.Errorf("signing key: %w", err)
	}
	r.view.Store(v)
	return nil
}

// KeyInfo is what may be told of a key.
type KeyInfo struct {
	Kid        string
	Algorithm  string
	State      State
	Created    time.Time // zero if it is not known
	ActiveFrom time.Time // the same
	Retired    time.Time // zero unless it is
}

// List returns the keys, the oldest first.
func (r *Ring) List() []KeyInfo {
	v, now := r.view.Load(), r.now()
	var out []KeyInfo
	for i, k := range v.keys {
		if s, useful := v.state(i, now); useful {
			out = append(out, KeyInfo{k.Kid(), k.Algorithm(), s, k.Created, k.ActiveFrom, k.Retired})
		}
	}
	return out
}

// Newest returns when the newest key of an algorithm began to sign or will,
// and false if there is none.
func (r *Ring) Newest(alg string) (time.Time, bool) {
	v := r.view.Load()
	for _, k := range slices.Backward(v.keys) {
		if k.Retired.IsZero() && k.Algorithm() == alg {
			return k.ActiveFrom, true
		}
	}
	return time.Time{}, false
}
