package audit

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestTurns has readers that always find something to read: together they use
// a quarter of the time, and all come to their turn.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		done := make(chan struct{})
		had := make([]int, 100)
		var readers sync.WaitGroup
		for i := range had {
			readers.Go(func() {
				for turns.take(ctx, done) == nil {
					time.Sleep(time.Millisecond) // reading
					had[i]++
					turns.give(Batch{})
				}
			})
		}
		readers.Wait()
		total := 0
		for i, n := range had {
			if n == 0 {
				t.Errorf("reader %d had no turn", i)
			}
			total += n
		}
		if total < 2400 || total > 2600 {
			t.Errorf("%d turns of a millisecond in ten seconds", total)
		}
	})
}

// TestTurnsFound counts what was found as time, too.
func TestTurnsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		done := make(chan struct{})
		line := make([]byte, turnRate)
		start := time.Now()
		for range 21 {
			if err := turns.take(t.Context(), done); err != nil {
				t.Fatal(err)
			}
			turns.give(Batch{Lines: [][]byte{line}})
		}
		// The first five were saved up, and the last one is not paid yet.
		if took, want := time.Since(start), 15*time.Millisecond*turnShare; took != want {
			t.Errorf("20 turns took %v, not %v", took, want)
		}
	})
}
