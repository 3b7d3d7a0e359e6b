package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/fsx"
	"go.uber.org/zap"
)

// Store is a store.Store in files. Make one with Open.
//
// One goroutine, the writer, changes files and memory; so changes are in one
// order, and a change is in memory and delivered to watchers only once it is
// on disk. Everything else reads memory under mu.
type Store struct {
	opts Options
	log  *zap.Logger
	dir  *fsx.Dir
	lock *os.File

	rev counter // the writer's
	hub *hub

	mu      sync.RWMutex
	folders []*folder // fixed
	sealed  *sealed
	revoked *revLog

	queue  queue
	stop   chan struct{}
	wg     sync.WaitGroup
	closed sync.Once
}

// interface guards
var (
	_ store.Store  = (*Store)(nil)
	_ store.Ranger = (*Store)(nil)
)

// Open opens the store and takes the data directory for this process. It
// refuses, naming the file: a directory in use (ErrLocked), data of the
// older system (ErrLegacy), a file that others can read or write
// (fsx.ErrInsecure), one that is damaged (ErrDamaged). It makes no file in
// the place of one that is missing before the first write to it; see
// SecretsFileState and RevocationsFileState.
func Open(opts Options) (*Store, error) {
	if opts.DataDir == "" {
		return nil, errors.New("open store: no data directory given")
	}
	opts.ServicesDir = cmp.Or(opts.ServicesDir, filepath.Join(opts.DataDir, "services"))
	opts.AgentsDir = cmp.Or(opts.AgentsDir, filepath.Join(opts.DataDir, "agents"))
	opts.PollInterval = cmp.Or(opts.PollInterval, time.Second)
	if opts.Logger == nil {
		opts.Logger = zap.NewNop()
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Store{opts: opts, log: opts.Logger, stop: make(chan struct{}), queue: newQueue()}
	if err := s.open(); err != nil {
		s.release()
		return nil, fmt.Errorf("open store: %w", err)
	}
	if fsx.Weaker != "" {
		s.log.Warn("this system protects the vault's files less: " + fsx.Weaker)
	}
	s.wg.Go(s.write)
	s.wg.Go(s.watchFiles)
	return s, nil
}

func (s *Store) open() error {
	if err := fsx.MakePrivateDir(s.opts.DataDir); err != nil {
		return err
	}
	var err error
	if s.dir, err = fsx.OpenDir(s.opts.DataDir); err != nil {
		return err
	}
	s.dir.SetFault(s.opts.fault)
	if s.lock, err = lockDir(s.dir); err != nil {
		return err
	}
	if _, err := s.dir.Root().Lstat(legacyName); err == nil {
		return fmt.Errorf("%s: %w", filepath.Join(s.opts.DataDir, legacyName), ErrLegacy)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.dir.RemoveTemps(); err != nil {
		return err
	}
	if s.sealed, err = openSealed(s.dir); err != nil {
		return err
	}
	if s.revoked, err = openLog(s.dir, s.opts.Now, s.log); err != nil {
		return err
	}
	if s.rev, err = openCounter(s.dir, max(s.sealed.rev, s.revoked.rev)); err != nil {
		return err
	}
	s.folders = []*folder{
		{collection: store.Services, what: "service", pattern: serviceName, path: s.opts.ServicesDir, validate: s.opts.ValidateService, again: lookAgain * s.opts.PollInterval},
		{collection: store.Agents, what: "agent", pattern: agentName, path: s.opts.AgentsDir, validate: s.opts.ValidateAgent, again: lookAgain * s.opts.PollInterval},
	}
	for _, d := range s.folders {
		if err := d.open(s.opts.fault, &s.rev); err != nil {
			return err
		}
	}
	// What was before this start is not known as changes.
	s.hub = newHub(s.rev.last)
	return nil
}

// SecretsFileState reports whether secrets.enc was there at Open. If not,
// the store starts without secrets; whether that is right is the caller's to
// know.
func (s *Store) SecretsFileState() (exists bool) { return s.sealed.found }

// RevocationsFileState is SecretsFileState for revocations.log.
func (s *Store) RevocationsFileState() (exists bool) { return s.revoked.found }

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Entry, error) {
	if err := s.ready(ctx); err != nil {
		return store.Entry{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok, err := s.lookup(key)
	if err != nil {
		return store.Entry{}, fmt.Errorf("get %s: %w", key, err)
	}
	if !ok || e.Expired(s.opts.Now()) {
		return store.Entry{}, fmt.Errorf("get %s: %w", key, store.ErrNotFound)
	}
	return e, nil
}

// lookup returns the entry at key, expired or not. Under mu, or by the
// writer.
func (s *Store) lookup(key string) (store.Entry, bool, error) {
	switch c := store.Collection(key); c {
	case store.Services, store.Agents:
		e, ok := s.folder(c).get(key)
		return e, ok, nil
	case store.Secrets, store.Keysets:
		e, ok := s.sealed.entries[key]
		e.Value = slices.Clone(e.Value)
		return e, ok, nil
	case store.Revocations:
		return s.revoked.get(key)
	default:
		return store.Entry{}, false, nil
	}
}

// folder returns the folder of a collection.
func (s *Store) folder(collection string) *folder {
	for _, d := range s.folders {
		if d.collection == collection {
			return d
		}
	}
	return nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Entry, error) {
	var list []store.Entry
	err := s.Range(ctx, prefix, func(e store.Entry) bool {
		e.Key, e.Value = strings.Clone(e.Key), slices.Clone(e.Value)
		list = append(list, e)
		return true
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b store.Entry) int { return strings.Compare(a.Key, b.Key) })
	return list, nil
}

// Range implements store.Ranger. Key, too, is valid only during the call.
// Writes wait until it is done.
func (s *Store) Range(ctx context.Context, prefix string, f func(store.Entry) bool) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	now := s.opts.Now()
	more := true
	visit := func(e store.Entry) bool {
		if more && strings.HasPrefix(e.Key, prefix) && !e.Expired(now) {
			more = f(e)
		}
		return more
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, d := range s.folders {
		if more && overlaps(prefix, d.collection) {
			d.each(visit)
		}
	}
	if more && (overlaps(prefix, store.Secrets) || overlaps(prefix, store.Keysets)) {
		for _, e := range s.sealed.entries {
			if !visit(e) {
				break
			}
		}
	}
	if more && overlaps(prefix, store.Revocations) {
		if err := s.revoked.each(visit); err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
	}
	return nil
}

// overlaps reports whether a key of collection can begin with prefix.
func overlaps(prefix, collection string) bool {
	return strings.HasPrefix(prefix, collection) || strings.HasPrefix(collection, prefix)
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, ifRev store.Rev, expires time.Time) (store.Rev, error) {
	if err := s.check(key, value, expires); err != nil {
		return 0, fmt.Errorf("put %s: %w", key, err)
	}
	rev, err := s.submit(ctx, &op{kind: opPut, key: key, value: slices.Clone(value), ifRev: ifRev, expires: roundUp(expires)})
	if err != nil {
		return 0, fmt.Errorf("put %s: %w", key, err)
	}
	return rev, nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string, ifRev store.Rev) (store.Rev, error) {
	if ifRev == 0 {
		return 0, fmt.Errorf("delete %s: %w", key, store.ErrConflict)
	}
	rev, err := s.submit(ctx, &op{kind: opDelete, key: key, ifRev: ifRev})
	if err != nil {
		return 0, fmt.Errorf("delete %s: %w", key, err)
	}
	return rev, nil
}

// check refuses what this driver cannot keep.
func (s *Store) check(key string, value []byte, expires time.Time) error {
	c := store.Collection(key)
	switch {
	case len(key) > store.MaxKey || c == "" || len(key) == len(c):
		return fmt.Errorf("key: %w", store.ErrInvalid)
	case len(value) > store.MaxValue:
		return fmt.Errorf("value larger than %d bytes: %w", store.MaxValue, store.ErrInvalid)
	}
	switch c {
	case store.Services, store.Agents:
		d := s.folder(c)
		if !expires.IsZero() {
			return fmt.Errorf("the file of %s cannot expire: %w", d.what, store.ErrInvalid)
		}
		if err := d.check(strings.TrimPrefix(key, c), value); err != nil {
			return fmt.Errorf("%w: %w", store.ErrInvalid, err)
		}
	case store.Revocations:
		if len(value) > maxLogValue {
			return fmt.Errorf("value larger than %d bytes: %w", maxLogValue, store.ErrInvalid)
		}
	case store.Secrets, store.Keysets:
	default:
		return fmt.Errorf("no collection %q: %w", c, store.ErrInvalid)
	}
	return nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string, from store.Rev) (store.Watcher, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	return s.hub.watch(ctx, prefix, from)
}

// Barrier implements store.Store. What is acknowledged is in memory already.
func (s *Store) Barrier(ctx context.Context) (store.Rev, error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	return s.hub.lastRev(), nil
}

// Close implements store.Store. Writes that have not begun fail with
// store.ErrClosed.
func (s *Store) Close() error {
	s.closed.Do(func() {
		close(s.stop)
		s.queue.close()
		s.wg.Wait()
		s.hub.close()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.release()
	})
	return nil
}

// release closes the files and, last, gives the directory up.
func (s *Store) release() {
	if s.revoked != nil {
		s.revoked.close()
	}
	for _, d := range s.folders {
		if d.dir != nil {
			_ = d.dir.Close()
		}
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
	if s.dir != nil {
		_ = s.dir.Close()
	}
}

func (s *Store) ready(ctx context.Context) error {
	select {
	case <-s.stop:
		return fmt.Errorf("store: %w", store.ErrClosed)
	default:
		return ctx.Err()
	}
}

// roundUp rounds t up to milliseconds, which is what the files hold.
func roundUp(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.UnixMilli(expiryMillis(t))
}

// expiryMillis returns t in Unix milliseconds, rounded up; 0 for the zero
// time, which means never, and for no other.
func expiryMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	ms := t.UnixMilli()
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return max(ms, 1)
}

// expiryTime is the inverse of expiryMillis.
func expiryTime(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
