package policy

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"

	"github.com/caddyvault/caddyvault/refusal"
)

// maxURL bounds a base URL.
const maxURL = 2048

// parseBaseURL reads a service's base URL and returns it in canonical form:
// scheme and host in lower case, the host in punycode, no default port, no
// slash at the end. Anything with two readings is refused rather than mended.
func parseBaseURL(s string, allowPlaintext bool) (*url.URL, *refusal.Refusal) {
	bad := func(detail string, args ...any) (*url.URL, *refusal.Refusal) {
		return nil, refusal.New("BASEURL_INVALID", "baseUrl "+detail, args...)
	}
	if s == "" {
		return nil, refusal.New("BASEURL_REQUIRED", "baseUrl is missing").
			WithHint("give the URL that the vendor's own SDK takes as its base, for example https://api.example.com/v1")
	}
	if len(s) > maxURL {
		return bad("is longer than %d bytes", maxURL)
	}
	if strings.ContainsAny(s, "?#") {
		return bad("has a query or a fragment")
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }) {
		return bad("has a space, a control character or a backslash")
	}
	scheme, rest, ok := strings.Cut(s, "://")
	scheme = strings.ToLower(scheme)
	if !ok || (scheme != "https" && scheme != "http") {
		return bad("is not an https URL")
	}
	authority, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	if strings.Contains(authority, "@") {
		return bad("has user information")
	}
	host, port, err := splitAuthority(authority, scheme)
	if err != nil {
		return bad("has no usable host: %s", err)
	}
	host, addr, err := canonicalHost(host)
	if err != nil {
		return bad("has no usable host: %s", err)
	}
	if addr.IsValid() && !addr.IsLoopback() && neverDialled(addr) {
		return bad("points to an address that is never connected to (link-local, metadata, multicast or unspecified)")
	}
	if scheme == "http" && !allowPlaintext && !addr.IsLoopback() && host != "localhost" {
		return nil, refusal.New("BASEURL_INVALID", "baseUrl is http to a host that is not loopback, which would send the secret in the clear").
			WithHint("use https, or set allowPlaintext to true")
	}
	path, err = canonicalBasePath(path)
	if err != nil {
		return bad("has a bad path: %s", err)
	}

	u := &url.URL{Scheme: scheme, Host: hostPort(host, addr, port)}
	if path != "" {
		if u.Path, err = url.PathUnescape(path); err != nil {
			return bad("has a bad path: it is not percent-encoded correctly")
		}
		u.RawPath = path
	}
	return u, nil
}

// splitAuthority cuts host[:port] and drops the scheme's default port.
func splitAuthority(authority, scheme string) (host, port string, err error) {
	if authority == "" {
		return "", "", fmt.Errorf("it is missing")
	}
	host = authority
	bracketed := strings.HasPrefix(authority, "[")
	if bracketed {
		end := strings.IndexByte(authority, ']')
		if end < 0 {
			return "", "", fmt.Errorf("a bracket is not closed")
		}
		host, port = authority[:end+1], authority[end+1:]
	} else if i := strings.IndexByte(authority, ':'); i >= 0 {
		host, port = authority[:i], authority[i:]
	}
	if port == "" {
		return host, "", nil
	}
	digits, ok := strings.CutPrefix(port, ":")
	n, err := strconv.ParseUint(digits, 10, 16)
	if !ok || err != nil || n == 0 || strconv.FormatUint(n, 10) != digits {
		return "", "", fmt.Errorf("the port is not a number from 1 to 65535")
	}
	if (scheme == "https" && n == 443) || (scheme == "http" && n == 80) {
		digits = ""
	}
	return host, digits, nil
}

// canonicalHost returns a host in its one spelling. The address is valid if
// the host is an IP literal. Forms of an address that only some resolvers
// understand (0x7f.1, 127.1, 2130706433, 0177.0.0.1, zone ids) are refused.
func canonicalHost(host string) (string, netip.Addr, error) {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner = strings.TrimSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", netip.Addr{}, fmt.Errorf("not an IPv6 address without a zone")
		}
		if a.Is4In6() {
			return "", netip.Addr{}, fmt.Errorf("an IPv4 address must be written as such")
		}
		return a.String(), a, nil
	}
	if host == "" || strings.ContainsAny(host, "%[]") {
		return "", netip.Addr{}, fmt.Errorf("it is empty or has a percent sign or bracket")
	}
	name := strings.ToLower(host)
	if !isASCII(name) || strings.Contains(name, "xn--") {
		var err error
		if name, err = idna.Lookup.ToASCII(host); err != nil {
			return "", netip.Addr{}, fmt.Errorf("not a valid internationalised name")
		}
	}
	if len(name) > 253 {
		return "", netip.Addr{}, fmt.Errorf("longer than 253 bytes")
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if !validLabel(l) {
			return "", netip.Addr{}, fmt.Errorf("it has an empty or invalid label, or a dot at the end")
		}
	}
	// A last label that looks like a number makes a resolver read the whole
	// as an address (WHATWG URL, "ends in a number").
	if last := labels[len(labels)-1]; looksNumeric(last) {
		a, err := netip.ParseAddr(name)
		if err != nil || !a.Is4() {
			return "", netip.Addr{}, fmt.Errorf("an IPv4 address must be four decimal numbers")
		}
		return name, a, nil
	}
	return name, netip.Addr{}, nil
}

