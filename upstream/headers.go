package upstream

import (
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/caddyvault/caddyvault/policy"
)

// toUpstream are the headers of a client that pass to every upstream
// (security.md, "Headers"). What else a client sends stays here, unless the
// service lists it in passHeaders.
//
// Accept-Encoding is not among them: the vault asks for encodings that it can
// undo, because it looks for the secret in what comes back.
var toUpstream = map[string]bool{
	"Accept":              true,
	"Accept-Charset":      true,
	"Accept-Datetime":     true,
	"Accept-Language":     true,
	"Accept-Patch":        true,
	"Accept-Post":         true,
	"Content-Type":        true,
	"Content-Encoding":    true,
	"Content-Language":    true,
	"Content-Range":       true,
	"Content-Md5":         true,
	"Digest":              true,
	"User-Agent":          true,
	"If-Match":            true,
	"If-None-Match":       true,
	"If-Modified-Since":   true,
	"If-Unmodified-Since": true,
	"If-Range":            true,
	"Idempotency-Key":     true,
	"Prefer":              true,
	"Traceparent":         true,
	"Tracestate":          true,
}

// toUpstreamPrefixes are prefixes of headers that pass likewise.
var toUpstreamPrefixes = []string{"X-Stainless-"}

// neverUpstream cannot pass, whatever a service lists: they carry
// credentials, frame the message, or claim where it comes from.
var neverUpstream = map[string]bool{
	"Authorization":                  true,
	"Cookie":                         true,
	"Cookie2":                        true,
	"Connection":                     true,
	"Content-Length":                 true,
	"Expect":                         true,
	"Forwarded":                      true,
	"Host":                           true,
	"Http2-Settings":                 true,
	"Keep-Alive":                     true,
	"Te":                             true,
	"Trailer":                        true,
	"Transfer-Encoding":              true,
	"Upgrade":                        true,
	"Vault-Token":                    true,
	"Via":                            true,
	"X-Http-Method":                  true,
	"X-Http-Method-Override":         true,
	"X-Method-Override":              true,
	"X-Real-Ip":                      true,
	"Early-Data":                     true,
	"Accept-Encoding":                true,
	"Sec-Websocket-Extensions":       true,
	"X-Rewrite-Url":                  true,
	"Cf-Connecting-Ip":               true,
	"True-Client-Ip":                 true,
	"X-Client-Ip":                    true,
	"X-Cluster-Client-Ip":            true,
	"Proxy-Authorization":            true,
	"Dpop":                           true, // a proof for the vault
	"X-Amz-Security-Token":           true,
	"X-Goog-Iam-Authorization-Token": true,
}

var neverUpstreamPrefixes = []string{"Proxy-", "X-Forwarded-", "X-Original-", "Sec-Fetch-", ":"}

// toClientNever are the headers of an upstream that stop here: they speak of
// the connection or the origin, which is the vault's, not the upstream's.
var toClientNever = map[string]bool{
	"Connection":                          true,
	"Keep-Alive":                          true,
	"Proxy-Connection":                    true,
	"Proxy-Authenticate":                  true,
	"Proxy-Authentication-Info":           true,
	"Te":                                  true,
	"Trailer":                             true,
	"Transfer-Encoding":                   true,
	"Upgrade":                             true,
	"Vault-Error":                         true,
	"Set-Cookie":                          true,
	"Set-Cookie2":                         true,
	"Alt-Svc":                             true,
	"Strict-Transport-Security":           true,
	"Public-Key-Pins":                     true,
	"Clear-Site-Data":                     true,
	"Server":                              true,
	"Via":                                 true,
	"Refresh":                             true,
	"Nel":                                 true,
	"Report-To":                           true,
	"Reporting-Endpoints":                 true,
	"Service-Worker-Allowed":              true,
	"Content-Security-Policy":             true,
	"Content-Security-Policy-Report-Only": true,
	"X-Content-Type-Options":              true,
}

var toClientNeverPrefixes = []string{"Access-Control-"}

