package audit

import (
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/mod/sumdb/note"
)

// tree is the Merkle tree over what will not be lost any more. The writer
// makes it grow, the keeper signs it.
type tree struct {
	mu   sync.Mutex
	edge frontier

	work atomic.Uint64 // the last record that is worth a checkpoint
	grew chan struct{} // holds one
}

func (t *tree) begin(edge frontier, work uint64) {
	t.edge = edge
	t.work.Store(work)
	t.grew = make(chan struct{}, 1)
}

// worked notes a record that is no checkpoint.
func (t *tree) worked(seq uint64) { t.work.Store(seq) }

// grow takes sums in up to record last, and returns how many.
func (t *tree) grow(sums [][sha256.Size]byte, last uint64) int {
	t.mu.Lock()
	n := int(last - t.edge.n)
	for _, sum := range sums[:n] {
		t.edge.push(0, leafHash(sum), nil)
	}
	t.mu.Unlock()
	if n > 0 {
		select {
		case t.grew <- struct{}{}:
		default:
		}
	}
	return n
}

func (t *tree) now() frontier {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.edge
}

// keeper does what can wait, beside the writer: checkpoints.
type keeper struct {
	l    *Log
	fs   fsys
	keys *keys // nil: no checkpoints
	last atomic.Pointer[Checkpoint]
	base base

	// Of the oldest segment: when its newest record is from, and that it
	// could not be dropped when there were so many.
	newestOf     uint64
	newest       time.Time
	blocked      int
	blockedFirst uint64

	found bool          // there were records when the log was opened
	stop  chan struct{} // closed when everything is written
	done  chan struct{}
}

func (k *keeper) init(l *Log, w *writer) {
	k.l, k.fs, k.keys, k.base = l, w.fs, w.keys, w.base
	k.found = l.tree.now().n > 0
	k.stop, k.done = make(chan struct{}), make(chan struct{})
	if w.checkpoint.Note != "" {
		k.last.Store(&w.checkpoint)
	}
}

// keeperRetry is how long the keeper waits after a failure.
const keeperRetry = time.Second

// retainEvery is how often the age of segments is looked at, at least.
const retainEvery = time.Minute

func (k *keeper) run() {
	defer close(k.done)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	running := false
	var at time.Time
	start := func(d time.Duration) {
		if t := time.Now().Add(d); !running || t.Before(at) {
			timer.Reset(d)
			running, at = true, t
		}
	}
	if k.found {
		start(0) // a crash may have left records without
	}
	for {
		select {
		case <-k.l.tree.grew:
			if every := k.l.set.Load().CheckpointEvery; every > 0 {
				start(every)
			}
		case <-timer.C:
			running = false
			good := k.checkpoint(true)
			if err := k.retain(); err != nil {
				k.l.opts.Logger.Error("old audit segments cannot be dropped", zap.Error(err))
				good = false
			}
			if !good {
				start(keeperRetry)
			} else if set := k.l.set.Load(); set.KeepFor > 0 {
				start(retainEvery) // what is there grows old
			}
		case <-k.stop:
			timer.Stop()
			k.checkpoint(false)
			return
		}
	}
}

// checkpoint signs for what is on disk, unless that is checkpoints alone.
// The file is there before the record that says so. It reports whether that
// worked.
func (k *keeper) checkpoint(record bool) bool {
	if k.l.set.Load().CheckpointEvery < 0 {
		return true
	}
	edge := k.l.tree.now()
	last := k.last.Load()
	if edge.n == 0 || last != nil && (edge.n <= last.Size || k.l.tree.work.Load() <= last.Size) {
		return true
	}
	if k.keys == nil { // they were switched on
		w := &writer{l: k.l, fs: k.fs}
		made, err := w.makeKeys()
		if err != nil {
			k.l.opts.Logger.Error("audit key cannot be made", zap.Error(err))
			return false
		}
		k.keys = made
	}
	c := &Checkpoint{Size: edge.n, Root: edge.root()}
	signed, err := note.Sign(&note.Note{Text: c.text(k.keys.signer.Name())}, k.keys.signer)
	if err == nil {
		c.Note = string(signed)
		err = writeSmall(k.fs, checkpointName, c.Note)
	}
	if err != nil {
		k.l.opts.Logger.Error("audit checkpoint cannot be written", zap.Error(err))
		return false
	}
	k.last.Store(c)
	k.l.stats.checkpointed.Store(k.l.opts.Now().UnixMilli())
	if f := k.l.set.Load().OnCheckpoint; f != nil {
		f(*c)
	}
	if record {
		// A queue that is full has more important things to do: the next
		// checkpoint covers what this one does.
		_ = k.l.Enqueue(Entry{Record: Record{Event: EventCheckpoint, LastSeq: c.Size, Checkpoint: c.Note}})
	}
	return true
}

// Checkpoint returns the newest checkpoint; its Size is 0 if there is none.
func (l *Log) Checkpoint() Checkpoint {
	if c := l.keeper.last.Load(); c != nil {
		return *c
	}
	return Checkpoint{}
}
