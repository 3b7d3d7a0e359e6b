package handlers

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault/policy"
)

// withAuth is a service with these members.
func withAuth(t testing.TB, members string) *policy.Compiled {
	t.Helper()
	base := `"baseUrl":"https://api.example.com/v2/x{secret}y/z",`
	if !strings.Contains(members, `"path"`) {
		base = `"baseUrl":"https://api.example.com/v2",`
	}
	svc, err := policy.ParseService("svc", []byte(`{`+base+`"secretRef":"key","allowedAgents":["*"],"allowedActions":["*"],
		"allowedScopes":["s"],"endpoints":{"a":{"method":"POST","path":"/a","body":"form"}},`+members+`}`))
	if err != nil {
		t.Fatal(err)
	}
	return svc
}

const tok, tok2 = "eyJh.eyJi.cc", "eyJh.eyJi.dd"

func basicOf(user, password string) http.Header {
	return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}}
}

var (
	headerService = `"authHeader":"x-api-key"`
	wordsService  = `"auth":[{"in":"header","name":"x-auth","value":"Token token={secret};"},{"in":"header","name":"x-second","value":"{secret:other}"}]`
	basicService  = `"auth":[{"in":"basic","user":"u","password":"{secret}"}]`
	queryService  = `"auth":[{"in":"query","name":"api_key"},{"in":"query","name":"app","value":"{secret:other}"}]`
	pathService   = `"auth":[{"in":"path"}]`
	formService   = `"auth":[{"in":"body","name":"token"}]`
)

