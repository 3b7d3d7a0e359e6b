package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Durability is when Append answers.
type Durability int

const (
	// Sync: when the record is on disk.
	Sync Durability = iota

	// Async: when the record is written; it is on disk at most a second
	// later.
	Async
)

// Defaults of Options.
const (
	DefaultDeadline    = 250 * time.Millisecond
	DefaultSegmentSize = 64 << 20
	DefaultQueueBytes  = 16 << 20

	DefaultCheckpointEvery = time.Second
)

// Options are how a log is opened. Only Dir is required.
type Options struct {
	// Dir is the directory, made with mode 0700 if it is missing.
	Dir string

	// Now is the clock that records are dated by; nil is time.Now.
	Now func() time.Time

	// Logger takes what an operator must know of; nil is silent.
	Logger *zap.Logger

	// Deadline is how long Append and Query wait for the disk.
	Deadline time.Duration

	Durability Durability

	// SegmentSize is the size in bytes at which a segment is sealed.
	SegmentSize int64

	// CheckpointEvery is how far behind the signed checkpoint may be; 0 is
	// DefaultCheckpointEvery, and with less than 0 there is none.
	CheckpointEvery time.Duration

	// KeepFor and KeepBytes, if not 0, are how long and how much of the log
	// is kept. Sealed segments are dropped, the oldest first, when all their
	// records are older than KeepFor or the log is larger than KeepBytes, but
	// none with a record younger than MinKeep, with a call that has no end,
	// or without a checkpoint over it.
	KeepFor   time.Duration
	KeepBytes int64

	// OnCheckpoint, if set, is told of every new checkpoint, and may not
	// wait.
	OnCheckpoint func(Checkpoint)

	// Carry names, by event, the records that are replayed even after their
	// segment was dropped: the newest of each key, unless keep is false.
	Carry map[string]func(line []byte) (key string, keep bool)

	// QueueBytes bounds what waits for the writer. Half of it is for
	// Append, a quarter for EnqueueRefusal.
	QueueBytes int64

	// Replay is called, by event, with every record of that event that Open
	// finds, in their order. The line may not be kept.
	Replay map[string]func(line []byte)

	// Callers, if set, says how many there are that may be about to append:
	// with many of them a synced batch gathers, for three milliseconds at
	// most.
	Callers func() int

	fs    fsys // for tests
	index bool // with it, index all the same
}

func (o *Options) setDefaults() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Deadline <= 0 {
		o.Deadline = DefaultDeadline
	}
	if o.SegmentSize <= 0 {
		o.SegmentSize = DefaultSegmentSize
	}
	if o.CheckpointEvery == 0 {
		o.CheckpointEvery = DefaultCheckpointEvery
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = DefaultQueueBytes
	}
}

// Entry is a record with what the writer does as it gives it its number.
type Entry struct {
	Record Record

	// Guard, if set, is asked by the one writer as it gives the record its
	// number. If it returns a code the record is written under DeniedEvent
	// with that code as its error, and Append returns *Denied. It must be
	// quick, and may not call the log.
	Guard func() (code string)

	// DeniedEvent is the event of a record that its guard refused. Empty
	// means Event without a trailing ".started", and ".denied".
	DeniedEvent string

	// InForce, if set, is called by the writer right after the record has
	// its number and before any later record's guard, though the record may
	// yet fail to become durable. It is not called for a denied record.
	InForce func()
}

// Log is an open audit log. Its methods may be called concurrently.
type Log struct {
	opts  Options                 // as opened
	set   atomic.Pointer[Options] // what of it Reconfigure may change
	queue queue
	pool  pool
	flood flood
	view  view
	index indexes
	marks bookmarks
	turns turns
	stats stats

	opened uint64 // the last seq as the log was opened
	tree   tree

	keeper keeper

	start   time.Time
	busy    atomic.Int64 // when the batch in hand began, since start; 0: none
	fail    atomic.Pointer[UnavailableError]
	jumped  atomic.Int64 // when the clock last did, since start; 0: never
	damaged atomic.Bool  // fail will not go away
	seq     atomic.Uint64
	opens   atomic.Uint64

	closeOnce sync.Once
	closing   chan struct{}
	done      chan struct{} // the writer has ended
	closeErr  error
}

