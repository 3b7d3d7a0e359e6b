package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A target is what stands in a request line, and what becomes of it: what the
// upstream's request line has, or the code of the refusal, or that the server
// does not take it for a request or for one of the vault's.
type target struct {
	sent string
	then string
}

const (
	notHTTP  = "!400"  // the server's own answer: it is no request
	notVault = "!next" // the site's next handler answers
)

// targets are sent to a service whose base URL ends in /v1, with
// GET /public/* for everybody, GET /admin/* for a scope that the token does
// not have, GET /things/{id}, and GET /files/{path...}.
var targets = []target{
	// What must pass, and as it is.
	{"/proxy/svc/public/a", "/v1/public/a"},
	{"/proxy/svc/public/a/", "/v1/public/a/"},
	{"/proxy/svc/public//a", "/v1/public//a"},
	{"/proxy/svc/public/a//b", "/v1/public/a//b"},
	{"/proxy/svc/public/a%2Fb", "/v1/public/a%2Fb"},
	{"/proxy/svc/public/a%2fb", "/v1/public/a%2fb"},
	{"/proxy/svc/public/caf%C3%A9", "/v1/public/caf%C3%A9"},
	{"/proxy/svc/public/caf%c3%a9", "/v1/public/caf%c3%a9"},
	{"/proxy/svc/public/%E2%80%AE", "/v1/public/%E2%80%AE"},
	{"/proxy/svc/public/%61dmin", "/v1/public/%61dmin"},
	{"/proxy/svc/public/100%25", "/v1/public/100%25"},
	{"/proxy/svc/public/a;v=1", "/v1/public/a;v=1"},
	{"/proxy/svc/public/a@b", "/v1/public/a@b"},
	{"/proxy/svc/public/a:b", "/v1/public/a:b"},
	{"/proxy/svc/public/a&b=c,d+e!$'()*", "/v1/public/a&b=c,d+e!$'()*"},
	{"/proxy/svc/public/[a]", "/v1/public/[a]"},
	{"/proxy/svc/public/%5Ba%5D", "/v1/public/%5Ba%5D"},
	{"/proxy/svc/public/%7Ea", "/v1/public/%7Ea"},
	{"/proxy/svc/public/a%20b", "/v1/public/a%20b"},
	{"/proxy/svc/public/a%23b", "/v1/public/a%23b"},
	{"/proxy/svc/public/a%3Fb", "/v1/public/a%3Fb"},
	{"/proxy/svc/public/...", "/v1/public/..."},
	{"/proxy/svc/public/.hidden", "/v1/public/.hidden"},
	{"/proxy/svc/public/a..b", "/v1/public/a..b"},
	{"/proxy/svc/public/http://evil.example/", "/v1/public/http://evil.example/"},
	{"/proxy/svc/public/proxy/svc/admin", "/v1/public/proxy/svc/admin"},
	{"/proxy/svc/public/{http.request.host}", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%7Bhttp.request.host%7D", "/v1/public/%7Bhttp.request.host%7D"},
	{"/proxy/svc/public/{env.HOME}", "PARAM_INVALID:path"},
	{"/proxy/svc/public/a?", "/v1/public/a"},
	{"/proxy/svc/public/a??", "/v1/public/a??"},
	{"/proxy/svc/public/a?x=../../admin", "/v1/public/a?x=../../admin"},
	{"/proxy/svc/public/a?x=%2e%2e%2f&y=%00%zz;z", "/v1/public/a?x=%2e%2e%2f&y=%00%zz;z"},
	{"/proxy/svc/public/a?x={env.HOME}\\\"<é>|^`", "/v1/public/a?x={env.HOME}\\\"<é>|^`"},
	{"/proxy/svc/things/1", "/v1/things/1"},
	{"/proxy/svc/things/1%2F2", "/v1/things/1%2F2"},
	{"/proxy/svc/files/a%2Fb/c", "/v1/files/a%2Fb/c"},

	// To the protected part by dots: plain, encoded, twice, behind other
	// separators.
	{"/proxy/svc/public/../admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/./a", "PARAM_INVALID:path"},
	{"/proxy/svc/public/..", "PARAM_INVALID:path"},
	{"/proxy/svc/public/.", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%2e%2e/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%2E%2E/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%2E%2e/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/.%2e/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%2e./admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%2e", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%252e%252e/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%252E%252E%252Fadmin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%2e%252e/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/..%2fadmin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/..%2Fadmin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/..%252fadmin", "PARAM_INVALID:path"},
	{"/proxy/svc/public%2f..%2fadmin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/..;/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/..;x=1/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/.;/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/..%3b/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/..%5cadmin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/..%255cadmin", "PARAM_INVALID:path"},
	{`/proxy/svc/public/..\admin`, "PARAM_INVALID:path"},
	{`/proxy/svc/public\..\admin`, "PARAM_INVALID:path"},
	{`/proxy/svc\public`, "UNKNOWN_SERVICE"},
	{"/proxy/svc/public/a%5Cb", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%c0%ae%c0%ae/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/..%c0%afadmin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%e0%80%ae%e0%80%ae/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%f0%80%80%ae/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%25c0%25ae/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/..", "PARAM_INVALID:path"},
	{"/proxy/svc/../..", "PARAM_INVALID:path"},
	{"/proxy/svc/../../v2/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/things/..", "PARAM_INVALID:path"},
	{"/proxy/svc/things/%2e%2e%2fadmin", "PARAM_INVALID:path"},
	{"/proxy/svc/files/a/../../admin", "PARAM_INVALID:path"},
	{"/proxy/svc/files/a%2f..%2f..%2fadmin", "PARAM_INVALID:path"},

	// By what stands for a letter, or for nothing, at lax servers.
	{"/proxy/svc/admin", "NO_ENDPOINT"},
	{"/proxy/svc/admin/", "INSUFFICIENT_SCOPE:svc:admin"},
	{"/proxy/svc/admin/x", "INSUFFICIENT_SCOPE:svc:admin"},
	{"/proxy/svc/%61dmin/x", "NO_ENDPOINT"},
	{"/proxy/svc//admin/x", "NO_ENDPOINT"},
	{"/proxy/svc/;/admin/x", "NO_ENDPOINT"},
	{"/proxy/svc/Admin/x", "NO_ENDPOINT"},
	{"/proxy/svc/public", "NO_ENDPOINT"},
	{"/proxy/svc/publicx", "NO_ENDPOINT"},
	{"/proxy/svc/PUBLIC/a", "NO_ENDPOINT"},
	{"/proxy/svc/public%2Fa", "NO_ENDPOINT"},
	{"/proxy/svc/things/", "NO_ENDPOINT"},
	{"/proxy/svc/things/1/2", "NO_ENDPOINT"},
	{"/proxy/svc/things", "NO_ENDPOINT"},
	{"/proxy/svc", "NO_ENDPOINT"},
	{"/proxy/svc/", "NO_ENDPOINT"},
	{"/proxy/svc/v1/public/a", "NO_ENDPOINT"},

	// Control characters, encoded and not, and bad escapes.
	{"/proxy/svc/public/%00", "PARAM_INVALID:path"},
	{"/proxy/svc/public/a%00.html", "PARAM_INVALID:path"},
	{"/proxy/svc/public/a%2500", "PARAM_INVALID:path"},
	{"/proxy/svc/public/a%0d%0aHost:%20evil", "PARAM_INVALID:path"},
	{"/proxy/svc/public/a%250d%250a", "PARAM_INVALID:path"},
	{"/proxy/svc/public/a%09b", "PARAM_INVALID:path"},
	{"/proxy/svc/public/a%7f", "PARAM_INVALID:path"},
	{"/proxy/svc/public/a\x00b", notHTTP},
	{"/proxy/svc/public/a\tb", notHTTP},
	{"/proxy/svc/public/a b", notHTTP},
	{"/proxy/svc/public/a\x7fb", notHTTP},
	{"/proxy/svc/public/a\rb", notHTTP},
	{"/proxy/svc/public/a\r\nX-Injected: 1\r\nX-Rest:", notHTTP},
	{"/proxy/svc/public/a\nX-Injected: 1", notHTTP},
	{"/proxy/svc/public/%", notHTTP},
	{"/proxy/svc/public/%2", notHTTP},
	{"/proxy/svc/public/%zz", notHTTP},
	{"/proxy/svc/public/%%32%65", notHTTP},
	{"/proxy/svc/public/%u002e%u002e/admin", notHTTP},
	{"/proxy/svc/public/%2", notHTTP},

	// What belongs encoded, and fragments.
	{"/proxy/svc/public/é", "PARAM_INVALID:path"},
	{"/proxy/svc/public/\xff", "PARAM_INVALID:path"},
	{"/proxy/svc/public/\xc0\xae\xc0\xae/admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/．．/admin", "PARAM_INVALID:path"}, // full-width dots
	{`/proxy/svc/public/a"b`, "PARAM_INVALID:path"},
	{"/proxy/svc/public/<a>", "PARAM_INVALID:path"},
	{"/proxy/svc/public/a|b^c`", "PARAM_INVALID:path"},
	{"/proxy/svc/public/a#b", "PARAM_INVALID:path"},
	{"/proxy/svc/public/a#/../../admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/a?b#c", "PARAM_INVALID:query"},
	{"/proxy/svc#/public/a", "UNKNOWN_SERVICE"},

	// Another service, or none.
	{"/proxy/", "UNKNOWN_SERVICE"},
	{"/proxy//svc/public/a", "UNKNOWN_SERVICE"},
	{"/proxy/svc%2fpublic/a", "UNKNOWN_SERVICE"},
	{"/proxy/%73vc/public/a", "UNKNOWN_SERVICE"},
	{"/proxy/SVC/public/a", "UNKNOWN_SERVICE"},
	{"/proxy/svc./public/a", "UNKNOWN_SERVICE"},
	{"/proxy/svc;/public/a", "UNKNOWN_SERVICE"},
	{"/proxy/svc%00/public/a", "UNKNOWN_SERVICE"},
	{"/proxy/svc%2f..%2fother/public/a", "UNKNOWN_SERVICE"},
	{"/proxy/../proxy/svc/public/a", "UNKNOWN_SERVICE"},
	{"/proxy/..%2fsvc/public/a", "UNKNOWN_SERVICE"},
	{"/proxy/./svc/public/a", "UNKNOWN_SERVICE"},
	{"/proxy/svc@evil.example/public/a", "UNKNOWN_SERVICE"},
	{"/proxy/evil.example:80/", "UNKNOWN_SERVICE"},
	{"/proxy/other/public/a", "SERVICE_MISMATCH"},
	{"/proxy/svc/../other/public/a", "PARAM_INVALID:path"},
	{"/proxy%2fsvc/public/a", "UNKNOWN_SERVICE"},
	{"/%70roxy/svc/public/a", "UNKNOWN_SERVICE"},

	// Not below /proxy/, whatever a lax reader makes of it.
	{"/proxy", notVault},
	{"//proxy/svc/public/a", notVault},
	{"/./proxy/svc/public/a", notVault},
	{"/x/../proxy/svc/public/a", notVault},
	{"/PROXY/svc/public/a", notVault},
	{`/\proxy/svc/public/a`, notVault},
	{"/", notVault},
	{"//evil.example/proxy/svc/public/a", notVault},

	// Other forms of a target.
	{"http://127.0.0.1/proxy/svc/public/a", "/v1/public/a"},
	{"http://evil.example/proxy/svc/public/a", "HOST_DENIED"},
	{"http://127.0.0.1@evil.example/proxy/svc/public/a", "HOST_DENIED"},
	{"ftp://127.0.0.1/proxy/svc/public/a", "/v1/public/a"},
	{"http:/proxy/svc/public/a", "/v1/public/a"},
	{"http:proxy/svc/public/a", notVault},
	{"proxy/svc/public/a", notHTTP},
	{"*", notVault},
	{"127.0.0.1:80", notHTTP},
	{"?/proxy/svc/public/a", notHTTP},
	{"", notHTTP},

	// Long ones.
	{"/proxy/svc/public/" + strings.Repeat("a", 4000), "/v1/public/" + strings.Repeat("a", 4000)},
	{"/proxy/svc/public/" + strings.Repeat("a", 9000), "PATH_TOO_LONG"},
	{"/proxy/svc/public/" + strings.Repeat("%2e%2e%2f", 500) + "admin", "PARAM_INVALID:path"},
	{"/proxy/svc/public/%" + strings.Repeat("25", 1000) + "2e%" + strings.Repeat("25", 1000) + "2e/admin", "/v1/public/%" + strings.Repeat("25", 1000) + "2e%" + strings.Repeat("25", 1000) + "2e/admin"},
}

// TestHostilePaths sends targets as they are over a socket to the program.
func TestHostilePaths(t *testing.T) {
	t.Parallel()
	s := prepare(t, config{global: "servers {\n protocols h1 h2c\n }", sites: `
http://:$PORT {
	bind 127.0.0.1
	vault
	respond "the site's own" 404
}`})
	s.start()
	other := newUpstream(t)
	for name, base := range map[string]string{"svc": s.up.URL + "/v1", "other": other.URL} {
		s.ok("/vault.admin.addService", fmt.Sprintf(`{"service":%q,"baseUrl":%q,"masterSecret":%s,"allowedAgents":["*"],"allowedActions":["*"],
			"allowedScopes":["svc:read","svc:admin"],"endpoints":{
			"public":{"method":"GET","path":"/public/*"},
			"admin":{"method":"GET","path":"/admin/*","requiredScope":["svc:admin"]},
			"thing":{"method":"GET","path":"/things/{id}"},
			"file":{"method":"GET","path":"/files/{path...}"}}}`, name, base, quote(secret)), nil)
	}
	token := s.issue("main", "svc", "svc:read")

	hostile := 0
	for _, c := range targets {
		if !strings.HasPrefix(c.then, "/") {
			hostile++
		}
		name := c.sent
		if len(name) > 60 {
			name = fmt.Sprintf("%s…%d", name[:60], len(name))
		}
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			s.hostile(t, c, func() (int, http.Header, string) { return s.raw(t, "GET", c.sent, token) })
		})
	}
	if hostile < 60 {
		t.Errorf("only %d hostile targets", hostile)
	}
	t.Run("CONNECT", func(t *testing.T) {
		s.hostile(t, target{then: "NO_ENDPOINT"}, func() (int, http.Header, string) {
			return s.raw(t, "CONNECT", "/proxy/svc/public/a", token)
		})
		s.hostile(t, target{then: notVault}, func() (int, http.Header, string) {
			return s.raw(t, "CONNECT", "upstream.example:443", token)
		})
	})
	for _, method := range []string{"get", "TRACE", "OPTIONS", "PROPFIND", "POST", "G-E-T"} {
		t.Run(method, func(t *testing.T) {
			s.hostile(t, target{then: "NO_ENDPOINT"}, func() (int, http.Header, string) {
				return s.raw(t, method, "/proxy/svc/public/a", token)
			})
		})
	}
	for _, c := range h2Targets {
		t.Run(fmt.Sprintf("HTTP2 %q", c.fields), func(t *testing.T) {
			s.hostile(t, c.target, func() (int, http.Header, string) { return s.rawH2(t, c.fields, token) })
		})
	}
	if n := other.count(); n != 0 {
		t.Errorf("the other service saw %d requests", n)
	}
}

