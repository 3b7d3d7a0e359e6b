package handlers

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/caddyvault/caddyvault/refusal"
)

// clientAddr returns the address of the connection's other end, or the zero
// Addr if it has none, as a Unix socket.
func clientAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// serverAddr returns this end of the connection, and whether it is a Unix
// socket.
func serverAddr(r *http.Request) (addr netip.Addr, unix bool) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil {
		return netip.Addr{}, false
	}
	if strings.HasPrefix(local.Network(), "unix") {
		return netip.Addr{}, true
	}
	if tcp, ok := local.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap(), false
	}
	ap, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return netip.Addr{}, false
	}
	return ap.Addr().Unmap(), false
}

// forwarded reports whether a proxy or tunnel in front has left its mark. Such a
// request may come from anywhere, whatever its connection says.
func forwarded(h http.Header) bool {
	if h["Forwarded"] != nil || h["Via"] != nil {
		return true
	}
	for name := range h {
		if strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}

// local reports whether the client is a process on this machine: both ends of
// the connection are loopback addresses or it is a Unix socket, and nothing
// says that someone else is behind it (security.md, "Browser, cross-site,
// rebinding").
func (rq *request) local() bool {
	if forwarded(rq.Header) {
		return false
	}
	addr, unix := serverAddr(rq.Request)
	if unix {
		return true
	}
	if !addr.IsLoopback() || !rq.caller.Client.IsLoopback() {
		return false
	}
	if rq.server.ClientIP == nil {
		return true
	}
	taken := rq.server.ClientIP(rq.Request)
	if taken == "" {
		return true
	}
	ip, err := netip.ParseAddr(taken)
	return err == nil && ip.Unmap() == rq.caller.Client
}

// clientText is the client's address as it is recorded.
func (rq *request) clientText() string {
	if !rq.caller.Client.IsValid() {
		return "unix"
	}
	return rq.caller.Client.String()
}

// checkBrowser refuses what only a browser sends on behalf of another site,
// and names that lead to a loopback address though they are not loopback
// names: DNS rebinding.
func (rq *request) checkBrowser() *refusal.Refusal {
	if host := hostname(rq.Host); !loopbackName(host) && !rq.server.allowedHost(host) {
		if addr, _ := serverAddr(rq.Request); addr.IsLoopback() {
			return refusal.New("HOST_DENIED", "this vault does not answer to the host name %q on a loopback address", printable(host, 128)).
				WithHint("use 127.0.0.1, [::1] or localhost, or list the name in allowed_hosts")
		}
	}
	if site := rq.Header["Sec-Fetch-Site"]; len(site) > 0 && (len(site) > 1 || site[0] != "same-origin" && site[0] != "none") {
		return refusal.New("ORIGIN_DENIED", "this request was made by a page of another site")
	}
	if origins := rq.Header["Origin"]; len(origins) > 0 {
		if len(origins) > 1 || !rq.ownOrigin(origins[0]) {
			return refusal.New("ORIGIN_DENIED", "this request was made by a page of another origin")
		}
	}
	return nil
}

// ownOrigin reports whether an Origin header names the site the request is
// for.
func (rq *request) ownOrigin(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		return false
	}
	scheme := "http"
	if rq.TLS != nil {
		scheme = "https"
	}
	return u.Scheme == scheme && withPort(u.Host, scheme) == withPort(rq.Host, scheme)
}

func withPort(host, scheme string) string {
	host = strings.ToLower(host)
	if u := (&url.URL{Host: host}); u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[scheme])
	}
	return host
}

// hostname returns a Host header's name in lower case, without port and
// brackets.
func hostname(host string) string {
	return strings.TrimSuffix(strings.ToLower((&url.URL{Host: host}).Hostname()), ".")
}

func loopbackName(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
