package file

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/fsx"
	"go.uber.org/zap"
)

// logHeader begins the log. A log without it has been cut or replaced: it is
// written together with the file's name.
const logHeader = "caddyvault revocations 1\n"

// revLog is revocations.log: an append-only file and an index into it. Of an
// entry nothing is in memory but its place; a million of them cost about
// 25 MB.
//
// The writer changes it; others read under Store.mu.
type revLog struct {
	dir   *fsx.Dir
	now   func() time.Time
	log   *zap.Logger
	found bool      // there was a file at open
	rev   store.Rev // the highest in the file at open

	f       *os.File // nil before the first write
	size    int64    // up to here the file is good and durable
	lines   int      // in the file
	suspect bool     // a write failed: go on in a new file

	seed    maphash.Seed
	index   *logIndex
	expires map[int64]int // entries in the index by the minute they expire
}

// openLog reads the log. A torn last line is moved aside; any other damage
// is refused.
func openLog(dir *fsx.Dir, now func() time.Time, log *zap.Logger) (*revLog, error) {
	l := &revLog{dir: dir, now: now, log: log, seed: maphash.MakeSeed(), index: newLogIndex(0), expires: map[int64]int{}}
	f, fi, err := dir.OpenRegular(logName, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	l.f, l.found = f, true
	if err = fsx.CheckPrivate(l.path(), fi); err == nil {
		err = l.load(fi.Size())
	}
	if err == nil && l.wasteful() {
		err = l.rewrite(func(f func()) { f() })
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *revLog) path() string { return filepath.Join(l.dir.Path(), logName) }

func (l *revLog) close() {
	if l.f != nil {
		_ = l.f.Close()
	}
}

func (l *revLog) hash(key []byte) uint64 { return maphash.Bytes(l.seed, key) }

// load fills the index from a file of size bytes.
func (l *revLog) load(size int64) error {
	now := l.now().UnixMilli()
	// Few lines are shorter: with most of its size to begin with, the index
	// is hardly ever built anew.
	l.index = newLogIndex(int(size / 192))
	end, err := l.scan(size, func(off int64, r logRecord) error {
		if r.rev <= l.rev {
			return errLine // swapped or repeated lines
		}
		l.rev = r.rev
		return l.set(r, off, now)
	})
	if err != nil {
		return err
	}
	l.size = end
	if end < size {
		return l.moveTail(size)
	}
	return nil
}

// scan calls f with each line of the first size bytes and returns where the
// last good line ends. That is before size only if the rest is torn.
func (l *revLog) scan(size int64, f func(off int64, r logRecord) error) (end int64, err error) {
	in := newLineReader(io.NewSectionReader(l.f, 0, size))
	line, err := in.next()
	if err != nil {
		return 0, err
	}
	if string(line) != logHeader {
		return 0, fmt.Errorf("%s: %w: its first line is missing", l.path(), ErrDamaged)
	}
	off := int64(len(line))
	for {
		line, err := in.next()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", l.path(), err)
		}
		if len(line) == 0 {
			return off, nil
		}
		var r logRecord
		err = errLine
		if body, ok := bytes.CutSuffix(line, []byte{'\n'}); ok {
			if r, err = parseLine(body); err == nil {
				err = f(off, r)
			}
		}
		if errors.Is(err, errLine) {
			return off, l.judge(line, in, off)
		}
		if err != nil {
			return 0, err
		}
		off += int64(len(line))
	}
}

// judge decides what a bad line at off means. A crash can leave the last
// line incomplete, or NULs where a file system had not written yet; such a
// write was never acknowledged. Everything else is damage to what was, and
// a revocation that counts may be in it.
func (l *revLog) judge(line []byte, in *lineReader, off int64) error {
	damaged := fmt.Errorf("%s: %w at byte %d: restore it, or, to give up what follows, run: truncate -s %d %s",
		l.path(), ErrDamaged, off, off, logName)
	if n := len(line); line[n-1] != '\n' && len(bytes.Trim(line, "\x00")) != 0 {
		// Complete but for a newline that turned into something else?
		if _, err := parseLine(line[:n-1]); err == nil || n > maxLine {
			return damaged
		}
		return nil
	}
	for {
		if len(bytes.Trim(line, "\x00")) != 0 {
			return damaged
		}
		var err error
		if line, err = in.next(); err != nil {
			return damaged
		}
		if len(line) == 0 {
			return nil
		}
	}
}

// moveTail moves what is behind l.size aside, never deleting it.
func (l *revLog) moveTail(size int64) error {
	name := fmt.Sprintf("revocations.torn.%d.%d", l.rev, l.now().UnixMilli())
	tail, err := io.ReadAll(io.NewSectionReader(l.f, l.size, size-l.size))
	if err == nil {
		err = l.dir.WriteAtomic(name, tail, 0o600)
	}
	if err == nil {
		err = l.f.Truncate(l.size)
	}
	if err == nil {
		err = l.f.Sync()
	}
	if err != nil {
		return fmt.Errorf("%s: move torn tail aside: %w", l.path(), err)
	}
	l.log.Warn("revocations.log ended in an incomplete line, which was never acknowledged; moved aside",
		zap.String("file", filepath.Join(l.dir.Path(), name)), zap.Int("bytes", len(tail)))
	return nil
}

// locate returns the slot and the record of key, or nil.
func (l *revLog) locate(hash uint64, key []byte) (s *indexSlot, r logRecord, err error) {
	s = l.index.find(hash, func(off int64) bool {
		var e error
		if r, e = l.read(off); e != nil {
			err = e
			return false
		}
		return bytes.Equal(r.key, key)
	})
	return s, r, err
}

// read reads the line at off.
func (l *revLog) read(off int64) (logRecord, error) {
	buf := make([]byte, 512)
	for {
		n, err := l.f.ReadAt(buf, off)
		if i := bytes.IndexByte(buf[:n], '\n'); i >= 0 {
			r, err := parseLine(buf[:i])
			if err != nil {
				return r, fmt.Errorf("%s: %w at byte %d", l.path(), ErrDamaged, off)
			}
			return r, nil
		}
		if err != nil || len(buf) > maxLine {
			return logRecord{}, fmt.Errorf("%s: %w at byte %d", l.path(), errors.Join(ErrDamaged, err), off)
		}
		buf = make([]byte, 8*len(buf))
	}
}

// get returns the entry at key, expired or not.
func (l *revLog) get(key string) (store.Entry, bool, error) {
	s, r, err := l.locate(l.hash([]byte(key)), []byte(key))
	if s == nil || err != nil {
		return store.Entry{}, false, err
	}
	return r.entry(), true, nil
}

// each calls f for every entry until it returns false.
func (l *revLog) each(f func(store.Entry) bool) error {
	if l.f == nil {
		return nil
	}
	stop := errors.New("stop")
	all := l.index.live == l.lines // each line is current, and none need be looked up
	end, err := l.scan(l.size, func(off int64, r logRecord) error {
		if !r.del && (all || l.index.has(l.hash(r.key), off)) && !f(r.entry()) {
			return stop
		}
		return nil
	})
	if errors.Is(err, stop) {
		return nil
	}
	if err == nil && end != l.size {
		err = fmt.Errorf("%s: %w at byte %d", l.path(), ErrDamaged, end)
	}
	return err
}

// set takes the line of r at off into the index.
func (l *revLog) set(r logRecord, off, now int64) error {
	hash := l.hash(r.key)
	s, old, err := l.locate(hash, r.key)
	if err != nil {
		return err
	}
	l.lines++
	gone := r.del || past(r.expires, now)
	if s != nil {
		l.count(old.expires, -1)
	}
	switch {
	case gone && s != nil:
		l.index.remove(s)
	case gone:
	case s != nil:
		s.off = off
	default:
		l.index.add(hash, off)
	}
	if !gone {
		l.count(r.expires, 1)
	}
	return nil
}

func (l *revLog) count(expires int64, n int) {
	if expires == 0 {
		return
	}
	minute := expires / time.Minute.Milliseconds()
	if l.expires[minute] += n; l.expires[minute] == 0 {
		delete(l.expires, minute)
	}
}
