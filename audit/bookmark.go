package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"
)

// bookmarks are how far readers that go on after a restart have come: files
// audit.mark.<name> with a seq in them.
type bookmarks struct {
	mu   sync.Mutex
	last map[string]uint64
}

const markPrefix = "audit.mark."

// ValidBookmark reports whether a reader can have this name.
func ValidBookmark(name string) bool {
	return len(name) <= 64 && name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	})
}

// Bookmark returns what SetBookmark has kept for a reader; without, the last
// seq that was there when the log was opened.
func (l *Log) Bookmark(name string) (seq uint64, err error) {
	if !ValidBookmark(name) {
		return 0, fmt.Errorf("bookmark %q: not a name", name)
	}
	l.marks.mu.Lock()
	defer l.marks.mu.Unlock()
	f, err := l.opts.fs.OpenRead(markPrefix + name)
	if errors.Is(err, fs.ErrNotExist) {
		return l.opened, nil
	}
	if err != nil {
		return 0, fmt.Errorf("bookmark %s: %w", name, err)
	}
	defer f.Close()
	line, err := lineAt(f, 0)
	if err != nil {
		return 0, fmt.Errorf("bookmark %s: %w", name, err)
	}
	seq, err = strconv.ParseUint(string(line), 10, 63)
	if err != nil {
		return 0, fmt.Errorf("bookmark %s: %w", name, err)
	}
	return seq, nil
}

// SetBookmark keeps how far a reader has come. It never goes back.
func (l *Log) SetBookmark(name string, seq uint64) error {
	if !ValidBookmark(name) {
		return fmt.Errorf("bookmark %q: not a name", name)
	}
	l.marks.mu.Lock()
	defer l.marks.mu.Unlock()
	if seq <= l.marks.last[name] {
		return nil
	}
	temp := tempPrefix + "mark-" + randomHex()
	f, err := l.opts.fs.Create(temp)
	if err != nil {
		return fmt.Errorf("bookmark %s: %w", name, err)
	}
	_, err = f.Write(append(strconv.AppendUint(nil, seq, 10), '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = l.opts.fs.Rename(temp, markPrefix+name)
	}
	if err != nil {
		_ = l.opts.fs.Remove(temp)
		return fmt.Errorf("bookmark %s: %w", name, err)
	}
	if l.marks.last == nil {
		l.marks.last = make(map[string]uint64)
	}
	l.marks.last[name] = seq
	return nil
}
