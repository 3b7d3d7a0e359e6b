package caddyvault

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// TestHideToken: placeholders show what is left of a request, whether or not
// something in front of the vault has rewritten it.
func TestHideToken(t *testing.T) {
	const clear = "/proxy/tg/REDACTED?key=REDACTED&a=b%2Fc"
	for _, tt := range []struct{ name, sent, orig, want string }{
		{"as it came", "/proxy/tg/bot1:x/a?key=tok&a=b%2Fc", "/proxy/tg/bot1:x/a?key=tok&a=b%2Fc", clear},
		{"less a prefix", "/proxy/tg/bot1:x/a?key=tok", "/below/proxy/tg/bot1:x/a?key=tok", "/below" + clear},
		{"as something else", "/proxy/tg/bot1:x/a?key=tok", "/bot1:x?key=tok", "/REDACTED"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			orig := httptest.NewRequest("GET", tt.orig, nil)
			repl := caddy.NewReplacer()
			r := caddyhttp.PrepareRequest(orig, repl, httptest.NewRecorder(), &caddyhttp.Server{})
			r.Header.Set("X-Api-Key", "tok")
			u, err := url.ParseRequestURI(tt.sent)
			if err != nil {
				t.Fatal(err)
			}
			*r.URL, r.RequestURI = *u, tt.sent
			inner := r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, nil)) // as handlers pass it on
			redacted := inner.Clone(inner.Context())
			redacted.RequestURI = clear
			redacted.Header.Set("X-Api-Key", "REDACTED")
			hideToken(inner, redacted)
			for name, want := range map[string]string{
				"http.request.uri":                  clear,
				"http.request.uri.path":             "/proxy/tg/REDACTED",
				"http.request.uri.path.2":           "REDACTED",
				"http.request.uri.query.key":        "REDACTED",
				"http.request.header.x-api-key":     "REDACTED",
				"http.request.orig_uri":             tt.want,
				"http.request.orig_uri.path.file":   "REDACTED",
				"http.request.uri.prefixed_query":   "?key=REDACTED&a=b%2Fc",
				"http.request.uri.query_escaped":    url.QueryEscape("key=REDACTED&a=b%2Fc"),
				"http.request.orig_uri.path.file.x": "",
			} {
				if got, _ := repl.GetString(name); got != want {
					t.Errorf("{%s} is %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestAccessLoggers: a redacted entry goes where Caddy's would have gone.
func TestAccessLoggers(t *testing.T) {
	names := map[string]caddyhttp.StringArray{"a.example": {"one"}, "*.wild.example": {"two", "three"}, "silent.example": {}}
	for _, tt := range []struct {
		name, host string
		logs       caddyhttp.ServerLogConfig
		chosen     []any
		want       []string
	}{
		{name: "none of its own", host: "x", want: []string{"http.log.access"}},
		{name: "a default", host: "x", logs: caddyhttp.ServerLogConfig{DefaultLoggerName: "d"}, want: []string{"http.log.access.d"}},
		{name: "its own", host: "A.example:8443", logs: caddyhttp.ServerLogConfig{LoggerNames: names}, want: []string{"http.log.access.one"}},
		{name: "a wildcard's", host: "b.wild.example", logs: caddyhttp.ServerLogConfig{LoggerNames: names}, want: []string{"http.log.access.two", "http.log.access.three"}},
		{name: "switched off", host: "silent.example", logs: caddyhttp.ServerLogConfig{LoggerNames: names}},
		{name: "skipped", host: "s.example:80", logs: caddyhttp.ServerLogConfig{SkipHosts: []string{"S.example"}}},
		{name: "skipped by a wildcard", host: "s.example", logs: caddyhttp.ServerLogConfig{SkipHosts: []string{"*.example"}}},
		{name: "of no site that logs", host: "x", logs: caddyhttp.ServerLogConfig{LoggerNames: names, SkipUnmappedHosts: true}},
		{name: "of a site that logs", host: "a.example", logs: caddyhttp.ServerLogConfig{LoggerNames: names, SkipUnmappedHosts: true}, want: []string{"http.log.access.one"}},
		{name: "chosen by the site", host: "a.example", logs: caddyhttp.ServerLogConfig{LoggerNames: names}, chosen: []any{"x", ""}, want: []string{"http.log.access.x", "http.log.access"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = tt.host
			r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), &caddyhttp.Server{})
			if tt.chosen != nil {
				caddyhttp.SetVar(r.Context(), caddyhttp.AccessLoggerNameVarKey, tt.chosen)
			}
			var got []string
			for _, l := range accessLoggers(&tt.logs, r) {
				got = append(got, l.Name())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
