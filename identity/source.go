package identity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// How often an issuer is asked for its keys, and how long anything waits.
const (
	// Whatever JWTs are sent, an issuer is asked at most attempts times in
	// attemptsIn.
	attempts   = 2
	attemptsIn = 10 * time.Second

	fetchTimeout = 10 * time.Second // for all that one look takes
	waitFor      = 3 * time.Second  // the longest that a request waits for one
	retryAfter   = 5 * time.Second  // what a client is told

	refreshLeast   = time.Minute // bounds on what an issuer says by Cache-Control
	refreshDefault = 10 * time.Minute
	refreshMost    = time.Hour

	retryFirst = time.Second // pauses after failures, each twice the one before
	retryMost  = time.Minute
)

// Why there is no key for a JWT.
var (
	errUnavailable = errors.New("the issuer's keys are not available")
	errUnknownKey  = errors.New("no such key")
	errUnfit       = errors.New("no key fits")
)

// A Source has the keys of one issuer. It asks for them in the background, and
// when it is shown a key id that it does not know; it goes on with those that it
// has while it gets no others. Looking up a key that is known takes no lock.
type Source struct {
	name   string
	local  bool // the keys are in a file
	fetch  func(context.Context) (*keySet, time.Duration, error)
	logger atomic.Pointer[zap.Logger]
	held   atomic.Pointer[held]

	ctx     context.Context //nolint:containedctx // that of the source's whole life
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	started bool
	flight  *flight             // under way, or nil
	begun   [attempts]time.Time // the last attempts, the oldest first
	failure error               // of the last attempt

	keeping  sync.Mutex // of what is kept, and what follows
	keeper   Keeper     // or nil
	keptAt   time.Time
	keptKeys []byte
}

// held is what an issuer has said, and when.
type held struct {
	keys    *keySet
	at      time.Time
	refresh time.Duration
}

// flight is one attempt to get the keys.
type flight struct {
	begun time.Time
	done  chan struct{}
}

func newSource(name string, fetch func(context.Context) (*keySet, time.Duration, error)) *Source {
	s := &Source{name: name, fetch: fetch}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.logger.Store(zap.NewNop())
	return s
}