func validLabel(l string) bool {
	if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	for i := range len(l) {
		c := l[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

func looksNumeric(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func hostPort(host string, addr netip.Addr, port string) string {
	if port != "" {
		return net.JoinHostPort(host, port)
	}
	if addr.Is6() {
		return "[" + host + "]"
	}
	return host
}

// forbiddenPrefixes are never an API: what is said here at load is said again
// for every address at each dial, where names have been resolved.
var forbiddenPrefixes = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba's metadata service
	netip.MustParsePrefix("192.0.0.192/32"),     // Oracle's metadata service
	netip.MustParsePrefix("::/128"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
	netip.MustParsePrefix("fd00:ec2::254/128"), // Amazon's metadata service
}

func neverDialled(a netip.Addr) bool {
	for _, p := range forbiddenPrefixes {
		if p.Contains(a) {
			return true
		}
	}
	if !a.Is6() {
		return false
	}
	// An IPv4 address may hide in an IPv6 one: NAT64 (RFC 6052), 6to4
	// (RFC 3056) and the deprecated compatible form.
	b := a.As16()
	var inner netip.Addr
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(a), netip.MustParsePrefix("::/96").Contains(a):
		inner = netip.AddrFrom4([4]byte(b[12:16]))
	case netip.MustParsePrefix("2002::/16").Contains(a):
		inner = netip.AddrFrom4([4]byte(b[2:6]))
	default:
		return false
	}
	return inner.IsLoopback() || neverDialled(inner)
}

// canonicalBasePath checks the escaped path of a base URL and drops the slash
// at its end.
func canonicalBasePath(path string) (string, error) {
	path = strings.TrimSuffix(path, "/")
	if path == "" {
		return "", nil
	}
	for _, seg := range strings.Split(path[1:], "/") {
		if seg == "" {
			return "", fmt.Errorf("it has an empty segment")
		}
	}
	if i := strings.IndexFunc(path, func(r rune) bool { return !pathRune(r) }); i >= 0 {
		return "", fmt.Errorf("it has a character that must be percent-encoded")
	}
	if r := CheckProxyPath(path); r != nil {
		return "", fmt.Errorf("%s", r.Detail)
	}
	return path, nil
}

// pathRune says whether r may stand in an escaped path (RFC 3986 section 3.3).
func pathRune(r rune) bool {
	return r < 0x80 && pathByte[byte(r)]
}

// pathByte has the bytes that may stand in an escaped path: pchar, "/" and
// "%".
var pathByte = func() (t [256]bool) {
	for c := range 128 {
		t[c] = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.IndexByte("-._~!$&'()*+,;=:@/%", byte(c)) >= 0
	}
	return t
}()

// pathMark stands for the {secret} of a baseUrl while it is read, so that it
// is held to what any text there is held to.
const pathMark = "0secret0"

// markPath returns baseUrl with its {secret} marked, and notes that it has
// one.
func (c *Compiled) markPath() (string, error) {
	before, ref, after, found, err := secretPlaceholder(c.BaseURL)
	if err != nil || !found {
		return c.BaseURL, err
	}
	if strings.Contains(c.BaseURL, pathMark) {
		return "", fmt.Errorf("has %s, which the vault cannot tell from a mark of its own", pathMark)
	}
	c.pathSecret, c.pathRef = true, ref
	return before + pathMark + after, nil
}

// unmarkPath turns the mark back into {secret}: whoever prints the path of
// such a service prints that, and the secret takes its place as the request
// is sent.
func (c *Compiled) unmarkPath() {
	before, after, _ := strings.Cut(c.basePath, pathMark)
	c.basePath = before + PathSecret + after
	c.Base.Path = strings.Replace(c.Base.Path, pathMark, PathSecret, 1)
	c.Base.RawPath = c.basePath
	c.pathSegment[0] = before[strings.LastIndexByte(before, '/')+1:]
	c.pathSegment[1], _, _ = strings.Cut(after, "/")
}

// PathSecret stands for the secret in the path of a service's baseUrl, where
// it is not sent.
const PathSecret = "{secret}"

// PathAround returns the texts of the baseUrl's escaped path before and after
// its secret, and whether there is one.
func (c *Compiled) PathAround() (before, after string, ok bool) {
	if !c.pathSecret {
		return "", "", false
	}
	before, after, _ = strings.Cut(c.basePath, PathSecret)
	return before, after, true
}

// AppendSegment appends a text as a part of one segment of an escaped path.
// A colon stays one: vendors write their keys with it (RFC 3986 section 3.3).
func AppendSegment(b []byte, text string) []byte {
	for {
		before, rest, colon := strings.Cut(text, ":")
		b = appendEscaped(b, before)
		if !colon {
			return b
		}
		b, text = append(b, ':'), rest
	}
}

// AppendParam appends a text as a name or value of a query or form.
func AppendParam(b []byte, text string) []byte { return appendEscaped(b, text) }
