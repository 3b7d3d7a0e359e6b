package audit

import (
	"errors"
	"fmt"
	"os"
)

// errChanged says that somebody else touched the current file.
var errChanged = errors.New("changed by somebody else")

// watch looks whether the file is still the one that has the name, with the
// content it should have. One look at the name says all: while the file is
// open, no other has its number.
func (w *writer) watch() error {
	is, err := w.file.identity()
	if err != nil {
		return err
	}
	fi, err := w.fs.Lstat(currentName)
	switch want := w.durable + int64(w.written); {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s is gone: %w", currentName, errChanged)
	case err != nil:
		return err
	case !os.SameFile(is, fi):
		return fmt.Errorf("%s is another file now: %w", currentName, errChanged)
	case fi.Size() != want:
		return fmt.Errorf("%s has %d bytes instead of %d: %w", currentName, fi.Size(), want, errChanged)
	case links(fi) > 1:
		return fmt.Errorf("%s has %d hard links: %w", currentName, links(fi), errChanged)
	}
	return nil
}
