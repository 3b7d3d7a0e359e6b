package vault

import (
	"net/http"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token"
)

// ProxyRequest is a call made by a client that only knows a base URL
// (wire.md, "/proxy/{service}/{path…}").
type ProxyRequest struct {
	Service string

	// EscapedPath is the path below the service, as it was sent; it begins
	// with a slash. RawQuery is the query less a token that stood there.
	EscapedPath string
	RawQuery    string

	// Upgrade says that the request asks for a WebSocket.
	Upgrade bool

	// Prefix is the service's path on the gateway, empty if it is the site's
	// root.
	Prefix string
}

// ProxyPrefix begins the paths of calls by base URL.
const ProxyPrefix = "/proxy/"

// Policy returns the service of a name as it is in force, nil if there is
// none.
func (v *Vault) Policy(service string) *policy.Compiled {
	if svc := v.services.get(service); svc != nil {
		return svc.compiled
	}
	return nil
}

// Policies returns every service that is in force, compiled.
func (v *Vault) Policies() []*policy.Compiled {
	var all []*policy.Compiled
	for _, svc := range v.services.all() {
		if svc.compiled != nil {
			all = append(all, svc.compiled)
		}
	}
	return all
}

// Proxy matches a request to an endpoint, checks it like a call, and streams
// both ways. A refusal means that nothing was written to w.
func (v *Vault) Proxy(w http.ResponseWriter, r *http.Request, t *token.Verified, req ProxyRequest, rec *audit.Record) *refusal.Refusal {
	svc, refused := v.service(req.Service)
	if refused != nil {
		return refused
	}
	if t.Service != svc.Name {
		return refusal.New("SERVICE_MISMATCH", "the token is for service %q", t.Service).
			WithHint("ask for a token of service %s", svc.Name)
	}
	method := r.Method
	if req.Upgrade {
		method = http.MethodGet // what CONNECT stands for over HTTP/2 and HTTP/3
	}
	rec.Method, rec.Upstream = method, svc.Upstream(req.EscapedPath)
	if refused := policy.CheckProxyPath(req.EscapedPath); refused != nil {
		rec.Upstream = ""
		return refused
	}
	if refused := policy.CheckProxyQuery(req.RawQuery); refused != nil {
		return refused
	}
	endpoint, ok := svc.Match(method, req.EscapedPath)
	if !ok {
		return svc.NoEndpoint(method, req.EscapedPath)
	}
	if endpoint, refused = v.decideAlternatives(svc, endpoint, t, req, r.ContentLength != 0); refused != nil {
		return refused
	}
	rec.Action = endpoint.Name
	out := &Outbound{
		Service:       svc,
		Endpoint:      endpoint,
		Method:        method,
		Upgrade:       req.Upgrade,
		EscapedPath:   svc.FullPath(req.EscapedPath),
		RawQuery:      req.RawQuery,
		Header:        r.Header,
		Body:          r.Body,
		ContentLength: r.ContentLength,
		Prefix:        req.Prefix,
	}
	if r.ContentLength == 0 && len(r.Trailer) == 0 && !req.Upgrade {
		out.Body = nil // nothing waits for the end of what is not there
	}
	return v.send(w, r, t, out, rec)
}

// decideAlternatives returns the first endpoint of the same method and path
// that the token may use: two actions may differ only in what they are called
// and which scope they need. If there is none, the refusal of the first says
// why.
func (st *State) decideAlternatives(svc *policy.Compiled, first *policy.CompiledEndpoint, t *token.Verified, req ProxyRequest, hasBody bool) (*policy.CompiledEndpoint, *refusal.Refusal) {
	alternatives, why := first.AlternativesFor(req.RawQuery)
	if why != nil {
		return nil, why
	}
	if len(alternatives) == 0 {
		return nil, first.NoQuery()
	}
	fits := false
	for _, e := range alternatives {
		if (e.Upgrade != "") != req.Upgrade {
			continue
		}
		fits = true
		_, refused := st.decideAction(svc, t, e.Name)
		if refused == nil {
			refused = e.DecideScope(t.Scope)
		}
		if l := t.Limits; refused == nil && l != nil {
			if refused = e.DecideActionLimit(l.Actions); refused == nil {
				refused = e.DecideProxyParams(l.Params, req.EscapedPath, req.RawQuery, hasBody)
			}
		}
		if refused == nil {
			return e, nil
		}
		if why == nil || e == first {
			why = refused
		}
	}
	if !fits {
		return nil, wrongProtocol(svc, first, req.Upgrade)
	}
	return nil, why
}

// wrongProtocol is the refusal for a WebSocket where there is none, and for a
// plain request where there is one.
func wrongProtocol(svc *policy.Compiled, e *policy.CompiledEndpoint, upgrade bool) *refusal.Refusal {
	if upgrade {
		return refusal.New("UPGRADE_DENIED", "the endpoint %s does not open a WebSocket", e.Name).
			WithHint(`send a plain %s; an endpoint that opens one has "upgrade": "websocket"`, e.Method)
	}
	return refusal.New("UPGRADE_REQUIRED", "the endpoint %s opens a WebSocket and does nothing else", e.Name).
		WithHint("open a WebSocket at /proxy/%s%s", svc.Name, e.Path)
}
