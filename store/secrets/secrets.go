// Package secrets keeps the real API keys: encrypted in the store, decrypted
// in memory.
//
// Promises: what is stored is AES-256-GCM (tink-go) under a keyset that a
// key-encryption key wraps; each ciphertext is bound to its name, version and
// origins, so that one that was changed, swapped, renamed or replaced by an
// older one is refused by name and never replaced by nothing; reading takes
// no lock; no error, log line or print shows a value. It may not know
// services, tokens or requests, nor how the store keeps what it is given.
package secrets

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/tink"
	"go.uber.org/zap"
)

// keysetName is the keyset that encrypts secrets.
const keysetName = "secrets"

// Options of Secrets; the zero value is usable.
type Options struct {
	// MustExist refuses to make a new keyset where there is none, for when
	// something else, such as the audit log, says that there was one.
	MustExist bool

	Logger *zap.Logger      // default: none
	Now    func() time.Time // default: time.Now
}

// Secrets is the set of secrets. All methods may be called concurrently.
type Secrets struct {
	st   store.Store
	aead tink.AEAD
	log  *zap.Logger
	now  func() time.Time

	// all is replaced whole on change and never changed in place.
	all atomic.Pointer[map[string]*Secret]

	mu    sync.Mutex // writers, and what follows
	known map[string]known

	cancel context.CancelFunc
	done   chan struct{}
}

// known is what a writer knows of a ref, also after it was removed.
type known struct {
	rev     store.Rev // of the entry in the store, good or not; 0: none
	seen    store.Rev // of the last change applied
	version uint64    // the highest ever seen
}

// Open decrypts all secrets of st to memory and follows its changes until
// Close. With no keyset in st it makes one, but never where there are
// ciphertexts, nor with MustExist. An entry that is not what it claims to be
// is an error that names it (ErrDamaged), a KEK that is not the one in use
// is ErrWrongKey.
func Open(ctx context.Context, st store.Store, kek KEK, opts Options) (*Secrets, error) {
	if kek.IsZero() {
		return nil, ErrKEK
	}
	s := &Secrets{st: st, log: opts.Logger, now: opts.Now, known: map[string]known{}, done: make(chan struct{})}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if s.now == nil {
		s.now = time.Now
	}
	rev, err := st.Barrier(ctx)
	if err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	entries, err := st.List(ctx, store.Secrets)
	if err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	if s.aead, err = openKeyset(ctx, st, kek, len(entries) > 0 || opts.MustExist); err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	all := make(map[string]*Secret, len(entries))
	var bad []error
	for _, e := range entries {
		ref := strings.TrimPrefix(e.Key, store.Secrets)
		sec, err := open(s.aead, ref, e.Value)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		all[ref] = sec
		s.known[ref] = known{rev: e.Rev, seen: e.Rev, version: sec.Version}
	}
	if len(bad) > 0 {
		return nil, fmt.Errorf("open secrets: %w", errors.Join(bad...))
	}
	s.all.Store(&all)

	wctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w, err := st.Watch(wctx, store.Secrets, rev)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	s.cancel = cancel
	go s.follow(wctx, w)
	return s, nil
}

// Close stops following the store. What is in memory can still be read.
func (s *Secrets) Close() error {
	s.cancel()
	<-s.done
	return nil
}

func openKeyset(ctx context.Context, st store.Store, kek KEK, mustExist bool) (tink.AEAD, error) {
	key := store.Keysets + keysetName
	e, err := st.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		if mustExist {
			return nil, fmt.Errorf("keyset %s: %w", keysetName, ErrMissing)
		}
		h, err := newKeyset()
		if err != nil {
			return nil, fmt.Errorf("keyset %s: generate: %w", keysetName, err)
		}
		data, err := wrapKeyset(h, keysetName, kek)
		if err != nil {
			return nil, err
		}
		if _, err := st.Put(ctx, key, data, 0, time.Time{}); err != nil && !errors.Is(err, store.ErrConflict) {
			return nil, fmt.Errorf("keyset %s: %w", keysetName, err)
		}
		// Read back: after a conflict it is another node's that counts.
		e, err = st.Get(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("keyset %s: %w", keysetName, err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("keyset %s: %w", keysetName, err)
	}
	h, err := unwrapKeyset(e.Value, keysetName, kek)
	if err != nil {
		return nil, err
	}
	a, err := aead.New(h)
	if err != nil {
		return nil, fmt.Errorf("keyset %s: %w", keysetName, ErrDamaged)
	}
	return a, nil
}

// Get returns the secret named ref. Lock-free.
func (s *Secrets) Get(ref string) (*Secret, bool) {
	sec, ok := (*s.all.Load())[ref]
	return sec, ok
}

// List returns what may be shown of all secrets, sorted by ref.
func (s *Secrets) List() []Info {
	all := *s.all.Load()
	list := make([]Info, 0, len(all))
	for _, ref := range slices.Sorted(maps.Keys(all)) {
		sec := all[ref]
		list = append(list, Info{sec.Ref, sec.Version, sec.UpdatedAt, slices.Clone(sec.Origins)})
	}
	return list
}

// CheckVersions compares with what is known elsewhere, namely from the audit
// log: each ref must be here at its version or a later one, else the error
// names it (ErrMissing, ErrOlder).
func (s *Secrets) CheckVersions(minimum map[string]uint64) error {
	all := *s.all.Load()
	var bad []error
	for _, ref := range slices.Sorted(maps.Keys(minimum)) {
		switch sec, ok := all[ref]; {
		case !ok:
			bad = append(bad, fmt.Errorf("secret %s, known at version %d: %w", ref, minimum[ref], ErrMissing))
		case sec.Version < minimum[ref]:
			bad = append(bad, fmt.Errorf("secret %s is version %d, known at version %d: %w", ref, sec.Version, minimum[ref], ErrOlder))
		}
	}
	return errors.Join(bad...)
}

// Set stores value under ref, durably, and returns its version; the next Get
// sees it. Origins, if given, replace the bound ones; else those stay. A ref
// or value that cannot be is a *refusal.Refusal: SECRETREF_INVALID,
// SECRET_INVALID.
func (s *Secrets) Set(ctx context.Context, ref, value string, origins ...string) (uint64, error) {
	if err := checkValue(value); err != nil {
		return 0, err
	}
	return s.change(ctx, ref, func(old *Secret) (*Secret, error) {
		sec := &Secret{Ref: ref, Value: value}
		switch {
		case len(origins) > 0:
			sec.Origins = slices.Compact(slices.Sorted(slices.Values(origins)))
		case old != nil:
			sec.Origins = old.Origins
		}
		return sec, nil
	})
}

// Bind allows the secret to be sent to origin, too. It is a new version of
// the secret. store.ErrNotFound if there is none.
func (s *Secrets) Bind(ctx context.Context, ref, origin string) error {
	if sec, ok := s.Get(ref); ok && sec.AllowsOrigin(origin) {
		return nil
	}
	_, err := s.change(ctx, ref, func(old *Secret) (*Secret, error) {
		if old == nil {
			return nil, store.ErrNotFound
		}
		sec := &Secret{Ref: ref, Value: old.Value}
		sec.Origins = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(old.Origins), origin))))
		return sec, nil
	})
	return err
}

