package upstream

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"golang.org/x/net/http/httpguts"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/upstream/scrub"
	"github.com/caddyvault/caddyvault/vault"
)

// Bounds on what an upstream may take, where the service says nothing else.
const (
	continueTimeout  = 1 * time.Second
	maxHeaderBytes   = 256 << 10
	idleConnsPerHost = 256
)

// transport is what a service's reverse proxy sends with. It embeds Caddy's
// own, so that the proxy finds the optional interfaces it looks for.
type transport struct {
	*reverseproxy.HTTPTransport

	origin   *url.URL // scheme and host of the service
	filter   requestFilter
	rewriter rewriter

	inject injector

	passSetCookie bool
	drop          []string // canonical names that the service takes out of answers

	scrub     bool // look for the secret in answers
	block     bool // and end them there
	scrubbers scrubbers
}

// newTransport returns the transport of a service, provisioned.
func newTransport(ctx caddy.Context, t *reverseproxy.HTTPTransport, svc *policy.Compiled, allowed []netip.Prefix) (*transport, error) {
	origin, err := url.Parse(svc.Origin)
	if err != nil {
		return nil, err
	}
	if origin.Scheme == "https" && t.TLS == nil {
		t.TLS = new(reverseproxy.TLSConfig)
	}
	if t.TLS != nil && t.TLS.HandshakeTimeout == 0 {
		t.TLS.HandshakeTimeout = caddy.Duration(svc.Timeouts.TLS)
	}
	if t.DialTimeout == 0 {
		t.DialTimeout = caddy.Duration(svc.Timeouts.Connect)
	}
	if t.ExpectContinueTimeout == 0 {
		t.ExpectContinueTimeout = caddy.Duration(continueTimeout)
	}
	if t.MaxResponseHeaderSize == 0 {
		t.MaxResponseHeaderSize = maxHeaderBytes
	}
	if t.KeepAlive == nil {
		t.KeepAlive = new(reverseproxy.KeepAlive)
	}
	if t.KeepAlive.MaxIdleConnsPerHost == 0 {
		t.KeepAlive.MaxIdleConnsPerHost = idleConnsPerHost
	}
	if err := t.Provision(ctx); err != nil {
		return nil, err
	}

	// The embedded transport honours HTTPS_PROXY, which would hand every
	// secret to whoever set it, and dials wherever a name leads.
	t.Transport.Proxy = nil
	dialer, err := newDialer(t, newGuard(origin.Hostname(), allowed))
	if err != nil {
		return nil, err
	}
	t.Transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if errors.Is(err, errForbidden) {
			return nil, err // a DialError would hide it, and be tried again
		}
		if err != nil {
			return nil, dialError{reverseproxy.NewDialError(err), err}
		}
		return conn, nil
	}

	tr := &transport{
		HTTPTransport: t,
		origin:        origin,
		passSetCookie: svc.PassSetCookie,
		scrub:         svc.Scrub != "off",
		block:         svc.Scrub == "block",
		rewriter: rewriter{
			origin: origin,
			base:   strings.TrimSuffix(svc.FullPath(""), "/"),
			svc:    svc,
		},
	}
	drop := svc.DropHeaders
	tr.inject = newInjector(svc)
	drop = append(drop[:len(drop):len(drop)], svc.Injected()...)
	for _, name := range svc.DropHeaders {
		tr.drop = append(tr.drop, textproto.CanonicalMIMEHeaderKey(name))
	}
	tr.filter = newRequestFilter(svc.PassHeaders, drop)
	return tr, nil
}

// dialError is what Caddy retries on, with the cause that Caddy's own type
// hides.
type dialError struct {
	reverseproxy.DialError
	cause error
}

func (e dialError) Unwrap() []error { return []error{e.DialError, e.cause} }

// RequestHeaderOps keeps Caddy from setting a Host of its own making on every
// request: RoundTrip sets the service's.
func (t *transport) RequestHeaderOps() *headers.HeaderOps { return nil }

// call is what RoundTrip needs to know of the request it is given; it travels
// in the request's context.
type call struct {
	out    *vault.Outbound
	result *vault.Result
	client http.ResponseWriter
	from   *http.Request // as it came from the client

	within proxyContext
	watch  watch
	room   [1]vault.Credential // for what Authorize returns

	// answer is one that Caddy's proxy is to pass on, without asking for it.
	answer *http.Response

	streaming bool // counted in streams
	pumps     bool // nothing of the service's says how the answer is copied
	hints     int  // secrets found in 1xx answers

	// handsOver says that nothing looks at the answer's header on its way
	// through Caddy's proxy, and handedOver that it did not go there.
	handsOver, handedOver bool

	// noLength says that the length in the upstream's header is not that of
	// the answer: it asks with HEAD on behalf of a client that did not.
	noLength bool
}

