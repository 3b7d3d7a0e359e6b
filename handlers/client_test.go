package handlers

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

// on returns a request as it arrives over a connection.
func on(local, remote, host string, header http.Header) *request {
	r := httptest.NewRequest(http.MethodPost, "/vault.call", nil)
	r.RemoteAddr, r.Host = remote, host
	if header != nil {
		r.Header = header
	}
	var addr net.Addr = &net.UnixAddr{Name: "/run/x.sock", Net: "unix"}
	if local != "unix" {
		addr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(local))
	}
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, addr))
	rq := &request{Request: r, server: &Server{AllowedHosts: []string{"vault.internal"}}}
	rq.caller.Client = clientAddr(r)
	return rq
}

func TestLocal(t *testing.T) {
	tests := []struct {
		name, local, remote, clientIP string
		header                        http.Header
		want                          bool
	}{
		{name: "IPv4", local: "127.0.0.1:8787", remote: "127.0.0.1:5", want: true},
		{name: "IPv6", local: "[::1]:8787", remote: "[::1]:5", want: true},
		{name: "mapped", local: "[::ffff:127.0.0.1]:8787", remote: "[::ffff:127.0.0.1]:5", want: true},
		{name: "socket", local: "unix", remote: "@", want: true},
		{name: "Caddy agrees", local: "127.0.0.1:8787", remote: "127.0.0.1:5", clientIP: "127.0.0.1", want: true},
		{name: "Caddy trusts a proxy", local: "127.0.0.1:8787", remote: "127.0.0.1:5", clientIP: "203.0.113.9"},
		{name: "from outside", local: "192.0.2.1:8787", remote: "192.0.2.7:5"},
		{name: "own outer address", local: "192.0.2.1:8787", remote: "192.0.2.1:5"},
		{name: "spoofed source", local: "192.0.2.1:8787", remote: "127.0.0.1:5"},
		{name: "tunnel", local: "127.0.0.1:8787", remote: "127.0.0.1:5", header: http.Header{"X-Forwarded-For": {"203.0.113.9"}}},
		{name: "tunnel, other header", local: "127.0.0.1:8787", remote: "127.0.0.1:5", header: http.Header{"X-Forwarded-Proto": {"https"}}},
		{name: "proxy", local: "127.0.0.1:8787", remote: "127.0.0.1:5", header: http.Header{"Forwarded": {"for=1"}}},
		{name: "via", local: "127.0.0.1:8787", remote: "127.0.0.1:5", header: http.Header{"Via": {"1.1 x"}}},
		{name: "via, socket", local: "unix", remote: "@", header: http.Header{"Via": {"1.1 x"}}},
	}
	for _, tt := range tests {
		rq := on(tt.local, tt.remote, "localhost", tt.header)
		rq.server.ClientIP = func(*http.Request) string { return tt.clientIP }
		if got := rq.local(); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestCheckBrowser(t *testing.T) {
	const loop, out = "127.0.0.1:8787", "192.0.2.1:443"
	origin := func(v ...string) http.Header { return http.Header{"Origin": v} }
	site := func(v ...string) http.Header { return http.Header{"Sec-Fetch-Site": v} }
	tests := []struct {
		name, local, host string
		header            http.Header
		tls               bool
		want              string
	}{
		{name: "address", local: loop, host: "127.0.0.1:8787"},
		{name: "another loopback address", local: loop, host: "127.9.9.9"},
		{name: "IPv6", local: "[::1]:8787", host: "[::1]:8787"},
		{name: "localhost", local: loop, host: "LOCALHOST:8787"},
		{name: "below localhost", local: loop, host: "vault.localhost"},
		{name: "listed", local: loop, host: "vault.internal:8787"},
		{name: "rebinding", local: loop, host: "evil.example:8787", want: "HOST_DENIED"},
		{name: "looks like localhost", local: loop, host: "localhost.evil.example", want: "HOST_DENIED"},
		{name: "an address outside", local: loop, host: "192.0.2.1", want: "HOST_DENIED"},
		{name: "no host", local: loop, host: "", want: "HOST_DENIED"},
		{name: "outside, any host", local: out, host: "vault.example.com"},

		{name: "own page", local: out, host: "vault.example.com", tls: true, header: origin("https://vault.example.com")},
		{name: "own page with port", local: out, host: "vault.example.com:443", tls: true, header: origin("https://vault.example.com")},
		{name: "other scheme", local: out, host: "vault.example.com", tls: true, header: origin("http://vault.example.com"), want: "ORIGIN_DENIED"},
		{name: "other port", local: loop, host: "localhost:8787", header: origin("http://localhost:3000"), want: "ORIGIN_DENIED"},
		{name: "other site", local: loop, host: "localhost:8787", header: origin("https://evil.example"), want: "ORIGIN_DENIED"},
		{name: "null", local: loop, host: "localhost:8787", header: origin("null"), want: "ORIGIN_DENIED"},
		{name: "two", local: loop, host: "localhost:8787", header: origin("http://localhost:8787", "http://evil.example"), want: "ORIGIN_DENIED"},
		{name: "with a path", local: loop, host: "localhost:8787", header: origin("http://localhost:8787/x"), want: "ORIGIN_DENIED"},
		{name: "cross-site", local: loop, host: "localhost:8787", header: site("cross-site"), want: "ORIGIN_DENIED"},
		{name: "same-site", local: loop, host: "localhost:8787", header: site("same-site"), want: "ORIGIN_DENIED"},
		{name: "same-origin", local: loop, host: "localhost:8787", header: site("same-origin")},
		{name: "typed in", local: loop, host: "localhost:8787", header: site("none")},
		{name: "two sites", local: loop, host: "localhost:8787", header: site("none", "cross-site"), want: "ORIGIN_DENIED"},
		{name: "unknown site", local: loop, host: "localhost:8787", header: site("later"), want: "ORIGIN_DENIED"},
	}
	for _, tt := range tests {
		rq := on(tt.local, "127.0.0.1:5", tt.host, tt.header)
		if tt.tls {
			rq.TLS = new(tls.ConnectionState)
		}
		if got := code(rq.checkBrowser()); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for _, tt := range []struct {
		in   string
		most int
		want string
	}{
		{"INVALID_SCOPE:a", 20, "INVALID_SCOPE:a"},
		{"a\r\nb", 20, "a??b"},
		{"é", 20, "?"},
		{"abcdefghijkl", 10, "abcdefghij"},
	} {
		if got := printable(tt.in, tt.most); got != tt.want {
			t.Errorf("%q becomes %q", tt.in, got)
		}
	}
}

func TestProblemType(t *testing.T) {
	const usual, plain = "application/problem+json", "application/json"
	for _, tt := range []struct {
		path   string
		accept []string
		want   string
	}{
		{"/proxy/x/y", nil, usual},
		{"/proxy/x/y", []string{""}, usual},
		{"/proxy/x/y", []string{"*/*"}, usual},
		{"/proxy/x/y", []string{"application/json, text/plain, */*"}, usual},
		{"/proxy/x/y", []string{"application/json", "application/*;q=0.1"}, usual},
		{"/proxy/x/y", []string{"text/html"}, usual},
		{"/proxy/x/y", []string{"text/event-stream"}, usual},
		{"/proxy/x/y", []string{"application/problem+json, application/json"}, usual},
		{"/proxy/x/y", []string{"application/json"}, plain},
		{"/proxy/x/y", []string{"Application/JSON;q=0.9 , text/plain"}, plain},
		{"/proxy/x/y", []string{"application/vnd.github.v3+json"}, plain},
		{"/vault.call", []string{"application/json"}, usual},
	} {
		rq := &request{Request: httptest.NewRequest(http.MethodGet, tt.path, nil), server: new(Server)}
		if tt.accept != nil {
			rq.Header["Accept"] = tt.accept
		}
		if got := rq.problemType(); got != tt.want {
			t.Errorf("%s %q: %s", tt.path, tt.accept, got)
		}
	}
}
