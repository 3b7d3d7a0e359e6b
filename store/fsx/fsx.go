// Package fsx is how the vault touches private files: it writes them whole
// or not at all, and reads them only if nobody else can.
//
// Promises: a file is replaced by temporary file, fsync, rename, fsync of the
// directory, so that a crash leaves the old content or the new; temporary
// names are random and exclusive; modes are what was asked for whatever the
// umask; links and special files are never followed or opened. On macOS
// fsync is F_FULLFSYNC (package os does that). On systems that are not Unix
// permissions and the fsync of directories are weaker; see Weaker.
package fsx

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrInsecure is wrapped by every refusal of a file or directory that others
// may read or write, or that is not what it should be (a link, a device).
var ErrInsecure = errors.New("insecure")

// tempPrefix begins the name of every temporary file, so that a leftover one
// is known, hidden, and never taken for content.
const tempPrefix = ".tmp-"

// Step names one file system call of a write, for fault injection in tests.
type Step string

// The steps of a write, in their order.
const (
	StepCreate  Step = "create"
	StepWrite   Step = "write"
	StepSync    Step = "sync"
	StepRename  Step = "rename"
	StepSyncDir Step = "syncdir"
)

// Fault, if set on a Dir, is asked before each step; an error it returns is
// the step's outcome. A failed StepWrite still writes half of the data, as a
// full disk does. For tests.
type Fault func(step Step, name string) error

// Dir is a directory opened once: names are looked up beneath it whatever
// happens to the path it was opened by.
type Dir struct {
	root  *os.Root
	path  string
	fault Fault
}

// OpenDir opens the directory at path.
func OpenDir(path string) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	return &Dir{root: root, path: path}, nil
}

// SetFault sets the fault injection of d. For tests.
func (d *Dir) SetFault(f Fault) { d.fault = f }

// Path returns the path d was opened by.
func (d *Dir) Path() string { return d.path }

// Root returns the directory for lookups beneath it. The caller does not
// close it.
func (d *Dir) Root() *os.Root { return d.root }

// Close closes the directory.
func (d *Dir) Close() error { return d.root.Close() }

// Step asks the fault injection for the outcome of a step that the caller is
// about to take by itself.
func (d *Dir) Step(step Step, name string) error {
	if d.fault == nil {
		return nil
	}
	return d.fault(step, name)
}

// WriteAtomic replaces the file name in the directory at dir by data with
// mode perm, durably: after it has returned nil a crash keeps the new
// content, after an error the old one is there.
func WriteAtomic(dir, name string, data []byte, perm fs.FileMode) error {
	d, err := OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.WriteAtomic(name, data, perm)
}

// WriteAtomic is the function WriteAtomic for a directory already open. An
// error of the last step, the fsync of the directory, is an *UncertainError:
// the new content is there but may not survive a crash.
func (d *Dir) WriteAtomic(name string, data []byte, perm fs.FileMode) error {
	t, err := d.CreateTemp(name, perm)
	if err != nil {
		return err
	}
	if _, err = t.Write(data); err == nil {
		err = t.Commit()
	}
	if err != nil {
		t.Abort()
		return err
	}
	return t.Close()
}

