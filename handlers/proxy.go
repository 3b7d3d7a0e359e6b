package handlers

import (
	"encoding/base64"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// proxyPrefix begins the paths of calls by base URL.
const proxyPrefix = "/proxy/"

// maxPath is the longest path of a proxied request, in bytes.
const maxPath = 8 << 10

// tokenHeader may carry the vault's token beside the places where the
// service's own key would stand.
const tokenHeader = "Vault-Token"

// proxyTarget splits an escaped request path into the service and the path
// below it, which begins with a slash.
func proxyTarget(escaped string) (service, path string) {
	service, path, _ = strings.Cut(strings.TrimPrefix(escaped, proxyPrefix), "/")
	return service, "/" + path
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

// TokenInOpen reports whether a request carries what may be a token in a place
// that access logs do not clear: they clear Authorization and cookies only.
func TokenInOpen(r *http.Request, v *vault.Vault) bool {
	if !strings.HasPrefix(r.URL.Path, proxyPrefix) {
		return false
	}
	if r.Header[tokenHeader] != nil {
		return true
	}
	service, _ := proxyTarget(pathAsSent(r.URL))
	name := v.ServiceHeader(service)
	return name != "Authorization" && r.Header[name] != nil
}

// RedactToken replaces, in place, what TokenInOpen has found.
func RedactToken(r *http.Request, v *vault.Vault) {
	service, _ := proxyTarget(pathAsSent(r.URL))
	for _, name := range [...]string{tokenHeader, v.ServiceHeader(service)} {
		if r.Header[name] != nil {
			r.Header[name] = []string{"REDACTED"}
		}
	}
}

// proxy answers a request below /proxy/.
func (rq *request) proxy() *refusal.Refusal {
	rq.event = "proxy.call"
	escaped := pathAsSent(rq.URL)
	service, path := proxyTarget(escaped)
	rq.record.Service, rq.record.Method = service, rq.Method
	if len(escaped) > maxPath {
		return refusal.New("PATH_TOO_LONG", "the path is longer than %d bytes", maxPath)
	}
	raw, refused := proxyToken(rq.Header, rq.vault.ServiceHeader(service))
	if refused != nil {
		return refused
	}
	if raw == "" {
		// Some clients, git among them, send a key only when asked for one.
		return refusal.New("TOKEN_REQUIRED", "the request carries no token of the vault").
			WithHint("ask for one with vault.issueToken and send it as the service's API key, or in the header Vault-Token").
			WithChallenge(`Basic realm="caddyvault", charset="UTF-8"`, `Bearer realm="caddyvault"`)
	}
	t, refused := rq.vault.Admit(vault.CallRequest{Token: raw, Service: service, Holder: rq}, &rq.record)
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
		EscapedPath: path,
		RawQuery:    rq.URL.RawQuery,
		Upgrade:     upgrade,
	}, &rq.record)
}

// proxyToken finds the vault's token where clients put an API key: in the
// service's own header, in Authorization with any scheme, or in Vault-Token.
// Two different ones are refused: which of them counts must not be a matter
// of order.
func proxyToken(h http.Header, serviceHeader string) (string, *refusal.Refusal) {
	token := ""
	for _, name := range [...]string{tokenHeader, "Authorization", textproto.CanonicalMIMEHeaderKey(serviceHeader)} {
		for _, value := range h[name] {
			found := credential(value)
			if found == "" {
				continue
			}
			if token != "" && token != found {
				return "", refusal.New("TOKEN_INVALID", "the request carries two different tokens").
					WithHint("send the vault's token in one place")
			}
			token = found
		}
	}
	return token, nil
}

// credential returns the token in a header's value: after a scheme, if there
// is one, and out of the user name or the password of Basic.
func credential(value string) string {
	value = strings.TrimSpace(value)
	scheme, rest, ok := strings.Cut(value, " ")
	if !ok {
		return value
	}
	rest = strings.TrimSpace(rest)
	if !strings.EqualFold(scheme, "Basic") {
		return rest
	}
	b, err := base64.StdEncoding.DecodeString(rest)
	if err != nil {
		return rest
	}
	user, password, _ := strings.Cut(string(b), ":")
	if looksLikeToken(password) || user == "" {
		return password
	}
	return user
}

// looksLikeToken reports whether s has the shape of a JWT.
func looksLikeToken(s string) bool { return strings.Count(s, ".") == 2 }