// Start begins to keep the keys fresh, and at first takes up those that k has.
// Once is enough; where it is told to log to, and to keep them, the last time,
// it does. k may be nil.
func (s *Source) Start(logger *zap.Logger, k Keeper) {
	s.logger.Store(logger)
	s.keeping.Lock()
	s.keeper, s.keptAt = k, time.Time{}
	s.keeping.Unlock()
	if k != nil && s.held.Load() == nil {
		s.recall(k)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.ctx.Err() != nil {
		return
	}
	s.started = true
	s.running.Add(1)
	go s.keep()
}

// Destruct ends the source's own work. The keys that it has stay good for
// requests that are still under way.
func (s *Source) Destruct() error {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// Name returns the issuer's name.
func (s *Source) Name() string { return s.name }

// State returns when the keys were last got, and whether the last attempt went
// well.
func (s *Source) State() (at time.Time, good bool) {
	if have := s.held.Load(); have != nil {
		at = have.at
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return at, !at.IsZero() && s.failure == nil
}

// Local reports whether the keys are in a file.
func (s *Source) Local() bool { return s.local }

// Check asks for the keys now, and says how many there are.
func (s *Source) Check(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	keys, _, err := s.fetch(ctx)
	if err != nil {
		return 0, err
	}
	return len(keys.all), nil
}

// find returns the key that a JWT names. It waits for the issuer only if it does
// not know the key, and not for long.
func (s *Source) find(ctx context.Context, h header, maxStale time.Duration) (*key, error) {
	k, err := s.look(h, maxStale)
	if k != nil || errors.Is(err, errUnfit) {
		return k, err
	}
	if f := s.attempt(false); f != nil && s.wait(ctx, f) {
		k, err = s.look(h, maxStale)
	}
	if errors.Is(err, errUnknownKey) {
		// Had the issuer been reached, it might have named the key.
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.failure != nil || s.flight != nil {
			err = fmt.Errorf("%w: %w", errUnavailable, errUnknownKey)
		}
	}
	return k, err
}

// newer returns the key that a JWT without a key id is signed with, after the
// issuer was asked again: that it has rotated its keys shows in nothing else.
func (s *Source) newer(ctx context.Context, h header, maxStale time.Duration) *key {
	f := s.attempt(false)
	if f == nil || !s.wait(ctx, f) {
		return nil
	}
	k, _ := s.look(h, maxStale)
	return k
}

// look returns a key of those that are there.
func (s *Source) look(h header, maxStale time.Duration) (*key, error) {
	have := s.held.Load()
	if have == nil || time.Since(have.at) > maxStale {
		return nil, errUnavailable
	}
	k, known := have.keys.find(h)
	switch {
	case k != nil:
		return k, nil
	case known:
		return nil, errUnfit
	}
	return nil, errUnknownKey
}

// wait reports whether an attempt has come to its end before the request's
// patience has.
func (s *Source) wait(ctx context.Context, f *flight) bool {
	timer := time.NewTimer(waitFor - time.Since(f.begun))
	defer timer.Stop()
	select {
	case <-f.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// attempt returns the attempt under way, or begins one. It returns nil if the
// source has ended or there have been too many of late. One on the source's own
// schedule is never too many, but not due if a request was faster.
func (s *Source) attempt(scheduled bool) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight != nil {
		return s.flight
	}
	now := time.Now()
	switch {
	case s.ctx.Err() != nil:
		return nil
	case scheduled && s.failure == nil && !s.due(now):
		return nil
	case !scheduled && now.Sub(s.begun[0]) < attemptsIn:
		return nil
	}
	copy(s.begun[:], s.begun[1:])
	s.begun[attempts-1] = now
	f := &flight{now, make(chan struct{})}
	s.flight = f
	s.running.Add(1)
	go s.fly(f)
	return f
}

// fly asks the issuer.
func (s *Source) fly(f *flight) {
	defer s.running.Done()
	ctx, cancel := context.WithTimeout(s.ctx, fetchTimeout)
	defer cancel()
	keys, refresh, err := s.ask(ctx)
	if err == nil {
		if refresh == 0 {
			refresh = refreshDefault
		}
		s.held.Store(&held{keys, time.Now(), min(max(refresh, refreshLeast), refreshMost)})
	}
	s.mu.Lock()
	before := s.failure
	s.failure, s.flight = err, nil
	s.mu.Unlock()
	close(f.done)
	if err == nil {
		s.remember()
	}

	log := s.logger.Load().With(zap.String("issuer", s.name))
	switch {
	case s.ctx.Err() != nil:
	case err != nil && (before == nil || before.Error() != err.Error()):
		log.Warn("the keys of an issuer of JWTs cannot be had; those that are there stay good for max_stale", zap.Error(err))
	case err != nil:
		log.Debug("the keys of an issuer of JWTs still cannot be had", zap.Error(err))
	case len(keys.all) == 0:
		log.Warn("an issuer of JWTs publishes no key that can be used", zap.Int("others", keys.skipped))
	case before != nil && !errors.Is(before, errBefore):
		log.Info("the keys of an issuer of JWTs can be had again", zap.Int("keys", len(keys.all)))
	}
}

// ask is fetch; a fault in a parser is not the end of the process.
func (s *Source) ask(ctx context.Context) (keys *keySet, refresh time.Duration, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("reading what the issuer has sent: %v", fault)
		}
	}()
	return s.fetch(ctx)
}

// keep asks for the keys before they are old, and after a failure again and
// again.
func (s *Source) keep() {
	defer s.running.Done()
	failed := time.Duration(0)
	for {
		if f := s.attempt(true); f != nil {
			select {
			case <-f.done:
			case <-s.ctx.Done():
			}
		}
		if s.ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		bad := s.failure != nil
		s.mu.Unlock()
		var pause time.Duration
		if bad {
			failed = min(max(2*failed, retryFirst), retryMost)
			pause = failed
		} else {
			failed = 0
			have := s.held.Load()
			pause = max(have.refresh-time.Since(have.at), retryFirst)
		}
		pause -= time.Duration(rand.Int64N(int64(pause)/10 + 1)) // so that not all vaults ask at once
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// due reports whether it is about time to ask.
func (s *Source) due(now time.Time) bool {
	have := s.held.Load()
	return have == nil || now.Sub(have.at) > have.refresh*8/10
}
