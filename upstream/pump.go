package upstream

import (
	"net/http"
	"strings"
	"sync"
	"time"
)

// Caddy's proxy copies answers in pieces of 32 KiB. The vault hands them to
// the client itself, from where the proxy would read them: in larger pieces
// where an upstream sends that fast. A piece costs a read and, under
// Transfer-Encoding chunked, two writes, and with the scrubber every large
// answer is chunked, because its length may change.

const (
	// largePiece is how much is read and written at once: what Caddy passes on
	// under one deadline.
	largePiece = 64 << 10

	// moment is how long what is written waits for more before it is flushed,
	// if there is probably more.
	moment = time.Millisecond
)

var largePieces = sync.Pool{New: func() any { return new([largePiece]byte) }}

// pump passes a body on to a client.
type pump struct {
	client http.ResponseWriter

	// Where the length is not known every piece is flushed.
	flush func() error
	mu    sync.Mutex // of the client, and what follows
	timer *time.Timer
	late  bool // to be flushed by the timer
}

// newPump returns the pump of an answer, or nil if the proxy may flush it from
// another goroutine, which must then be the only one to write.
func newPump(res *http.Response, client http.ResponseWriter) *pump {
	if res.Header["Incremental"] != nil {
		return nil
	}
	for _, kind := range res.Header["Content-Type"] {
		if strings.Contains(strings.ToLower(kind), "event-stream") {
			return nil
		}
	}
	p := &pump{client: client}
	if res.ContentLength < 0 {
		res.ContentLength = 0 // for the proxy, which flushes otherwise
		p.flush = http.NewResponseController(client).Flush
	}
	return p
}

// run passes on what next reads, to its end or until the client takes no more:
// then it returns what is left of the piece. p is where it is read to.
func (u *pump) run(p []byte, next func([]byte) (int, error)) (left []byte, err error) {
	if u.flush != nil {
		u.late = true // the header, should the body take its time
		u.timer = time.AfterFunc(moment, u.flushLate)
		defer u.stop()
	}
	var large *[largePiece]byte
	defer func() {
		if large != nil {
			largePieces.Put(large)
		}
	}()
	for buf := p; ; {
		n, err := next(buf)
		if n > 0 {
			took, failed := u.write(buf[:n], n == len(buf))
			if failed != nil || took < n {
				return append([]byte(nil), buf[took:n]...), err
			}
		}
		if err != nil {
			return nil, err
		}
		switch {
		case n == len(p) && large == nil: // there is probably more
			large = largePieces.Get().(*[largePiece]byte)
			buf = large[:]
		case n < len(p) && large != nil:
			largePieces.Put(large)
			large, buf = nil, p
		}
	}
}

// write passes on one piece. more says that the next is probably there.
func (u *pump) write(piece []byte, more bool) (int, error) {
	if u.flush == nil {
		return u.client.Write(piece)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	n, err := u.client.Write(piece)
	if u.late = more; more {
		u.timer.Reset(moment)
	} else if err == nil {
		_ = u.flush() // not every writer can
	}
	return n, err
}

func (u *pump) flushLate() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.late {
		u.late = false
		_ = u.flush()
	}
}

// stop ends the timer. The client is no longer touched when it has returned.
func (u *pump) stop() {
	u.timer.Stop()
	u.mu.Lock()
	u.late = false
	u.mu.Unlock()
}

// Read passes the whole body on to the client and returns nothing of it, if it
// has a pump. What the client does not take the proxy gets, so that it is
// refused it, too, and ends the answer as it does by itself.
func (b *answerBody) Read(p []byte) (int, error) {
	if u := b.pump; u != nil {
		b.pump = nil
		b.left, b.after = u.run(p, b.next)
	}
	if len(b.left) > 0 {
		n := copy(p, b.left)
		b.left = b.left[n:]
		return n, nil
	}
	if b.after != nil {
		return 0, b.after
	}
	return b.next(p)
}
