package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/policy"
)

// Most calls need nothing of Caddy's reverse proxy but that one request goes
// out and its answer is copied back, and what the proxy does around that for
// everybody (encode the request for a log, fill in thirty placeholders, copy
// headers the transport leaves out again) costs more than all that the vault
// does. They go straight to the transport. Whatever else a call needs, the
// proxy does: see directly.

// plain reports whether a service has no reverse_proxy settings of its own,
// so that there is no retry, health check, buffer or header to see to.
func plain(svc *policy.Compiled) bool { return len(svc.ReverseProxy) == 0 }

// directly reports whether a request asks for no more than a transport does
// by itself: no upgrade, and no body that goes on both ways or has trailers.
func directly(r *http.Request) bool {
	return r.Method != http.MethodConnect && r.ContentLength >= 0 && len(r.Trailer) == 0 && r.Header["Upgrade"] == nil
}

// direct makes a call without the reverse proxy. An error means that nothing
// was written to w.
func (p *Proxy) direct(ctx context.Context, w http.ResponseWriter, s *service, c *call) error {
	body := c.out.Body
	if c.out.ContentLength == 0 {
		body = nil // the transport may try again what has none
	}
	res, err := s.tr.send(ctx, c, outgoing{body: body, length: c.out.ContentLength, trailers: acceptsTrailers(c.out.Header)})
	if errors.Is(err, context.Canceled) {
		w.WriteHeader(499) // for the access log: the client has gone
		return nil
	}
	if err != nil {
		return err
	}
	tellPlaceholders(ctx, s, c, res.StatusCode)

	h := w.Header()
	delete(h, "Server") // Via says it, as behind Caddy's proxy
	h["Via"] = append(h["Via"], strconv.Itoa(res.ProtoMajor)+"."+strconv.Itoa(res.ProtoMinor)+" Caddy")
	for name, values := range res.Header {
		if have := h[name]; have != nil {
			values = append(have, values...)
		}
		h[name] = values
	}
	announced := len(res.Trailer)
	if announced > 0 {
		h.Add("Trailer", strings.Join(slices.Sorted(maps.Keys(res.Trailer)), ", "))
	}
	w.WriteHeader(res.StatusCode)

	err = copyAnswer(w, res)
	closed := res.Body.Close() // which fills in the trailers
	if err != nil || closed != nil {
		p.logger.Debug("answer broke off", zap.String("service", s.compiled.Name), zap.Error(err), zap.NamedError("close", closed))
	}
	if err != nil {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // the only way to tell the client
	}
	if len(res.Trailer) == 0 {
		return nil
	}
	// Trailers need chunks, also where the server would count a short body.
	_ = http.NewResponseController(w).Flush()
	prefix := ""
	if len(res.Trailer) != announced {
		prefix = http.TrailerPrefix
	}
	for name, values := range res.Trailer {
		h[prefix+name] = append(h[prefix+name], values...)
	}
	return nil
}

// acceptsTrailers reports whether a client asked for trailers.
func acceptsTrailers(h http.Header) bool {
	for _, v := range h["Te"] {
		for token := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "trailers") {
				return true
			}
		}
	}
	return false
}

// tellPlaceholders has those placeholders of Caddy's reverse proxy that logs
// are made of. They are looked up, not set, because few configurations ask.
func tellPlaceholders(ctx context.Context, s *service, c *call, status int) {
	repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return
	}
	dial, latency := s.handler.Upstreams[0].Dial, c.result.Latency
	repl.Map(func(name string) (any, bool) {
		name, ok := strings.CutPrefix(name, "http.reverse_proxy.")
		if !ok {
			return nil, false
		}
		switch name {
		case "upstream.address", "upstream.hostport":
			return dial, true
		case "upstream.latency":
			return latency, true
		case "upstream.latency_ms":
			return latency.Seconds() * 1e3, true
		case "status_code":
			return status, true
		}
		return nil, false
	})
}

// copyBufferSize is larger than what Caddy copies by: each write costs a
// system call or two, and a deadline.
const copyBufferSize = 64 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBufferSize]byte) }}

// copyAnswer copies the body. What comes bit by bit is flushed as it comes.
func copyAnswer(w http.ResponseWriter, res *http.Response) error {
	write := w.Write
	if res.ContentLength < 0 || caddyhttp.IsIncremental(res.Header) {
		p := newPromptWriter(w)
		defer p.stop()
		write = p.Write
	}
	buf := copyBuffers.Get().(*[copyBufferSize]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := res.Body.Read(buf[:])
		if n > 0 {
			m, werr := write(buf[:n])
			if werr == nil && m < n {
				werr = io.ErrShortWrite
			}
			if werr != nil {
				return fmt.Errorf("write to client: %w", werr)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// headerDelay is how long an answer's header waits for the first piece of the
// body, so that a short answer goes out in one packet.
const headerDelay = 500 * time.Microsecond

// promptWriter flushes every piece, and the header if no piece comes soon.
type promptWriter struct {
	w     http.ResponseWriter
	flush func() error
	timer *time.Timer

	mu      sync.Mutex
	started bool
}

func newPromptWriter(w http.ResponseWriter) *promptWriter {
	p := &promptWriter{w: w, flush: http.NewResponseController(w).Flush}
	p.timer = time.AfterFunc(headerDelay, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.started {
			_ = p.flush() // the next write finds out
		}
	})
	return p
}

// Write writes a piece and flushes it.
func (p *promptWriter) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started = true
	n, err := p.w.Write(b)
	if err == nil {
		if err = p.flush(); errors.Is(err, http.ErrNotSupported) {
			err = nil
		}
	}
	return n, err
}

// stop keeps the timer from touching a writer that is no longer the call's.
func (p *promptWriter) stop() {
	p.timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started = true
}