func hasPrefix(name string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// requestFilter is what one service lets through from its clients; it is made
// once, when the service is. A header's name is looked up once.
type requestFilter struct {
	passes map[string]bool // canonical names, and what is decided about them
}

func newRequestFilter(pass, drop []string) requestFilter {
	f := requestFilter{passes: maps.Clone(toUpstream)}
	for _, name := range pass {
		f.passes[textproto.CanonicalMIMEHeaderKey(name)] = true
	}
	for _, name := range drop {
		f.passes[textproto.CanonicalMIMEHeaderKey(name)] = false
	}
	for name := range f.passes {
		if hasPrefix(name, neverUpstreamPrefixes) {
			f.passes[name] = false
		}
	}
	for name := range neverUpstream {
		f.passes[name] = false
	}
	return f
}

// ofEnvelope are headers that speak of the body of a vault.call, which stays
// here, and so do not pass whatever a service lists.
var ofEnvelope = map[string]bool{
	"Content-Type":     true,
	"Content-Encoding": true,
	"Content-Language": true,
	"Content-Range":    true,
	"Content-Md5":      true,
	"Digest":           true,
}

// apply returns the headers of in that may go to the upstream, in a map of
// their own. The value slices are shared and must not be written to.
func (f requestFilter) apply(in http.Header, allowRange, envelope bool) http.Header {
	out := make(http.Header, 8)
	named := in["Connection"]
	for name, values := range in {
		// Keys that are not canonical can only have been put there by a
		// handler in front; a second spelling of a name must not slip by.
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		passes, decided := f.passes[canonical]
		if !decided {
			passes = canonical == "Range" && allowRange || hasPrefix(canonical, toUpstreamPrefixes)
		}
		if !passes || envelope && ofEnvelope[canonical] {
			continue
		}
		if envelope && canonical == "Accept" && len(values) == 1 && values[0] == "*/*" {
			// What a client of vault.call accepts by default says nothing of
			// the API it calls: the service's own default serves better.
			continue
		}
		if len(named) > 0 && httpguts.HeaderValuesContainsToken(named, canonical) {
			continue
		}
		out[canonical] = values
	}
	return out
}

// filterResponse takes out of an upstream's header what must not reach a
// client, and adds what keeps a browser from running an upstream's content on
// the vault's origin. The header is changed in place.
func filterResponse(h http.Header, passSetCookie bool) {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			if name = textproto.TrimString(name); name != "" {
				delete(h, textproto.CanonicalMIMEHeaderKey(name))
			}
		}
	}
	for name := range h {
		if (name == "Set-Cookie" && passSetCookie) || !(toClientNever[name] || hasPrefix(name, toClientNeverPrefixes)) {
			continue
		}
		delete(h, name)
	}
	both := [...]string{"nosniff", "sandbox"} // not shared: a handler in front may change them in place
	h["X-Content-Type-Options"], h["Content-Security-Policy"] = both[:1:1], both[1:2:2]
}

// A rewriter turns URLs of the upstream's own origin that stand in an answer
// into the gateway's.
type rewriter struct {
	origin *url.URL // scheme and host of the upstream, canonical
	base   string   // escaped path of the service's base URL, no slash at the end
	svc    *policy.Compiled
	prefix string // path of the service on the gateway, for example /proxy/github; "" at a site's root
}

// apply rewrites Location, Content-Location and Link in place: same-origin
// URLs become paths on the gateway, others are dropped. request is the URL
// that the answer is for; relative references are resolved against it. Links
// become whole URLs of from's gateway: clients that follow them to the next
// page, Octokit among them, take a path for one below their base URL.
func (rw rewriter) apply(h http.Header, request *url.URL, from *http.Request) {
	for _, name := range [...]string{"Location", "Content-Location"} {
		if values, ok := h[name]; ok {
			target, ok := rw.rewrite(values[0], request)
			if !ok {
				delete(h, name)
				continue
			}
			h[name] = []string{target}
		}
	}
	if values, ok := h["Link"]; ok {
		if links := rw.links(values, request, gatewayOrigin(from)); len(links) > 0 {
			h["Link"] = links
		} else {
			delete(h, "Link")
		}
	}
}

// rewrite returns the gateway's path for a reference, or false for one that
// leads elsewhere.
func (rw rewriter) rewrite(ref string, request *url.URL) (string, bool) {
	u, err := request.Parse(ref)
	if err != nil || u.User != nil || !strings.EqualFold(u.Scheme, rw.origin.Scheme) || canonicalHost(u) != rw.origin.Host {
		return "", false
	}
	p := u.EscapedPath()
	if rw.base != "" {
		rest, ok := strings.CutPrefix(p, rw.base)
		if !ok || (rest != "" && rest[0] != '/') {
			return "", false
		}
		p = rest
	}
	if p == "" {
		p = "/"
	}
	out := rw.prefix + p
	if strings.HasPrefix(out, "//") { // would be read as a host
		return "", false
	}
	if query := dropCredential(rw.svc, u.RawQuery); query != "" {
		out += "?" + query
	}
	if u.Fragment != "" {
		out += "#" + u.EscapedFragment()
	}
	return out, true
}

// links rewrites the targets of a Link header (RFC 8288) to URLs below the
// gateway's origin. A link whose target leads elsewhere is dropped, the others
// keep their parameters.
func (rw rewriter) links(values []string, request *url.URL, gateway string) []string {
	var out []string
	for _, value := range values {
		for _, link := range splitLinks(value) {
			open := strings.IndexByte(link, '<')
			end := strings.IndexByte(link, '>')
			if open < 0 || end < open {
				continue
			}
			target, ok := rw.rewrite(link[open+1:end], request)
			if !ok {
				continue
			}
			out = append(out, "<"+gateway+target+">"+link[end+1:])
		}
	}
	if len(out) > 1 {
		out = []string{strings.Join(out, ", ")}
	}
	return out
}

// splitLinks cuts a Link header's value at the commas between its links, not
// at those within <…> or a quoted string.
func splitLinks(value string) []string {
	var links []string
	start, inTarget, inQuotes := 0, false, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case inQuotes:
			if c == '\\' {
				i++
			} else if c == '"' {
				inQuotes = false
			}
		case inTarget:
			inTarget = c != '>'
		case c == '"':
			inQuotes = true
		case c == '<':
			inTarget = true
		case c == ',':
			links = append(links, strings.TrimSpace(value[start:i]))
			start = i + 1
		}
	}
	return append(links, strings.TrimSpace(value[start:]))
}

// canonicalHost returns the host of u in lower case, without the port if it
// is the scheme's own.
func canonicalHost(u *url.URL) string {
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	switch {
	case port == "", port == "443" && strings.EqualFold(u.Scheme, "https"), port == "80" && strings.EqualFold(u.Scheme, "http"):
		return host
	}
	return host + ":" + port
}
