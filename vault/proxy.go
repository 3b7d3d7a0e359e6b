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
}

// ServiceHeader returns the header in which clients of a service send what
// they take for its key, "Authorization" if there is no such service.
func (v *Vault) ServiceHeader(service string) string {
	if svc := v.services.get(service); svc != nil && svc.compiled != nil {
		return svc.compiled.AuthHeader
	}
	return "Authorization"
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
	rec.Method, rec.Upstream = r.Method, svc.Upstream(req.EscapedPath)
	if refused := policy.CheckProxyPath(req.EscapedPath); refused != nil {
		rec.Upstream = ""
		return refused
	}
	if refused := policy.CheckProxyQuery(req.RawQuery); refused != nil {
		return refused
	}
	endpoint, ok := svc.Match(r.Method, req.EscapedPath)
	if !ok {
		return svc.NoEndpoint(r.Method, req.EscapedPath)
	}
	if endpoint, refused = decideAlternatives(svc, endpoint, t, req, r.ContentLength != 0); refused != nil {
		return refused
	}
	rec.Action = endpoint.Name
	out := &Outbound{
		Service:       svc,
		Endpoint:      endpoint,
		Method:        r.Method,
		EscapedPath:   svc.FullPath(req.EscapedPath),
		RawQuery:      req.RawQuery,
		Header:        r.Header,
		Body:          r.Body,
		ContentLength: r.ContentLength,
	}
	return v.send(w, r, t, out, rec)
}

// decideAlternatives returns the first endpoint of the same method and path
// that the token may use: two actions may differ only in what they are called
// and which scope they need. If there is none, the refusal of the first says
// why.
func decideAlternatives(svc *policy.Compiled, first *policy.CompiledEndpoint, t *token.Verified, req ProxyRequest, hasBody bool) (*policy.CompiledEndpoint, *refusal.Refusal) {
	var why *refusal.Refusal
	for _, e := range first.Alternatives() {
		_, refused := decideAction(svc, t, e.Name)
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
	return nil, why
}
