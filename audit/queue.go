package audit

import (
	"sync"
	"sync/atomic"
	"time"
)

// pending is one entry on its way to the writer: encoded by its caller but
// for time, event, error, seq and prev.
type pending struct {
	next *pending // in the queue; the newest is first

	ts      int64 // 0: the writer's now
	event   string
	denied  string // event if the guard refuses
	rest    []byte
	errAt   int // where in rest the error begins
	guard   func() string
	inForce func()

	// waits says that a caller waits on done. A barrier is no record: it is
	// acknowledged with what stands before it.
	waits, barrier bool

	state atomic.Int32
	seq   uint64 // set before state becomes assigned
	code  string // the guard's
	err   error

	done  chan struct{} // holds one
	timer *time.Timer
}

// States of an entry that somebody waits for. Only the first may change, and
// whoever changes it decides: an abandoned entry is never written.
const (
	waiting int32 = iota
	assigned
	abandoned
)

func (p *pending) size() int64 { return int64(len(p.rest)) + 256 }

// ack lets the caller go on. The entry is the caller's from here.
func (p *pending) ack(err error) {
	p.err = err
	p.done <- struct{}{}
}

// queue is what waits for the writer: a stack that callers push onto without
// a lock and that the writer takes whole.
type queue struct {
	head  atomic.Pointer[pending]
	bytes atomic.Int64
	limit int64
	wake  chan struct{} // holds one

	// waiting is how many entries have a caller that waits, and want how many
	// of those the writer lets gather, which is awake then; 0: it does not.
	waiting, want atomic.Int64
}

// queueClosed is the head of a queue that takes no more.
var queueClosed = new(pending)

// push puts p behind everything pushed before. share is the part of the
// limit that the kind of p may use up, in percent, so that one kind cannot
// take the room of a more important one. After an error p is the caller's.
func (q *queue) push(p *pending, share int64) error {
	size, waits, barrier := p.size(), p.waits, p.barrier // it is the writer's once it is in
	if q.bytes.Add(size) > q.limit*share/100 && !barrier {
		q.bytes.Add(-size)
		return &UnavailableError{Cause: errQueueFull}
	}
	for {
		head := q.head.Load()
		if head == queueClosed {
			q.bytes.Add(-size)
			return ErrClosed
		}
		p.next = head
		if q.head.CompareAndSwap(head, p) {
			wake := head == nil
			if waits {
				n, want := q.waiting.Add(1), q.want.Load()
				wake = wake || n == want || barrier && want > 0
			}
			if wake {
				select {
				case q.wake <- struct{}{}:
				default:
				}
			}
			return nil
		}
	}
}

// take empties the queue and returns the oldest entry, linked to the newer, and
// how many of them have a caller that waits.
func (q *queue) take() (oldest *pending, waiting int64) {
	head := q.head.Load()
	if head == nil || head == queueClosed {
		return nil, 0
	}
	head = q.head.Swap(nil)
	var size int64
	for head != nil {
		next := head.next
		head.next = oldest
		oldest = head
		size += head.size()
		if head.waits {
			waiting++
		}
		head = next
	}
	q.bytes.Add(-size)
	q.waiting.Add(-waiting)
	return oldest, waiting
}

// close closes the queue if it is empty.
func (q *queue) close() bool { return q.head.CompareAndSwap(nil, queueClosed) }

// pool keeps entries, with buffer, channel and timer. It belongs to one log.
type pool struct{ p sync.Pool }

func (o *pool) get() *pending {
	if p, ok := o.p.Get().(*pending); ok {
		return p
	}
	return &pending{done: make(chan struct{}, 1), rest: make([]byte, 0, 512)}
}

func (o *pool) put(p *pending) {
	if cap(p.rest) > 16<<10 {
		return
	}
	*p = pending{rest: p.rest[:0], done: p.done, timer: p.timer}
	o.p.Put(p)
}
