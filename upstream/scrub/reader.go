package scrub

import (
	"errors"
	"io"
)

// ErrHit ends a Reader that was told to block.
var ErrHit = errors.New("the response contains a secret")

const (
	// roomy is how much space a caller's buffer has to have beside what is
	// held back for the source to be read straight into it.
	roomy = 512

	// ownBuffer is what is read at once for a caller with less than that.
	ownBuffer = 4 << 10

	// patience is how often a source may return nothing before it is taken
	// for broken, as in package bufio.
	patience = 100
)

// Reader is a stream without secrets. What the source returns is passed on at
// once, but for a tail that may be the beginning of a hit.
type Reader struct {
	index *index
	src   io.Reader
	block bool

	redaction
	held  []byte // read from the source, not decided yet
	out   []byte // decided, not delivered yet
	err   error  // what comes after out
	own   []byte // where the source is read to for callers with little space
	clean []byte // where a piece with hits is put together
	found []match
}

// Block makes the reader end with ErrHit at a hit instead of replacing it.
// Call it before the first Read.
func (r *Reader) Block() { r.block = true }

// Hits returns how many hits there were so far.
func (r *Reader) Hits() int { return r.hits }

// Read is io.Reader. It uses all of p for its work.
func (r *Reader) Read(p []byte) (int, error) {
	if r.index == nil {
		return r.src.Read(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	for empty := 0; ; {
		if len(r.out) > 0 {
			n := copy(p, r.out)
			r.out = r.out[n:]
			return n, nil
		}
		if r.err != nil {
			return 0, r.err
		}

		buf := p
		if len(p) < len(r.held)+roomy {
			if need := len(r.held) + ownBuffer; len(r.own) < need {
				r.own = make([]byte, need)
			}
			buf = r.own
		}
		n := copy(buf, r.held)
		more, err := r.src.Read(buf[n:])
		r.err = err
		if more == 0 && err == nil {
			if empty++; empty == patience {
				r.err = io.ErrNoProgress
			}
			continue
		}

		d := buf[:n+more]
		if ready := r.decide(d, err != nil); ready > 0 {
			if len(p) >= len(d) && &buf[0] == &p[0] {
				return ready, nil
			}
			r.out = d[:ready]
		}
	}
}

// decide looks through d and keeps its undecided tail. If there is no hit it
// returns how much of d can be delivered as it is; otherwise what is to be
// delivered is in r.out, and d is cleared.
func (r *Reader) decide(d []byte, final bool) (ready int) {
	found, hold := r.index.find(d, final, r.found[:0])
	r.found = found
	r.held = append(r.held[:0], d[hold:]...)
	if len(found) == 0 && r.cover == 0 {
		clear(d[hold:])
		return hold
	}
	if r.block && len(found) > 0 {
		// What stands before the first hit is the caller's; then it ends.
		r.clean = append(r.clean[:0], d[:found[0].start]...)
		r.out, r.err, r.held = r.clean, ErrHit, nil
		r.hits++
	} else {
		r.clean = r.apply(r.clean[:0], d, hold, found)
		r.out = r.clean
	}
	clear(d) // the caller's buffer should not have the secret in its unused part
	return 0
}
