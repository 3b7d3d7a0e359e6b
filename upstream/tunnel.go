package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/upstream/scrub"
)

const (
	// wholeFrame is the largest frame that is looked at and passed on as one,
	// in bytes. Of a larger one pieces are passed on as they come, which not
	// every client puts together.
	wholeFrame = 256 << 10

	// keptBuffer is the largest buffer that outlives a frame.
	keptBuffer = 16 << 10

	// linger is how long a client that was told that a WebSocket ends has to
	// hang up by itself, so that it gets to read it.
	linger = time.Second

	// goodbye is how long the upstream has to take its Close frame: the client
	// is told only after that.
	goodbye = 25 * time.Millisecond
)

// errTunnelOver ends the proxy's copying.
var errTunnelOver = errors.New("the WebSocket is over")

// A tunnel is the upstream's end of a WebSocket, for the proxy to copy from
// and to. What it reads are frames of the vault's own making, with the secret
// taken out of the messages; what it writes are the client's frames as they
// are.
type tunnel struct {
	ctx  context.Context
	conn io.ReadWriteCloser // to the upstream
	c    *call

	// Of Read.
	from    *bufio.Reader
	secrets *scrub.Scrubber
	pieces  *scrub.Pieces // of the message
	block   bool
	seq     sequence
	opcode  byte        // of the message, until its first frame has gone out
	left    int64       // of the frame's payload
	frame   frameHeader // that left is of
	buf     []byte
	out     []byte // not yet read by the proxy
	room    []byte // what out is made in
	done    bool   // nothing follows out
	told    bool   // a Close frame is or was in out

	// Of Write.
	mu     sync.Mutex
	sent   follower
	broken bool // what the client sent was no frame

	hangUp     chan struct{} // closed when the client has sent its Close frame
	closing    sync.Once
	locally    chan struct{} // closed by Close
	upstreamUp bool          // guarded by mu: what is written still goes anywhere
}

func newTunnel(ctx context.Context, conn io.ReadWriteCloser, c *call, secrets *scrub.Scrubber, block bool) *tunnel {
	if secrets == nil {
		secrets = &scrub.Scrubber{}
	}
	source := &countedBody{ReadCloser: conn, n: &c.result.ResponseBytes, reading: &c.watch.inAnswer, spend: c.out.Spend}
	t := &tunnel{
		ctx: ctx, conn: conn, c: c,
		from: bufio.NewReaderSize(source, 16<<10), secrets: secrets, pieces: secrets.Pieces(), block: block,
		hangUp: make(chan struct{}), locally: make(chan struct{}), upstreamUp: true,
	}
	// A client that takes nothing does not keep the call from ending.
	c.watch.hook(ctx, func() { c.watch.takeBy(time.Now().Add(linger)) })
	return t
}

// Read returns frames for the client.
func (t *tunnel) Read(p []byte) (int, error) {
	for len(t.out) == 0 {
		if cap(t.room) > keptBuffer {
			t.room = nil
		}
		if t.done {
			t.wait()
			return 0, errTunnelOver
		}
		t.out = t.room[:0]
		if err := t.next(); err != nil {
			t.end(err)
		}
		t.room = t.out
	}
	n := copy(p, t.out)
	t.out = t.out[n:]
	return n, nil
}

// next reads a frame, or a piece of a large one, into out.
func (t *tunnel) next() error {
	if t.left == 0 {
		f, err := readFrame(t.from)
		if err == nil {
			err = t.seq.next(f)
		}
		if err != nil {
			return err
		}
		t.frame, t.left = f, f.length
		if f.control() {
			return t.control()
		}
		if f.opcode != opContinuation {
			t.opcode = f.opcode
		}
	}
	whole := t.frame.length <= wholeFrame
	size := min(t.left, wholeFrame)
	if !whole {
		size = min(t.left, keptBuffer)
	}
	piece := t.buf
	if int64(len(piece)) < size {
		piece = make([]byte, max(size, 1<<10))
		if len(piece) <= keptBuffer {
			t.buf = piece
		}
	}
	piece = piece[:size]
	var err error
	if whole {
		_, err = io.ReadFull(t.from, piece)
	} else {
		var n int
		n, err = t.from.Read(piece)
		piece = piece[:n]
	}
	if err != nil {
		return unexpected(err)
	}
	t.left -= int64(len(piece))
	final := t.left == 0 && t.frame.fin
	before := t.pieces.Hits()
	clean := t.pieces.Next(piece, final)
	if err := t.count(t.pieces.Hits() - before); err != nil {
		return err
	}
	if len(clean) > 0 || final {
		t.out = appendFrame(t.out, final, t.opcode, clean)
		t.opcode = opContinuation
	}
	return nil
}

