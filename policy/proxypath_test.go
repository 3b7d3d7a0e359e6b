package policy

import (
	"bufio"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// proxyPaths are hostile and harmless paths under /proxy/, escaped as a
// client would send them; bad says that nothing may reach the upstream.
var proxyPaths = []struct {
	path string
	bad  bool
}{
	// Plain dot pieces.
	{"/.", true},
	{"/..", true},
	{"/a/.", true},
	{"/a/..", true},
	{"/a/./b", true},
	{"/a/../b", true},
	{"/../a", true},
	{"/./a", true},
	{"/a/b/../../admin", true},
	{"/..//a", true},
	// Encoded once, in either case, whole or in part.
	{"/%2e", true},
	{"/%2E", true},
	{"/%2e%2e", true},
	{"/%2E%2E", true},
	{"/.%2e", true},
	{"/%2e.", true},
	{"/public/%2e%2e/admin", true},
	{"/public/.%2E/admin", true},
	{"/public/%2e/admin", true},
	// Encoded twice.
	{"/%252e%252e/admin", true},
	{"/public/%252e%252e/admin", true},
	{"/public/.%252e/admin", true},
	{"/public/%2e%252e/admin", true},
	{"/public/%25%32%65%25%32%65/admin", true},
	{"/public/%252E/admin", true},
	// Behind encoded slashes.
	{"/public/..%2fadmin", true},
	{"/public/..%2Fadmin", true},
	{"/public%2f..%2fadmin", true},
	{"/public%2F%2e%2e%2Fadmin", true},
	{"/public/..%252fadmin", true},
	{"/public%252f..%252fadmin", true},
	{"/public%252F%252e%252e%252Fadmin", true},
	{"/public/.%2fadmin", true},
	{"/x%2f.", true},
	{"/x%2f..", true},
	// Behind backslashes, and backslashes as such.
	{`/public/..\admin`, true},
	{`/public\..\admin`, true},
	{`/a\b`, true},
	{"/public/..%5cadmin", true},
	{"/public/..%5Cadmin", true},
	{"/public%5c..%5cadmin", true},
	{"/a%5cb", true},
	{"/a%5Cb", true},
	{"/a%255cb", true},
	{"/a%255Cb", true},
	{"/..%255c..%255cadmin", true},
	// Behind semicolons (path parameters of Java servers).
	{"/public/..;/admin", true},
	{"/public/..;x=1/admin", true},
	{"/public/.;/admin", true},
	{"/;/..", true},
	{"/public/..%3b/admin", true},
	{"/public/..%3Bx/admin", true},
	{"/public/%2e%2e;/admin", true},
	{"/public/%2e%2e%3b/admin", true},
	{"/public/..%253b/admin", true},
	{"/a;..", true},
	{"/a;../b", true},
	// Control characters.
	{"/a%00", true},
	{"/a%00.html", true},
	{"/%00/..", true},
	{"/..%00/admin", true},
	{"/a%2500", true},
	{"/a%0ab", true},
	{"/a%0d%0aHost:%20evil", true},
	{"/a%250d%250a", true},
	{"/a%09b", true},
	{"/a%7f", true},
	{"/a\x00b", true},
	{"/a\nb", true},
	// Over-long UTF-8 and other encodings of a dot.
	{"/%c0%ae%c0%ae/admin", true},
	{"/%C0%AE/admin", true},
	{"/..%c0%afadmin", true},
	{"/..%c1%9cadmin", true},
	{"/%e0%80%ae%e0%80%ae/admin", true},
	{"/%f0%80%80%ae/admin", true},
	{"/%25c0%25ae/admin", true},
	{"/%u002e%u002e/admin", true},
	// Not percent-encoded correctly, or not at all.
	{"/a%", true},
	{"/a%2", true},
	{"/a%zz", true},
	{"/a%%32%65", true},
	{"/a b", true},
	{"/a\"b", true},
	{"/a<b>", true},
	{"/a?b", true},
	{"/a#b", true},
	{"/a{b}", true},
	{"/a|b", true},
	{"/a^b", true},
	{"/é", true},
	{"/" + strings.Repeat("a", maxPath), true},

	// What must pass, as it is.
	{"", false},
	{"/", false},
	{"/a", false},
	{"/a/", false},
	{"//a", false},
	{"/a//b", false},
	{"/...", false},
	{"/.../a", false},
	{"/.git", false},
	{"/..a", false},
	{"/a..b", false},
	{"/a.b/c.d", false},
	{"/.well-known/x", false},
	{"/repos/o/r/contents/docs%2Freadme.md", false},
	{"/repos/o/r/contents/docs%252Freadme.md", false},
	{"/repos/o/r/compare/a...b", false},
	{"/inboxes/a%40b.c", false},
	{"/inboxes/a@b.c", false},
	{"/messages/%3Cid%40host%3E", false},
	{"/caf%C3%A9", false},
	{"/a%20b", false},
	{"/100%25", false},
	{"/100%2525", false},
	{"/a;v=1", false},
	{"/a,b(c)!$&'*+=:~_-", false},
	{"/models/ft:gpt-4o:org::id", false},
	{"/a[0]", false},
	{"/%7Euser", false},
}

func TestCheckProxyPath(t *testing.T) {
	bad := 0
	for _, tc := range proxyPaths {
		r := CheckProxyPath(tc.path)
		if tc.bad {
			bad++
			if r == nil {
				t.Errorf("%q passes", tc.path)
			} else if r.Code != "PARAM_INVALID:path" && r.Code != "PATH_TOO_LONG" {
				t.Errorf("%q: code %s", tc.path, r.Code)
			}
			continue
		}
		if r != nil {
			t.Errorf("%q is refused: %v", tc.path, r)
			continue
		}
		if got := onWire(t, tc.path); got != tc.path {
			t.Errorf("%q goes out as %q", tc.path, got)
		}
	}
	if bad < 60 {
		t.Errorf("only %d hostile paths", bad)
	}
}

func TestCheckProxyQuery(t *testing.T) {
	for query, ok := range map[string]bool{
		"": true, "a=b&c": true, "?": true, "a=%20%23%00%zz": true, "a=../..": true, "q=é{}|\"<>\\": true,
		"a b": false, " ": false, "a HTTP/1.1": false, "a\tb": false, "a\r\nHost: x": false, "a\x00": false, "a\x7f": false, "a#b": false,
	} {
		r := CheckProxyQuery(query)
		if ok != (r == nil) {
			t.Errorf("%q: %v", query, r)
		}
		if r != nil && r.Code != "PARAM_INVALID:query" {
			t.Errorf("%q: code %s", query, r.Code)
		}
	}
}

// onWire sends an escaped path the way a proxy does and returns what the
// server reads off the connection.
func onWire(t *testing.T, escaped string) string {
	t.Helper()
	path, err := url.PathUnescape(escaped)
	if err != nil {
		t.Fatalf("%q: %v", escaped, err)
	}
	// The empty path is sent as "/", and "//" would begin an authority.
	prefix := ""
	if escaped == "" || strings.HasPrefix(escaped, "//") {
		prefix = "/x"
	}
	req, err := http.NewRequest(http.MethodGet, "http://upstream", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.URL = &url.URL{Scheme: "http", Host: "upstream", Path: prefix + path, RawPath: prefix + escaped}
	var b strings.Builder
	if err := req.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadRequest(bufio.NewReader(strings.NewReader(b.String())))
	if err != nil {
		t.Fatalf("%q: %v", escaped, err)
	}
	return strings.TrimPrefix(got.RequestURI, prefix)
}

func FuzzCheckProxyPath(f *testing.F) {
	for _, tc := range proxyPaths {
		if len(tc.path) < 200 {
			f.Add(tc.path)
		}
	}
	f.Fuzz(func(t *testing.T, path string) {
		if CheckProxyPath(path) != nil {
			return
		}
		// Whatever passed has no dot piece for any reader of up to two
		// decodings, with any of the separators.
		reading := path
		for range 3 {
			cut := func(r rune) bool { return r == '/' || r == '\\' || r == ';' || r == 0 }
			for _, piece := range strings.FieldsFunc(reading, cut) {
				if piece == "." || piece == ".." {
					t.Fatalf("%q has a dot piece in %q", path, reading)
				}
			}
			if strings.ContainsAny(reading, "\\\x00\r\n") {
				t.Fatalf("%q reads as %q", path, reading)
			}
			next, err := url.PathUnescape(reading)
			if err != nil {
				return
			}
			reading = next
		}
	})
}
