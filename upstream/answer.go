package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/upstream/scrub"
	"github.com/caddyvault/caddyvault/vault"
)

// smallBody is the largest body of known length that is read whole before it
// is passed on: it can be sent with its length though a hit may change it, and
// needs nothing that copies it bit by bit. Larger ones, and those that come so,
// are streamed.
const smallBody = 64 << 10

// acceptEncoding is what upstreams are asked for where Go's transport does not
// ask by itself: nothing that would have to be undone.
const acceptEncoding = "identity"

// clientClosed is recorded for a client that left before its answer was over.
const clientClosed = "CLIENT_CLOSED"

// answer makes an upstream's answer fit for a client: the secret is taken out
// of its headers, trailers and body, whatever it was compressed with.
func (t *transport) answer(ctx context.Context, res *http.Response, c *call, secrets *scrub.Scrubber) error {
	hasBody := c.out.Method != http.MethodHead && res.StatusCode != http.StatusNoContent && res.StatusCode != http.StatusNotModified
	source := &countedBody{ReadCloser: res.Body, n: &c.result.ResponseBytes, reading: &c.watch.inAnswer, spend: c.out.Spend}
	body := &answerBody{ctx: ctx, res: res, result: c.result, secrets: secrets, source: source, drop: t.drop}
	res.Body = body
	if body.filterTrailer(); len(res.Trailer) > 0 {
		// Over HTTP/1.1 a body of known length has no trailers.
		res.ContentLength = -1
		delete(res.Header, "Content-Length")
	}
	if secrets == nil || !secrets.Active() {
		if length := res.ContentLength; hasBody && length >= 0 && length <= smallBody {
			whole, err := readWhole(source, int(length))
			if err != nil {
				return causeOr(ctx, err)
			}
			body.is(whole)
			return nil
		}
		body.r = source
		if hasBody && c.pumps {
			body.pump = newPump(res, c.client)
		}
		return nil
	}
	hits := scrubHeader(res.Header, secrets)
	if c.result.Redactions += hits; hits > 0 && t.block {
		return blocked()
	}
	if !hasBody {
		body.r = source
		return nil
	}

	// A part of a whole cannot be made to fit with something else in it.
	block := t.block || res.StatusCode == http.StatusPartialContent
	length := res.ContentLength
	if encoding := res.Header["Content-Encoding"]; len(encoding) > 0 && !strings.EqualFold(strings.Join(encoding, ","), "identity") {
		raw, err := decoder(strings.Join(encoding, ","), res.Body.(*answerBody).source.ReadCloser)
		if err != nil {
			return err
		}
		source.ReadCloser = raw
		delete(res.Header, "Content-Encoding")
		length = -1
	}
	// What these say holds for bytes that the client may not get.
	for _, name := range [...]string{"Content-Md5", "Digest", "Content-Digest", "Repr-Digest"} {
		delete(res.Header, name)
	}

	if length >= 0 && length <= smallBody {
		whole, err := readWhole(source, int(length))
		if err != nil {
			return causeOr(ctx, err)
		}
		clean, hits := secrets.Bytes(whole)
		c.result.Redactions += hits
		if hits > 0 && block {
			return blocked()
		}
		if hits > 0 {
			weaken(res.Header)
		}
		res.ContentLength = int64(len(clean))
		res.Header["Content-Length"] = []string{strconv.Itoa(len(clean))}
		body.is(clean)
		return nil
	}

	// The length may change. The proxy is still told the upstream's, so that
	// it does not take a large answer for a stream and flush every piece.
	res.ContentLength = length
	delete(res.Header, "Content-Length")
	body.scrub = secrets.Reader(eofNoter{source, &body.over})
	if block {
		body.block = true
		body.scrub.Block()
	}
	body.r = body.scrub
	if c.pumps {
		body.pump = newPump(res, c.client)
	}
	return nil
}

// readWhole reads a body of known length to its end, which it is asked for
// so that the connection is free again.
func readWhole(body io.Reader, length int) ([]byte, error) {
	whole := make([]byte, length+1)
	n, err := io.ReadFull(body, whole)
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF && n == length:
		return whole[:n], nil
	case err == nil: // the transport does not hand over more than it announced
		return nil, refusal.New("UPSTREAM_PROTOCOL", "the upstream's answer is longer than it says")
	}
	return nil, err
}

func blocked() *refusal.Refusal {
	return refusal.New("UPSTREAM_PROTOCOL", "the upstream's answer held the secret and was withheld")
}

