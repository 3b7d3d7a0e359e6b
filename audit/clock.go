package audit

import (
	"fmt"
	"time"
)

// clockStep is by how much the wall clock may differ from the time that has
// passed before that is on record. Nothing orders records by their ts; whoever
// reads them does.
const clockStep = time.Second

// clock compares the clock that records are dated by with one that only goes
// forward.
type clock struct {
	wall int64 // milliseconds
	mono time.Time
}

// step returns by how much the clock was set since the last time it was
// asked, 0 if it was not. Slewing, a thousandth at most, is no step.
func (c *clock) step(wall int64) time.Duration {
	mono := time.Now()
	before := *c
	c.wall, c.mono = wall, mono
	if before.mono.IsZero() {
		return 0
	}
	passed := mono.Sub(before.mono)
	off := time.Duration(wall-before.wall)*time.Millisecond - passed
	if off.Abs() <= clockStep+passed/1000 {
		return 0
	}
	return off.Round(time.Millisecond)
}

// checkClock records that the clock was set.
func (w *writer) checkClock(now time.Time) {
	if off := w.clock.step(now.UnixMilli()); off != 0 {
		w.clockSet(now, fmt.Sprintf("the clock was set by %+.3f s, or the machine slept", off.Seconds()))
		if off > 0 {
			w.l.jumped.Store(max(1, int64(time.Since(w.l.start))))
		}
	}
}

func (w *writer) clockSet(now time.Time, reason string) {
	w.tail = w.appendOwn(w.tail, now, &Record{Event: EventClock, Reason: reason})
	w.l.seq.Store(w.chain.seq)
	w.l.tree.worked(w.chain.seq)
}
