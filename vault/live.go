package vault

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/refusal"
)

// liveShards is a power of two well above the number of cores, so that calls
// rarely meet.
const liveShards = 64

// liveCalls are the calls under way, so that a revocation can cut them. A
// revocation looks at all of them; that is rarer than a call by far.
type liveCalls struct {
	shards [liveShards]liveShard

	// wake holds one value if something was revoked since the last look.
	wake chan struct{}
}

type liveCall struct {
	shard  *liveShard
	keys   *tokenKeys
	cancel context.CancelCauseFunc
	hook   atomic.Pointer[func()]
}

type liveShard struct {
	mu    sync.Mutex
	calls map[*liveCall]struct{}
}

func newLiveCalls() *liveCalls {
	l := &liveCalls{wake: make(chan struct{}, 1)}
	for i := range l.shards {
		l.shards[i].calls = make(map[*liveCall]struct{})
	}
	return l
}

// begin enters a call; its context ends with the refusal as its cause when it
// is cut, which cancel does. end takes it out again.
func (l *liveCalls) begin(ctx context.Context, keys *tokenKeys) (context.Context, *liveCall) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &liveCall{shard: &l.shards[rand.Uint32()%liveShards], keys: keys, cancel: cancel}
	c.shard.mu.Lock()
	c.shard.calls[c] = struct{}{}
	c.shard.mu.Unlock()
	return ctx, c
}

func (c *liveCall) end() {
	c.shard.mu.Lock()
	delete(c.shard.calls, c)
	c.shard.mu.Unlock()
	c.cancel(nil)
}

// onCut has f called when a revocation cuts the call.
func (c *liveCall) onCut(f func()) { c.hook.Store(&f) }

// revoked wakes whoever cuts. It never waits.
func (l *liveCalls) revoked() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// cut ends every call for which why gives a refusal. All of them are ended, on
// every core, before any of it gets to what is left to do for one: records and
// log entries of a thousand take longer than closing as many connections. It
// returns how many there were.
func (l *liveCalls) cut(why func(*tokenKeys) *refusal.Refusal) int {
	type ending struct {
		*liveCall
		refused *refusal.Refusal
	}
	var all []ending
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for c := range s.calls {
			if refused := why(c.keys); refused != nil {
				all = append(all, ending{c, refused})
			}
		}
		s.mu.Unlock()
	}
	var wg sync.WaitGroup
	for part := range slices.Chunk(all, 1+len(all)/runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for _, e := range part {
				e.cancel(e.refused)
				if f := e.hook.Load(); f != nil {
					(*f)()
				}
			}
		})
	}
	wg.Wait()
	return len(all)
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
		start := time.Now()
		n := st.live.cut(func(keys *tokenKeys) *refusal.Refusal {
			if code := st.revoked(keys); code != "" {
				return revokedRefusal(code)
			}
			return nil
		})
		if n > 0 {
			st.logger.Info("a revocation cut calls", zap.Int("calls", n), zap.Duration("took", time.Since(start)))
		}
	}
}