type callKey struct{}

// RoundTrip sends a copy of req that holds the secret. req itself, which the
// proxy logs and may send again, never does.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	c, ok := req.Context().Value(callKey{}).(*call)
	if !ok { // a health check: no client, no secret
		return t.HTTPTransport.RoundTrip(req)
	}
	res := c.answer
	if c.answer = nil; res == nil {
		var err error
		if res, err = t.send(req.Context(), c, incoming{te: req.Header["Te"], body: req.Body, trailer: req.Trailer, length: req.ContentLength}); err != nil {
			return nil, err
		}
	}
	res.Request = req
	return res, nil
}

// incoming is what of a request depends on the way it has come.
type incoming struct {
	te      []string // "trailers" or nothing
	body    io.ReadCloser
	trailer http.Header // filled in when the body is over
	length  int64       // below 0 if it is not known
}

// send sends a call's request, with the secret, and returns the answer without
// it.
func (t *transport) send(ctx context.Context, c *call, in incoming) (*http.Response, error) {
	escaped := t.inject.sendable(c.out.EscapedPath)
	target, err := url.ParseRequestURI(escaped)
	if err != nil || target.Host != "" || target.EscapedPath() != escaped {
		// What was matched must be what is sent, byte for byte.
		return nil, refusal.New("PARAM_INVALID:path", "the path cannot be sent as it is written")
	}
	target.Scheme, target.Host, target.RawQuery = t.origin.Scheme, t.origin.Host, c.out.RawQuery

	header := t.filter.apply(c.out.Header, c.out.Endpoint.Range, c.out.Envelope)
	for name, value := range c.out.Endpoint.DefaultHeaders {
		if header[name] == nil {
			header[name] = []string{value}
		}
	}
	if header["User-Agent"] == nil {
		header["User-Agent"] = userAgent // nil would become Go's own
	}
	if in.te != nil {
		header["Te"] = in.te
	}
	if c.out.Endpoint.Range && header["Range"] != nil || c.out.Method == http.MethodHead {
		// Go's transport asks for gzip by itself everywhere else.
		header["Accept-Encoding"] = []string{acceptEncoding}
	}
	var hands handshake
	if c.out.Upgrade {
		hands = newHandshake(header, c)
	}
	if c.out.ContentType != "" {
		header["Content-Type"] = []string{c.out.ContentType}
	}

	if in.body != nil && c.out.Body == c.from.Body && httpguts.HeaderValuesContainsToken(c.out.Header["Expect"], "100-continue") {
		header["Expect"] = expectContinue // the client has not sent its body yet
	}
	var trailer http.Header
	if len(in.trailer) > 0 {
		trailer = t.filter.apply(in.trailer, false, false)
	}

	c.watch.phase.Store(connecting)
	attempt := &roundTrip{call: c, t: t}
	ctx = attempt.traced(ctx)
	out := (&http.Request{
		Method:        c.out.Method,
		URL:           target,
		Host:          t.origin.Host,
		Header:        header,
		Body:          c.requestBody(in.body, in.trailer, trailer),
		ContentLength: in.length,
		Trailer:       trailer,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
	}).WithContext(ctx)

	start := time.Now()
	// Nothing may come between this check and the sending.
	creds, refused := c.out.Authorize(c.room[:0])
	if refused != nil {
		return nil, refused
	}
	t.inject.apply(out, creds, c.out.Whole, start)
	if t.scrub {
		attempt.secrets = t.scrubbers.of(creds)
	}

	res, err := t.Transport.RoundTrip(out)
	attempt.done()
	c.result.Sent, c.result.Latency = start, time.Since(start)
	c.result.Redactions = c.hints
	if err != nil {
		return nil, causeOr(ctx, err)
	}
	if c.hints > 0 && t.block {
		res.Body.Close()
		return nil, blocked()
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		refused := refusal.New("UPSTREAM_PROTOCOL", "the upstream switched protocols without being asked to")
		if c.out.Upgrade {
			refused = t.upgraded(ctx, res, c, hands, attempt.secrets)
		}
		if refused != nil {
			res.Body.Close()
			return nil, refused
		}
		c.result.Status = res.StatusCode
		c.countStream()
		return res, nil
	}
	filterResponse(res.Header, t.passSetCookie)
	for _, name := range t.drop {
		delete(res.Header, name)
	}
	if !c.out.Endpoint.PassRedirects {
		rw := t.rewriter
		rw.prefix = c.out.Prefix
		rw.base = t.inject.base(target, rw.base, c.out.EscapedPath)
		rw.apply(res.Header, target, c.from) // before the secret, which may be in the URL, is taken out
	}
	res.Status = http.StatusText(res.StatusCode) // the upstream's own words are a placeholder of Caddy's
	stream := isStream(res.Header)
	if stream {
		res.ContentLength = -1 // for Caddy, which then flushes every piece
	}
	if refused := c.watch.answered(ctx, stream, c.out.Method != http.MethodHead && (res.ContentLength < 0 || res.ContentLength > smallBody)); refused != nil {
		res.Body.Close()
		return nil, refused
	}
	if err := t.answer(ctx, res, c, attempt.secrets); err != nil {
		res.Body.Close()
		return nil, err
	}
	if c.noLength {
		delete(res.Header, "Content-Length")
	}
	c.result.Status = res.StatusCode
	if stream {
		c.countStream()
	}
	if c.handsOver && res.Header["Incremental"] == nil {
		handOver(res, c.client.Header())
		c.handedOver = true
	}
	return res, nil
}

