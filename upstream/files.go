package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// maxFile is the largest file of certificates or of a key, in bytes.
	maxFile = 1 << 20

	// fileWait is how long the files of a service may take to be read, all of
	// them together: a file system that hangs holds up nothing for longer.
	fileWait = 3 * time.Second

	// maxHanging is how many directories may hang before no other file is
	// opened: each has reads in it that nothing can end.
	maxHanging = 8
)

// A fileReader reads files that may be anywhere, and of any kind. What hangs
// is left behind, and nothing else of its directory is opened until it is back.
type fileReader struct {
	read func(path string) ([]byte, error)

	mu      sync.Mutex
	hanging map[string]int // directory → reads that are not back
}

// files reads what services name.
var files = &fileReader{read: readRegular}

var errHangs = errors.New("the file system does not answer")

// until reads a file, and gives up at a time.
func (f *fileReader) until(deadline time.Time, path string) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	dir := filepath.Dir(path)
	f.mu.Lock()
	_, hangs := f.hanging[dir]
	hangs = hangs || len(f.hanging) >= maxHanging
	f.mu.Unlock()
	if hangs {
		return nil, fmt.Errorf("read %s: %w, as before", path, errHangs)
	}
	done := make(chan result, 1)
	var back, late bool // under mu
	go func() {
		data, err := f.read(path)
		done <- result{data, err}
		f.mu.Lock()
		defer f.mu.Unlock()
		if back = true; !late {
			return
		}
		if f.hanging[dir]--; f.hanging[dir] == 0 {
			delete(f.hanging, dir)
		}
	}()
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case r := <-done:
		return r.data, r.err
	case <-timer.C:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if back {
		r := <-done
		return r.data, r.err
	}
	late = true
	if f.hanging == nil {
		f.hanging = map[string]int{}
	}
	f.hanging[dir]++
	return nil, fmt.Errorf("read %s: %w", path, errHangs)
}

// readRegular reads a regular file, which links may lead to, as they do where
// certificates are exchanged. Nothing else is opened: opening alone waits for
// somebody at a FIFO, and does things to devices.
func readRegular(path string) ([]byte, error) {
	if len(filepath.VolumeName(path)) > len("C:") {
		return nil, fmt.Errorf("%s may be on another machine, which would be asked for it", path)
	}
	before, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file (%s)", path, before.Mode().Type())
	}
	f, err := os.OpenFile(path, os.O_RDONLY|oNonblock, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s was replaced while it was opened", path)
	}
	_ = f.SetReadDeadline(time.Now().Add(fileWait)) // some of /proc wait for something to happen
	var b bytes.Buffer
	if _, err := b.ReadFrom(io.LimitReader(f, maxFile+1)); err != nil {
		return nil, err
	}
	if b.Len() > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return b.Bytes(), nil
}