// Open opens the log in opts.Dir, or begins one: it verifies the whole
// chain, moves a torn tail aside and closes calls that a crash has left open
// (proxy.call.unknown). The error is a *Damage if records were changed or
// are missing, and wraps ErrInsecure or ErrLegacy if it is about the files.
func Open(opts Options) (*Log, error) {
	opts.setDefaults()
	if opts.fs == nil {
		opts.index = true
		if err := os.Mkdir(opts.Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("open audit log: %w", err)
		}
		dir, err := openDir(opts.Dir)
		if err != nil {
			return nil, fmt.Errorf("open audit log: %w", err)
		}
		opts.fs = dir
	}
	l := &Log{
		opts:    opts,
		queue:   queue{limit: opts.QueueBytes, wake: make(chan struct{}, 1)},
		start:   time.Now(),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
	}
	l.set.Store(&opts)
	l.flood.init(l)
	l.turns = *newTurns()
	l.index.init(l)
	w := &writer{l: l, fs: opts.fs, syncDone: make(chan error, 1)}
	if err := w.open(); err != nil {
		w.release()
		_ = opts.fs.Close()
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	l.keeper.init(l, w)
	go l.keeper.run()
	l.opened = l.Seq()
	go w.run()
	if opts.index {
		l.view.setPoke(l.index.poke)
		go l.index.run()
	} else {
		close(l.index.done)
	}
	return l, nil
}

// Append writes a record and waits until it is durable, at most the
// deadline. It returns the record's number. The error is *Denied if the
// guard refused, else an *UnavailableError, also when ctx ends first; a
// number beside that error means that the record may be on disk.
//
// The log refers to no part of e after Append has returned.
func (l *Log) Append(ctx context.Context, e Entry) (seq uint64, err error) {
	if err := l.Err(); err != nil {
		return 0, err
	}
	p := l.encode(&e)
	p.waits = true
	if err := l.queue.push(p, 50); err != nil {
		l.pool.put(p)
		return 0, err
	}
	if err := l.wait(ctx, p); err != nil {
		if p.state.CompareAndSwap(waiting, abandoned) {
			return 0, err
		}
		select {
		case <-p.done: // just now
		default:
			var u *UnavailableError
			if errors.As(err, &u) {
				u.Seq = p.seq
			}
			return p.seq, err
		}
	}
	seq, err = p.seq, p.err
	switch {
	case err != nil:
		err = &UnavailableError{Seq: seq, Cause: err}
	case p.code != "":
		err = &Denied{Code: p.code}
	}
	l.pool.put(p)
	return seq, err
}

// wait waits for p to be acknowledged, at most the deadline.
func (l *Log) wait(ctx context.Context, p *pending) error {
	if p.timer == nil {
		p.timer = time.NewTimer(l.opts.Deadline)
	} else {
		p.timer.Reset(l.opts.Deadline)
	}
	defer p.timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-p.timer.C:
		return &UnavailableError{}
	case <-ctx.Done():
		return &UnavailableError{Cause: context.Cause(ctx)}
	}
}

// Enqueue hands a record to the writer and does not wait. Every query that
// begins after it has returned shows the record. It never blocks; the error
// is ErrUnavailable if too much is waiting already.
func (l *Log) Enqueue(e Entry) error { return l.enqueue(&e, 100) }

func (l *Log) enqueue(e *Entry, share int64) error {
	if l.damaged.Load() {
		return l.Err()
	}
	p := l.encode(e)
	if err := l.queue.push(p, share); err != nil {
		l.pool.put(p)
		return err
	}
	return nil
}

// encode encodes everything that the caller knows.
func (l *Log) encode(e *Entry) *pending {
	p := l.pool.get()
	p.ts = 0
	if !e.Record.Time.IsZero() {
		p.ts = e.Record.Time.UnixMilli()
	}
	p.event = e.Record.Event
	p.guard, p.inForce = e.Guard, e.InForce
	if p.guard != nil {
		p.denied = e.DeniedEvent
		if p.denied == "" {
			p.denied = strings.TrimSuffix(p.event, ".started") + ".denied"
		}
	}
	p.rest, p.errAt = e.Record.appendRest(p.rest[:0])
	return p
}

// barrier waits until everything enqueued before it is in the view.
func (l *Log) barrier(ctx context.Context) error {
	// The writer says that it is busy before it empties the queue.
	if l.queue.head.Load() == nil && l.busy.Load() == 0 {
		return nil
	}
	p := l.pool.get()
	p.barrier, p.waits = true, true
	if err := l.queue.push(p, 100); err != nil {
		if errors.Is(err, ErrClosed) {
			err = nil // then everything is written, or never will be
		}
		return err
	}
	if err := l.wait(ctx, p); err != nil {
		return err
	}
	err := p.err
	l.pool.put(p)
	if err != nil {
		return &UnavailableError{Cause: err}
	}
	return nil
}

// Err says why records are being refused; nil if they are not.
func (l *Log) Err() error {
	if f := l.fail.Load(); f != nil {
		return f
	}
	if since := l.busy.Load(); since != 0 && time.Since(l.start)-time.Duration(since) > l.opts.Deadline {
		return &UnavailableError{}
	}
	return nil
}

// Seq returns the last number given out; 0 if there is none.
func (l *Log) Seq() uint64 { return l.seq.Load() }

// Opens returns how many files the log has opened for writing: one, and one
// more with every new segment.
func (l *Log) Opens() uint64 { return l.opens.Load() }

// closeWait is how long Close waits for a disk that does not answer.
const closeWait = 10 * time.Second

// Close writes what waits and closes the log. The error says that something
// could not be written.
func (l *Log) Close() error {
	l.closeOnce.Do(func() {
		l.flood.close()
		close(l.closing)
		timer := time.NewTimer(closeWait)
		defer timer.Stop()
		select {
		case <-l.done:
		case <-timer.C:
			l.fail.Store(&UnavailableError{Cause: errors.New("closed while the disk did not answer")})
			return
		}
		select {
		case <-l.index.done:
		case <-timer.C:
		}
	})
	select {
	case <-l.done:
		return l.closeErr
	default:
		return l.Err()
	}
}
