package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyvault/caddyvault/store/fsx"
)

// fsys is what the log asks of the directory it lives in. Tests put a layer
// in between that fails.
type fsys interface {
	// Open opens a regular file for reading and appending, never a link.
	Open(name string) (file, error)
	// OpenRead is Open for reading only.
	OpenRead(name string) (file, error)
	// Create makes a file of mode 0600 that must not exist.
	Create(name string) (file, error)
	Lstat(name string) (fs.FileInfo, error)
	List() ([]string, error)
	Link(from, to string) error
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes changes of names durable.
	SyncDir() error
	Close() error
}

// file is one open file. Write appends.
type file interface {
	io.Writer
	io.ReaderAt
	io.Closer
	// Sync makes what was written durable, with the size of the file.
	Sync() error
	Truncate(size int64) error
	// Allocate reserves room from off to end, and leaves the size as it is.
	// It reports whether that can be done here.
	Allocate(off, end int64) (can bool, err error)
	Stat() (fs.FileInfo, error)
}

// ErrInsecure is wrapped by the refusal of a file that others can read or
// write, that is a link or linked to, or that is not a regular file.
var ErrInsecure = errors.New("insecure")

// osFS is the directory itself. Names are looked up beneath it whatever
// happens to the path it was opened by.
type osFS struct {
	root *os.Root
	path string
}

func openDir(path string) (*osFS, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	return &osFS{root, path}, nil
}

func (d *osFS) Open(name string) (file, error) {
	return d.open(name, os.O_RDWR|os.O_APPEND)
}

func (d *osFS) OpenRead(name string) (file, error) {
	return d.open(name, os.O_RDONLY)
}

func (d *osFS) open(name string, flag int) (file, error) {
	// os.Root follows links within the directory, whatever the flags.
	before, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, checkFile(d.join(name), before)
	}
	// Without O_NONBLOCK a FIFO put in its place would hold us up.
	f, err := d.root.OpenFile(name, flag|oNoFollow|oNonblock, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !os.SameFile(before, fi) {
		err = fmt.Errorf("%s was replaced while it was opened: %w", d.join(name), ErrInsecure)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return osFile{f}, nil
}

func (d *osFS) Create(name string) (file, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL|oNoFollow, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil { // whatever the umask
		_ = f.Close()
		return nil, err
	}
	return osFile{f}, nil
}

func (d *osFS) Lstat(name string) (fs.FileInfo, error) { return d.root.Lstat(name) }

func (d *osFS) List() ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (d *osFS) Link(from, to string) error   { return d.root.Link(from, to) }
func (d *osFS) Rename(from, to string) error { return d.root.Rename(from, to) }
func (d *osFS) Remove(name string) error     { return d.root.Remove(name) }
func (d *osFS) SyncDir() error               { return fsx.SyncDir(d.root) }
func (d *osFS) Close() error                 { return d.root.Close() }
func (d *osFS) join(name string) string      { return filepath.Join(d.path, name) }

type osFile struct{ *os.File }

func (f osFile) Sync() error { return fdatasync(f.File) }

func (f osFile) Allocate(off, end int64) (bool, error) { return allocate(f.File, off, end) }

// checkFile refuses what is not a private regular file with one name; path
// is for the message, which says how to mend it.
func checkFile(path string, fi fs.FileInfo) error {
	switch {
	case !fi.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file (%s): %w", path, fi.Mode().Type(), ErrInsecure)
	case unixModes && fi.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s can be read or written by others (mode %04o), run: chmod 600 %s: %w",
			path, fi.Mode().Perm(), quote(path), ErrInsecure)
	case links(fi) > 1:
		return fmt.Errorf("%s has %d hard links, remove the others: %w", path, links(fi), ErrInsecure)
	}
	return nil
}

// quote makes path fit for pasting behind a command.
func quote(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@:,", r))
	}) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
