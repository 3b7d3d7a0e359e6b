package file

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/fsx"
)

type opKind uint8

const (
	opPut opKind = iota + 1
	opDelete
	opScan // look at files that seem to have been changed by hand
)

// op is one thing for the writer to do.
type op struct {
	kind    opKind
	key     string
	value   []byte
	ifRev   store.Rev
	expires time.Time

	folder *folder  // opScan: of names and dir
	names  []string // opScan: files
	sealed bool     // opScan: secrets.enc
	dir    *fsx.Dir // opScan: the new directory

	ctx  context.Context
	done chan result // buffered
}

type result struct {
	rev store.Rev
	err error
}

func (o *op) finish(rev store.Rev, err error) { o.done <- result{rev, err} }

// queue is what waits for the writer.
type queue struct {
	mu     sync.Mutex
	ops    []*op
	closed bool
	wake   chan struct{} // one slot: there is something
}

func newQueue() queue { return queue{wake: make(chan struct{}, 1)} }

// add reports false if the queue is closed.
func (q *queue) add(o *op) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.ops = append(q.ops, o)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

// take returns everything that waits.
func (q *queue) take() []*op {
	q.mu.Lock()
	defer q.mu.Unlock()
	ops := q.ops
	q.ops = nil
	return ops
}

// close refuses further ops and fails those that wait.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, o := range q.ops {
		o.finish(0, store.ErrClosed)
	}
	q.ops = nil
}

// submit has the writer do o and waits for it.
func (s *Store) submit(ctx context.Context, o *op) (store.Rev, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	o.ctx, o.done = ctx, make(chan result, 1)
	if !s.queue.add(o) {
		return 0, store.ErrClosed
	}
	select {
	case r := <-o.done:
		return r.rev, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// write is the writer. What gathers while it writes is the next batch, so
// that many revocations share one fsync without any timer.
func (s *Store) write() {
	for {
		select {
		case <-s.stop:
			return
		case <-s.queue.wake:
		}
		ops := s.queue.take()
		for len(ops) > 0 {
			n := 0
			for n < len(ops) && ops[n].kind != opScan && store.Collection(ops[n].key) == store.Revocations {
				n++
			}
			if n > 0 {
				s.commitRevocations(ops[:n])
				ops = ops[n:]
				continue
			}
			s.commit(ops[0])
			ops = ops[1:]
		}
	}
}

// commit does one op that is not about revocations.
func (s *Store) commit(o *op) {
	if err := o.ctx.Err(); err != nil {
		o.finish(0, err)
		return
	}
	switch c := store.Collection(o.key); {
	case o.kind == opScan:
		if o.dir != nil {
			old := o.folder.dir
			s.locked(func() { o.folder.dir = o.dir })
			_ = old.Close()
		}
		for _, name := range o.names {
			s.takeItem(o.folder, name, true)
		}
		if o.sealed {
			s.takeSealed(true)
		}
		o.finish(0, nil)
	case c == store.Services || c == store.Agents:
		o.finish(s.commitItem(s.folder(c), o))
	case c == store.Secrets || c == store.Keysets:
		o.finish(s.commitSealed(o))
	default:
		o.finish(0, store.ErrNotFound) // a Delete; Put has been checked
	}
}

// compare holds o against the entry there is now.
func (s *Store) compare(o *op, cur store.Entry, ok bool) error {
	ok = ok && !cur.Expired(s.opts.Now())
	switch {
	case o.kind == opDelete && !ok:
		return store.ErrNotFound
	case o.ifRev == store.AnyRev:
		return nil
	case !ok && o.ifRev != 0:
		return fmt.Errorf("%w: it does not exist", store.ErrConflict)
	case ok && o.ifRev != cur.Rev:
		return fmt.Errorf("%w: it is at revision %d", store.ErrConflict, cur.Rev)
	}
	return nil
}

// event returns the event of o done at rev.
func (o *op) event(rev store.Rev) store.Event {
	if o.kind == opDelete {
		return store.Event{Type: store.Delete, Entry: store.Entry{Key: o.key, Rev: rev}}
	}
	return store.Event{Type: store.Put, Entry: store.Entry{Key: o.key, Value: o.value, Rev: rev, Expires: o.expires}}
}

// apply changes memory by f and delivers events, as one step for readers.
func (s *Store) apply(f func(), events ...store.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.hub.publish(events)
}
