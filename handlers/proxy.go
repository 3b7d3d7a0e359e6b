package handlers

import (
	"net/url"
	"strings"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// proxyPrefix begins the paths of calls by base URL.
const proxyPrefix = vault.ProxyPrefix

// maxPath is the longest path of a proxied request, in bytes.
const maxPath = 8 << 10

// proxies reports whether a request is a call by base URL.
func (s *Server) proxies(u *url.URL) bool {
	return s.Proxy != "" || strings.HasPrefix(u.Path, proxyPrefix)
}

// target returns the service of a call by base URL and the escaped path below
// it, which begins with a slash if the request is a legal one.
func (s *Server) target(u *url.URL) (service, path string) {
	escaped := pathAsSent(u)
	if s.Proxy != "" {
		return s.Proxy, escaped
	}
	service, path, _ = strings.Cut(strings.TrimPrefix(escaped, proxyPrefix), "/")
	return service, "/" + path
}

// prefix is the path of a service on this site.
func (s *Server) prefix(service string) string {
	if s.Proxy != "" {
		return ""
	}
	return proxyPrefix + service
}

// pathAsSent returns the escaped path as the client wrote it. URL.EscapedPath
// makes another one out of what is not encoded correctly; that is refused,
// and must be seen to be.
func pathAsSent(u *url.URL) string {
	escaped := u.EscapedPath()
	if u.RawPath != "" && u.RawPath != escaped {
		if decoded, err := url.PathUnescape(u.RawPath); err == nil && decoded == u.Path {
			return u.RawPath
		}
	}
	return escaped
}

// proxy answers a request below /proxy/.
func (rq *request) proxy() *refusal.Refusal {
	rq.event = "proxy.call"
	service, path := rq.server.target(rq.URL)
	rq.record.Service, rq.record.Method = service, rq.Method
	if len(path) > maxPath {
		return refusal.New("PATH_TOO_LONG", "the path is longer than %d bytes", maxPath)
	}
	if !strings.HasPrefix(path, "/") { // OPTIONS *
		return refusal.New("PARAM_INVALID:path", "the path does not begin with a slash")
	}
	c, refused := takeToken(rq.Header, rq.vault.Policy(service), path, rq.URL.RawQuery)
	if refused != nil {
		return refused
	}
	if c.token == "" {
		// Some clients, git among them, send a key only when asked for one.
		return refusal.New("TOKEN_REQUIRED", "the request carries no token of the vault").
			WithHint("ask for one with vault.issueToken and send it as the service's API key, or in the header Vault-Token").
			WithChallenge(`Basic realm="caddyvault", charset="UTF-8"`, `Bearer realm="caddyvault"`)
	}
	t, refused := rq.vault.Admit(vault.CallRequest{Token: c.token, Service: service, Holder: rq}, &rq.record)
	if refused != nil {
		return refused
	}
	rq.known = true
	rq.agentKnown(t.Subject)
	upgrade := asksForWebSocket(rq.Request)
	if upgrade {
		if refused := checkWebSocket(rq.Request); refused != nil {
			return refused
		}
	}
	return rq.vault.Proxy(rq.w, rq.Request, t, vault.ProxyRequest{
		Service:     service,
		EscapedPath: c.path,
		RawQuery:    c.query,
		Prefix:      rq.server.prefix(service),
		Upgrade:     upgrade,
	}, &rq.record)
}
