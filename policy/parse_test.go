package policy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
)

// minimal is a service file with the members given in place of its own.
func minimal(members ...string) string {
	base := []string{
		`"baseUrl":"https://api.example.com"`, `"allowedAgents":["main"]`, `"allowedActions":["issue","a"]`,
		`"allowedScopes":["s:read"]`, `"endpoints":{"a":{"method":"GET","path":"/a"}}`,
	}
	out := []string{}
	for _, b := range base {
		key, _, _ := strings.Cut(b, ":")
		replaced := false
		for _, m := range members {
			replaced = replaced || strings.HasPrefix(m, key+":") || m == "-"+key
		}
		if !replaced {
			out = append(out, b)
		}
	}
	for _, m := range members {
		if !strings.HasPrefix(m, "-") {
			out = append(out, m)
		}
	}
	return "{" + strings.Join(out, ",") + "}"
}

// endpoint is a service file with one endpoint.
func endpoint(e string) string { return minimal(`"endpoints":{"a":` + e + `}`) }

func base(u string) string { return minimal(`"baseUrl":"` + u + `"`) }

func proxy(s string) string { return minimal(`"reverseProxy":` + s) }

var badServices = []struct{ data, code string }{
	// JSON.
	{``, "JSON_INVALID"},
	{`[]`, "JSON_INVALID"},
	{`null`, "JSON_INVALID"},
	{`{`, "JSON_INVALID"},
	{minimal() + "x", "JSON_INVALID"},
	{minimal(`"a":"` + "\xff" + `"`), "JSON_INVALID"},
	{minimal(`"scrub":"on"`, `"scrub":"off"`), "JSON_DUPLICATE_KEY"},
	{minimal(`"endpoints":{"a":{"method":"GET","path":"/a"},"a":{"method":"GET","path":"/b"}}`), "JSON_DUPLICATE_KEY"},
	{minimal(`"nope":1`), "FIELD_UNKNOWN:nope"},
	{minimal(`"baseurl":"x"`), "FIELD_UNKNOWN:baseurl"},
	{minimal(`"masterSecret":"x"`), "FIELD_UNKNOWN:masterSecret"},
	{minimal(`"headers":{"X-A":1}`), "HEADERS_INVALID"},
	{minimal(`"a\u000d\u000aX: y":1`), "FIELD_UNKNOWN:a??X:?y"},
	{minimal(`"service":"other"`), "SERVICE_INVALID"},
	{endpoint(`{"method":"GET","path":"/a","nope":1}`), "FIELD_UNKNOWN:nope"},
	{endpoint(`{"method":"GET","path":5}`), "ENDPOINT_INVALID:a"},
	{endpoint(`[]`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/a","requiredScope":"s"}`), "ENDPOINT_INVALID:a"},
	{minimal(`"allowedAgents":"main"`), "ALLOWEDAGENTS_INVALID"},
	{minimal(`"allowedAgents":[1]`), "ALLOWEDAGENTS_INVALID"},
	{minimal(`"timeouts":{"total":30}`), "TIMEOUTS_INVALID"},
	{minimal(`"timeouts":{"total":"-1s"}`), "TIMEOUTS_INVALID"},
	{minimal(`"timeouts":{"total":"soon"}`), "TIMEOUTS_INVALID"},
	{minimal(`"timeouts":{"nope":"1s"}`), "FIELD_UNKNOWN:nope"},

	// Required.
	{minimal(`-"baseUrl"`), "BASEURL_REQUIRED"},
	{minimal(`-"allowedAgents"`), "ALLOWEDAGENTS_REQUIRED"},
	{minimal(`"allowedAgents":null`), "ALLOWEDAGENTS_REQUIRED"},
	{minimal(`-"allowedActions"`), "ALLOWEDACTIONS_REQUIRED"},
	{minimal(`-"endpoints"`), "ENDPOINTS_REQUIRED"},
	{minimal(`"endpoints":{}`), "ENDPOINTS_REQUIRED"},
	{minimal(`"endpoints":{"_comment":"x"}`), "ENDPOINTS_REQUIRED"},

	// Base URLs.
	{base("api.example.com"), "BASEURL_INVALID"},
	{base("//api.example.com"), "BASEURL_INVALID"},
	{base("ftp://api.example.com"), "BASEURL_INVALID"},
	{base("http://api.example.com"), "BASEURL_INVALID"},
	{base("http://127.0.0.1.evil.com"), "BASEURL_INVALID"},
	{base("http://localhost.evil.com"), "BASEURL_INVALID"},
	{base("http://10.0.0.1"), "BASEURL_INVALID"},
	{base("https:///path"), "BASEURL_INVALID"},
	{base("https:api.example.com"), "BASEURL_INVALID"},
	{base("https://user@api.example.com"), "BASEURL_INVALID"},
	{base("https://user:pw@api.example.com"), "BASEURL_INVALID"},
	{base("https://@api.example.com"), "BASEURL_INVALID"},
	{base("https://api.example.com?x=1"), "BASEURL_INVALID"},
	{base("https://api.example.com/?"), "BASEURL_INVALID"},
	{base("https://api.example.com/#"), "BASEURL_INVALID"},
	{base("https://api.example.com."), "BASEURL_INVALID"},
	{base("https://api..example.com"), "BASEURL_INVALID"},
	{base("https://-api.example.com"), "BASEURL_INVALID"},
	{base("https://api.example.com:"), "BASEURL_INVALID"},
	{base("https://api.example.com:0"), "BASEURL_INVALID"},
	{base("https://api.example.com:65536"), "BASEURL_INVALID"},
	{base("https://api.example.com:0443"), "BASEURL_INVALID"},
	{base("https://api.example.com:+1"), "BASEURL_INVALID"},
	{base("https://api.example.com:x"), "BASEURL_INVALID"},
	{base("https://api%2eexample.com"), "BASEURL_INVALID"},
	{base(`https://api.example.com\\@evil.com`), "BASEURL_INVALID"},
	{base("https://api example.com"), "BASEURL_INVALID"},
	{base(`https://api.example.com\u0000`), "BASEURL_INVALID"},
	{base(`https://api.example.com/\n`), "BASEURL_INVALID"},
	{base("https://0x7f.1"), "BASEURL_INVALID"},
	{base("https://0x7f000001"), "BASEURL_INVALID"},
	{base("https://127.1"), "BASEURL_INVALID"},
	{base("https://2130706433"), "BASEURL_INVALID"},
	{base("https://0177.0.0.1"), "BASEURL_INVALID"},
	{base("https://127.0.0.01"), "BASEURL_INVALID"},
	{base("https://1.2.3.4.5"), "BASEURL_INVALID"},
	{base("https://[::1%25eth0]"), "BASEURL_INVALID"},
	{base("https://[::ffff:127.0.0.1]"), "BASEURL_INVALID"},
	{base("https://[127.0.0.1]"), "BASEURL_INVALID"},
	{base("https://[::1"), "BASEURL_INVALID"},
	{base("https://[::1]x"), "BASEURL_INVALID"},
	{base("https://::1"), "BASEURL_INVALID"},
	{base("https://169.254.169.254"), "BASEURL_INVALID"},
	{base("https://０x7f.1"), "BASEURL_INVALID"},
	{base("https://１２７.1"), "BASEURL_INVALID"},
	{base("https://169。254。169。254"), "BASEURL_INVALID"},
	{base("https://0.0.0.0"), "BASEURL_INVALID"},
	{base("https://[fe80::1]"), "BASEURL_INVALID"},
	{base("https://[::]"), "BASEURL_INVALID"},
	{base("https://[64:ff9b::a9fe:a9fe]"), "BASEURL_INVALID"},
	{base("https://[2002:a9fe:a9fe::]"), "BASEURL_INVALID"},
	{base("https://[fd00:ec2::254]"), "BASEURL_INVALID"},
	{base("https://api.example.com/a/../b"), "BASEURL_INVALID"},
	{base("https://api.example.com/%2e%2e/b"), "BASEURL_INVALID"},
	{base("https://api.example.com//a"), "BASEURL_INVALID"},
	{base("https://api.example.com/a b"), "BASEURL_INVALID"},
	{base("https://api.example.com/%zz"), "BASEURL_INVALID"},
	{base("https://api.example.com/{x}"), "BASEURL_INVALID"},
	{base("https://{env.HOST}/"), "BASEURL_INVALID"},
	{base("https://" + strings.Repeat("a", 64) + ".com"), "BASEURL_INVALID"},
	{base("https://a.com/" + strings.Repeat("a", maxURL)), "BASEURL_INVALID"},

	// Names.
	{minimal(`"secretRef":"a b"`), "SECRETREF_INVALID"},
	{minimal(`"secretRef":"../x"`), "SECRETREF_INVALID"},
	{minimal(`"secretRef":"` + strings.Repeat("a", 64) + `"`), "SECRETREF_INVALID"},
	{minimal(`"allowedAgents":[""]`), "ALLOWEDAGENTS_INVALID"},
	{minimal(`"allowedAgents":["a\nb"]`), "ALLOWEDAGENTS_INVALID"},
	{minimal(`"allowedActions":["a b"]`), "ALLOWEDACTIONS_INVALID"},
	{minimal(`"allowedActions":["a.*"]`), "ALLOWEDACTIONS_INVALID"},
	{minimal(`"allowedScopes":["a b"]`), "ALLOWEDSCOPES_INVALID"},
	{minimal(`"allowedScopes":[""]`), "ALLOWEDSCOPES_INVALID"},
	{minimal(`"agentScopes":{"*":["s:read"]}`), "AGENTSCOPES_INVALID"},
	{minimal(`"agentScopes":{"main":["a b"]}`), "AGENTSCOPES_INVALID"},
	{minimal(`"agentScopes":{"_comment":"x"}`), "AGENTSCOPES_INVALID"},
	{minimal(`"endpoints":{"-a":{"method":"GET","path":"/a"}}`), "ENDPOINT_INVALID:-a"},
	{minimal(`"endpoints":{"issue":{"method":"GET","path":"/a"}}`), "ENDPOINT_INVALID:issue"},

	// Endpoints.
	{endpoint(`{"path":"/a"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"CONNECT","path":"/a"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"TRACE","path":"/a"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET /b","path":"/a"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"a"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"https://x/"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/a//b"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"//a"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/a/../b"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/%2e%2e"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/a%2Fb"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/a?b"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/a#b"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/a b"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/é"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/{}"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/{a"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/a}"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/{{a}}"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/{a b}"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/{a.b}"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/{a}{b}"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/{a}/{a}"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/x{a...}"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/{a...}/{b...}"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/{a...}/*"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/*/a"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/a*"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/a","body":"xml"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"HEAD","path":"/a","body":"json"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/a","upgrade":"h2c"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"POST","path":"/a","upgrade":"websocket"}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/a","requiredScope":["a b"]}`), "ENDPOINT_INVALID:a"},
	{endpoint(`{"method":"GET","path":"/a","headers":{"Authorization":"x"}}`), "ENDPOINT_INVALID:a"},

	// Headers.
	{minimal(`"authHeader":"X Y"`), "AUTHHEADER_INVALID"},
	{minimal(`"authHeader":"X:Y"`), "AUTHHEADER_INVALID"},
	{minimal(`"authHeader":"host"`), "AUTHHEADER_INVALID"},
	{minimal(`"authHeader":"Content-Length"`), "AUTHHEADER_INVALID"},
	{minimal(`"authHeader":"transfer-encoding"`), "AUTHHEADER_INVALID"},
	{minimal(`"authHeader":"Transfer_Encoding"`), "AUTHHEADER_INVALID"},
	{minimal(`"authHeader":"Connection"`), "AUTHHEADER_INVALID"},
	{minimal(`"authHeader":"Proxy-Authorization"`), "AUTHHEADER_INVALID"},
	{minimal(`"authHeader":"Vault-Token"`), "AUTHHEADER_INVALID"},
	{minimal(`"authScheme":"a b"`), "AUTHSCHEME_INVALID"},
	{minimal(`"authScheme":"a\nb"`), "AUTHSCHEME_INVALID"},
	{minimal(`"headers":{"authorization":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"Cookie":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"Proxy-Authorization":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"Proxy-Foo":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"HOST":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"content-length":"1"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"Transfer-Encoding":"chunked"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"Transfer_Encoding":"chunked"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"Connection":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"Keep-Alive":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"TE":"trailers"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"Upgrade":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"Forwarded":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"X-Forwarded-For":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"X-Original-URL":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"X-HTTP-Method-Override":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"Vault-Token":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"X-Api-Key":"x"}`), "HEADERS_INVALID"},
	{minimal(`"authHeader":"X-Mine"`, `"headers":{"x-mine":"x"}`), "HEADERS_INVALID"},
	{minimal(`"authHeader":"X-Mine"`, `"headers":{"x_mine":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"X A":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"":"x"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"X-A":"a\r\nX-B: c"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"X-A":"a\u0000"}`), "HEADERS_INVALID"},
	{minimal(`"headers":{"X-A":"1","x-a":"2"}`), "HEADERS_INVALID"},
	{minimal(`"passHeaders":["Authorization"]`), "PASSHEADERS_INVALID"},
	{minimal(`"passHeaders":["cookie"]`), "PASSHEADERS_INVALID"},
	{minimal(`"passHeaders":["X-Forwarded-For"]`), "PASSHEADERS_INVALID"},
	{minimal(`"passHeaders":["Connection"]`), "PASSHEADERS_INVALID"},
	{minimal(`"passHeaders":["X-*"]`, `"authHeader":"X-*"`), "PASSHEADERS_INVALID"},
	{minimal(`"passHeaders":["X Y"]`), "PASSHEADERS_INVALID"},
	{minimal(`"authHeader":"X-Mine"`, `"passHeaders":["X-MINE"]`), "PASSHEADERS_INVALID"},
	{minimal(`"dropHeaders":["Content-Length"]`), "DROPHEADERS_INVALID"},
	{minimal(`"dropHeaders":["a b"]`), "DROPHEADERS_INVALID"},

	// Settings.
	{minimal(`"scrub":"maybe"`), "SCRUB_INVALID"},
	{proxy(`[]`), "REVERSEPROXY_INVALID"},
	{proxy(`{"upstreams":[{"dial":"evil:443"}]}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"dynamic_upstreams":{}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"handle_response":[]}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"headers":{"request":{}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"rewrite":{"uri":"/x"}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"verbose_logs":true}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"trusted_proxies":["0.0.0.0/0"]}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"fastcgi"}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","network_proxy":{"from":"url"}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","forward_proxy_url":"http://evil"}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","tls":{"insecure_skip_verify":true}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","tls":{"server_name":"{env.X}"}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","tls":{"server_name":"\u007bx\u007d"}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","tls":{"ca":{"provider":"file","pem_files":["{file./x}"]}}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","versions":["3"]}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","versions":["1.1","2","3"]}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","versions":["h2c"]}}`), "REVERSEPROXY_INVALID"}, // over TLS
	{proxy(`{"transport":{"protocol":"http","versions":["H2C"]}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","versions":[""]}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","versions":"3"}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","versions":["2",3]}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","Versions":["3"]}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","versions":["2"],"versions":["3"]}}`), "JSON_DUPLICATE_KEY"},
	{proxy(`{"transport":{"protocol":"http","resolver":{"addresses":["unix//run/evil.sock"]}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","resolver":{"addresses":["evil.example:53"]}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","resolver":{"addresses":["10.0.0.53:0"]}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","resolver":{"addresses":["10.0.0.53:53-60"]}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","resolver":{"addresses":["fe80::1%eth0"]}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","resolver":{"addresses":[""]}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","resolver":{"addresses":"10.0.0.53"}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"transport":{"protocol":"http","resolver":{"addresses":["10.0.0.53"],"dial":"x"}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"health_checks":{"active":{"upstream":"evil:443"}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"health_checks":{"active":{"headers":{"Authorization":["x"]}}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"load_balancing":{"selection_policy":{"policy":"cookie"}}}`), "REVERSEPROXY_INVALID"},
	{proxy(`{"load_balancing":5}`), "REVERSEPROXY_INVALID"},
}

func TestParseServiceRefuses(t *testing.T) {
	for _, tc := range badServices {
		_, err := ParseService("svc", []byte(tc.data))
		var r *refusal.Refusal
		if !errors.As(err, &r) {
			t.Errorf("%s: %v", tc.data, err)
			continue
		}
		if r.Code != tc.code || r.Status != 400 || r.Detail == "" {
			t.Errorf("%s:\n got %s %d %q\nwant %s", tc.data, r.Code, r.Status, r.Detail, tc.code)
		}
	}
	for _, name := range []string{"", "A", "-a", ".a", "a/b", "..", "a b", strings.Repeat("a", 64)} {
		if _, err := ParseService(name, []byte(minimal())); err == nil {
			t.Errorf("the name %q is accepted", name)
		}
	}
}

func TestParseBaseURL(t *testing.T) {
	for in, want := range map[string][2]string{
		"https://api.example.com":           {"https://api.example.com", ""},
		"https://api.example.com/":          {"https://api.example.com", ""},
		"https://api.example.com/v1/":       {"https://api.example.com", "/v1"},
		"HTTPS://API.Example.COM:443/V1":    {"https://api.example.com", "/V1"},
		"https://api.example.com:8443/a%20": {"https://api.example.com:8443", "/a%20"},
		"https://bücher.example/x":          {"https://xn--bcher-kva.example", "/x"},
		"http://localhost:11434":            {"http://localhost:11434", ""},
		"http://127.0.0.1:80":               {"http://127.0.0.1", ""},
		"http://[::1]:8080/x":               {"http://[::1]:8080", "/x"},
		"https://[0:0:0:0:0:0:0:1]":         {"https://[::1]", ""},
		"https://10.1.2.3":                  {"https://10.1.2.3", ""},
		"https://my_service":                {"https://my_service", ""},
	} {
		c, err := ParseService("svc", []byte(base(in)))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if c.Origin != want[0] || c.Base.EscapedPath() != want[1] || c.Upstream("/x") != want[0]+want[1]+"/x" {
			t.Errorf("%s: got %s and %s", in, c.Origin, c.Base.EscapedPath())
		}
	}
	if _, err := ParseService("svc", []byte(minimal(`"baseUrl":"http://api.internal:8080"`, `"allowPlaintext":true`))); err != nil {
		t.Error(err)
	}
}

func TestParseServiceDefaults(t *testing.T) {
	c, err := ParseService("svc", []byte(minimal(`"_comment":{"any":["thing"]}`, `"service":"svc"`, `"headers":{"_why":"x","accept":"a/b"}`,
		`"endpoints":{"_c":1,"a":{"_c":2,"method":"post","path":"/a","headers":{"Accept":"c/d","_c":"e"}}}`,
		`"timeouts":{"_c":1,"total":"1d","idle":"90s"}`, `"passHeaders":["x-b","X-A","x-a"]`)))
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "svc" || c.SecretRef != "" || c.AuthHeader != "Authorization" || c.AuthScheme != "Bearer" || c.Scrub != "on" {
		t.Errorf("defaults: %+v", c.Service)
	}
	e := c.Endpoint("a")
	if e.Method != "POST" || e.Body != BodyJSON || e.DefaultHeaders["Accept"] != "c/d" || len(e.DefaultHeaders) != 1 {
		t.Errorf("endpoint: %+v", e)
	}
	if c.Headers["Accept"] != "a/b" || len(c.PassHeaders) != 2 || c.PassHeaders[0] != "X-A" {
		t.Errorf("headers: %v %v", c.Headers, c.PassHeaders)
	}
	want := DefaultTimeouts
	want.Total, want.Idle = Duration(24*time.Hour), Duration(90*time.Second)
	if c.Timeouts != want {
		t.Errorf("timeouts: %+v", c.Timeouts)
	}

	for _, tc := range []struct{ members, header, scheme string }{
		{`"authHeader":"x-api-key"`, "X-Api-Key", ""},
		{`"authHeader":"authorization"`, "Authorization", "Bearer"},
		{`"authScheme":""`, "Authorization", ""},
		{`"authScheme":"token"`, "Authorization", "token"},
		{`"authHeader":"X-Key","authScheme":"Key"`, "X-Key", "Key"},
	} {
		c, err := ParseService("svc", []byte(minimal(tc.members)))
		if err != nil || c.AuthHeader != tc.header || c.AuthScheme != tc.scheme {
			t.Errorf("%s: got %v", tc.members, err)
		}
	}
	ok := `{"flush_interval":-1,"_c":1,"load_balancing":{"retries":2},"transport":{"protocol":"http","tls":{"server_name":"x"},"versions":["1.1","2"],"resolver":{"addresses":["10.0.0.53","udp/10.0.0.53:53","tcp/[fd00::53]:853"]}}}`
	if _, err := ParseService("svc", []byte(proxy(ok))); err != nil {
		t.Error(err)
	}
	if c, err := ParseService("svc", []byte(proxy(`null`))); err != nil || c.ReverseProxy != nil {
		t.Error(err)
	}
}

func FuzzParseService(f *testing.F) {
	for _, tc := range badServices {
		f.Add("svc", []byte(tc.data))
	}
	f.Add("github", []byte(minimal()))
	f.Add("x", serviceJSON("https://api.example.com/base", matchService))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		c, err := ParseService(name, data)
		if err != nil {
			var r *refusal.Refusal
			if !errors.As(err, &r) || r.Code == "" || r.Status < 400 {
				t.Fatalf("not a refusal: %v", err)
			}
			if strings.ContainsFunc(r.Code, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
				t.Fatalf("the code %q does not fit in a header", r.Code)
			}
			return
		}
		if c.Base.Scheme != "https" && c.Base.Scheme != "http" || c.Base.Host == "" || c.Base.User != nil || c.Base.RawQuery != "" {
			t.Fatalf("base %v", c.Base)
		}
		// The canonical form is a fixed point.
		u, r := parseBaseURL(c.Base.String(), true)
		if r != nil || u.String() != c.Base.String() {
			t.Fatalf("%v is not canonical: %v %v", c.Base, u, r)
		}
		for _, a := range c.Actions() {
			_, _ = c.Endpoint(a).Plan([]byte(`{"id":"x","path":"a/b"}`))
			c.Match(c.Endpoint(a).Method, c.Endpoint(a).Path)
		}
	})
}