// Remove removes the secret, durably. store.ErrNotFound if there is none.
func (s *Secrets) Remove(ctx context.Context, ref string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rev, err := s.st.Delete(ctx, store.Secrets+ref, store.AnyRev)
	if err != nil {
		return fmt.Errorf("remove secret %s: %w", ref, err)
	}
	s.forget(ref, rev)
	// From here on no version from before the removal may come back.
	k := s.known[ref]
	k.version = max(k.version, uint64(rev))
	s.known[ref] = k
	return nil
}

// attempts is how often a change is tried against others changing the same
// secret.
const attempts = 5

// change stores what f makes of the current secret (nil if there is none)
// under the next version.
func (s *Secrets) change(ctx context.Context, ref string, f func(*Secret) (*Secret, error)) (uint64, error) {
	if !ValidRef(ref) {
		return 0, refusal.New("SECRETREF_INVALID", "a secretRef is a letter or digit, then up to 62 of letters, digits, '.', '_' and '-'")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for try := 1; ; try++ {
		rev, version, err := s.tryChange(ctx, ref, f)
		if err == nil {
			return version, nil
		}
		if !errors.Is(err, store.ErrConflict) || try == attempts {
			return 0, fmt.Errorf("set secret %s: %w", ref, err)
		}
		// Somebody else changed it: take that in, then try again.
		if err := s.reload(ctx, ref, rev); err != nil {
			return 0, fmt.Errorf("set secret %s: %w", ref, err)
		}
	}
}

func (s *Secrets) tryChange(ctx context.Context, ref string, f func(*Secret) (*Secret, error)) (store.Rev, uint64, error) {
	old, _ := s.Get(ref)
	sec, err := f(old)
	if err != nil {
		return 0, 0, err
	}
	if err := checkOrigins(sec.Origins); err != nil {
		return 0, 0, err
	}
	// Every version comes from a revision that no earlier write can have
	// had, and the write itself uses up: so none is used twice, whatever
	// was removed in between.
	rev, err := s.st.Barrier(ctx)
	if err != nil {
		return 0, 0, err
	}
	k := s.known[ref]
	sec.Version = max(uint64(rev), k.version) + 1
	sec.UpdatedAt = time.UnixMilli(s.now().UnixMilli())
	data, err := seal(s.aead, sec)
	if err != nil {
		return 0, 0, err
	}
	put, err := s.st.Put(ctx, store.Secrets+ref, data, k.rev, time.Time{})
	if err != nil {
		return rev, 0, err
	}
	s.apply(sec, put)
	return put, sec.Version, nil
}

// reload takes in the entry of ref as the store has it now. rev is a
// revision known to be at or below that state.
func (s *Secrets) reload(ctx context.Context, ref string, rev store.Rev) error {
	e, err := s.st.Get(ctx, store.Secrets+ref)
	if errors.Is(err, store.ErrNotFound) {
		s.forget(ref, max(rev, s.known[ref].seen))
		return nil
	}
	if err != nil {
		return err
	}
	s.take(store.Event{Type: store.Put, Entry: e})
	return nil
}

// apply puts sec, stored at rev, in the place of the one before.
func (s *Secrets) apply(sec *Secret, rev store.Rev) {
	s.known[sec.Ref] = known{rev: rev, seen: rev, version: sec.Version}
	all := maps.Clone(*s.all.Load())
	all[sec.Ref] = sec
	s.all.Store(&all)
}

// forget drops ref but remembers its version, so that an older entry put
// back by hand is known as such.
func (s *Secrets) forget(ref string, rev store.Rev) {
	s.known[ref] = known{rev: 0, seen: rev, version: s.known[ref].version}
	if _, ok := (*s.all.Load())[ref]; !ok {
		return
	}
	all := maps.Clone(*s.all.Load())
	delete(all, ref)
	s.all.Store(&all)
}

func checkValue(value string) error {
	switch {
	case value == "":
		return refusal.New("SECRET_INVALID", "the secret is empty")
	case len(value) > MaxValue:
		return refusal.New("SECRET_INVALID", "the secret is longer than 64 KiB")
	case strings.IndexByte(value, 0) >= 0:
		return refusal.New("SECRET_INVALID", "the secret contains a NUL")
	}
	return nil
}
