package handlers

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/caddyvault/caddyvault/vault"
)

// Redacted stands where a token stood.
const Redacted = "REDACTED"

// tokenStart begins every token: it is the base64url of {".
const tokenStart = "eyJ"

// tokenShape is a token wherever it stands.
var tokenShape = regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`)

// cleared are the headers that access logs clear by themselves.
func cleared(name string) bool { return name == "Authorization" || name == "Cookie" }

// TokenInOpen reports whether a request carries what may be a token in a place
// that access logs do not clear: they clear Authorization and cookies only.
func (s *Server) TokenInOpen(r *http.Request, v *vault.Vault) bool {
	if !s.proxies(r.URL) {
		return false
	}
	if r.Header[tokenHeader] != nil || strings.Contains(r.RequestURI, tokenStart) {
		return true
	}
	for _, list := range r.Header["Sec-Websocket-Protocol"] {
		if redactSubprotocols(list) != list {
			return true
		}
	}
	service, path := s.target(r.URL)
	svc := v.Policy(service)
	if svc == nil {
		// Whoever mistypes a service's name sends its token all the same.
		return anyToken(r.Header)
	}
	for _, name := range svc.AuthHeaders() {
		if !cleared(name) && r.Header[name] != nil {
			return true
		}
	}
	if r.URL.RawQuery != "" && svc.RedactQuery(r.URL.RawQuery, Redacted) != r.URL.RawQuery {
		return true
	}
	_, _, inPath := svc.TakePath(path)
	return inPath
}

// longSubprotocol is longer than any that is registered.
const longSubprotocol = 64

// redactSubprotocols replaces those that hold a token, and those that are too
// long to be anything but a key.
func redactSubprotocols(list string) string {
	if len(list) < longSubprotocol && !strings.Contains(list, tokenStart) {
		return list
	}
	all := strings.Split(list, ",")
	for i, offered := range all {
		if len(strings.TrimSpace(offered)) >= longSubprotocol || strings.Contains(offered, tokenStart) {
			all[i] = Redacted
		}
	}
	return strings.Join(all, ",")
}

func anyToken(h http.Header) bool {
	for name, values := range h {
		for _, value := range values {
			if !cleared(name) && strings.Contains(value, tokenStart) {
				return true
			}
		}
	}
	return false
}

// RedactToken replaces, in place, what TokenInOpen has found.
func (s *Server) RedactToken(r *http.Request, v *vault.Vault) {
	service, path := s.target(r.URL)
	svc := v.Policy(service)
	for name, values := range r.Header {
		for i, value := range values {
			if name == "Sec-Websocket-Protocol" {
				value = redactSubprotocols(value)
			}
			values[i] = tokenShape.ReplaceAllLiteralString(value, Redacted)
		}
		if name == tokenHeader {
			r.Header[name] = []string{Redacted}
		}
	}
	uri, query, hasQuery := strings.Cut(r.RequestURI, "?")
	if svc != nil {
		for _, name := range svc.AuthHeaders() {
			if r.Header[name] != nil && !cleared(name) {
				r.Header[name] = []string{Redacted}
			}
		}
		query = svc.RedactQuery(query, Redacted)
		if _, _, ok := svc.TakePath(path); ok {
			uri = strings.TrimSuffix(uri, path) + "/" + Redacted
		}
	}
	if hasQuery {
		uri += "?" + query
	}
	r.RequestURI = tokenShape.ReplaceAllLiteralString(uri, Redacted)
}