// weaken turns a strong validator into a weak one: it was made for bytes that
// may not be those that the client gets (RFC 9110, section 8.8.1).
func weaken(h http.Header) {
	if etag := h.Get("Etag"); etag != "" && !strings.HasPrefix(etag, "W/") {
		h["Etag"] = []string{"W/" + etag}
	}
}

// scrubHeader takes secrets out of a header's values and returns how many.
func scrubHeader(h http.Header, secrets *scrub.Scrubber) int {
	total := 0
	for name, values := range h {
		for i, v := range values {
			clean, hits := secrets.String(v)
			if hits > 0 {
				values[i] = clean
				total += hits
			}
		}
		if clean, hits := secrets.String(name); hits > 0 {
			delete(h, name)
			_ = clean
			total += hits
		}
	}
	return total
}

// answerBody is a response's body on its way to the client.
type answerBody struct {
	ctx     context.Context // of the request that the answer is for
	res     *http.Response
	result  *vault.Result
	secrets *scrub.Scrubber
	source  *countedBody
	drop    []string // what the service takes out
	r       io.Reader
	whole   []byte        // all of it, if it was read already
	scrub   *scrub.Reader // nil if nothing is streamed through it
	block   bool          // end at the first hit

	over  bool // the source has ended
	ended bool

	pump  *pump  // nil if the proxy copies the body
	left  []byte // what a client did not take of it
	after error  // what comes after that
}

// is makes whole the body: the source has ended.
func (b *answerBody) is(whole []byte) {
	b.whole, b.over = whole, true
	b.r = bytes.NewReader(whole)
}

// next returns what the scrubber has decided. When the source has ended it
// tells so before the last bytes are handed over.
func (b *answerBody) next(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.over || err != nil {
		err = b.end(err)
	}
	return n, err
}

// end tells, the first time, that the source has ended, with io.EOF, nil or
// what went wrong. It returns the error with its reason.
func (b *answerBody) end(err error) error {
	if b.ended {
		return err
	}
	b.ended = true
	if err != nil && err != io.EOF {
		if err = causeOr(b.ctx, err); b.ctx.Err() == nil || errors.As(err, new(*refusal.Refusal)) {
			b.result.Code = refusalFor(err).Code
		} else {
			b.result.Code = clientClosed
		}
	} else if r, ok := errors.AsType[*refusal.Refusal](context.Cause(b.ctx)); ok && b.whole == nil {
		// The call was cut, and its client with it, when the last of the
		// answer was on its way.
		b.result.Code = r.Code
	}
	b.finish()
	if b.secrets != nil && b.secrets.Active() {
		b.result.Redactions += scrubHeader(b.res.Trailer, b.secrets)
	}
	b.filterTrailer()
	if b.result.End != nil {
		b.result.End()
	}
	return err
}

// trailerNever are what may stand in a header and not behind a body: it would
// come too late to be rewritten, or speaks of bytes that have changed.
var trailerNever = map[string]bool{
	"Location": true, "Content-Location": true, "Link": true,
	"Content-Length": true, "Content-Encoding": true, "Content-Type": true, "Content-Range": true,
	"Content-Md5": true, "Digest": true, "Content-Digest": true, "Repr-Digest": true,
}

// filterTrailer takes out of the trailers what must not reach a client. It is
// called when they are announced and when they are there.
func (b *answerBody) filterTrailer() {
	for name := range b.res.Trailer {
		if toClientNever[name] || trailerNever[name] || hasPrefix(name, toClientNeverPrefixes) || slices.Contains(b.drop, name) {
			delete(b.res.Trailer, name)
		}
	}
}

// finish adds up what was found in the body.
func (b *answerBody) finish() {
	if b.scrub == nil {
		return
	}
	b.result.Redactions += b.scrub.Hits()
	if b.block && b.scrub.Hits() > 0 {
		b.result.Code = blocked().Code // though the error is yet to come
	}
}

// Close closes the connection's body. One that is not at its end was given up:
// the client is gone, or the call was cut while it took its time.
func (b *answerBody) Close() error {
	err := b.source.Close()
	if !b.ended {
		b.ended = true
		b.result.Code = clientClosed
		if r, ok := errors.AsType[*refusal.Refusal](context.Cause(b.ctx)); ok {
			b.result.Code = r.Code
		}
		b.finish()
	}
	return err
}

// eofNoter notes that its reader has come to its end.
type eofNoter struct {
	io.Reader
	over *bool
}

func (e eofNoter) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err == io.EOF {
		*e.over = true
	}
	return n, err
}