// handOver puts an answer's header where Caddy's proxy would, which makes
// placeholders of it that nobody asks for, and copies it value by value. The
// values are shared: they are the answer's own.
func handOver(res *http.Response, client http.Header) {
	for name, values := range res.Header {
		if have := client[name]; len(have) > 0 {
			values = append(have, values...)
		}
		client[name] = values
	}
	res.Header = http.Header{}
}

var (
	userAgent      = []string{"caddyvault"}
	expectContinue = []string{"100-continue"}
)

// traceless hides the proxy's client trace from the transport underneath:
// through it an upstream's 1xx answers would go to the client past every
// filter.
type traceless struct{ context.Context }

func (c traceless) Value(key any) any {
	v := c.Context.Value(key)
	if _, ok := v.(*httptrace.ClientTrace); ok {
		return nil
	}
	return v
}

// roundTrip is one attempt of a call. Its trace tells the watch how far the
// attempt is, and sends the upstream's 1xx answers to the client, filtered.
type roundTrip struct {
	*call
	t     *transport
	trace httptrace.ClientTrace

	ctx     context.Context
	mu      sync.Mutex // holds up the end while a 1xx answer is passed on
	over    bool
	early   int             // 1xx answers
	secrets *scrub.Scrubber // set before the request is sent; nil for none
}

// traced returns the context of the attempt, in which the proxy's own trace is
// hidden.
func (a *roundTrip) traced(ctx context.Context) context.Context {
	a.trace = httptrace.ClientTrace{
		WroteHeaders:   a.wroteHeaders,
		WroteRequest:   a.wroteRequest,
		Got1xxResponse: a.got1xx,
	}
	a.ctx = ctx
	return httptrace.WithClientTrace(traceless{ctx}, &a.trace)
}

// maxEarly is how many 1xx answers there may be to one request. Go's own limit
// does not hold for whoever looks at them.
const maxEarly = 100

// done ends the attempt: its 1xx answers are late.
func (a *roundTrip) done() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
}

func (a *roundTrip) wroteHeaders() { a.watch.advance(sending) }

func (a *roundTrip) wroteRequest(info httptrace.WroteRequestInfo) {
	if info.Err == nil {
		a.watch.advance(waiting)
	}
}

func (a *roundTrip) got1xx(code int, header textproto.MIMEHeader) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.early++; a.early > maxEarly {
		return refusal.New("UPSTREAM_PROTOCOL", "the upstream sent more than %d answers that are none yet", maxEarly)
	}
	if a.over || code != http.StatusEarlyHints {
		return nil
	}
	hints := http.Header(header).Clone()
	filterResponse(hints, a.t.passSetCookie)
	for _, name := range a.t.drop {
		delete(hints, name)
	}
	if a.secrets != nil {
		n := scrubHeader(hints, a.secrets)
		if a.hints += n; n > 0 && a.t.block {
			a.out.Cut(blocked())
			return nil
		}
	}
	delete(hints, "Link") // preloads would be fetched from the vault's origin
	h := a.client.Header()
	own := h.Clone()
	maps.Copy(h, hints)
	a.watch.interruptible(a.ctx)
	a.watch.hinting.Store(true) // to a client that may take its time
	a.client.WriteHeader(code)
	a.watch.hinting.Store(false)
	clear(h)
	maps.Copy(h, own)
	return nil
}
