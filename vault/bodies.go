package vault

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
)

// Bounds on the bodies that are had whole, in bytes: those that get the secret
// or are signed, and those of the API's own routes.
const (
	// DefaultBodyMemory is how much all of them may take at a time, and
	// MinBodyMemory the least that can be set: room for the two largest.
	DefaultBodyMemory = 256 << 20
	MinBodyMemory     = 4 * maxWhole

	// freeBody is what a request may take without being counted: most take
	// less, and need not touch what all share.
	freeBody = 16 << 10
)

// ErrBodyTooLarge says that a body is larger than it may be.
var ErrBodyTooLarge = errors.New("the body is too large")

// bodies counts the memory of bodies that are had whole. Who has not shown yet
// who is sending has a quarter of it, so that outsiders cannot take the room of
// those who have.
type bodies struct {
	known, unknown bodyPool
}

type bodyPool struct {
	limit int64
	used  atomic.Int64
}

func (b *bodies) init(limit int64) {
	if limit == 0 {
		limit = DefaultBodyMemory
	}
	b.known.limit, b.unknown.limit = limit, limit/4
}

func (p *bodyPool) take(n int64) *refusal.Refusal {
	if p.used.Add(n) <= p.limit {
		return nil
	}
	p.used.Add(-n)
	r := refusal.New("BODY_MEMORY_EXHAUSTED", "the bodies of other requests take all the memory that is set aside for them").
		WithHint("try again in a moment, or send a smaller body; the setting is body_memory")
	r.RetryAfter = time.Second
	return r
}

// BodyHold is what the body of one request takes. Its zero value takes nothing.
type BodyHold struct {
	bodies *bodies
	pool   *bodyPool
	copies int64
	n      int64
}

// HoldBody returns a hold for the body of a request. It is the sender's, whom
// nobody knows before Known.
func (v *Vault) HoldBody() BodyHold {
	return BodyHold{bodies: &v.bodies, pool: &v.bodies.unknown, copies: 1}
}

// Known moves the hold to where those are counted who have shown who they are.
func (h *BodyHold) Known() *refusal.Refusal {
	if h.bodies == nil || h.pool == &h.bodies.known {
		return nil
	}
	if h.n > 0 {
		if refused := h.bodies.known.take(h.n); refused != nil {
			return refused
		}
		h.pool.used.Add(-h.n)
	}
	h.pool = &h.bodies.known
	return nil
}

// Release gives back what is held.
func (h *BodyHold) Release() {
	if h.n > 0 {
		h.pool.used.Add(-h.n)
		h.n = 0
	}
}

// grow holds n bytes in all.
func (h *BodyHold) grow(n int64) *refusal.Refusal {
	if n *= h.copies; n <= freeBody {
		return nil
	}
	if refused := h.pool.take(n - h.n); refused != nil {
		return refused
	}
	h.n = n
	return nil
}

// Read reads a body to its end, which is held then. length is how long it is
// said to be, -1 if nothing is said; room is made for what has come, not for
// what is said to come. Before it waits for the sender, and only then, it calls
// wait. The error is ErrBodyTooLarge for more than most bytes, a refusal, or
// the sender's.
func (h *BodyHold) Read(body io.Reader, length, most int64, wait func()) ([]byte, error) {
	if length > most {
		return nil, ErrBodyTooLarge
	}
	end := most + 1 // one more than there is, so that the end is seen
	if length >= 0 {
		end = length + 1
	}
	buf := make([]byte, 0, min(max(length+1, bytes.MinRead), freeBody))
	for first := true; ; first = false {
		if len(buf) == cap(buf) {
			size := max(min(2*int64(cap(buf)), end), int64(len(buf))+1)
			if refused := h.grow(size); refused != nil {
				return nil, refused
			}
			buf = append(make([]byte, 0, size), buf...)
		}
		if !first && wait != nil {
			wait()
			wait = nil
		}
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > most:
			return nil, ErrBodyTooLarge
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return nil, err
		}
	}
}

// readRefusal is why a body could not be had.
func readRefusal(err error, most int64, why string) *refusal.Refusal {
	if refused, ok := errors.AsType[*refusal.Refusal](err); ok {
		return refused
	}
	switch {
	case errors.Is(err, ErrBodyTooLarge):
		return refusal.New("BODY_TOO_LARGE", "the body is larger than %d bytes%s", most, why)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refusal.New("CLIENT_TIMEOUT:idle", "the client did not send its request in time").WithCause(err)
	}
	return refusal.New("BODY_INVALID", "the body could not be read to its end").WithCause(err)
}
