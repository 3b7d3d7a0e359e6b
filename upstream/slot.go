package upstream

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
)

const (
	// makeWait is how long a module of Caddy's has to get its certificates.
	makeWait = 10 * time.Second

	// remakeAfter is how long it stays known that a service's proxy could not
	// be made.
	remakeAfter = 10 * time.Second
)

// A slot is where the proxy of one compiled service is, or will be. Whoever
// waits for one waits for no other.
type slot struct {
	compiled *policy.Compiled
	began    time.Time

	// made is closed when there is a service or an error, which do not change
	// any more.
	made    chan struct{}
	service *service
	err     error

	mu      sync.Mutex
	awaited bool // by who made the slot, for whom the service is held
	dropped bool
}

func newSlot(svc *policy.Compiled, awaited bool) *slot {
	return &slot{compiled: svc, began: time.Now(), made: make(chan struct{}), awaited: awaited}
}

func (sl *slot) filled() bool {
	select {
	case <-sl.made:
		return true
	default:
		return false
	}
}

// fill ends the waiting.
func (sl *slot) fill(s *service, err error) {
	sl.mu.Lock()
	sl.service, sl.err = s, err
	if s != nil && sl.awaited {
		s.refs.Store(1)
	}
	close(sl.made)
	dropped := sl.dropped
	sl.mu.Unlock()
	if dropped && s != nil {
		s.drop()
	}
}

// drop ends the service in it, also one that is still being made. It is called
// once.
func (sl *slot) drop() {
	sl.mu.Lock()
	sl.dropped = true
	s := sl.service
	sl.mu.Unlock()
	if s != nil {
		s.drop()
	}
}

// leave is for who made the slot and waits no longer.
func (sl *slot) leave() {
	sl.mu.Lock()
	sl.awaited = false
	s := sl.service
	sl.mu.Unlock()
	if s != nil {
		s.release()
	}
}

// wait waits for the slot to be filled, as long as a connection may take.
func (sl *slot) wait(ctx context.Context) error {
	if sl.filled() {
		return nil
	}
	limit := min(time.Duration(sl.compiled.Timeouts.Connect), makeWait)
	timer := time.NewTimer(time.Until(sl.began.Add(limit)))
	defer timer.Stop()
	select {
	case <-sl.made:
		return nil
	case <-ctx.Done():
		return causeOr(ctx, ctx.Err())
	case <-timer.C:
		return timeout(false, "connect", "the certificates that the service trusts were not there in time")
	}
}

// acquire returns the proxy of a compiled service, making it if this is the
// first call since the service was loaded or changed. It waits for no other
// service.
func (p *Proxy) acquire(ctx context.Context, svc *policy.Compiled) (*service, error) {
	for {
		sl, mine := p.slot(svc, true)
		if err := sl.wait(ctx); err != nil {
			if mine {
				sl.leave()
			}
			return nil, err
		}
		if sl.err != nil {
			return nil, refusal.New(refusal.Internal, "the service's proxy could not be set up").WithCause(sl.err)
		}
		if mine || sl.service.hold() {
			return sl.service, nil
		}
	}
}

// slot returns that of a compiled service, and whether it is new: then its
// service is held for the caller, if it is awaited. What is in memory is made
// at once, by who asks first; what is not, apart from every call.
func (p *Proxy) slot(svc *policy.Compiled, awaited bool) (sl *slot, fresh bool) {
	for {
		v, ok := p.services.Load(svc.Name)
		if ok && v.(*slot).compiled == svc {
			return v.(*slot), false
		}
		if sl == nil {
			sl = newSlot(svc, awaited)
		}
		if ok {
			if !p.services.CompareAndSwap(svc.Name, v, sl) {
				continue
			}
			v.(*slot).drop()
		} else if _, ok := p.services.LoadOrStore(svc.Name, sl); ok {
			continue
		}
		break
	}
	if p.closed.Load() {
		// The configuration is gone, and this request, which began under it,
		// is among its last: nobody will come back for the proxy.
		p.clear(sl)
	}
	if o := outsideOf(svc); o != nil && o.foreign {
		go p.fill(sl)
	} else {
		p.fill(sl)
	}
	return sl, true
}

// fill makes the service of a slot.
func (p *Proxy) fill(sl *slot) {
	s, err := p.provisionService(sl.compiled)
	if err != nil {
		p.logger.Error("service cannot be proxied to", zap.String("service", sl.compiled.Name), zap.Error(err))
		time.AfterFunc(remakeAfter, func() { p.clear(sl) })
	}
	sl.fill(s, err)
}

// clear empties a slot, unless another has taken its place.
func (p *Proxy) clear(sl *slot) {
	if p.services.CompareAndDelete(sl.compiled.Name, sl) {
		sl.drop()
	}
}

// Forget drops the proxy of a service that is gone; calls on it run on.
func (p *Proxy) Forget(name string) {
	if v, ok := p.services.LoadAndDelete(name); ok {
		v.(*slot).drop()
	}
}

// Close drops every proxy. Calls that are under way run on, and calls that
// still come in under the old configuration are served.
func (p *Proxy) Close() {
	p.closed.Store(true)
	p.services.Range(func(_, v any) bool {
		p.clear(v.(*slot))
		return true
	})
}
