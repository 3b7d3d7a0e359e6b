package file

import (
	"context"
	"time"

	"github.com/caddyvault/caddyvault/store"
)

// Store is a store.Store in files. Make one with Open.
type Store struct{}

// Open opens the store and takes the data directory for this process.
func Open(opts Options) (*Store, error) { panic("not yet") }

func (*Store) Get(ctx context.Context, key string) (store.Entry, error)       { panic("not yet") }
func (*Store) List(ctx context.Context, prefix string) ([]store.Entry, error) { panic("not yet") }
func (*Store) Put(ctx context.Context, key string, value []byte, ifRev store.Rev, expires time.Time) (store.Rev, error) {
	panic("not yet")
}
func (*Store) Delete(ctx context.Context, key string, ifRev store.Rev) (store.Rev, error) {
	panic("not yet")
}
func (*Store) Watch(ctx context.Context, prefix string, from store.Rev) (store.Watcher, error) {
	panic("not yet")
}
func (*Store) Barrier(ctx context.Context) (store.Rev, error) { panic("not yet") }
func (*Store) Close() error                                   { panic("not yet") }

// SecretsFileState reports whether secrets.enc was there at Open.
func (*Store) SecretsFileState() (exists bool) { panic("not yet") }

// RevocationsFileState reports whether revocations.log was there at Open.
func (*Store) RevocationsFileState() (exists bool) { panic("not yet") }
