package fsx

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Bits of a mode that give others something.
const (
	othersAny   fs.FileMode = 0o077
	othersWrite fs.FileMode = 0o022
)

// MaxPrivate is the largest file that ReadPrivate reads, in bytes.
const MaxPrivate = 64 << 20

// ReadPrivate reads the file at path if it is a regular file, not a link,
// that neither group nor others can touch; else the error wraps ErrInsecure
// and says which chmod mends it. Errors wrap fs.ErrNotExist if it is missing.
func ReadPrivate(path string) ([]byte, error) {
	d, err := OpenDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.ReadPrivate(filepath.Base(path))
}

// ReadPrivate is the function ReadPrivate for a file in d.
func (d *Dir) ReadPrivate(name string) ([]byte, error) {
	f, fi, err := d.OpenRegular(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := CheckPrivate(d.join(name), fi); err != nil {
		return nil, err
	}
	return readAll(f, fi, d.join(name), MaxPrivate)
}

// CheckPrivate refuses a file, described by fi, that group or others can
// touch; the error names path and the chmod to run.
func CheckPrivate(path string, fi fs.FileInfo) error {
	if unixModes && fi.Mode().Perm()&othersAny != 0 {
		return insecure(path, "can be read or written by others (mode %04o)", fi, "chmod 600 ")
	}
	return nil
}

// CheckUnwritable refuses a file or directory that group or others can
// write; the error names path and the chmod to run.
func CheckUnwritable(path string, fi fs.FileInfo) error {
	if unixModes && fi.Mode().Perm()&othersWrite != 0 {
		return insecure(path, "can be written by others (mode %04o)", fi, "chmod go-w ")
	}
	return nil
}

// CheckPrivateDir refuses a directory that group or others can enter or
// read; the error names path and the chmod to run.
func CheckPrivateDir(path string, fi fs.FileInfo) error {
	if !fi.IsDir() {
		return fmt.Errorf("%s is not a directory: %w", path, ErrInsecure)
	}
	if unixModes && fi.Mode().Perm()&othersAny != 0 {
		return insecure(path, "can be entered by others (mode %04o)", fi, "chmod 700 ")
	}
	return nil
}

func insecure(path, what string, fi fs.FileInfo, chmod string) error {
	return fmt.Errorf("%s "+what+", run: %s%s: %w", path, fi.Mode().Perm(), chmod, quote(path), ErrInsecure)
}

// OpenRegular opens the file name in d if it is a regular file and not a
// link. It returns what the open file is, not what the name was.
func (d *Dir) OpenRegular(name string, flag int) (*os.File, fs.FileInfo, error) {
	path := d.join(name)
	before, err := d.root.Lstat(name)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", path, err)
	}
	if !before.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file (%s): %w", path, before.Mode().Type(), ErrInsecure)
	}
	// Without O_NONBLOCK a FIFO put in its place would hold us up.
	f, err := d.root.OpenFile(name, flag|oNoFollow|oNonblock, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", path, err)
	}
	fi, err := f.Stat()
	if err == nil && (!fi.Mode().IsRegular() || !os.SameFile(before, fi)) {
		// A link or special file, or simply a rename, won the race: the
		// caller may try again, but this one is not what was asked for.
		err = fmt.Errorf("%s was replaced while it was opened: %w", path, ErrInsecure)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

// ReadRegular reads the file name in d if it is a regular file of at most
// limit bytes that neither group nor others can write.
func (d *Dir) ReadRegular(name string, limit int64) ([]byte, fs.FileInfo, error) {
	f, fi, err := d.OpenRegular(name, os.O_RDONLY)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if err := CheckUnwritable(d.join(name), fi); err != nil {
		return nil, fi, err
	}
	b, err := readAll(f, fi, d.join(name), limit)
	return b, fi, err
}

// readAll reads a file of the size it had, with no room left over: thousands
// may be kept. It may have grown since.
func readAll(f *os.File, fi fs.FileInfo, path string, limit int64) ([]byte, error) {
	b := make([]byte, min(fi.Size(), limit))
	n, err := io.ReadFull(f, b)
	if b = b[:n]; err == nil {
		var more []byte
		more, err = io.ReadAll(io.LimitReader(f, limit+1-int64(n)))
		b = append(b, more...)
	}
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, nil
}

// MakePrivateDir makes the directory at path, and those above it, with mode
// 0700 whatever the umask. One that exists is refused if others can enter
// it, and left as it is.
func MakePrivateDir(path string) error {
	made, err := makeDirs(path)
	if err != nil {
		return err
	}
	if made {
		return nil
	}
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	return CheckPrivateDir(path, fi)
}

// MakeDir is MakePrivateDir for a directory that others may read but not
// write.
func MakeDir(path string) error {
	made, err := makeDirs(path)
	if err != nil || made {
		return err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is not a directory: %w", path, ErrInsecure)
	}
	return CheckUnwritable(path, fi)
}

// makeDirs makes path and what is missing above it and reports whether path
// itself is new.
func makeDirs(path string) (bool, error) {
	if _, err := os.Stat(path); err == nil {
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("open directory: %w", err)
	}
	parent := filepath.Dir(path)
	if parent != path {
		if _, err := makeDirs(parent); err != nil {
			return false, err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			// Made by another meanwhile, who decides its mode; or a
			// dangling link, which the next open will name.
			return false, nil
		}
		return false, fmt.Errorf("make directory: %w", err)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return false, fmt.Errorf("make directory: %w", err)
	}
	d, err := OpenDir(parent)
	if err != nil {
		return false, err
	}
	defer d.Close()
	return true, d.Sync(filepath.Base(path))
}
