package audit

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/tidwall/gjson"
)

// openPart is one file of the log, opened.
type openPart struct {
	name  string
	first uint64 // by its name; 0 for the current one
	f     partFile
	size  int64 // what of it counts
	extra int64 // bytes behind that, which the next part begins with
}

// partFile is what is asked of a part's file.
type partFile interface {
	io.ReaderAt
	io.Closer
}

// maxOpen is how many parts stay open together. A log of more opens each as
// it is read, so that its length is not bounded by how many files a process
// may have open.
const maxOpen = 256

// restingFile is a file that is open only while it is read.
type restingFile struct {
	open func() (file, error)
	fi   fs.FileInfo // which file it has to be

	mu sync.Mutex
	f  file
}

func (r *restingFile) ReadAt(b []byte, off int64) (int, error) {
	f, err := r.wake()
	if err != nil {
		return 0, err
	}
	return f.ReadAt(b, off)
}

func (r *restingFile) wake() (file, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f != nil {
		return r.f, nil
	}
	f, err := r.open()
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !os.SameFile(fi, r.fi) {
		err = fmt.Errorf("replaced while the log was read: %w", ErrInsecure)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	r.f = f
	return f, nil
}

// Close lets it rest: it is opened again if it is read again.
func (r *restingFile) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		return nil
	}
	err := r.f.Close()
	r.f = nil
	return err
}

// rest closes a file that is opened again as it is read.
func (p *openPart) rest() {
	if r, ok := p.f.(*restingFile); ok {
		_ = r.Close()
	}
}

// listParts returns the names of the sealed segments by their first seq,
// whether there is a current one, and leftover temporary files.
func listParts(d fsys) (sealed []openPart, current bool, temps []string, err error) {
	names, err := d.List()
	if err != nil {
		return nil, false, nil, err
	}
	for _, name := range names {
		if first, ok := parseSealed(name); ok {
			sealed = append(sealed, openPart{name: name, first: first})
		}
		current = current || name == currentName
		if strings.HasPrefix(name, tempPrefix) {
			temps = append(temps, name)
		}
	}
	slices.SortFunc(sealed, func(a, b openPart) int { return cmp.Compare(a.first, b.first) })
	return sealed, current, temps, nil
}

func closeParts(parts []openPart) {
	for _, p := range parts {
		if p.f != nil {
			_ = p.f.Close()
		}
	}
}

// openAll opens every part, the current one with open. strict refuses files
// that others can touch.
func openAll(d fsys, dir string, parts []openPart, open func(string) (file, error), strict bool) error {
	for i := range parts {
		p := &parts[i]
		open := open
		if p.name != currentName {
			open = d.OpenRead
		}
		f, err := open(p.name)
		if err != nil {
			return fmt.Errorf("open %s: %w", p.name, err)
		}
		p.f = f
		fi, err := f.Stat()
		if err != nil {
			return fmt.Errorf("open %s: %w", p.name, err)
		}
		if strict {
			if err := checkFile(filepath.Join(dir, p.name), fi); err != nil {
				return err
			}
		}
		p.size = fi.Size()
		if len(parts) > maxOpen && i < len(parts)-1 {
			p.f = &restingFile{open: func() (file, error) { return open(p.name) }, fi: fi, f: f}
			p.rest()
		}
	}
	for i := range parts[:max(0, len(parts)-1)] {
		err := parts[i].limit(&parts[i+1])
		parts[i].rest()
		if err != nil {
			return fmt.Errorf("read %s: %w", parts[i].name, err)
		}
	}
	return nil
}

// limit finds where p ends for a log that goes on in next. After a failed
// write or sync a segment may end in lines, or a piece of one, that the next
// begins with.
func (p *openPart) limit(next *openPart) error {
	line, err := lineAt(next.f, 0)
	if err != nil {
		return err
	}
	first, _, ok := parseTail(line)
	if !ok {
		return nil // which the scan of next will find
	}
	last, _, whole, err := lastLine(p.f, p.size)
	if err != nil {
		return err
	}
	if seq, _, ok := parseTail(last); ok && whole && seq+1 == first {
		return nil
	}
	end, found := int64(0), false
	err = readLines(p.f, p.size, func(off int64, lines []byte) bool {
		for line := range linesOf(lines) {
			seq, _, ok := parseTail(line)
			if ok && seq == first {
				return false
			}
			off += int64(len(line)) + 1
			if ok && seq+1 == first {
				end, found = off, true
				return false
			}
		}
		return true
	})
	if err == nil && found {
		p.extra = p.size - end
		p.size = end
	}
	return err
}

// linesOf yields the lines of a stretch, without their newlines.
func linesOf(b []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			i := bytes.IndexByte(b, '\n')
			if i < 0 || !yield(b[:i]) {
				return
			}
			b = b[i+1:]
		}
	}
}

// lastLine returns the last line without its newline, and where it begins.
// whole says that it has one.
func lastLine(f io.ReaderAt, size int64) (line []byte, off int64, whole bool, err error) {
	for n := int64(4 << 10); ; n *= 4 {
		n = min(n, size)
		buf := make([]byte, n)
		if m, err := f.ReadAt(buf, size-n); err != nil && int64(m) < n {
			return nil, 0, false, err
		}
		line, whole := bytes.CutSuffix(buf, []byte{'\n'})
		i := bytes.LastIndexByte(line, '\n') + 1
		if i > 0 || n == size {
			return line[i:], size - n + int64(i), whole, nil
		}
	}
}

// undoLink removes the sealed name of a segment that is still the current
// one: a crash came between the two names.
func undoLink(d fsys, sealed []openPart) ([]openPart, error) {
	if len(sealed) == 0 {
		return sealed, nil
	}
	last := sealed[len(sealed)-1]
	same, err := sameFile(d, last.name, currentName)
	if err != nil || !same {
		return sealed, err
	}
	if err := d.Remove(last.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return sealed[:len(sealed)-1], nil
}

// sameFile reports whether two names stand for one file.
func sameFile(d fsys, a, b string) (bool, error) {
	ai, err := d.Lstat(a)
	if err != nil {
		return false, err
	}
	bi, err := d.Lstat(b)
	if err != nil {
		return false, err
	}
	return os.SameFile(ai, bi), nil
}

// isLegacy reports whether a line is one of the older Node system.
func isLegacy(line []byte) bool {
	if !gjson.ValidBytes(line) {
		return false
	}
	r := gjson.ParseBytes(line)
	return r.IsObject() && r.Get("ts").Exists() && r.Get("event").Exists() &&
		!r.Get("seq").Exists() && !r.Get("prev").Exists()
}
