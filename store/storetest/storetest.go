// Package storetest is what a driver of store.Store must pass. It knows no
// driver; a driver's own test calls Run.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/store"
)

// keys are one of each collection, so that each is held to the same.
var keys = []string{"services/a", "agents/a", "secrets/a", "keyset/a", "revocations/token/a"}

// Run runs the suite. open returns a fresh, empty store each time it is
// called; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	RunReopen(t, func(t *testing.T) func() store.Store {
		st := open(t)
		return func() store.Store { return st }
	}, false)
}

// RunReopen runs the suite for a store that keeps what it was given: make
// prepares a place, and each call of what it returns opens the store there,
// after the one before was closed. With reopen false it is called once.
func RunReopen(t *testing.T, prepare func(t *testing.T) func() store.Store, reopen bool) {
	cases := map[string]func(*testing.T, store.Store){
		"compare and swap": testCAS,
		"list":             testList,
		"watch":            testWatch,
		"watch ends":       testWatchEnds,
		"expiry":           testExpiry,
		"barrier":          testBarrier,
		"concurrency":      testConcurrency,
		"invalid keys":     testInvalid,
		"closed":           testClosed,
	}
	for name, f := range cases {
		t.Run(name, func(t *testing.T) {
			st := prepare(t)()
			defer st.Close()
			f(t, st)
		})
	}
	if reopen {
		t.Run("reopen", func(t *testing.T) { testReopen(t, prepare(t)) })
	}
}

func put(t *testing.T, st store.Store, key, value string, ifRev store.Rev) store.Rev {
	t.Helper()
	rev, err := st.Put(t.Context(), key, []byte(value), ifRev, time.Time{})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return rev
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got error %v, want %v", what, err, want)
	}
}

func testCAS(t *testing.T, st store.Store) {
	ctx := t.Context()
	for _, key := range keys {
		_, err := st.Get(ctx, key)
		wantErr(t, "get of nothing", err, store.ErrNotFound)
		_, err = st.Delete(ctx, key, store.AnyRev)
		wantErr(t, "delete of nothing", err, store.ErrNotFound)
		_, err = st.Put(ctx, key, []byte(`{}`), 1, time.Time{})
		wantErr(t, "put over nothing", err, store.ErrConflict)

		first := put(t, st, key, `{"n":1}`, 0)
		_, err = st.Put(ctx, key, []byte(`{}`), 0, time.Time{})
		wantErr(t, "put of what exists", err, store.ErrConflict)
		second := put(t, st, key, `{"n":2}`, first)
		if second <= first {
			t.Fatalf("%s: revision %d after %d", key, second, first)
		}
		_, err = st.Put(ctx, key, []byte(`{}`), first, time.Time{})
		wantErr(t, "put over an older one", err, store.ErrConflict)
		_, err = st.Delete(ctx, key, first)
		wantErr(t, "delete of an older one", err, store.ErrConflict)
		e, err := st.Get(ctx, key)
		if err != nil || string(e.Value) != `{"n":2}` || e.Rev != second || e.Key != key || e.Err != nil {
			t.Fatalf("get %s: %+v, %v", key, e, err)
		}
		third := put(t, st, key, `{"n":3}`, store.AnyRev)
		gone, err := st.Delete(ctx, key, third)
		if err != nil || gone <= third {
			t.Fatalf("delete %s: revision %d after %d, %v", key, gone, third, err)
		}
		_, err = st.Get(ctx, key)
		wantErr(t, "get of what was deleted", err, store.ErrNotFound)
		if again := put(t, st, key, `{"n":4}`, 0); again <= gone {
			t.Fatalf("%s: revision %d after %d", key, again, gone)
		}
	}
}

