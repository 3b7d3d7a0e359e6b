package audit

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/refusal"
)

// writer is the one goroutine that gives out numbers and writes. What it
// holds needs no lock.
type writer struct {
	l  *Log
	fs fsys

	chain chain   // the last record that has a number
	file  *handle // the current segment
	first uint64  // its first seq; 0 if it is empty

	// durable is how much of file is on disk, lastDurable the seq it ends
	// with and digest its SHA-256. tail is what comes behind: lines that
	// have a number, of which written bytes are in the file. Should the file
	// fail, tail is what a new one begins with.
	durable     int64
	lastDurable uint64
	digest      hash.Hash
	tail        []byte
	written     int

	// sums are the SHA-256 of the last lines that have a number and are not
	// in the tree yet.
	sums [][sha256.Size]byte

	check      *treeCheck // of Open
	keys       *keys      // nil: no checkpoints
	base       base       // what was dropped
	clock      clock
	allocated  int64      // up to where file has room for sure
	checkpoint Checkpoint // the newest when the log was opened

	acks []*pending // whose lines are in tail
	wait bool       // one of them is a record, and its caller wants it on disk
	dead error      // nothing is written any more

	flushed uint64 // the last record of the last batch
	gather  gathering

	// unsynced names: the segment is in place, but perhaps only until a
	// crash.
	unsyncedNames bool
	rotateAgain   time.Time // not before

	// Of syncs that nobody waits for.
	due      time.Time // when tail is to be synced
	timer    *time.Timer
	syncing  bool
	syncTail int // bytes of tail, and seq, that the running sync covers
	syncSeq  uint64
	syncDone chan error
}

// Limits of the writer's memory.
const (
	maxTail   = 16 << 20        // lines not yet synced, before Async waits
	syncTail  = 2 << 20         // when Async syncs early
	keepTail  = 4 << 20         // buffer kept between batches
	syncAfter = time.Second / 2 // Async
)

func (w *writer) run() {
	defer close(w.l.done)
	for {
		w.await()
		w.l.busy.Store(max(1, int64(time.Since(w.l.start))))
		if p, waiting := w.l.queue.take(); p != nil {
			w.gather.took(waiting, time.Now())
			w.batch(p)
			continue
		}
		w.l.busy.Store(0)
		select {
		case <-w.l.closing:
			if w.l.queue.close() {
				w.finish()
				return
			}
		default:
			w.idle()
		}
	}
}

// idle waits for something to do.
func (w *writer) idle() {
	var due <-chan time.Time
	if len(w.tail) > 0 && !w.syncing {
		if w.timer == nil {
			w.timer = time.NewTimer(time.Until(w.due))
		} else {
			w.timer.Reset(time.Until(w.due))
		}
		defer w.timer.Stop()
		due = w.timer.C
	}
	select {
	case <-w.l.queue.wake:
	case <-w.l.closing:
	case err := <-w.syncDone:
		w.synced(err)
	case <-due:
		w.startSync()
	}
}

// finish ends the writing, with an empty queue.
func (w *writer) finish() {
	if err := w.awaitSync(); err != nil {
		w.renewUntil(err)
	} else if w.dead == nil && len(w.tail) > 0 {
		if err := w.file.Sync(); err != nil {
			w.renewUntil(err)
		} else {
			w.settle(len(w.tail), w.chain.seq)
		}
	}
	if w.dead != nil {
		w.l.closeErr = &UnavailableError{Cause: w.dead}
	}
	close(w.l.keeper.stop)
	<-w.l.keeper.done
	w.release()
	if err := w.fs.Close(); err != nil && w.l.closeErr == nil {
		w.l.closeErr = err
	}
}

// release gives up the current file.
func (w *writer) release() {
	if w.file != nil {
		w.file = nil
		w.l.view.turn(part{}, nil, 0, 0)
	}
}

// batch writes everything that has gathered, p the oldest.
func (w *writer) batch(p *pending) {
	wall := w.l.opts.Now()
	now := wall.UnixMilli()
	if w.dead == nil {
		w.checkClock(wall)
	}
	for p != nil {
		next := p.next
		p.next = nil
		w.admit(p, now)
		p = next
	}
	w.flush()
}

// admit gives p its number, if its caller still wants it.
func (w *writer) admit(p *pending, now int64) {
	switch {
	case p.barrier:
		w.acks = append(w.acks, p)
		return
	case w.dead != nil:
		if p.waits {
			p.ack(w.dead)
		}
		return
	}
	if w.durable+int64(len(w.tail)) >= w.l.set.Load().SegmentSize {
		w.flush()
		w.rotate()
	}
	p.seq = w.chain.seq + 1
	if p.waits && !p.state.CompareAndSwap(waiting, assigned) {
		return
	}
	w.encode(p, now)
	if p.waits {
		w.acks = append(w.acks, p)
		w.wait = true
	} else {
		w.l.pool.put(p)
	}
}

// encode appends p's line to the tail.
func (w *writer) encode(p *pending, now int64) {
	if p.guard != nil {
		p.code = w.ask(p.guard)
	}
	event, ts := p.event, p.ts
	if p.code != "" {
		event = p.denied
	}
	if ts == 0 {
		ts = now
	}
	start := len(w.tail)
	b := appendHead(w.tail, ts, event)
	if p.code != "" {
		b = appendField(append(b, p.rest[:p.errAt]...), "error", p.code)
	} else {
		b = append(b, p.rest...)
	}
	w.tail = append(w.chain.appendTail(b, start), '\n')
	w.sums = append(w.sums, w.chain.sum)
	w.l.seq.Store(w.chain.seq)
	if event != EventCheckpoint {
		w.l.tree.worked(w.chain.seq)
	}
	if p.inForce != nil && p.code == "" {
		w.putInForce(p.inForce)
	}
}

