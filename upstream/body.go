package upstream

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
)

// countedBody counts the bytes of a body as they are read, which a transport
// may go on doing after RoundTrip has returned.
type countedBody struct {
	io.ReadCloser
	n       *atomic.Int64
	reading *atomic.Bool      // for the watch: whether a Read is under way
	spend   func(n int) error // nil if nothing bounds them

	// Of a request: its trailers, which are there when the body is over, and
	// those of them that pass.
	trailer, passing http.Header
}

func (b *countedBody) Read(p []byte) (int, error) {
	b.reading.Store(true)
	n, err := b.ReadCloser.Read(p)
	b.reading.Store(false)
	b.n.Add(int64(n))
	if b.spend != nil && n > 0 {
		if refused := b.spend(n); refused != nil {
			err = refused
		}
	}
	if err == io.EOF {
		for name := range b.passing {
			b.passing[name] = b.trailer[name]
		}
	}
	return n, err
}

// requestBody is a client's body on its way to the upstream. Of the trailers
// behind it, passing has those that go with it.
func (c *call) requestBody(body io.ReadCloser, trailer, passing http.Header) io.ReadCloser {
	if body == nil || body == http.NoBody {
		return body
	}
	return &countedBody{
		ReadCloser: body, n: &c.result.RequestBytes, reading: &c.watch.inBody, spend: c.out.Spend,
		trailer: trailer, passing: passing,
	}
}

// streams are the media types of answers that may go on for as long as they
// like, each piece of which is passed on as it comes.
var streams = map[string]bool{
	"text/event-stream":         true,
	"application/x-ndjson":      true,
	"application/ndjson":        true,
	"application/jsonl":         true,
	"application/x-jsonl":       true,
	"application/jsonlines":     true,
	"application/x-jsonlines":   true,
	"application/json-seq":      true,
	"application/stream+json":   true,
	"application/x-json-stream": true,
	"application/connect+json":  true,
	"application/connect+proto": true,
	"multipart/x-mixed-replace": true,
}

// isStream reports whether an answer is a stream, by its media type.
func isStream(h http.Header) bool {
	values := h["Content-Type"]
	if len(values) == 0 {
		return false
	}
	kind, _, _ := strings.Cut(values[0], ";")
	kind = strings.TrimSpace(kind)
	if streams[kind] {
		return true
	}
	kind = strings.ToLower(kind)
	return streams[kind] || kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+") || strings.HasPrefix(kind, "application/grpc-web")
}