func TestTakeToken(t *testing.T) {
	for _, tt := range []struct {
		name    string
		service string // none: unknown
		header  http.Header
		path    string // default /a
		query   string
		want    string
		rest    string // of the path, default path
		kept    string // of the query
		code    string
	}{
		{name: "none", service: headerService},
		{name: "Bearer", header: http.Header{"Authorization": {"Bearer " + tok}}, want: tok},
		{name: "bearer", header: http.Header{"Authorization": {"bearer  " + tok + " "}}, want: tok},
		{name: "token", service: queryService, header: http.Header{"Authorization": {"token " + tok}}, want: tok},
		{name: "bare", service: headerService, header: http.Header{"Authorization": {tok}}, want: tok},
		{name: "Basic where the service's own is that", service: `"authScheme":"Basic"`, header: basicOf("x", tok), want: tok},
		{name: "Basic user", header: basicOf(tok, ""), want: tok},
		{name: "Basic user and a word", header: basicOf(tok, "x-oauth-basic"), want: tok},
		{name: "Basic password", service: basicService, header: basicOf("x", tok), want: tok},
		{name: "Basic password alone", header: basicOf("", tok), want: tok},
		{name: "Basic twice the same", header: basicOf(tok, tok), want: tok},
		{name: "Basic two", header: basicOf(tok, tok2), code: "TOKEN_INVALID"},
		{name: "service header", service: headerService, header: http.Header{"X-Api-Key": {tok}}, want: tok},
		{name: "service header with a scheme", service: headerService, header: http.Header{"X-Api-Key": {"Bearer " + tok}}, want: tok},
		{name: "the vendor's words around it", service: wordsService, header: http.Header{"X-Auth": {"Token token=" + tok + ";"}}, want: tok},
		{name: "the second header", service: wordsService, header: http.Header{"X-Second": {tok}}, want: tok},
		{name: "both headers", service: wordsService, header: http.Header{"X-Auth": {tok}, "X-Second": {tok2}}, code: "TOKEN_INVALID"},
		{name: "own header", header: http.Header{"Vault-Token": {tok}}, want: tok},
		{name: "everywhere the same", service: headerService, header: http.Header{"Vault-Token": {tok}, "X-Api-Key": {tok}, "Authorization": {"Bearer " + tok}}, want: tok},
		{name: "two", header: http.Header{"Vault-Token": {tok}, "Authorization": {"Bearer " + tok2}}, code: "TOKEN_INVALID"},
		{name: "two of one name", header: http.Header{"Authorization": {"Bearer " + tok, "Bearer " + tok2}}, code: "TOKEN_INVALID"},
		{name: "another service's header", service: headerService, header: http.Header{"X-Other-Key": {tok}}},
		{name: "an unknown service's header", header: http.Header{"X-Api-Key": {tok}}},

		{name: "subprotocol", header: http.Header{"Sec-Websocket-Protocol": {"realtime, openai-insecure-api-key." + tok + ", openai-beta.realtime-v1"}}, want: tok},
		{name: "subprotocol, alone", header: http.Header{"Sec-Websocket-Protocol": {"chat", tok}}, want: tok},
		{name: "subprotocol, behind dots", header: http.Header{"Sec-Websocket-Protocol": {"a.b.c." + tok}}, want: tok},
		{name: "subprotocol, twice", header: http.Header{"Sec-Websocket-Protocol": {"a." + tok + ",b." + tok2}}, code: "TOKEN_INVALID"},
		{name: "subprotocol and header", header: http.Header{"Sec-Websocket-Protocol": {"a." + tok}, "Vault-Token": {tok2}}, code: "TOKEN_INVALID"},
		{name: "subprotocol, no token", header: http.Header{"Sec-Websocket-Protocol": {"key.sk-1234, eyJ, xeyJh.eyJi.cc, ,"}}},

		{name: "query", service: queryService, query: "api_key=" + tok, want: tok},
		{name: "query, among others", service: queryService, query: "a=%2F&&api_key=" + tok + "&b=1+2&c", want: tok, kept: "a=%2F&&b=1+2&c"},
		{name: "query, encoded", service: queryService, query: "a=1&%61pi_key=" + url.QueryEscape(tok) + "&z", want: tok, kept: "a=1&z"},
		{name: "query, another case", service: queryService, query: "API_Key=" + tok + "&z", want: tok, kept: "z"},
		{name: "query, twice the same", service: queryService, query: "api_key=" + tok + "&a&api_key=" + tok, want: tok, kept: "a"},
		{name: "query, twice", service: queryService, query: "api_key=" + tok + "&api_key=" + tok2, code: "TOKEN_INVALID"},
		{name: "query, the second place", service: queryService, query: "app=" + tok, want: tok},
		{name: "query, empty", service: queryService, query: "api_key=&a=1", header: http.Header{"Vault-Token": {tok}}, want: tok, kept: "a=1"},
		{name: "query and header", service: queryService, query: "api_key=x", header: http.Header{"Vault-Token": {tok}}, code: "TOKEN_INVALID"},
		{name: "query, in brackets", service: queryService, query: "api_key[]=" + tok, code: "PARAM_INVALID:api_key[]"},
		{name: "query, a dot for it", service: queryService, query: "api.key=x&api_key=" + tok, code: "PARAM_INVALID:api.key"},
		{name: "query, behind a semicolon", service: queryService, query: "a=1;api_key=x", code: "PARAM_INVALID:api_key"},
		{name: "query, before a semicolon", service: queryService, query: "api_key=" + tok + ";a=1", code: "PARAM_INVALID:api_key"},
		{name: "query, encoded twice", service: queryService, query: "api%255fkey=x", code: "PARAM_INVALID:api_key"},
		{name: "query of a form's field", service: formService, query: "token=" + tok, code: "PARAM_INVALID:token"},
		{name: "query of another service", service: headerService, query: "api_key=" + tok, kept: "api_key=" + tok},

		{name: "path", service: pathService, path: "/x" + tok + "y/z/a", want: tok, rest: "/a"},
		{name: "path, all of it", service: pathService, path: "/v2/x" + tok + "y/z/a%2Fb", want: tok, rest: "/a%2Fb"},
		{name: "path, nothing below", service: pathService, path: "/x" + tok + "y/z", want: tok, rest: "/"},
		{name: "path, encoded", service: pathService, path: "/x%65yJh.eyJi.ccy/z/a", want: tok, rest: "/a"},
		{name: "path, and a header", service: pathService, path: "/x" + tok + "y/z/a", header: http.Header{"Vault-Token": {tok2}}, rest: "/a", code: "TOKEN_INVALID"},
		{name: "path, elsewhere", service: pathService, path: "/q" + tok + "y/z/a"},
		{name: "path, not the rest of it", service: pathService, path: "/x" + tok + "y/zz/a"},
		{name: "path, no token", service: pathService, path: "/x123y/z/a", header: http.Header{"Vault-Token": {tok}}, want: tok},
		{name: "path of another service", service: headerService, path: "/x" + tok + "y/z/a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var svc *policy.Compiled
			if tt.service != "" {
				svc = withAuth(t, tt.service)
			}
			if tt.path == "" {
				tt.path = "/a"
			}
			if tt.rest == "" {
				tt.rest = tt.path
			}
			got, refused := takeToken(tt.header, svc, tt.path, tt.query)
			if code(refused) != tt.code {
				t.Fatalf("%q, want %q", code(refused), tt.code)
			}
			if tt.code != "" {
				return
			}
			if got.token != tt.want || got.path != tt.rest || got.query != tt.kept {
				t.Errorf("token %q, path %q, query %q", got.token, got.path, got.query)
			}
		})
	}
}

// FuzzTakeToken looks for a query that still has the credential's own
// parameter, or that was changed though it had none.
func FuzzTakeToken(f *testing.F) {
	for _, s := range []string{"a=1&api_key=" + tok, "api_key", "%61pi_key=x&b", "a;b&&c=%zz", "API-KEY=1", "a=api_key"} {
		f.Add(s, "/x"+tok+"y/z/a")
	}
	svc := withAuth(f, `"auth":[{"in":"query","name":"api_key"},{"in":"path"}]`)
	f.Fuzz(func(t *testing.T, query, path string) {
		got, refused := takeToken(nil, svc, path, query)
		if refused != nil {
			return
		}
		kept := strings.Split(query, "&")
		for pair := range strings.SplitSeq(got.query, "&") {
			name, _, _ := strings.Cut(pair, "=")
			if decoded, err := url.QueryUnescape(name); err == nil && svc.Reserved(decoded) {
				t.Fatalf("%q leaves %q", query, got.query)
			}
			found := got.query == ""
			for _, k := range kept {
				found = found || k == pair
			}
			if !found {
				t.Fatalf("%q becomes %q", query, got.query)
			}
		}
		if got.token == "" && (got.path != path || !strings.Contains(query, "=") && got.query != query && !strings.Contains(strings.ToLower(query), "key")) {
			t.Fatalf("%q %q become %q %q without a token", path, query, got.path, got.query)
		}
	})
}
