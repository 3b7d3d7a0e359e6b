package handlers

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/caddyvault/caddyvault/vault"
)

const redacted = "REDACTED"

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
	if r.URL.RawQuery != "" && svc.RedactQuery(r.URL.RawQuery, redacted) != r.URL.RawQuery {
		return true
	}
	_, _, inPath := svc.TakePath(path)
	return inPath
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
			values[i] = tokenShape.ReplaceAllLiteralString(value, redacted)
		}
		if name == tokenHeader {
			r.Header[name] = []string{redacted}
		}
	}
	uri, query, hasQuery := strings.Cut(r.RequestURI, "?")
	if svc != nil {
		for _, name := range svc.AuthHeaders() {
			if r.Header[name] != nil && !cleared(name) {
				r.Header[name] = []string{redacted}
			}
		}
		query = svc.RedactQuery(query, redacted)
		if _, _, ok := svc.TakePath(path); ok {
			uri = strings.TrimSuffix(uri, path) + "/" + redacted
		}
	}
	if hasQuery {
		uri += "?" + query
	}
	r.RequestURI = tokenShape.ReplaceAllLiteralString(uri, redacted)
}
