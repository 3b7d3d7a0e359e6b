package upstream

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// The phases of a call, in their order.
const (
	connecting int32 = iota // which the dialer and the transport limit by themselves
	sending                 // the request's body
	waiting                 // for the answer's first byte
	answering
)

// looks is how often a limit is looked at before it is over.
const looks = 8

// lateAnswer is how long an answer may take that begins after the token has
// expired: what was asked for has happened, and most APIs do not say how long
// their answers are.
const lateAnswer = 10 * time.Second

// A watch ends a call that takes too long, by kind of wait. From time to time
// it looks at what the call counts anyway, so a byte that passes costs no look
// at a clock, and a call that is over soon costs one timer and no more.
//
// Whoever is waited for is to blame: a client that takes its time over its
// request or its answer is no slow upstream.
type watch struct {
	limits  policy.Timeouts
	start   time.Time
	expires time.Time // of the token; zero if the call may outlive it
	result  *vault.Result
	cut     context.CancelCauseFunc
	onCut   func(f func()) // of vault.Outbound
	client  http.ResponseWriter
	from    *http.Request // the client's

	phase    atomic.Int32
	inBody   atomic.Bool // a piece of the request is read from the client
	inAnswer atomic.Bool // a piece of the answer is read from the upstream
	hinting  atomic.Bool // a 1xx answer is written to the client

	// stream says that the answer has no limit in total, and long that it
	// does not end at once, so that it is cut when its token expires.
	stream, long atomic.Bool

	mu    sync.Mutex
	timer *time.Timer
	over  bool
	seen  int64     // what had passed at the last look
	quiet time.Time // since when nothing has
	took  [2]int    // how many looks found it waiting for: client, upstream

	unhook      func() bool
	hooked      bool        // what was hooked has been called
	interrupted atomic.Bool // the client's connection is of no more use
}

// period is how long to wait between two looks.
func (w *watch) period() time.Duration {
	return time.Duration(min(w.limits.Idle, w.limits.FirstByte, w.limits.Total)) / looks
}

// begin starts the watch.
func (w *watch) begin() {
	w.start = time.Now()
	w.quiet = w.start
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.next(w.start), w.look)
}

// end stops it.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
	if w.unhook != nil {
		w.unhook()
	}
}

// advance enters a phase, unless the call is further already.
func (w *watch) advance(to int32) {
	for now := w.phase.Load(); now < to; now = w.phase.Load() {
		if w.phase.CompareAndSwap(now, to) {
			return
		}
	}
}

// answered enters the last phase. It returns why the answer may not be passed
// on, if that is so: a token that expired while the upstream was thinking is
// good for an answer, and not for a stream. Of an answer that is not known to
// be short, it is good for what comes within lateAnswer.
func (w *watch) answered(ctx context.Context, stream, long bool) *refusal.Refusal {
	w.stream.Store(stream)
	w.long.Store(long)
	w.phase.Store(answering)
	if !long {
		return nil
	}
	w.interruptible(ctx)
	now := time.Now()
	if w.expires.IsZero() || now.Before(w.expires) {
		return nil
	}
	if stream {
		return expiredRefusal()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.expires = now.Add(lateAnswer); !w.over {
		w.timer.Reset(w.next(now))
	}
	return nil
}

// interruptible makes sure that the call, when it is cut, does not wait for
// its client: to send more of the request or to take more of the answer.
func (w *watch) interruptible(ctx context.Context) {
	w.hook(ctx, w.interrupt)
}

// interrupt ends what waits for the client. w.mu is held.
func (w *watch) interrupt() {
	_ = http.NewResponseController(w.client).SetReadDeadline(time.Unix(1, 0)) // not every writer can
	if w.hinting.Load() || w.phase.Load() == answering && w.long.Load() {
		w.interrupted.Store(true)
		if conn := connOf(w.from); conn != nil {
			_ = conn.Close()
			return
		}
		w.takeBy(time.Unix(1, 0))
		return
	}
	w.again(w.interrupt)
}

// takeBy gives the client until at to take what is written. Caddy moves the
// deadline on before each piece, and may just be doing so: it is set again
// until the call is over. w.mu is held.
func (w *watch) takeBy(at time.Time) {
	_ = http.NewResponseController(innermost(w.client)).SetWriteDeadline(at)
	w.again(func() { w.takeBy(at) })
}

// again has f called in a moment, with w.mu held, unless the call is over.
func (w *watch) again(f func()) {
	time.AfterFunc(20*time.Millisecond, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.over {
			f()
		}
	})
}

