package audit

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func benchRecord(i int) Record {
	return Record{
		Event: EventCallStarted, Service: "github", Action: "repo.get",
		Context: &Context{AgentID: fmt.Sprint("agent-", i%1000), SessionID: fmt.Sprint("session-", i%10_000), TaskID: "t1", SkillID: "default", Tool: "vault"},
		TokenID: "6f9619ff-8b86-d011-b42d-00cf4fc964ff", Method: "GET", Upstream: "https://api.github.com/repos/o/r",
		CallID: fmt.Sprintf("0190a5b2-7c3d-7000-8000-%012x", i), ParamsDigest: "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	r := benchRecord(1)
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = r.AppendJSON(buf[:0])
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkAppend(b *testing.B) {
	for _, d := range []struct {
		name string
		d    Durability
	}{{"sync", Sync}, {"async", Async}} {
		for _, callers := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("%s/%d", d.name, callers), func(b *testing.B) {
				l := open(b, Options{Dir: b.TempDir(), Durability: d.d, Deadline: closeWait})
				var left atomic.Int64
				left.Store(int64(b.N))
				var wg sync.WaitGroup
				r := benchRecord(1)
				guard := func() string { return "" }
				b.ReportAllocs()
				b.ResetTimer()
				for range callers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if _, err := l.Append(context.Background(), Entry{Record: r, Guard: guard}); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
				_ = l.Close()
			})
		}
	}
}

// benchLog fills a log with records of calls that all ended.
func benchLog(b *testing.B, dir string, n int) {
	l := open(b, Options{Dir: dir, Durability: Async, QueueBytes: 1 << 30})
	for i := range n {
		r := benchRecord(i / 2)
		if i%2 == 1 {
			r.Event = EventCall
		}
		if err := l.Enqueue(Entry{Record: r}); err != nil {
			b.Fatal(err)
		}
		if i%50_000 == 0 {
			for l.queue.bytes.Load() > 64<<20 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkBig(b *testing.B) {
	const records = 1_000_000
	dir := b.TempDir()
	benchLog(b, dir, records)
	verify := func(b *testing.B) {
		best := time.Duration(1<<63 - 1)
		var r Report
		for b.Loop() {
			start := time.Now()
			var err error
			if r, err = Verify(dir, nil); err != nil {
				b.Fatal(err)
			}
			best = min(best, time.Since(start))
		}
		var size int64
		for _, s := range r.Segments {
			size += s.Size
		}
		b.SetBytes(size)
		b.ReportMetric(float64(r.Records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		b.ReportMetric(float64(r.Records)/best.Seconds(), "best-records/s")
		b.ReportMetric(float64(runtime.GOMAXPROCS(0)), "cores")
	}
	b.Run("verify", verify)
	if wide {
		b.Run("verify one hash at a time", func(b *testing.B) {
			defer oneHashAtATime()()
			verify(b)
		})
	}
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			l, err := Open(Options{Dir: dir})
			if err != nil {
				b.Fatal(err)
			}
			_ = l.Close()
		}
		b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
	l := open(b, Options{Dir: dir})
	for _, q := range []struct {
		name string
		q    Query
	}{
		{"newest 100", Query{}},
		{"agent", Query{Filters: map[string]string{"agentId": "agent-17"}}},
		{"nothing", Query{Filters: map[string]string{"agentId": "nobody"}}},
		{"before", Query{Before: records / 2}},
	} {
		b.Run("query "+q.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := l.Query(context.Background(), q.q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
