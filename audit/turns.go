package audit

import (
	"context"
	"time"
)

// turns are taken by those who follow the log: one reads at a time, and all
// together read no more than a part of the time of one processor, however many
// they are and whatever they filter by. What that is too little for falls
// behind, and no call is slower for it.
type turns struct {
	turn  chan struct{} // holds one
	at    time.Time     // when spare was right
	spare time.Duration // may be used at once; below 0 it was used before
}

const (
	// turnShare is the part: a quarter.
	turnShare = 4

	// turnBurst bounds what can be saved up.
	turnBurst = 5 * time.Millisecond

	// turnRate is how many bytes that were found count as a millisecond, for
	// those who take them do so after their turn.
	turnRate = 1 << 20
)

func newTurns() *turns {
	return &turns{turn: make(chan struct{}, 1), spare: turnBurst, at: time.Now()}
}

// take waits for a turn, which give ends.
func (t *turns) take(ctx context.Context, done <-chan struct{}) error {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	now := time.Now()
	t.spare = min(t.spare+now.Sub(t.at)/turnShare, turnBurst)
	t.at = now
	if t.spare >= 0 {
		return nil
	}
	timer := time.NewTimer(-t.spare * turnShare)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done: // what is left is read at once
	case <-ctx.Done():
		<-t.turn
		return context.Cause(ctx)
	}
	now = time.Now()
	t.spare = min(t.spare+now.Sub(t.at)/turnShare, turnBurst)
	t.at = now
	return nil
}

// give ends a turn in which b was found.
func (t *turns) give(b Batch) {
	size := 0
	for _, line := range b.Lines {
		size += len(line)
	}
	t.spare -= time.Since(t.at) + time.Duration(size)*time.Millisecond/turnRate
	<-t.turn
}
