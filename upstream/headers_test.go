package upstream

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestRequestFilter(t *testing.T) {
	in := http.Header{
		"Accept":                   {"application/json"},
		"Accept-Encoding":          {"br"},
		"Authorization":            {"Bearer agent-token"},
		"Connection":               {"close, If-Match"},
		"Content-Type":             {"text/plain"},
		"Cookie":                   {"a=b"},
		"Content-Length":           {"5"},
		"Forwarded":                {"for=1.2.3.4"},
		"Host":                     {"elsewhere"},
		"If-Match":                 {`"named by Connection"`},
		"If-None-Match":            {`"x"`},
		"Idempotency-Key":          {"k"},
		"OpenAI-Beta":              {"not canonical, as another handler may leave it"},
		"Proxy-Authorization":      {"Basic x"},
		"Range":                    {"bytes=0-1"},
		"Sec-Websocket-Extensions": {"permessage-deflate"},
		"Transfer-Encoding":        {"chunked"},
		"Vault-Token":              {"agent-token"},
		"X-Api-Key":                {"agent-token"},
		"X-Custom":                 {"1"},
		"X-Forwarded-For":          {"1.2.3.4"},
		"X-Http-Method-Override":   {"DELETE"},
		"X-Original-Url":           {"/admin"},
		"X-Secret-Header":          {"mine"},
		"X-Stainless-Lang":         {"js"},
		"x-secret-header":          {"a second spelling"},
	}
	tests := []struct {
		name       string
		pass, drop []string
		rng        bool
		want       []string
	}{
		{
			name: "nothing more",
			want: []string{"Accept", "Content-Type", "Idempotency-Key", "If-None-Match", "X-Stainless-Lang"},
		},
		{
			name: "more, and less",
			pass: []string{"x-custom", "openai-beta"}, drop: []string{"content-type"}, rng: true,
			want: []string{"Accept", "Idempotency-Key", "If-None-Match", "Openai-Beta", "Range", "X-Custom", "X-Stainless-Lang"},
		},
		{
			name: "what never passes, though listed",
			pass: []string{"Authorization", "Cookie", "Proxy-Authorization", "X-Forwarded-For", "X-Original-Url", "X-HTTP-Method-Override", "Host", "Connection", "Transfer-Encoding", "Vault-Token", "Forwarded", "Accept-Encoding"},
			want: []string{"Accept", "Content-Type", "Idempotency-Key", "If-None-Match", "X-Stainless-Lang"},
		},
		{
			name: "the place of the secret, in any spelling",
			pass: []string{"X-Secret-Header"}, drop: []string{"X-Secret-Header"},
			want: []string{"Accept", "Content-Type", "Idempotency-Key", "If-None-Match", "X-Stainless-Lang"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := newRequestFilter(tt.pass, tt.drop).apply(in, tt.rng, false)
			if got := slices.Sorted(maps.Keys(out)); !slices.Equal(got, tt.want) {
				t.Errorf("passes %q\nwant   %q", got, tt.want)
			}
		})
	}
}

func TestFilterResponse(t *testing.T) {
	h := http.Header{
		"Access-Control-Allow-Origin": {"*"},
		"Alt-Svc":                     {`h3=":443"`},
		"Clear-Site-Data":             {"*"},
		"Connection":                  {"X-Hop, keep-alive"},
		"Content-Security-Policy":     {"default-src *"},
		"Content-Type":                {"text/html"},
		"Retry-After":                 {"3"},
		"Server":                      {"x"},
		"Set-Cookie":                  {"a=b"},
		"Strict-Transport-Security":   {"max-age=1"},
		"Vault-Error":                 {"POLICY_DENY"},
		"Via":                         {"1.1 x"},
		"X-Hop":                       {"1"},
		"X-Ratelimit-Remaining":       {"7"},
	}
	want := []string{"Content-Security-Policy", "Content-Type", "Retry-After", "X-Content-Type-Options", "X-Ratelimit-Remaining"}
	kept := h.Clone()
	filterResponse(h, false)
	if got := slices.Sorted(maps.Keys(h)); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := h.Get("Content-Security-Policy"); got != "sandbox" {
		t.Errorf("Content-Security-Policy: %s", got)
	}
	filterResponse(kept, true)
	if got := kept.Get("Set-Cookie"); got != "a=b" {
		t.Errorf("Set-Cookie: %q", got)
	}
}

func TestRewriter(t *testing.T) {
	must := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	request := must("https://api.example.com/v1/things/1?page=1")
	rw := rewriter{origin: must("https://api.example.com"), base: "/v1", prefix: "/proxy/ex"}
	from := httptest.NewRequest("GET", "https://vault.example.com/proxy/ex/things/1?page=1", nil)
	tests := []struct{ in, want string }{
		{"/v1/things/2", "/proxy/ex/things/2"},
		{"https://api.example.com/v1/things/2?q=1#f", "/proxy/ex/things/2?q=1#f"},
		{"https://API.example.com:443/v1/things%2F2", "/proxy/ex/things%2F2"},
		{"2", "/proxy/ex/things/2"},
		{"?page=2", "/proxy/ex/things/1?page=2"},
		{"https://api.example.com/v1", "/proxy/ex/"},
		{"https://api.example.com/v2/x", ""},
		{"https://api.example.com/v1x", ""},
		{"http://api.example.com/v1/x", ""},
		{"https://api.example.com:8443/v1/x", ""},
		{"https://evil.example/v1/x", ""},
		{"//evil.example/v1/x", ""},
		{"https://user:pass@api.example.com/v1/x", ""},
		{"javascript:alert(1)", ""},
		{"https://api.example.com\\@evil.example/v1", ""},
		{"%zz", ""},
	}
	for _, tt := range tests {
		h := http.Header{"Location": {tt.in}}
		rw.apply(h, request, from)
		if got := h.Get("Location"); got != tt.want {
			t.Errorf("Location: %s becomes %q, want %q", tt.in, got, tt.want)
		}
	}

	h := http.Header{"Link": {
		`<https://api.example.com/v1/things?page=2>; rel="next", <https://evil.example/x>; rel="a,b", </v1/things?page=9>; rel="last"; title="a, <b>"`,
	}}
	rw.apply(h, request, from)
	want := `<https://vault.example.com/proxy/ex/things?page=2>; rel="next", <https://vault.example.com/proxy/ex/things?page=9>; rel="last"; title="a, <b>"`
	if got := strings.Join(h["Link"], "|"); got != want {
		t.Errorf("Link: %s\nwant  %s", got, want)
	}

	root := rewriter{origin: must("https://api.example.com")}
	h = http.Header{"Location": {"https://api.example.com//evil.example/x"}}
	root.apply(h, request, from)
	if got := h.Get("Location"); got != "" {
		t.Errorf("a path that reads as a host passes: %s", got)
	}
}

// TestHandOver puts an answer's header behind what is there, as Caddy's proxy
// does.
func TestHandOver(t *testing.T) {
	client := http.Header{"Vary": {"Origin"}, "Alt-Svc": {"h3"}, "X-None": nil}
	res := &http.Response{Header: http.Header{"Vary": {"Accept", "Cookie"}, "Etag": {`"a"`}, "X-None": {"b"}}}
	handOver(res, client)
	want := http.Header{"Vary": {"Origin", "Accept", "Cookie"}, "Alt-Svc": {"h3"}, "X-None": {"b"}, "Etag": {`"a"`}}
	if !reflect.DeepEqual(client, want) {
		t.Errorf("the client gets %v, want %v", client, want)
	}
	if len(res.Header) > 0 {
		t.Errorf("the proxy still has %v", res.Header)
	}
}
