package audit

import (
	"sync/atomic"
	"time"
)

// Stats are figures of a log, cheap to take.
type Stats struct {
	Records    uint64 // written since the log was opened
	Suppressed uint64 // refusals that were counted and not written one by one
	QueueBytes int64  // what waits for the writer
	Segments   int    // files, the one that grows among them
	Bytes      int64  // in them
	Available  bool   // records can be written

	// Commits is how long batches took to be written, and on disk where
	// somebody waits for that, in seconds; Batches is of how many records
	// they were.
	Commits, Batches Histogram

	// CheckpointSize is how many records the newest checkpoint covers, and
	// CheckpointTime when it was made, as far as this process knows.
	CheckpointSize uint64
	CheckpointTime time.Time
}

// Histogram is a count of values, by bucket.
type Histogram struct {
	Count   uint64
	Sum     float64
	Buckets map[float64]uint64 // upper bound → how many up to it
}

var (
	commitBuckets = [...]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5}
	batchBuckets  = [...]float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096}
)

// stats are what the writer counts.
type stats struct {
	commits    histogram[[len(commitBuckets) + 1]atomic.Uint64]
	batches    histogram[[len(batchBuckets) + 1]atomic.Uint64]
	suppressed atomic.Uint64

	checkpointed atomic.Int64 // when, in milliseconds
}

// histogram counts values of one goroutine; others may read.
type histogram[B any] struct {
	buckets B
	sum     atomic.Uint64 // nanoseconds, or records
}

// committed notes that a batch was written.
func (s *stats) committed(took time.Duration, records uint64) {
	s.commits.buckets[bucket(commitBuckets[:], took.Seconds())].Add(1)
	s.commits.sum.Add(uint64(took))
	s.batches.buckets[bucket(batchBuckets[:], float64(records))].Add(1)
	s.batches.sum.Add(records)
}

func bucket(bounds []float64, v float64) int {
	for i, b := range bounds {
		if v <= b {
			return i
		}
	}
	return len(bounds)
}

func collect(bounds []float64, counts []atomic.Uint64, sum float64) Histogram {
	h := Histogram{Sum: sum, Buckets: make(map[float64]uint64, len(bounds))}
	for i := range counts {
		h.Count += counts[i].Load()
		if i < len(bounds) {
			h.Buckets[bounds[i]] = h.Count
		}
	}
	return h
}

// Stats returns the figures as they are now.
func (l *Log) Stats() Stats {
	s := Stats{
		Records:    l.Seq() - l.opened,
		Suppressed: l.stats.suppressed.Load(),
		QueueBytes: l.queue.bytes.Load(),
		Available:  l.Err() == nil,
		Commits:    collect(commitBuckets[:], l.stats.commits.buckets[:], float64(l.stats.commits.sum.Load())/1e9),
		Batches:    collect(batchBuckets[:], l.stats.batches.buckets[:], float64(l.stats.batches.sum.Load())),
	}
	l.view.mu.Lock()
	for _, p := range l.view.sealed {
		s.Bytes += p.size
	}
	s.Segments = len(l.view.sealed)
	if l.view.cur != nil {
		s.Segments++
		s.Bytes += l.view.size
	}
	l.view.mu.Unlock()
	s.CheckpointSize = l.Checkpoint().Size
	if ms := l.stats.checkpointed.Load(); ms != 0 {
		s.CheckpointTime = time.UnixMilli(ms)
	}
	return s
}
