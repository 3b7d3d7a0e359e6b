package vault

import (
	"context"
	"math/rand/v2"
	"sync"

	"github.com/caddyvault/caddyvault/refusal"
)

// liveShards is a power of two well above the number of cores, so that calls
// rarely meet.
const liveShards = 64

// liveCalls are the calls under way, so that a revocation can cut them. A
// revocation looks at all of them; that is rarer than a call by far.
type liveCalls struct {
	shards [liveShards]struct {
		mu    sync.Mutex
		calls map[*liveCall]struct{}
	}

	// wake holds one value if something was revoked since the last look.
	wake chan struct{}
}

type liveCall struct {
	shard  uint
	keys   *tokenKeys
	cancel context.CancelCauseFunc
}

func newLiveCalls() *liveCalls {
	l := &liveCalls{wake: make(chan struct{}, 1)}
	for i := range l.shards {
		l.shards[i].calls = make(map[*liveCall]struct{})
	}
	return l
}

// begin enters a call; its context ends with the refusal as its cause when it
// is cut, which cut does. end takes it out again.
func (l *liveCalls) begin(ctx context.Context, keys *tokenKeys) (_ context.Context, cut context.CancelCauseFunc, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &liveCall{shard: uint(rand.Uint32() % liveShards), keys: keys, cancel: cancel}
	s := &l.shards[c.shard]
	s.mu.Lock()
	s.calls[c] = struct{}{}
	s.mu.Unlock()
	return ctx, cancel, func() {
		s.mu.Lock()
		delete(s.calls, c)
		s.mu.Unlock()
		cancel(nil)
	}
}

// revoked wakes whoever cuts. It never waits.
func (l *liveCalls) revoked() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// cut ends every call for which why gives a refusal.
func (l *liveCalls) cut(why func(*tokenKeys) *refusal.Refusal) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for c := range s.calls {
			if refused := why(c.keys); refused != nil {
				c.cancel(refused)
			}
		}
		s.mu.Unlock()
	}
}

// cutRevoked cuts calls as their tokens are revoked, until ctx ends.
func (st *State) cutRevoked(ctx context.Context) {
	defer st.background.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-st.live.wake:
		}
		st.live.cut(func(keys *tokenKeys) *refusal.Refusal {
			if code := st.revoked(keys); code != "" {
				return revokedRefusal(code)
			}
			return nil
		})
	}
}