// ask asks a guard. One that panics refuses.
func (w *writer) ask(guard func() string) (code string) {
	defer func() {
		if r := recover(); r != nil {
			w.l.opts.Logger.Error("audit guard panicked", zap.Any("panic", r), zap.Stack("stack"))
			code = refusal.Internal
		}
	}()
	return guard()
}

func (w *writer) putInForce(f func()) {
	defer func() {
		if r := recover(); r != nil {
			w.l.opts.Logger.Error("audit hook panicked", zap.Any("panic", r), zap.Stack("stack"))
		}
	}()
	f()
}

// flush makes the tail as durable as the log promises and acknowledges.
func (w *writer) flush() {
	if w.written < len(w.tail) && w.dead == nil {
		start, from := time.Now(), max(w.flushed, w.l.opened)
		if err := w.write(); err != nil {
			w.renewUntil(err)
		}
		w.flushed = w.chain.seq
		w.l.stats.committed(time.Since(start), w.flushed-from)
	}
	if w.dead == nil {
		w.l.view.grow(w.first, w.durable+int64(len(w.tail)))
	}
	for i, p := range w.acks {
		p.ack(w.dead)
		w.acks[i] = nil
	}
	w.acks, w.wait = w.acks[:0], false
}

// write writes the tail, and syncs it or sees to it that it will be.
func (w *writer) write() error {
	if err := w.watch(); err != nil {
		return err
	}
	if w.first == 0 {
		w.first = w.lastDurable + 1
	}
	if w.written == 0 {
		w.due = time.Now().Add(syncAfter)
	}
	if err := w.makeRoom(); err != nil {
		return err
	}
	n, err := w.file.Write(w.tail[w.written:])
	w.written += n
	if err == nil && w.written < len(w.tail) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return err
	}
	// What nobody waits for goes to disk with the next record that somebody
	// does, or when it is due.
	if (w.l.set.Load().Durability == Async || !w.wait) && len(w.tail) < maxTail {
		if !w.syncing && (w.written >= syncTail || !time.Now().Before(w.due)) {
			w.startSync()
		}
		return nil
	}
	if err := w.awaitSync(); err != nil {
		return err
	}
	if err := w.file.Sync(); err != nil {
		return err
	}
	w.settle(len(w.tail), w.chain.seq)
	return nil
}

// settle notes that n bytes of the tail, up to seq, are on disk.
func (w *writer) settle(n int, seq uint64) {
	w.digest.Write(w.tail[:n])
	w.durable += int64(n)
	w.lastDurable = seq
	w.grow()
	w.written -= n
	w.tail = append(w.tail[:0], w.tail[n:]...)
	if len(w.tail) == 0 && cap(w.tail) > keepTail {
		w.tail = nil
	}
}

// grow puts the records into the tree that will not be lost any more.
func (w *writer) grow() {
	if w.unsyncedNames {
		return
	}
	n := w.l.tree.grow(w.sums, w.lastDurable)
	w.sums = append(w.sums[:0], w.sums[n:]...)
	if len(w.sums) == 0 && cap(w.sums) > keepTail/sha256.Size {
		w.sums = nil
	}
}

// startSync syncs in the background what is written so far.
func (w *writer) startSync() {
	w.syncing = true
	w.syncTail, w.syncSeq = w.written, w.chain.seq
	f := w.file
	f.refs.Add(1)
	go func() {
		err := f.Sync()
		f.release()
		w.syncDone <- err
	}()
}

// synced takes the outcome of the sync in the background.
func (w *writer) synced(err error) {
	w.syncing = false
	if err != nil {
		w.renewUntil(err)
		return
	}
	w.settle(w.syncTail, w.syncSeq)
	w.due = time.Now().Add(syncAfter)
}

// awaitSync waits for the sync in the background, if there is one.
func (w *writer) awaitSync() error {
	if !w.syncing {
		return nil
	}
	err := <-w.syncDone
	w.syncing = false
	if err == nil {
		w.settle(w.syncTail, w.syncSeq)
	}
	return err
}

// renewUntil goes on in a new segment, trying until it works, with pauses of
// at most a second, while callers are refused. It gives up if records are
// lost for good or the log is closed; then dead is set.
func (w *writer) renewUntil(cause error) {
	log := w.l.opts.Logger
	log.Error("audit log cannot be written, calls are refused", zap.Error(cause))
	err := cause
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		w.l.fail.Store(&UnavailableError{Cause: err})
		last := false
		select {
		case <-w.l.closing:
			last = true
		default:
		}
		if errors.Is(cause, errNoRoom) { // the file is as it was
			if err = w.write(); err != nil && !errors.Is(err, errNoRoom) {
				cause = err
			}
		} else {
			err = w.renew(cause)
		}
		if err == nil {
			w.l.fail.Store(nil)
			log.Info("audit log goes on", zap.Uint64("seq", w.chain.seq))
			return
		}
		var damage *Damage
		if errors.As(err, &damage) {
			log.Error("audit log damaged while it was open, calls are refused from now on", zap.Error(err))
			w.l.damaged.Store(true)
			last = true
		}
		if last {
			w.l.fail.Store(&UnavailableError{Cause: err})
			w.dead = err
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-w.l.closing:
		}
		timer.Stop()
	}
}

func newDigest() hash.Hash { return sha256.New() }