// control passes a control frame on.
func (t *tunnel) control() error {
	payload := make([]byte, t.left)
	if _, err := io.ReadFull(t.from, payload); err != nil {
		return unexpected(err)
	}
	t.left = 0
	if t.frame.opcode == opClose && len(payload) == 1 {
		return errFrame
	}
	if t.frame.opcode == opClose {
		// Of a call that was cut it answers the one that the vault has sent.
		if refused, ok := errors.AsType[*refusal.Refusal](context.Cause(t.ctx)); ok {
			return refused
		}
	}
	clean, hits := cleanControl(t.frame.opcode, payload, t.secrets)
	if err := t.count(hits); err != nil {
		return err
	}
	t.out = appendFrame(t.out, true, t.frame.opcode, clean)
	if t.frame.opcode == opClose {
		t.told, t.done = true, true
	}
	return nil
}

// count counts hits.
func (t *tunnel) count(hits int) error {
	t.c.result.Redactions += hits
	if hits > 0 && t.block {
		return blocked()
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// end is told what has ended the upstream's frames. If it is for the client to
// know, a Close frame says so.
func (t *tunnel) end(err error) {
	t.done = true
	code, said := "", uint16(0)
	var refused *refusal.Refusal
	switch {
	case errors.As(context.Cause(t.ctx), &refused), errors.As(err, &refused):
		code, said = refused.Code, closeCode(refused.Code)
		if refused.Base() == "UPSTREAM_PROTOCOL" {
			said = closePolicy // the secret was in a message
		}
	case errors.Is(err, errFrame):
		code, said = "UPSTREAM_PROTOCOL", closeProtocol
	case t.isLocal():
		if !t.clientSaidClose() {
			code = clientClosed
		}
	case t.clientSaidClose():
	default:
		code, said = refusalFor(unexpected(err)).Code, closeInternal
	}
	t.c.result.Code = code
	if said != 0 && !t.told {
		t.told = true
		t.out = appendFrame(t.out, true, opClose, closePayload(said, code))
	}
	t.closeUpstream()
}

// wait gives a client that was sent a Close frame the time to answer it.
func (t *tunnel) wait() {
	if !t.told {
		return
	}
	gone := t.locally
	if t.ctx.Err() != nil {
		gone = nil // it was the call's end that closed it
	}
	timer := time.NewTimer(linger)
	defer timer.Stop()
	select {
	case <-t.hangUp:
	case <-gone:
	case <-timer.C:
	}
}

// Write takes the client's frames.
func (t *tunnel) Write(p []byte) (int, error) {
	t.mu.Lock()
	before, held := t.sent, t.sent.header()
	err := t.sent.follow(p)
	if !before.closed && t.sent.closed {
		close(t.hangUp)
	}
	if err != nil {
		t.sent, t.broken = before, true // nothing of p is sent, nor of what follows
	}
	begun := t.sent.have
	up, broken := t.upstreamUp, t.broken
	t.mu.Unlock()
	if broken && up {
		t.c.out.Cut(refusal.New("UPGRADE_INVALID", "the client sent what is no frame of a WebSocket"))
		return len(p), nil
	}
	if !up { // but for the Close frame there is nobody to tell
		return len(p), nil
	}
	t.c.result.RequestBytes.Add(int64(len(p)))
	if t.c.out.Spend != nil {
		if refused := t.c.out.Spend(len(p)); refused != nil {
			if r, ok := errors.AsType[*refusal.Refusal](refused); ok {
				t.c.out.Cut(r)
			}
		}
	}
	// A header goes on when all of it is there and is one.
	checked := p
	if len(held) > 0 {
		checked = append(held, p...)
	}
	checked = checked[:len(checked)-begun]
	if len(checked) == 0 {
		return len(p), nil
	}
	if _, err := t.conn.Write(checked); err != nil && t.ctx.Err() == nil {
		return 0, err
	}
	return len(p), nil
}

// Close is called when the client is gone, and when the call is cut.
func (t *tunnel) Close() error {
	t.closing.Do(func() { close(t.locally) })
	t.closeUpstream()
	return nil
}

// closeUpstream says goodbye, if it can be said at once, and closes.
func (t *tunnel) closeUpstream() {
	t.mu.Lock()
	up, may := t.upstreamUp, t.sent.between()
	t.upstreamUp = false
	t.mu.Unlock()
	if !up {
		return
	}
	if may {
		said := make(chan struct{})
		go func() {
			defer close(said)
			_, _ = t.conn.Write(maskedClose(closeGoingAway)) // best effort
		}()
		timer := time.NewTimer(goodbye)
		defer timer.Stop()
		select {
		case <-said:
		case <-timer.C:
		}
	}
	_ = t.conn.Close()
}

func (t *tunnel) isLocal() bool {
	select {
	case <-t.locally:
		return true
	default:
		return false
	}
}

func (t *tunnel) clientSaidClose() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent.closed
}