// innermost returns the server's own writer. Its deadlines may be set from any
// goroutine; those of the one that Caddy puts around it may not.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = u.Unwrap()
	}
}

// hook has f called, once, when the call is cut, unless something is already.
// f must not wait.
func (w *watch) hook(ctx context.Context, f func()) {
	if w.unhook != nil {
		return
	}
	once := func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.over && !w.hooked { // else the connection may be with the next request already
			w.hooked = true
			f()
		}
	}
	w.unhook = context.AfterFunc(ctx, once)
	if w.onCut != nil {
		w.onCut(once)
	}
}

// next says when to look again.
func (w *watch) next(now time.Time) time.Duration {
	d := w.period()
	sooner := func(at time.Time) {
		if left := at.Sub(now); left > 0 {
			d = min(d, left)
		}
	}
	if !w.expires.IsZero() {
		sooner(w.expires)
	}
	sooner(w.start.Add(time.Duration(w.limits.Total)))
	return d
}

// look is called by the timer.
func (w *watch) look() {
	w.mu.Lock()
	if w.over {
		w.mu.Unlock()
		return
	}
	now := time.Now()
	why := w.judge(now)
	if why == nil {
		w.timer.Reset(w.next(now))
	}
	w.mu.Unlock()
	if why != nil {
		w.cut(why)
	}
}

// judge returns why the call is to end, if it is.
func (w *watch) judge(now time.Time) *refusal.Refusal {
	phase := w.phase.Load()
	client := phase == sending && w.inBody.Load() || phase == answering && !w.inAnswer.Load()
	if client {
		w.took[0]++
	} else {
		w.took[1]++
	}
	if !w.expires.IsZero() && !now.Before(w.expires) && (phase == sending || phase == answering && w.long.Load()) {
		return expiredRefusal()
	}
	if !w.stream.Load() && now.Sub(w.start) >= time.Duration(w.limits.Total) {
		return timeout(w.took[0] > w.took[1], "total", "the call took longer than the service's timeout in total")
	}

	seen := w.result.RequestBytes.Load() + w.result.ResponseBytes.Load() + int64(phase)
	if seen != w.seen {
		w.seen, w.quiet = seen, now
		return nil
	}
	silence := now.Sub(w.quiet)
	switch {
	case phase == waiting && silence >= time.Duration(w.limits.FirstByte):
		return timeout(false, "first_byte", "the upstream did not begin to answer in time")
	case (phase == sending || phase == answering) && silence >= time.Duration(w.limits.Idle):
		if client {
			return timeout(true, "idle", "the client sent or took nothing for too long")
		}
		return timeout(false, "idle", "the upstream sent or took nothing for too long")
	}
	return nil
}

// timeout is the refusal for a wait that took too long.
func timeout(client bool, kind, detail string) *refusal.Refusal {
	if client {
		return refusal.New("CLIENT_TIMEOUT:"+kind, detail)
	}
	return refusal.New("UPSTREAM_TIMEOUT:"+kind, detail)
}

func expiredRefusal() *refusal.Refusal {
	return refusal.New("TOKEN_EXPIRED", "the token expired while the call was under way").
		WithHint("ask for a token with a longer ttl, or have the service's streamsOutliveToken set")
}
