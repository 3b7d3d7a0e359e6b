package audit

import (
	"runtime"
	"time"
)

// gathering decides how long the writer lets records gather before it writes
// and syncs them. Where many callers come one upon the other, the processor is
// what is short, and one sync for many of them takes less of it than one for
// each few.
type gathering struct {
	pace  float64   // how many callers came to wait in gatherFor, of late
	taken time.Time // the last batch
	timer *time.Timer
}

const (
	// gatherFor is how long a batch gathers at most.
	gatherFor = 3 * time.Millisecond

	// gatherFew is how many callers must be expected in that time, and be
	// there at all, for a batch to gather.
	gatherFew = 12

	// gatherMost is how many callers a batch does not wait beyond.
	gatherMost = 32

	// fullBatch is about ten records in bytes.
	fullBatch = 6 << 10
)

// took notes that a batch was taken in which so many callers wait.
func (g *gathering) took(waiting int64, now time.Time) {
	if since := now.Sub(g.taken); since > 0 {
		g.pace += (float64(waiting)*float64(gatherFor)/float64(since) - g.pace) / 8
	}
	g.taken = now
}

// want is how many waiting callers make a batch, 0 if it is not to gather: of
// those who are there, three quarters, for some are elsewhere.
func (g *gathering) want(callers int) int64 {
	if callers <= gatherFew || g.pace < gatherFew {
		return 0
	}
	return int64(min(callers*3/4, gatherMost))
}

// await lets the next batch gather, if that is worth it.
func (w *writer) await() {
	q := &w.l.queue
	var want int64
	if callers := w.l.opts.Callers; callers != nil && w.l.set.Load().Durability == Sync && q.head.Load() != nil {
		want = w.gather.want(callers())
	}
	if want == 0 {
		if q.bytes.Load() < fullBatch {
			// Whoever is about to write does so first. With nothing else to
			// run this returns at once.
			runtime.Gosched()
		}
		return
	}
	select {
	case <-q.wake: // for the first of the batch
	default:
	}
	q.want.Store(want)
	defer q.want.Store(0)
	if q.waiting.Load() >= want {
		return
	}
	if w.gather.timer == nil {
		w.gather.timer = time.NewTimer(gatherFor)
	} else {
		w.gather.timer.Reset(gatherFor)
	}
	defer w.gather.timer.Stop()
	select {
	case <-q.wake:
	case <-w.gather.timer.C:
	case <-w.l.closing:
	}
}
