package vault

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/store"
)

// service is one service as calls see it. It is immutable.
type service struct {
	name string

	// compiled is the last version that was valid, nil if there was none yet.
	compiled *policy.Compiled

	// raw is the JSON that compiled was made from.
	raw []byte

	// err says why a newer version of the service's file is not in use.
	err error

	rev store.Rev
}

// services holds every service in memory, compiled. Readers load one pointer;
// a change swaps the map.
type services struct {
	current atomic.Pointer[map[string]*service]
	compile *compilations
	mu      sync.Mutex // serialises changes

	// listeners are called with the name of each service that changed or went.
	listeners map[*listener]struct{}
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

func (s *services) get(name string) *service {
	return (*s.current.Load())[name]
}

// all returns the services in the order of their names.
func (s *services) all() []*service {
	return slices.SortedFunc(maps.Values(*s.current.Load()), func(a, b *service) int {
		return strings.Compare(a.name, b.name)
	})
}

// load reads every service from the store.
func (s *services) load(ctx context.Context, st store.Store) error {
	entries, err := st.List(ctx, store.Services)
	if err != nil {
		return err
	}
	m := make(map[string]*service, len(entries))
	for _, e := range entries {
		svc := s.newService(e, nil)
		m[svc.name] = svc
	}
	s.current.Store(&m)
	return nil
}

// newService compiles an entry. If it cannot be, old goes on, with the error.
func (s *services) newService(e store.Entry, old *service) *service {
	svc := &service{name: strings.TrimPrefix(e.Key, store.Services), rev: e.Rev, err: e.Err}
	if old != nil {
		svc.compiled, svc.raw = old.compiled, old.raw
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
	svc.compiled, svc.raw = compiled, e.Value
	return svc
}

// apply puts a change into force. It returns the service as it is now and
// whether the change was news: what has been applied before, by the request
// that wrote it, is not.
func (s *services) apply(ev store.Event) (*service, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.current.Load()
	name := strings.TrimPrefix(ev.Key, store.Services)
	before := old[name]
	if before != nil && ev.Rev <= before.rev || before == nil && ev.Type == store.Delete {
		return before, false
	}
	next := maps.Clone(old)
	var now *service
	if ev.Type == store.Delete {
		delete(next, name)
		s.compile.forget(name)
	} else {
		now = s.newService(ev.Entry, before)
		next[name] = now
	}
	s.current.Store(&next)
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
			if ctx.Err() != nil {
				return
			}
			st.logger.Error("watch of services ended; reading them anew", zap.Error(err))
			w = st.rewatch(ctx)
			if w == nil {
				return
			}
			continue
		}
		svc, news := st.services.apply(ev)
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
				zap.String("service", svc.name), zap.Bool("in_use", svc.compiled != nil), zap.Error(svc.err))
		default:
			rec.Reason = "loaded"
			st.logger.Info("service loaded", zap.String("service", svc.name))
		}
		_ = st.audit.Enqueue(audit.Entry{Record: rec})
	}
}

// rewatch starts over after a watch has ended with an error. It returns nil
// when ctx ends.
func (st *State) rewatch(ctx context.Context) store.Watcher {
	for {
		w, err := st.watchServices(ctx)
		if err == nil {
			return w
		}
		st.logger.Error("services cannot be read", zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// watchServices begins a watch and then loads everything, so that no change
// falls between the two.
func (st *State) watchServices(ctx context.Context) (store.Watcher, error) {
	rev, err := st.store.Barrier(ctx)
	if err != nil {
		return nil, err
	}
	w, err := st.store.Watch(ctx, store.Services, rev)
	if err != nil {
		return nil, err
	}
	if err := st.services.load(ctx, st.store); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}
