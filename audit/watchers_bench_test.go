package audit

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkWatchers measures what those who follow the log cost those who
// append to it: callers that wait for the disk, 20,000 a second of them, as
// calls would, and the time each waits.
func BenchmarkWatchers(b *testing.B) {
	for _, w := range []struct {
		name  string
		n     int
		slow  bool
		agent bool // each follows an agent's records alone
	}{
		{name: "0"},
		{name: "100 of an agent each", n: 100, agent: true},
		{name: "100 of everything", n: 100},
		{name: "100 of everything, slow", n: 100, slow: true},
	} {
		b.Run(w.name, func(b *testing.B) {
			l := open(b, Options{Dir: b.TempDir(), Deadline: closeWait})
			ctx, cancel := context.WithCancel(b.Context())
			var watchers, callers sync.WaitGroup
			var seen atomic.Int64
			for i := range w.n {
				o := FollowOptions{}
				if w.agent {
					o.Filters = map[string]string{"agentId": fmt.Sprint("agent-", i)}
				}
				f, err := l.Follow(o)
				if err != nil {
					b.Fatal(err)
				}
				watchers.Go(func() {
					defer f.Close()
					for {
						batch, err := f.Next(ctx)
						if err != nil {
							return
						}
						seen.Add(int64(len(batch.Lines)))
						if w.slow { // takes a batch a second
							select {
							case <-ctx.Done():
							case <-time.After(time.Second):
							}
						}
					}
				})
			}
			const each = 64
			waited := make([][]time.Duration, each)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			for c := range each {
				callers.Go(func() {
					for i := left.Add(-1); i >= 0; i = left.Add(-1) {
						start := time.Now()
						if _, err := l.Append(ctx, Entry{Record: benchRecord(int(i))}); err != nil {
							b.Error(err)
							return
						}
						took := time.Since(start)
						waited[c] = append(waited[c], took)
						time.Sleep(each*time.Second/20_000 - took)
					}
				})
			}
			callers.Wait()
			b.StopTimer()
			cancel()
			watchers.Wait()
			all := slices.Concat(waited...)
			slices.Sort(all)
			b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(seen.Load())/b.Elapsed().Seconds(), "seen/s")
		})
	}
}
