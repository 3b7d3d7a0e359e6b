package upstream

import (
	"context"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddyvault/caddyvault/policy"
)

// Caddy's proxy sets some thirty placeholders a request, for settings and
// conditions that few services have. For a service without any it does so in a
// replacer that is kept from call to call, whose map has the room already, and
// not in the request's own, whose map would grow three times.
var replacers = sync.Pool{New: func() any { return caddy.NewEmptyReplacer() }}

const (
	proxyPlaceholders  = "http.reverse_proxy."
	headerPlaceholders = proxyPlaceholders + "header."
)

// plain reports whether a service has no reverse_proxy settings of its own.
func plain(svc *policy.Compiled) bool { return len(svc.ReverseProxy) == 0 }

// proxyContext is the context of a request on its way through Caddy's proxy.
type proxyContext struct {
	context.Context
	call *call
	repl *caddy.Replacer // nil for the request's own
}

// Value knows the call, and the replacer.
func (p *proxyContext) Value(key any) any {
	switch key {
	case callKey{}:
		return p.call
	case caddy.ReplacerCtxKey:
		if p.repl != nil {
			return p.repl
		}
	}
	return p.Context.Value(key)
}

// tell makes known to what logs are made of what Caddy's proxy would, for a
// call through s.
func (p *proxyContext) tell(s *service) {
	outer, ok := p.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return
	}
	dial, result := s.handler.Upstreams[0].Dial, p.call.result
	outer.Map(func(name string) (any, bool) {
		name, ok := strings.CutPrefix(name, proxyPlaceholders)
		if !ok {
			return nil, false
		}
		switch name {
		case "upstream.hostport":
			return dial, true
		case "upstream.latency":
			return result.Latency, true
		case "upstream.latency_ms":
			return result.Latency.Seconds() * 1e3, true
		case "status_code":
			return result.Status, result.Status != 0
		}
		return nil, false
	})
}

// borrow gives the proxy a replacer of its own. It is given back only after a
// proxy that has returned: one that panics may still hold it.
func (p *proxyContext) borrow() { p.repl = replacers.Get().(*caddy.Replacer) }

// giveBack gives the replacer back, once, if there is one. It stays known here:
// a connection that is still being made may ask.
func (p *proxyContext) giveBack() {
	if p.repl == nil {
		return
	}
	// What else it holds is of the proxy's making: names of which there are
	// always the same, set anew by the next call and asked for by nobody.
	if !p.call.handedOver {
		p.repl.DeleteByPrefix(headerPlaceholders)
	}
	replacers.Put(p.repl)
}
