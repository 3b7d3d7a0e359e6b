package file

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/caddyvault/caddyvault/store"
)

// How much of the latest changes of a collection is remembered.
const (
	historyEvents = 4096
	historyBytes  = 8 << 20
)

// hub remembers the latest changes and wakes watchers. A watcher has no
// queue of its own: it holds a place in the history, and if what comes next
// has been forgotten it was too slow.
type hub struct {
	mu     sync.Mutex
	last   store.Rev
	closed bool
	wake   chan struct{} // closed and replaced at every change

	// One history a collection, so that a flood of revocations does not
	// push out the changes of services.
	histories map[string]*history
}

type history struct {
	events    []store.Event // by revision
	bytes     int
	forgotten store.Rev // changes up to here are not known
}

func newHub(rev store.Rev) *hub {
	h := &hub{last: rev, wake: make(chan struct{}), histories: map[string]*history{}}
	for _, c := range []string{store.Services, store.Agents, store.Secrets, store.Keysets, store.Revocations} {
		h.histories[c] = &history{forgotten: rev}
	}
	return h
}

func (h *hub) lastRev() store.Rev {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// publish adds events, in order of revision.
func (h *hub) publish(events []store.Event) {
	if len(events) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ev := range events {
		h.last = ev.Rev
		h.histories[store.Collection(ev.Key)].add(ev)
	}
	close(h.wake)
	h.wake = make(chan struct{})
}

func (h *history) add(ev store.Event) {
	h.events = append(h.events, ev)
	h.bytes += len(ev.Value)
	drop := 0
	for len(h.events)-drop > historyEvents || h.bytes > historyBytes && len(h.events)-drop > 1 {
		h.forgotten = h.events[drop].Rev
		h.bytes -= len(h.events[drop].Value)
		drop++
	}
	clear(h.events[:drop]) // let go of the values
	h.events = h.events[drop:]
}

// after returns the first change after rev whose key begins with prefix.
func (h *history) after(rev store.Rev, prefix string) (store.Event, bool) {
	i := sort.Search(len(h.events), func(i int) bool { return h.events[i].Rev > rev })
	for ; i < len(h.events); i++ {
		if strings.HasPrefix(h.events[i].Key, prefix) {
			return h.events[i], true
		}
	}
	return store.Event{}, false
}

func (h *hub) watch(ctx context.Context, prefix string, from store.Rev) (store.Watcher, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c, hist := range h.histories {
		if overlaps(prefix, c) && from < hist.forgotten {
			return nil, fmt.Errorf("watch %s from revision %d: %w", prefix, from, store.ErrCompacted)
		}
	}
	return &watcher{hub: h, ctx: ctx, prefix: prefix, pos: from, done: make(chan struct{})}, nil
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	close(h.wake)
	h.wake = make(chan struct{})
}

// watcher implements store.Watcher.
type watcher struct {
	hub    *hub
	ctx    context.Context // of Watch
	prefix string
	pos    store.Rev
	err    error // final

	once sync.Once
	done chan struct{}
}

// Next implements store.Watcher.
func (w *watcher) Next(ctx context.Context) (store.Event, error) {
	for {
		if w.err != nil {
			return store.Event{}, w.err
		}
		ev, ok, wake := w.poll()
		if ok || w.err != nil {
			return ev, w.err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return store.Event{}, ctx.Err()
		case <-w.ctx.Done():
		case <-w.done:
		}
	}
}

// poll returns the next change if there is one, else what to wait for; or it
// sets the final error.
func (w *watcher) poll() (store.Event, bool, <-chan struct{}) {
	select {
	case <-w.done:
		w.err = fmt.Errorf("watch %s: %w", w.prefix, store.ErrClosed)
		return store.Event{}, false, nil
	case <-w.ctx.Done():
		w.err = fmt.Errorf("watch %s: %w", w.prefix, w.ctx.Err())
		return store.Event{}, false, nil
	default:
	}
	h := w.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	var next store.Event
	found := false
	for c, hist := range h.histories {
		if !overlaps(w.prefix, c) {
			continue
		}
		if w.pos < hist.forgotten {
			w.err = fmt.Errorf("watch %s: %w", w.prefix, store.ErrSlow)
			return store.Event{}, false, nil
		}
		if ev, ok := hist.after(w.pos, w.prefix); ok && (!found || ev.Rev < next.Rev) {
			next, found = ev, true
		}
	}
	if found {
		w.pos = next.Rev
		next.Value = slices.Clone(next.Value)
		return next, true, nil
	}
	if h.closed {
		w.err = fmt.Errorf("watch %s: %w", w.prefix, store.ErrClosed)
		return store.Event{}, false, nil
	}
	// Nothing for us up to here, so what is forgotten later is no loss.
	w.pos = max(w.pos, h.last)
	return store.Event{}, false, h.wake
}

// Close implements store.Watcher.
func (w *watcher) Close() { w.once.Do(func() { close(w.done) }) }
