package secrets

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyvault/caddyvault/store"
	"go.uber.org/zap"
)

// follow takes in what others change in the store: a hand edit, later
// another node.
func (s *Secrets) follow(ctx context.Context, w store.Watcher) {
	defer close(s.done)
	for {
		ev, err := w.Next(ctx)
		if err == nil {
			s.mu.Lock()
			s.take(ev)
			s.mu.Unlock()
			continue
		}
		w.Close()
		if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
			return
		}
		s.log.Warn("secrets: lost track of changes, reading all again", zap.Error(err))
		if w, err = s.resync(ctx); err != nil {
			return
		}
	}
}

// resync reads all entries again and returns a new watcher. It tries until
// it succeeds or ctx or the store ends.
func (s *Secrets) resync(ctx context.Context) (store.Watcher, error) {
	for {
		w, err := s.tryResync(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
			return w, err
		}
		s.log.Error("secrets: reading all again failed", zap.Error(err))
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

func (s *Secrets) tryResync(ctx context.Context) (store.Watcher, error) {
	rev, err := s.st.Barrier(ctx)
	if err != nil {
		return nil, err
	}
	entries, err := s.st.List(ctx, store.Secrets)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		there[strings.TrimPrefix(e.Key, store.Secrets)] = true
		s.take(store.Event{Type: store.Put, Entry: e})
	}
	for ref, k := range s.known {
		if !there[ref] && k.rev != 0 && k.seen <= rev {
			s.log.Warn("secret removed in the store", zap.String("secretRef", ref))
			s.forget(ref, rev)
		}
	}
	return s.st.Watch(ctx, store.Secrets, rev)
}

// take applies one change unless it is known already. A damaged or older
// entry is reported by name and the last good secret stays.
func (s *Secrets) take(ev store.Event) {
	ref := strings.TrimPrefix(ev.Key, store.Secrets)
	k := s.known[ref]
	if ev.Rev <= k.seen {
		return
	}
	if ev.Type == store.Delete {
		s.log.Warn("secret removed in the store", zap.String("secretRef", ref))
		s.forget(ref, ev.Rev)
		return
	}
	sec, err := open(s.aead, ref, ev.Value)
	if err == nil && sec.Version < k.version {
		err = fmt.Errorf("secret %s is version %d, known at version %d: %w", ref, sec.Version, k.version, ErrOlder)
	}
	if err != nil {
		k.rev, k.seen = ev.Rev, ev.Rev
		s.known[ref] = k
		_, kept := s.Get(ref)
		s.log.Error("secret refused", zap.String("secretRef", ref), zap.Bool("lastGoodKept", kept), zap.Error(err))
		return
	}
	if cur, ok := s.Get(ref); ok && cur.Version == sec.Version {
		// The same version cannot decrypt to anything else; only its
		// place in the store is new.
		k.rev, k.seen = ev.Rev, ev.Rev
		s.known[ref] = k
		return
	}
	s.log.Info("secret changed in the store", zap.String("secretRef", ref), zap.Uint64("version", sec.Version))
	s.apply(sec, ev.Rev)
}
