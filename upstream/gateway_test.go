package upstream

import (
	"context"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestGatewayOrigin(t *testing.T) {
	tests := []struct {
		name    string
		url     string // with https there is TLS
		host    string // the header, if another
		proto   string // X-Forwarded-Proto
		fwdHost string // X-Forwarded-Host
		trusted bool
		want    string
	}{
		{name: "plain", url: "http://127.0.0.1:8787/", want: "http://127.0.0.1:8787"},
		{name: "TLS", url: "https://vault.example.com/", want: "https://vault.example.com"},
		{name: "IPv6", url: "http://[::1]:8787/", want: "http://[::1]:8787"},
		{name: "said by nobody", url: "http://a/", proto: "https", fwdHost: "b", want: "http://a"},
		{name: "said by a proxy", url: "http://a/", proto: "https", fwdHost: "b:8443, c", trusted: true, want: "https://b:8443"},
		{name: "a proxy that says the scheme", url: "http://a/", proto: "HTTPS", trusted: true, want: "https://a"},
		{name: "a scheme of nobody", url: "http://a/", proto: "javascript", trusted: true, want: "http://a"},
		{name: "no host", url: "http://a/", host: "-", want: ""},
		{name: "ends the link", url: "http://a/", host: `a>;rel="x`, want: ""},
		{name: "a path", url: "http://a/", host: "a/b", want: ""},
		{name: "a user", url: "http://a/", host: "a@b", want: ""},
		{name: "a line", url: "http://a/", host: "a\r\nb", want: ""},
		{name: "a forwarded line", url: "http://a/", fwdHost: "a b", trusted: true, want: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", tt.url, nil)
			switch tt.host {
			case "":
			case "-":
				r.Host = ""
			default:
				r.Host = tt.host
			}
			if tt.proto != "" {
				r.Header.Set("X-Forwarded-Proto", tt.proto)
			}
			if tt.fwdHost != "" {
				r.Header.Set("X-Forwarded-Host", tt.fwdHost)
			}
			r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{caddyhttp.TrustedProxyVarKey: tt.trusted}))
			if got := gatewayOrigin(r); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
