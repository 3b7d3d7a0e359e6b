package upstream

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/caddyvault/caddyvault/refusal"
)

// Upstreams are asked for gzip, which Go's transport undoes, and for nothing
// else: it takes 40 KiB of memory a stream. What comes unasked in zstd or
// brotli is undone too, at up to 8 and 16 MiB each, which would be much for
// thousands of streams: only so many at a time are. Whatever comes is undone piece by piece, so that what
// grows a thousandfold takes no more memory than that.

// maxPadding is how much may follow a compressed body, in bytes.
const maxPadding = 64 << 10

// maxWindow bounds the memory that a zstd stream can ask for.
const maxWindow = 8 << 20

// hungry has a place for each answer in zstd or brotli that is undone at the
// same time, in all services.
var hungry = make(chan struct{}, 64)

// decoder undoes a Content-Encoding. One that it cannot undo is refused: the
// secret could be in there.
func decoder(encoding string, body io.ReadCloser) (io.ReadCloser, error) {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "gzip", "x-gzip":
		return &decodedBody{closer: body, open: func() (io.Reader, error) { return gzip.NewReader(body) }}, nil
	case "deflate":
		// RFC 9110 means the zlib format; some servers send it raw.
		return &decodedBody{closer: body, open: func() (io.Reader, error) {
			buffered := bufio.NewReader(body)
			head, err := buffered.Peek(2)
			if err != nil && len(head) < 2 {
				return nil, err
			}
			if head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
				return zlib.NewReader(buffered)
			}
			return flate.NewReader(buffered), nil
		}}, nil
	case "zstd":
		return hungryBody(&decodedBody{closer: body, open: func() (io.Reader, error) {
			return zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		}})
	case "br":
		return hungryBody(&decodedBody{closer: body, open: func() (io.Reader, error) { return brotli.NewReader(body), nil }})
	}
	return nil, refusal.New("UPSTREAM_PROTOCOL", "the upstream's answer is encoded in a way that the vault cannot look into")
}

// hungryBody takes a place for a body that needs much memory, until it is
// closed.
func hungryBody(d *decodedBody) (io.ReadCloser, error) {
	select {
	case hungry <- struct{}{}:
		d.release = sync.OnceFunc(func() { <-hungry })
		return d, nil
	default:
		return nil, refusal.New("UPSTREAM_PROTOCOL", "too many answers in zstd or brotli, which upstreams are not asked for, are under way").
			WithHint("have the upstream obey Accept-Encoding")
	}
}

// decodedBody opens its decoder with the first Read, because the decoders read
// their header at once and the upstream may take its time.
type decodedBody struct {
	open   func() (io.Reader, error)
	closer io.ReadCloser // the body underneath
	r      io.Reader
	err    error

	release func() // nil if there is nothing to release
}

func (d *decodedBody) Read(p []byte) (int, error) {
	if d.r == nil && d.err == nil {
		d.r, d.err = d.open()
		if errors.Is(d.err, io.EOF) {
			d.err = io.EOF // an empty body
		}
	}
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.r.Read(p)
	if err == io.EOF {
		// What is compressed ends before what carries it does, and trailers
		// come after that.
		_, _ = io.CopyN(io.Discard, d.closer, maxPadding)
	}
	return n, err
}

// Close closes the body underneath, and the decoder if it holds anything.
func (d *decodedBody) Close() error {
	if z, ok := d.r.(*zstd.Decoder); ok {
		z.Close()
	}
	if d.release != nil {
		d.release()
	}
	return d.closer.Close()
}
