package vault

import (
	"context"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/store"
)

// service is one service as calls see it. It is immutable.
type service struct {
	name string

	// The last version that was valid, if there was one. Its JSON is the
	// store's to keep.
	compilation

	// err says why a newer version of the service's file is not in use.
	err error

	rev store.Rev
}

// services holds every service in memory, compiled. Readers load one pointer;
// a change swaps a map. There are several maps, so that a change costs little
// among thousands of services.
type services struct {
	shards  [64]atomic.Pointer[map[string]*service]
	compile *compilations
	mu      sync.Mutex // serialises changes

	// writing is held from a request's write to the store until that is in
	// force. The watch waits for it, and then finds nothing new: it records
	// what others change.
	writing sync.Mutex

	// listeners are called with the name of each service that changed or went.
	listeners map[*listener]struct{}
}

// seed spreads names over the shards.
var seed = maphash.MakeSeed()

func (s *services) shard(name string) *atomic.Pointer[map[string]*service] {
	return &s.shards[maphash.String(seed, name)%uint64(len(s.shards))]
}

type listener struct{ f func(name string) }

func (s *services) subscribe(f func(name string)) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &listener{f}
	if s.listeners == nil {
		s.listeners = make(map[*listener]struct{})
	}
	s.listeners[l] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.listeners, l)
	}
}

// get returns the service of a name, nil if there is none.
func (s *services) get(name string) *service {
	if m := s.shard(name).Load(); m != nil {
		return (*m)[name]
	}
	return nil
}

// inForce returns the compiled service of a name.
func (s *services) inForce(name string) compilation {
	if svc := s.get(name); svc != nil {
		return svc.compilation
	}
	return compilation{}
}

// all returns the services in the order of their names.
func (s *services) all() []*service {
	var all []*service
	for i := range s.shards {
		if m := s.shards[i].Load(); m != nil {
			all = slices.AppendSeq(all, maps.Values(*m))
		}
	}
	slices.SortFunc(all, func(a, b *service) int { return strings.Compare(a.name, b.name) })
	return all
}

// load reads every service from the store.
func (s *services) load(ctx context.Context, st store.Store) error {
	next := map[*atomic.Pointer[map[string]*service]]map[string]*service{}
	for i := range s.shards {
		next[&s.shards[i]] = map[string]*service{}
	}
	err := store.Range(ctx, st, store.Services, func(e store.Entry) bool {
		e.Key = strings.Clone(e.Key)
		svc := s.newService(e, nil)
		next[s.shard(svc.name)][svc.name] = svc
		return true
	})
	if err != nil {
		return err
	}
	for shard, m := range next {
		shard.Store(&m)
	}
	return nil
}

// newService compiles an entry. If it cannot be, old goes on, with the error.
func (s *services) newService(e store.Entry, old *service) *service {
	svc := &service{name: strings.TrimPrefix(e.Key, store.Services), rev: e.Rev, err: e.Err}
	if old != nil {
		svc.compilation = old.compilation
	}
	if e.Value == nil {
		return svc
	}
	compiled, err := s.compile.compile(svc.name, e.Value)
	if err != nil {
		if svc.err == nil {
			svc.err = err
		}
		return svc
	}
	svc.compilation = compiled
	return svc
}

// apply puts a change into force. It returns the service as it is now and
// whether the change was news: what has been applied before, by the request
// that wrote it, is not.
func (s *services) apply(ev store.Event) (*service, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.TrimPrefix(ev.Key, store.Services)
	before := s.get(name)
	if before != nil && ev.Rev <= before.rev || before == nil && ev.Type == store.Delete {
		return before, false
	}
	shard := s.shard(name)
	next := map[string]*service{}
	if m := shard.Load(); m != nil {
		next = maps.Clone(*m)
	}
	var now *service
	if ev.Type == store.Delete {
		delete(next, name)
		s.compile.forget(name)
	} else {
		now = s.newService(ev.Entry, before)
		next[name] = now
	}
	shard.Store(&next)
	if now == nil || before == nil || now.compiled != before.compiled {
		for l := range s.listeners {
			l.f(name)
		}
	}
	return now, true
}

// follow applies changes that others make: files edited by hand, other nodes.
// It returns when ctx ends.
func (st *State) follow(ctx context.Context, w store.Watcher) {
	defer st.background.Done()
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			if w = st.rewatch(ctx, err, store.Services, st.services.load); w == nil {
				return
			}
			continue
		}
		st.services.writing.Lock()
		svc, news := st.services.apply(ev)
		st.services.writing.Unlock()
		if !news {
			continue
		}
		rec := audit.Record{Event: "service.changed", Service: strings.TrimPrefix(ev.Key, store.Services)}
		switch {
		case ev.Type == store.Delete:
			rec.Reason = "removed"
			st.logger.Info("service removed", zap.String("service", rec.Service))
		case svc.err != nil:
			rec.Error = "SERVICE_INVALID"
			rec.Reason = svc.err.Error()
			st.logger.Error("service file is not valid; the last good version stays in use",
				zap.String("service", svc.name), zap.Bool("in_use", svc.compiled != nil), zap.Error(svc.err), zap.NamedError("cause", store.Cause(svc.err)))
		default:
			rec.Reason = "loaded"
			st.logger.Info("service loaded", zap.String("service", svc.name))
		}
		_ = st.audit.Enqueue(audit.Entry{Record: rec})
	}
}
