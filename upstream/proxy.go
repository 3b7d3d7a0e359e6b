package upstream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddypki"
	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// streamCloseDelay is how long an upgraded stream outlives the configuration
// or the service it was opened under, unless the service says otherwise.
const streamCloseDelay = 5 * time.Minute

// Proxy sends calls out. It keeps one reverse proxy a service, made on the
// service's first call, in memory alone, and dropped when the service changes
// or the configuration ends. It implements vault.Upstream.
type Proxy struct {
	ctx     caddy.Context
	shared  caddy.Context // see contextFor
	logger  *zap.Logger
	debugs  bool // Caddy's proxy logs the headers of answers
	allowed []netip.Prefix

	services sync.Map // name → *slot
	closed   atomic.Bool

	// provision serialises what provisioning does to what Caddy's proxies
	// share, its metrics. Nothing is waited for that is not in memory.
	provision sync.Mutex

	// cas are the certificate authorities of Caddy's configuration.
	cas func() map[string]*caddypki.CA
}

// New returns a Proxy whose services live no longer than ctx. allowed are
// private address ranges that services may be on.
func New(ctx caddy.Context, allowed []netip.Prefix) (*Proxy, error) {
	// Every reverse proxy asks for this app. Loading it now means that no
	// request has to, which would race.
	if _, err := ctx.App("events"); err != nil {
		return nil, err
	}
	shared, _ := caddy.NewContext(ctx) // it ends with ctx
	p := &Proxy{ctx: ctx, shared: shared, logger: ctx.Logger(), debugs: caddy.Log().Core().Enabled(zap.DebugLevel), allowed: allowed}
	p.cas = sync.OnceValue(p.configuredCAs)
	return p, nil
}

// service is the reverse proxy of one compiled service, and the number of
// requests on it.
type service struct {
	compiled *policy.Compiled
	plain    bool
	handler  *reverseproxy.Handler
	tr       *transport
	cancel   context.CancelFunc

	// refs counts the requests under way, plus gone once it is dropped.
	refs atomic.Int64

	// endStreams cleans the handler up, once: it counts the hosts it uses.
	endStreams func()
}

// Do implements vault.Upstream.
func (p *Proxy) Do(ctx context.Context, w http.ResponseWriter, r *http.Request, out *vault.Outbound, result *vault.Result) *refusal.Refusal {
	s, err := p.acquire(ctx, out.Service)
	if err != nil {
		refused, ok := errors.AsType[*refusal.Refusal](err)
		if !ok && errors.Is(err, context.Canceled) {
			result.Code = clientClosed
			w.WriteHeader(statusClientClosed)
			return nil
		}
		if !ok {
			refused = refusalFor(err)
		}
		return refused
	}
	defer s.release()

	c := &call{out: out, result: result, client: w, from: r, pumps: s.handler.FlushInterval == 0 && !out.Upgrade, noLength: out.Method == http.MethodHead && r.Method != http.MethodHead}
	if out.Cut == nil {
		ctx, out.Cut = context.WithCancelCause(ctx)
		defer out.Cut(nil)
	}
	c.watch = watch{limits: out.Service.Timeouts, expires: out.Expires, result: result, cut: out.Cut, onCut: out.OnCut, client: w, from: r}
	c.watch.begin()
	defer c.watch.end()
	defer c.uncountStream()
	if out.Body != nil && out.Body != http.NoBody && out.Body == r.Body && !out.Upgrade {
		c.watch.interruptible(ctx)
	}
	c.within = proxyContext{Context: ctx, call: c}
	plain := s.plain && !out.Upgrade
	if plain {
		c.within.tell(s)
		c.handsOver = !p.debugs
	}
	if c.handsOver && out.ContentLength >= 0 && r.Trailer == nil {
		err = s.straight(w, r, c)
	} else {
		err = s.proxied(w, r, c)
	}
	if c.watch.interrupted.Load() {
		if err != nil {
			result.Code = refusalFor(err).Code
		}
		panic(http.ErrAbortHandler) // the connection must not be used again
	}
	if err == nil {
		if result.Status == 0 {
			result.Code = clientClosed
		}
		return nil
	}
	refused := refusalFor(err)
	if refused.Cause != nil {
		p.logger.Warn("call failed",
			zap.String("service", out.Service.Name),
			zap.String("code", refused.Code),
			zap.Error(refused.Cause))
	}
	return refused
}

// provisionService makes a service's reverse proxy. It runs under its own
// context, because what the modules start ends only with their context.
func (p *Proxy) provisionService(svc *policy.Compiled) (_ *service, err error) {
	h := new(reverseproxy.Handler)
	t := new(reverseproxy.HTTPTransport)
	if r := decodeSettings(svc.ReverseProxy, h, t); r != nil {
		return nil, r
	}

	ctx, cancel := p.contextFor(svc)
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	defer caught(&err)

	tr, err := p.transport(ctx, cancel, t, svc)
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	port := tr.origin.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[tr.origin.Scheme]
	}
	h.Upstreams = reverseproxy.UpstreamPool{{Dial: net.JoinHostPort(tr.origin.Hostname(), port)}}
	h.Transport = tr // before Provision: health checks capture it there
	if h.StreamCloseDelay == 0 {
		h.StreamCloseDelay = caddy.Duration(streamCloseDelay)
	}
	if err := p.provisionHandler(ctx, h); err != nil {
		return nil, fmt.Errorf("reverse proxy: %w", err)
	}
	if plain(svc) {
		// There are no retries and no health checks, for which alone the
		// context would be asked. It ends what looks every ten seconds at the
		// health of an upstream whose health nobody checks.
		cancel()
	}
	return &service{
		compiled:   svc,
		plain:      plain(svc),
		handler:    h,
		tr:         tr,
		cancel:     cancel,
		endStreams: sync.OnceFunc(func() { _ = h.Cleanup() }),
	}, nil
}

func (p *Proxy) provisionHandler(ctx caddy.Context, h *reverseproxy.Handler) error {
	p.provision.Lock()
	defer p.provision.Unlock()
	return h.Provision(ctx)
}

// contextFor returns a context to provision a service's proxy under. One of
// its own is for a service that may load modules, which end with it; the others
// share what Caddy makes for a context (a registry of metrics), and only end
// apart.
func (p *Proxy) contextFor(svc *policy.Compiled) (caddy.Context, context.CancelFunc) {
	if !plain(svc) {
		return caddy.NewContext(p.ctx)
	}
	ctx := p.shared
	var cancel context.CancelFunc
	ctx.Context, cancel = context.WithCancel(p.shared.Context)
	return ctx, cancel
}

// gone is added to a service's count of requests when it is dropped.
const gone = math.MinInt64 / 2

// hold counts a request; it returns false if the service is dropped.
func (s *service) hold() bool {
	for {
		n := s.refs.Load()
		if n < 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *service) release() {
	if s.refs.Add(-1) == gone {
		s.cleanup()
	}
}

// drop ends the service: at once, or with its last request. Upgraded streams
// get streamCloseDelay from now.
func (s *service) drop() {
	if s.refs.Add(gone) == gone {
		s.cleanup()
		return
	}
	s.endStreams()
}

func (s *service) cleanup() {
	s.endStreams()
	_ = s.tr.Cleanup()
	s.cancel()
}

// Interface guards.
var (
	_ vault.Upstream                         = (*Proxy)(nil)
	_ http.RoundTripper                      = (*transport)(nil)
	_ reverseproxy.RequestHeaderOpsTransport = (*transport)(nil)
)
