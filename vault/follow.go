package vault

import (
	"context"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/store"
)

// loader reads everything of a part of the store.
type loader func(context.Context, store.Store) error

// watch begins a watch of what has a prefix and then loads all of it, so that
// no change falls between the two.
func (st *State) watch(ctx context.Context, prefix string, load loader) (store.Watcher, error) {
	rev, err := st.store.Barrier(ctx)
	if err != nil {
		return nil, err
	}
	w, err := st.store.Watch(ctx, prefix, rev)
	if err != nil {
		return nil, err
	}
	if err := load(ctx, st.store); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// rewatch starts over after a watch has ended with an error. It returns nil
// when ctx ends.
func (st *State) rewatch(ctx context.Context, why error, prefix string, load loader) store.Watcher {
	if ctx.Err() != nil {
		return nil
	}
	log := st.logger.With(zap.String("what", strings.TrimSuffix(prefix, "/")))
	log.Error("a watch of the store ended; reading anew", zap.Error(why))
	for {
		w, err := st.watch(ctx, prefix, load)
		if err == nil {
			return w
		}
		log.Error("the store cannot be read", zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}
