package upstream

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// plainHost is a host that can stand in a URL within any header.
var plainHost = regexp.MustCompile(`^(?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$`)

// gatewayOrigin returns the scheme and host under which a client reaches the
// gateway, "" if they are not known. Of X-Forwarded-* only what a proxy says
// counts that the operator trusts. It is told to that client alone, so a host
// that the client made up leads nobody astray but itself.
func gatewayOrigin(r *http.Request) string {
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		if proto := strings.ToLower(firstOf(r.Header["X-Forwarded-Proto"])); proto == "http" || proto == "https" {
			scheme = proto
		}
		if h := firstOf(r.Header["X-Forwarded-Host"]); h != "" {
			host = h
		}
	}
	if !plainHost.MatchString(host) {
		return ""
	}
	return scheme + "://" + host
}

// firstOf returns the first element of a header that is a list.
func firstOf(values []string) string {
	if len(values) == 0 {
		return ""
	}
	first, _, _ := strings.Cut(values[0], ",")
	return strings.TrimSpace(first)
}
