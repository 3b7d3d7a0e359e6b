package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/fsx"
	"go.uber.org/zap"
)

// pendingLine is an op of a batch with the line it becomes.
type pendingLine struct {
	op  *op
	rec logRecord
	at  int // in the batch's bytes
}

// commitRevocations appends the lines of all ops with one write and one
// fsync. Either all of them are done or none is.
func (s *Store) commitRevocations(ops []*op) {
	lines, data := s.prepareLines(ops)
	if len(lines) == 0 {
		return
	}
	l := s.revoked
	err := l.ensure(s.locked)
	if err == nil {
		err = l.append(data)
	}
	if err == nil {
		err = s.applyLines(lines, int64(len(data)))
	}
	for _, p := range lines {
		if err != nil {
			p.op.finish(0, err)
		} else {
			p.op.finish(p.rec.rev, nil)
		}
	}
	if err == nil && l.wasteful() {
		if err := l.rewrite(s.locked); err != nil {
			s.log.Error("compacting revocations.log failed", zap.Error(err))
		}
	}
}

// prepareLines checks each op against what is and what the ops before it in
// the batch will make of it, and finishes those refused.
func (s *Store) prepareLines(ops []*op) (lines []pendingLine, data []byte) {
	before := map[string]*op{} // the last accepted op of a key
	revs := map[string]store.Rev{}
	for _, o := range ops {
		cur, ok, err := store.Entry{}, false, o.ctx.Err()
		if prev := before[o.key]; prev != nil {
			cur, ok = prev.event(revs[o.key]).Entry, prev.kind == opPut
		} else if err == nil && !(o.kind == opPut && o.ifRev == store.AnyRev) {
			cur, ok, err = s.revoked.get(o.key)
		}
		if err == nil {
			err = s.compare(o, cur, ok)
		}
		var rev store.Rev
		if err == nil {
			rev, err = s.rev.next()
		}
		if err != nil {
			o.finish(0, err)
			continue
		}
		before[o.key], revs[o.key] = o, rev
		rec := logRecord{
			rev: rev, expires: expiryMillis(o.expires), del: o.kind == opDelete,
			key: []byte(o.key), value: o.value,
		}
		lines = append(lines, pendingLine{o, rec, len(data)})
		data = appendLine(data, rec)
	}
	return lines, data
}

// applyLines takes lines that are on disk, size bytes of them, into memory.
func (s *Store) applyLines(lines []pendingLine, size int64) (err error) {
	l := s.revoked
	events := make([]store.Event, 0, len(lines))
	for _, p := range lines {
		events = append(events, p.op.event(p.rec.rev))
	}
	s.apply(func() {
		base, now := l.size, l.now().UnixMilli()
		l.size += size
		for _, p := range lines {
			// Only reading the line of a key's old entry can fail here.
			e := l.set(p.rec, base+int64(p.at), now)
			err = errors.Join(err, e)
		}
	}, events...)
	return err
}

// locked calls f, which changes memory, while nobody reads it.
func (s *Store) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// append writes data behind the good end and makes it durable.
func (l *revLog) append(data []byte) error {
	err := l.dir.Step(fsx.StepWrite, logName)
	if err != nil {
		_, _ = l.f.WriteAt(data[:len(data)/2], l.size)
	} else if _, err = l.f.WriteAt(data, l.size); err == nil {
		if err = l.dir.Step(fsx.StepSync, logName); err == nil {
			err = l.f.Sync()
		}
	}
	if err == nil {
		return nil
	}
	// What is behind the good end was not acknowledged and must not come
	// back at the next start. Whether cutting it off lasts is not known
	// either, hence the new file before the next append.
	l.suspect = true
	if terr := l.f.Truncate(l.size); terr == nil {
		_ = l.f.Sync()
	}
	return fmt.Errorf("%s: %w", l.path(), err)
}

// ensure makes the log fit for appending: there, the one that was opened,
// and with nothing behind its good end. Else it is written anew from what is
// good; nothing is appended to a file on which a sync has failed.
func (l *revLog) ensure(locked func(func())) error {
	if l.f == nil || l.suspect {
		return l.rewrite(locked)
	}
	fi, err := l.f.Stat()
	if err != nil {
		return fmt.Errorf("%s: %w", l.path(), err)
	}
	if fi.Size() != l.size {
		return fmt.Errorf("%s: %w: it was changed by another hand", l.path(), ErrDamaged)
	}
	named, err := l.dir.Root().Lstat(logName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", l.path(), err)
	}
	if err != nil || !os.SameFile(fi, named) {
		return l.rewrite(locked) // removed or replaced: what is open is the truth
	}
	return nil
}

// compactMin is how many useless lines are always tolerated.
const compactMin = 4096

// wasteful reports whether more than half of the lines are of entries that
// were replaced, removed or have expired. As a rewrite costs what is live,
// each line pays for a bounded share of one.
func (l *revLog) wasteful() bool {
	if l.lines < compactMin {
		return false
	}
	live := l.index.live
	minute := l.now().UnixMilli() / time.Minute.Milliseconds()
	for m, n := range l.expires {
		if m < minute {
			live -= n
		}
	}
	return l.lines-live > max(compactMin, live)
}

// rewrite writes the live entries to a new log and goes on with that one.
func (l *revLog) rewrite(locked func(func())) error {
	t, err := l.dir.CreateTemp(logName, 0o600)
	if err != nil {
		return err
	}
	n := &revLog{seed: l.seed, index: newLogIndex(l.index.live), expires: map[int64]int{}}
	if err := l.copyLive(t, n); err != nil {
		t.Abort()
		return err
	}
	err = t.Commit()
	var uncertain *fsx.UncertainError
	if err != nil && !errors.As(err, &uncertain) {
		t.Abort()
		return err
	}
	// If only the sync of the directory failed, the new file has the name
	// already and is the one to go on with, after another rewrite: nothing
	// may be acknowledged before its name is durable.
	n.suspect = err != nil
	old := l.f
	locked(func() {
		l.f, l.size, l.lines = t.File(), n.size, n.lines
		l.index, l.expires, l.suspect = n.index, n.expires, n.suspect
	})
	if old != nil {
		_ = old.Close()
	}
	return err
}

// copyLive writes the header and the live lines of l to w and fills n.
func (l *revLog) copyLive(w io.Writer, n *revLog) error {
	buf := append(make([]byte, 0, 1<<20), logHeader...)
	now := l.now().UnixMilli()
	flush := func() error {
		_, err := w.Write(buf)
		buf = buf[:0]
		return err
	}
	if l.f != nil {
		end, err := l.scan(l.size, func(off int64, r logRecord) error {
			hash := l.hash(r.key)
			if r.del || past(r.expires, now) || !l.index.has(hash, off) {
				return nil
			}
			n.index.add(hash, n.size+int64(len(buf)))
			n.count(r.expires, 1)
			n.lines++
			buf = appendLine(buf, r)
			if len(buf) < 1<<20-maxLine {
				return nil
			}
			n.size += int64(len(buf))
			return flush()
		})
		if err != nil {
			return err
		}
		if end != l.size {
			return fmt.Errorf("%s: %w at byte %d", l.path(), ErrDamaged, end)
		}
	}
	n.size += int64(len(buf))
	return flush()
}

func past(expires, now int64) bool { return expires != 0 && expires <= now }
