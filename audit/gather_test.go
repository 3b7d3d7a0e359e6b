package audit

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestGather has callers come one upon the other: with many of them about, a
// synced batch is of many; with few, or where nothing is synced, nobody waits
// for anybody.
func TestGather(t *testing.T) {
	for _, tt := range []struct {
		name       string
		callers    func() int
		durability Durability
		gathers    bool
	}{
		{"many", func() int { return 32 }, Sync, true},
		{"few", func() int { return gatherFew }, Sync, false},
		{"not known", nil, Sync, false},
		{"not synced", func() int { return 32 }, Async, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				l := open(t, Options{Dir: dir, Callers: tt.callers, Durability: tt.durability, CheckpointEvery: -1})
				const callers, each = 32, 100
				var wg sync.WaitGroup
				for i := range callers {
					wg.Go(func() {
						time.Sleep(time.Duration(i) * 31 * time.Microsecond)
						for range each {
							appendOK(t, l, Record{Event: "e"})
							time.Sleep(time.Millisecond)
						}
					})
				}
				wg.Wait()
				batches := l.Stats().Batches.Count
				if few := batches < callers*each/8; few != tt.gathers {
					t.Errorf("%d records in %d batches", callers*each, batches)
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			})
			if got := len(logLines(t, dir)); got != 32*100 {
				t.Errorf("%d records", got)
			}
		})
	}
}

// TestGatherEnds has a batch gather that does not fill: it is written all the
// same, after a while, when somebody asks for what is in the log, and when the
// log is closed.
func TestGatherEnds(t *testing.T) {
	hot := func(t *testing.T, dir string) *Log {
		l := open(t, Options{Dir: dir, Callers: func() int { return 100 }, CheckpointEvery: -1})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { appendOK(t, l, Record{Event: "e"}) })
			time.Sleep(10 * time.Microsecond)
		}
		wg.Wait()
		synctest.Wait() // the writer has nothing to do
		return l
	}
	for _, tt := range []struct {
		name  string
		after time.Duration
		end   func(t *testing.T, l *Log)
	}{
		{"by itself", gatherFor, func(*testing.T, *Log) {}},
		{"a query", 0, func(t *testing.T, l *Log) {
			if _, err := l.Query(context.Background(), Query{Limit: 1}); err != nil {
				t.Error(err)
			}
		}},
		{"the log is closed", 0, func(t *testing.T, l *Log) {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				l := hot(t, dir)
				start := time.Now()
				done := make(chan struct{})
				go func() {
					defer close(done)
					appendOK(t, l, Record{Event: "last"})
				}()
				synctest.Wait() // the writer gathers
				select {
				case <-done:
					t.Fatal("nothing gathers")
				default:
				}
				tt.end(t, l)
				<-done
				if took := time.Since(start); took != tt.after { // of the bubble's clock
					t.Errorf("it took %v", took)
				}
				_ = l.Close()
			})
			if got := len(logLines(t, dir)); got != 101 {
				t.Errorf("%d records", got)
			}
		})
	}
}