// WriteNew writes a file that must not exist yet, as WriteAtomic does. The
// error wraps fs.ErrExist if it does.
func (d *Dir) WriteNew(name string, data []byte, perm fs.FileMode) error {
	if _, err := d.root.Lstat(name); err == nil {
		return fmt.Errorf("write %s: %w", d.join(name), fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write %s: %w", d.join(name), err)
	}
	return d.WriteAtomic(name, data, perm)
}

// Remove deletes the file name durably. The error wraps fs.ErrNotExist if
// there is none.
func (d *Dir) Remove(name string) error {
	if err := d.Step(StepRename, name); err != nil {
		return fmt.Errorf("remove %s: %w", d.join(name), err)
	}
	if err := d.root.Remove(name); err != nil {
		return fmt.Errorf("remove %s: %w", d.join(name), err)
	}
	return d.Sync(name)
}

// UncertainError says that a change was made but is perhaps not durable.
type UncertainError struct{ Err error }

// Error describes the error.
func (e *UncertainError) Error() string { return e.Err.Error() }

// Unwrap returns what went wrong.
func (e *UncertainError) Unwrap() error { return e.Err }

// Sync makes the names in d durable after a change of name.
func (d *Dir) Sync(name string) error {
	err := d.Step(StepSyncDir, name)
	if err == nil {
		err = SyncDir(d.root)
	}
	if err != nil {
		return &UncertainError{fmt.Errorf("sync directory %s: %w", d.path, err)}
	}
	return nil
}

// Temp is a file being written under a temporary name.
type Temp struct {
	dir  *Dir
	name string // final
	temp string // "" once renamed
	f    *os.File
}

// CreateTemp begins to write the file name. The caller writes, then calls
// Commit, and Close or Abort at the end.
func (d *Dir) CreateTemp(name string, perm fs.FileMode) (*Temp, error) {
	if err := d.Step(StepCreate, name); err != nil {
		return nil, fmt.Errorf("write %s: %w", d.join(name), err)
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	t := &Temp{dir: d, name: name, temp: tempPrefix + name + "-" + hex.EncodeToString(b[:])}
	// O_EXCL never follows a link, so one planted here is an error.
	f, err := d.root.OpenFile(t.temp, os.O_RDWR|os.O_CREATE|os.O_EXCL|oNoFollow, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", d.join(name), err)
	}
	t.f = f
	if err := f.Chmod(perm); err != nil {
		t.Abort()
		return nil, fmt.Errorf("write %s: %w", d.join(name), err)
	}
	return t, nil
}

// Write appends to the file.
func (t *Temp) Write(b []byte) (int, error) {
	if err := t.dir.Step(StepWrite, t.name); err != nil {
		n, _ := t.f.Write(b[:len(b)/2])
		return n, fmt.Errorf("write %s: %w", t.dir.join(t.name), err)
	}
	n, err := t.f.Write(b)
	if err != nil {
		err = fmt.Errorf("write %s: %w", t.dir.join(t.name), err)
	}
	return n, err
}

// Commit makes the file durable under its final name.
func (t *Temp) Commit() error {
	err := t.dir.Step(StepSync, t.name)
	if err == nil {
		err = t.f.Sync()
	}
	if err == nil {
		err = t.dir.Step(StepRename, t.name)
	}
	if err == nil {
		err = t.dir.root.Rename(t.temp, t.name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", t.dir.join(t.name), err)
	}
	t.temp = ""
	return t.dir.Sync(t.name)
}

// File returns the open file, for instance to go on appending after Commit.
// The caller who does so does not call Close.
func (t *Temp) File() *os.File { return t.f }

// Close closes the file. Its content is durable by then.
func (t *Temp) Close() error { return t.f.Close() }

// Abort closes the file and removes it, if it is still temporary.
func (t *Temp) Abort() {
	_ = t.f.Close()
	if t.temp != "" {
		_ = t.dir.root.Remove(t.temp)
	}
}

// RemoveTemps removes temporary files that a crash has left. Nothing else
// may be writing to the directory.
func (d *Dir) RemoveTemps() error {
	f, err := d.root.Open(".")
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			if !IsTemp(name) {
				continue
			}
			// Unlinking does not follow; a directory stays.
			if fi, err := d.root.Lstat(name); err == nil && !fi.IsDir() {
				_ = d.root.Remove(name)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read directory %s: %w", d.path, err)
		}
	}
}

// IsTemp reports whether name is one of a temporary file of this package.
func IsTemp(name string) bool {
	if !strings.HasPrefix(name, tempPrefix) || len(name) < len(tempPrefix)+18 {
		return false
	}
	tail := name[len(name)-17:]
	_, err := hex.DecodeString(tail[1:])
	return tail[0] == '-' && err == nil
}

func (d *Dir) join(name string) string { return filepath.Join(d.path, name) }
