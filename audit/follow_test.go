package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestFollow has followers that began at every place, while segments are
// sealed: each sees every record once, in order, byte for byte.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, SegmentSize: 3000, Durability: Async})
	const n = 400
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	got := map[uint64][]string{}
	var wg sync.WaitGroup
	follow := func(after uint64) {
		f, err := l.Follow(FollowOptions{After: after, Filters: map[string]string{"event": "test"}})
		if err != nil {
			t.Error(err)
			return
		}
		wg.Go(func() {
			defer f.Close()
			var lines []string
			for len(lines) == 0 || !containsCall(lines[len(lines)-1], n-1) {
				b, err := f.Next(ctx)
				if err != nil {
					t.Errorf("after %d: %v with %d lines", after, err, len(lines))
					return
				}
				for _, line := range b.Lines {
					lines = append(lines, string(line))
				}
			}
			mu.Lock()
			got[after] = lines
			mu.Unlock()
		})
	}
	follow(0)
	for i := range n {
		if err := l.Enqueue(Entry{Record: Record{Event: "test", CallID: fmt.Sprint(i)}}); err != nil {
			t.Fatal(err)
		}
		if i%97 == 50 {
			if err := l.barrier(ctx); err != nil {
				t.Fatal(err)
			}
			follow(l.Seq())
			follow(l.Seq() / 2)
		}
	}
	wg.Wait()
	var all []string
	for _, line := range logLines(t, dir) {
		if LineEvent([]byte(line)) == "test" {
			all = append(all, line)
		}
	}
	for after, lines := range got {
		want := slices.DeleteFunc(slices.Clone(all), func(line string) bool {
			seq, _ := LineSeq([]byte(line))
			return seq <= after
		})
		if !slices.Equal(lines, want) {
			t.Errorf("after %d: %d records instead of %d", after, len(lines), len(want))
		}
	}
	if len(got) < 8 {
		t.Fatalf("%d followers", len(got))
	}
}

func containsCall(line string, i int) bool {
	id, _ := fieldString([]byte(line), callIDKey)
	return string(id) == fmt.Sprint(i)
}

// TestFollowEnds ends with the log and with its context, and does not mind
// numbers that a crash has taken back.
func TestFollowEnds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Options{Dir: dir, CheckpointEvery: -1})
		ahead, err := l.Follow(FollowOptions{After: 1000})
		if err != nil {
			t.Fatal(err)
		}
		defer ahead.Close()
		gone, cancel := context.WithCancel(context.Background())
		ends := make(chan error, 2)
		go func() {
			_, err := ahead.Next(gone)
			ends <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-ends; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		appendOK(t, l, Record{Event: "test"})
		if b, err := ahead.Next(context.Background()); err != nil || len(b.Lines) != 1 || b.Seq != 1 {
			t.Fatalf("%+v, %v", b, err)
		}
		go func() {
			_, err := ahead.Next(context.Background())
			ends <- err
		}()
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ends; !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	})
}

// TestFollowDropped reads on behind segments that retention has dropped, and
// says which records those were.
func TestFollowDropped(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir(), SegmentSize: 1000})
	for range 40 {
		appendOK(t, l, Record{Event: "test"})
	}
	l.view.mu.Lock()
	first := l.view.sealed[2].first
	l.view.sealed = l.view.sealed[2:]
	l.view.mu.Unlock()
	f, err := l.Follow(FollowOptions{After: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := f.Next(context.Background())
	if err != nil || b.Missing != [2]uint64{4, first - 1} || seqs(t, b.Lines)[0] != first {
		t.Fatalf("%+v, %v", b.Missing, err)
	}
}