// hostile does a request and looks at what has become of it.
func (s *server) hostile(t *testing.T, c target, do func() (status int, h http.Header, body string)) {
	t.Helper()
	before := s.up.count()
	_, end := s.auditLog(0)
	status, h, body := do()
	code := h.Get("Vault-Error")
	sent := s.up.count() - before
	switch {
	case strings.HasPrefix(c.then, "/"):
		if status != 200 || sent != 1 {
			t.Fatalf("%d %s, and %d requests", status, body, sent)
		}
		if got := s.up.last(t).uri; got != c.then {
			t.Errorf("on the wire: %q", got)
		}
		return
	case c.then == notHTTP:
		if status != 400 && status != 0 || code != "" {
			t.Errorf("%d %s %s", status, code, body)
		}
	case c.then == notVault:
		if status != 404 || code != "" || body != "the site's own" {
			t.Errorf("%d %s %q", status, code, body)
		}
	default:
		if code != c.then {
			t.Fatalf("%d %s %s", status, code, body)
		}
		event := "proxy.call"
		if code == "HOST_DENIED" {
			event = "request"
		}
		s.checkDenied(t, refusal{code: c.then, event: event}, "", end)
	}
	if sent != 0 {
		t.Errorf("the upstream saw %q", s.up.last(t).uri)
	}
	s.barrier()
	records, _ := s.auditLog(end)
	for _, r := range records {
		if strings.HasPrefix(r.text("event"), "proxy.call.started") || strings.HasPrefix(c.then, "!") && strings.HasSuffix(r.text("event"), ".denied") {
			t.Errorf("recorded: %v", r)
		}
	}
}

// raw sends a request line as it is and reads the answer.
func (s *server) raw(t *testing.T, method, target, token string) (int, http.Header, string) {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience)) // a TCP connection has deadlines
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", method, target, token); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(body)
}
