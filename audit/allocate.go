package audit

import (
	"errors"
	"fmt"
	"math"
)

// roomStep is how much room a segment gets at a time.
const roomStep = 1 << 20

// errNoRoom says that nothing was written, because there is no room for it.
var errNoRoom = errors.New("no room on the disk")

// makeRoom reserves what the tail needs, so that a full disk shows before
// anything was written, and not with half of it.
func (w *writer) makeRoom() error {
	need := w.durable + int64(len(w.tail))
	if need <= w.allocated {
		return nil
	}
	from := max(w.allocated, w.durable+int64(w.written))
	end := (need/roomStep + 1) * roomStep
	can, err := w.file.Allocate(from, end)
	if err != nil { // there may be room for just this
		end = need
		can, err = w.file.Allocate(from, end)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errNoRoom, err)
	case !can:
		w.allocated = math.MaxInt64
	default:
		w.allocated = end
	}
	return nil
}
