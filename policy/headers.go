package policy

import (
	"maps"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/caddyvault/caddyvault/refusal"
)

// framing are the headers that frame a message, belong to one connection
// (RFC 9110 section 7.6.1), or that the vault itself decides.
var framing = headerSet(
	"Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Connection", "TE", "Trailer",
	"Transfer-Encoding", "Upgrade", "HTTP2-Settings", "Accept-Encoding", "Content-Encoding", "Date",
)

// origin are the headers that say where a request came from, or which one it
// really is.
var origin = headerSet(
	"Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip",
	"X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Rewrite-Url", "X-Host", "Origin", "Referer",
)

// credential are headers that carry one at some API or other. A literal there
// would be a secret in a configuration, or an agent's own key in place of the
// vault's.
var credential = headerSet(
	"Authorization", "Cookie", "Cookie2", "Set-Cookie", "Set-Cookie2", "Www-Authenticate", "Authentication-Info",
	"Api-Key", "Apikey", "X-Api-Key", "X-Apikey", "X-Auth-Token", "X-Auth-Key", "X-Access-Token", "X-Goog-Api-Key",
	"Private-Token", "Job-Token", "X-Amz-Security-Token", "X-Vault-Token", "X-Shopify-Access-Token", "X-Csrf-Token",
)

func headerSet(names ...string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, n := range names {
		set[textproto.CanonicalMIMEHeaderKey(n)] = true
	}
	return set
}

// canonicalHeader returns the canonical spelling of a legal header name
// (RFC 9110 section 5.1), or "".
func canonicalHeader(name string) string {
	if len(name) > 128 || !httpguts.ValidHeaderFieldName(name) {
		return ""
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

// isFraming says whether the header is the connection's or the vault's own.
func isFraming(canonical string) bool {
	c := dashed(canonical)
	return framing[c] || strings.HasPrefix(c, "Proxy-") || strings.HasPrefix(c, "Vault-") || strings.HasPrefix(c, "Sec-Websocket-")
}

// isOrigin says whether the header tells where a request came from.
func isOrigin(canonical string) bool {
	c := dashed(canonical)
	return origin[c] || strings.HasPrefix(c, "X-Forwarded-") || c == "X-Forwarded" || strings.HasPrefix(c, "X-Original-")
}

// isCredential says whether the header carries a credential at this service
// or at another.
func isCredential(canonical string, auth map[string]bool) bool {
	c := dashed(canonical)
	return credential[c] || auth[c]
}

// notForAuth says whether the header cannot carry a credential.
func notForAuth(canonical string) bool {
	return isFraming(canonical) || isOrigin(canonical) || canonical == "Content-Type" || canonical == "Range" ||
		strings.HasPrefix(canonical, "Set-Cookie")
}

// dashed is the name that CGI-like servers would read: they take "_" for "-",
// which would be a second spelling of a name that is refused.
func dashed(canonical string) string {
	if strings.IndexByte(canonical, '_') < 0 {
		return canonical
	}
	return textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(canonical, "_", "-"))
}

// checkAuth resolves the header and scheme that carry the secret.
func checkAuth(svc *Service) (header, scheme string, r *refusal.Refusal) {
	header = "Authorization"
	if svc.AuthHeader != "" {
		header = canonicalHeader(svc.AuthHeader)
		switch {
		case header == "":
			return "", "", invalid("authHeader", "authHeader is not the name of a header")
		case notForAuth(header):
			return "", "", invalid("authHeader", "authHeader may not be %s, which frames the message or describes the request", header)
		}
	}
	if header == "Authorization" {
		scheme = "Bearer"
	}
	if svc.AuthScheme != nil {
		scheme = *svc.AuthScheme
		if scheme != "" && (!httpguts.ValidHeaderFieldName(scheme) || len(scheme) > maxName) {
			return "", "", invalid("authScheme", "authScheme is not a scheme: letters and digits without spaces")
		}
	}
	return header, scheme, nil
}

// checkHeaders returns default headers under their canonical names. What is
// wrong comes back as a sentence.
func checkHeaders(headers map[string]string, auth map[string]bool) (map[string]string, string) {
	out := make(map[string]string, len(headers))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		value := headers[name]
		c := canonicalHeader(name)
		switch {
		case c == "":
			return nil, "headers has an illegal name: " + shown(name)
		case isCredential(c, auth):
			return nil, "headers may not name " + c + ", which carries a credential; store it as the secret"
		case isFraming(c), isOrigin(c), c == "Range":
			return nil, "headers may not name " + c + ", which frames the message or describes the request"
		case strings.Contains(value, "{secret"):
			return nil, "the value of the header " + c + " has a {secret}, which is for auth"
		case !httpguts.ValidHeaderFieldValue(value) || len(value) > 4096 || strings.TrimSpace(value) != value:
			return nil, "the value of the header " + c + " is not legal"
		}
		if _, twice := out[c]; twice {
			return nil, "headers has " + c + " twice"
		}
		out[c] = value
	}
	return out, ""
}

// checkPass holds passHeaders to what an agent may ever send.
func checkPass(svc *Service, auth map[string]bool) ([]string, *refusal.Refusal) {
	out := make([]string, 0, len(svc.PassHeaders))
	for _, name := range svc.PassHeaders {
		c := canonicalHeader(name)
		switch {
		case c == "":
			return nil, invalid("passHeaders", "passHeaders has an illegal name: %s", shown(name))
		case isCredential(c, auth):
			return nil, invalid("passHeaders", "passHeaders may not name %s, which carries a credential", c)
		case isFraming(c), isOrigin(c):
			return nil, invalid("passHeaders", "passHeaders may not name %s, which never passes", c)
		}
		out = append(out, c)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// checkDrop holds dropHeaders to what can be left out of a message.
func checkDrop(svc *Service) ([]string, *refusal.Refusal) {
	out := make([]string, 0, len(svc.DropHeaders))
	for _, name := range svc.DropHeaders {
		c := canonicalHeader(name)
		switch {
		case c == "":
			return nil, invalid("dropHeaders", "dropHeaders has an illegal name: %s", shown(name))
		case isFraming(c) && c != "Date" && c != "Accept-Encoding", c == "Content-Encoding":
			return nil, invalid("dropHeaders", "dropHeaders may not name %s, which frames the message", c)
		}
		out = append(out, c)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