func testList(t *testing.T, st store.Store) {
	for _, key := range []string{"services/b", "services/a", "services/ab", "agents/b", "secrets/x", "keyset/x", "revocations/task/1", "revocations/agent/a b%/\n"} {
		put(t, st, key, `{}`, 0)
	}
	for prefix, want := range map[string][]string{
		"services/":        {"services/a", "services/ab", "services/b"},
		"services/a":       {"services/a", "services/ab"},
		"agents/":          {"agents/b"},
		"s":                {"secrets/x", "services/a", "services/ab", "services/b"},
		"revocations/":     {"revocations/agent/a b%/\n", "revocations/task/1"},
		"revocations/task": {"revocations/task/1"},
		"nothing/":         nil,
	} {
		list, err := st.List(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range list {
			got = append(got, e.Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("list %q: %q, want %q", prefix, got, want)
		}
	}
}

func testWatch(t *testing.T, st store.Store) {
	ctx := t.Context()
	from, err := st.Barrier(ctx)
	if err != nil {
		t.Fatal(err)
	}
	live, err := st.Watch(ctx, "", from)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	var want []string
	for i := range 50 {
		for _, key := range keys {
			rev := put(t, st, key, fmt.Sprintf(`{"n":%d}`, i), store.AnyRev)
			want = append(want, fmt.Sprint(store.Put, key, rev))
			if i%10 == 9 {
				if rev, err = st.Delete(ctx, key, rev); err != nil {
					t.Fatal(err)
				}
				want = append(want, fmt.Sprint(store.Delete, key, rev))
			}
		}
	}
	late, err := st.Watch(ctx, "", from)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	for name, w := range map[string]store.Watcher{"live": live, "late": late} {
		for i := range want {
			ev, err := w.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(ev.Type, ev.Key, ev.Rev); got != want[i] {
				t.Fatalf("%s watcher, event %d: %s, want %s", name, i, got, want[i])
			}
		}
		// Nothing twice: the next event is that of the next change.
		rev := put(t, st, "secrets/last-"+name, `{}`, 0)
		want = append(want, fmt.Sprint(store.Put, "secrets/last-"+name, rev))
		if ev, err := w.Next(ctx); err != nil || ev.Rev != rev {
			t.Fatalf("%s watcher: %v, %v; want revision %d", name, ev, err, rev)
		}
	}
}

func testWatchEnds(t *testing.T, st store.Store) {
	rev, err := st.Barrier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	byContext, err := st.Watch(ctx, "secrets/", rev)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = byContext.Next(t.Context())
	wantErr(t, "after the context of Watch", err, context.Canceled)

	w, err := st.Watch(t.Context(), "secrets/", rev)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Next(ctx)
	wantErr(t, "with a cancelled wait", err, context.Canceled)
	want := put(t, st, "secrets/a", `{}`, 0)
	if ev, err := w.Next(t.Context()); err != nil || ev.Rev != want {
		t.Fatalf("a cancelled wait lost an event: %v, %v", ev, err)
	}
	errs := make(chan error)
	go func() { _, err := w.Next(t.Context()); errs <- err }()
	w.Close()
	wantErr(t, "after Close", <-errs, store.ErrClosed)

	w, err = st.Watch(t.Context(), "secrets/", rev)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = w.Next(t.Context())
	}
	wantErr(t, "after the store was closed", err, store.ErrClosed)
}

func testExpiry(t *testing.T, st store.Store) {
	ctx := t.Context()
	for _, key := range []string{"secrets/a", "revocations/token/a"} {
		soon := time.Now().Add(time.Hour)
		if _, err := st.Put(ctx, key, []byte(`{}`), 0, soon); err != nil {
			t.Fatal(err)
		}
		e, err := st.Get(ctx, key)
		if err != nil || e.Expires.Before(soon) || e.Expires.Sub(soon) > time.Millisecond {
			t.Fatalf("get %s: %v, %v; want expiry %v", key, e, err, soon)
		}
		if _, err := st.Put(ctx, key, []byte(`{}`), e.Rev, time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = st.Get(ctx, key)
		wantErr(t, "get of what has expired", err, store.ErrNotFound)
		_, err = st.Delete(ctx, key, store.AnyRev)
		wantErr(t, "delete of what has expired", err, store.ErrNotFound)
		if list, err := st.List(ctx, key); err != nil || len(list) != 0 {
			t.Fatalf("list %s: %v, %v", key, list, err)
		}
		put(t, st, key, `{}`, 0)
	}
}

func testBarrier(t *testing.T, st store.Store) {
	for _, key := range keys {
		rev := put(t, st, key, `{}`, 0)
		if b, err := st.Barrier(t.Context()); err != nil || b < rev {
			t.Fatalf("barrier %d after revision %d, %v", b, rev, err)
		}
		if _, err := st.Get(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
}

// testConcurrency counts to n by compare-and-swap from many sides: a lost
// update would show in the sum, a lost event in the watch.
func testConcurrency(t *testing.T, st store.Store) {
	const workers, each = 10, 8 // workers: a multiple of the keys
	ctx := t.Context()
	from, _ := st.Barrier(ctx)
	w, err := st.Watch(ctx, "", from)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			key := keys[i%len(keys)]
			for done := 0; done < each; {
				n, rev := 0, store.Rev(0)
				if e, err := st.Get(ctx, key); err == nil {
					rev = e.Rev
					_, _ = fmt.Sscanf(string(e.Value), `{"n":%d}`, &n)
				}
				_, err := st.Put(ctx, key, fmt.Appendf(nil, `{"n":%d}`, n+1), rev, time.Time{})
				if err == nil {
					done++
				} else if !errors.Is(err, store.ErrConflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	last := from
	for range workers * each {
		ev, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if ev.Rev <= last {
			t.Fatalf("revision %d after %d", ev.Rev, last)
		}
		last = ev.Rev
	}
	wg.Wait()
	for _, key := range keys {
		want := fmt.Sprintf(`{"n":%d}`, workers/len(keys)*each)
		if e, err := st.Get(ctx, key); err != nil || string(e.Value) != want {
			t.Errorf("%s: %s, %v; want %s", key, e.Value, err, want)
		}
	}
}

func testInvalid(t *testing.T, st store.Store) {
	for _, key := range []string{"", "services", "services/", "unknown/a", "/a"} {
		_, err := st.Put(t.Context(), key, []byte(`{}`), store.AnyRev, time.Time{})
		wantErr(t, fmt.Sprintf("put %q", key), err, store.ErrInvalid)
	}
	_, err := st.Put(t.Context(), "secrets/a", make([]byte, store.MaxValue+1), store.AnyRev, time.Time{})
	wantErr(t, "put of a huge value", err, store.ErrInvalid)
}

func testClosed(t *testing.T, st store.Store) {
	if err := errors.Join(st.Close(), st.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := st.Put(t.Context(), "secrets/a", []byte(`{}`), store.AnyRev, time.Time{})
	wantErr(t, "put", err, store.ErrClosed)
	_, err = st.Get(t.Context(), "secrets/a")
	wantErr(t, "get", err, store.ErrClosed)
	_, err = st.Watch(t.Context(), "", 0)
	wantErr(t, "watch", err, store.ErrClosed)
}

func testReopen(t *testing.T, open func() store.Store) {
	st := open()
	values := map[string]string{}
	var last store.Rev
	for i, key := range keys {
		values[key] = fmt.Sprintf(`{"n":%d}`, i)
		put(t, st, key, values[key], 0)
		last = put(t, st, key+"-gone", `{}`, 0)
		var err error
		if last, err = st.Delete(t.Context(), key+"-gone", last); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		before := last
		st = open()
		for key, value := range values {
			if e, err := st.Get(t.Context(), key); err != nil || string(e.Value) != value {
				t.Fatalf("get %s: %s, %v; want %s", key, e.Value, err, value)
			}
			if _, err := st.Get(t.Context(), key+"-gone"); !errors.Is(err, store.ErrNotFound) {
				t.Fatalf("%s-gone is back: %v", key, err)
			}
			rev := put(t, st, key, value, store.AnyRev)
			if rev <= last {
				t.Fatalf("revision %d after %d", rev, last)
			}
			last = rev
		}
		_, err := st.Watch(t.Context(), "", before-1)
		wantErr(t, "watch from before the start", err, store.ErrCompacted)
	}
	st.Close()
}
