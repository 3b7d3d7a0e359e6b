package upstream

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// wire is an upstream that notes every byte of its requests, and answers with
// a header of the test's choice.
type wire struct {
	addr     string
	requests chan string
}

func newWire(t *testing.T, answer func(request string) string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	w := &wire{addr: l.Addr().String(), requests: make(chan string, 4)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go w.serve(conn, answer)
		}
	}()
	return w
}

func (w *wire) serve(conn net.Conn, answer func(string) string) {
	defer conn.Close()
	var seen bytes.Buffer
	req, err := http.ReadRequest(bufio.NewReader(io.TeeReader(conn, &seen)))
	if err != nil {
		return
	}
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return
	}
	text := seen.String()
	extra := ""
	if answer != nil {
		extra = answer(text)
	}
	w.requests <- text
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n%sContent-Length: 2\r\n\r\nok", extra)
}

// secretsOf are the values by their names.
var secretsOf = map[string]string{
	"key": `k-0123/45+6&7=8 "9"\`, "other": "o-secret-0123456789", "pem": "-----BEGIN KEY-----\nabc\n-----END KEY-----\n",
	"hex": "00ff10aabbccddee", "b64": "AAECAwQFBgc=", "tony": "tonys-key-0123456789",
}

// send sends one request through the transport of a service, as the vault
// does, and returns what reached the wire.
func sendAuth(t *testing.T, w *wire, members string, r *http.Request, agent string) (string, *http.Response) {
	t.Helper()
	svc, err := policy.ParseService("svc", fmt.Appendf(nil, `{"baseUrl":%q,"allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["s"],%s}`,
		"http://"+w.addr+baseOf(members), withEndpoints(members)))
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t)

	rec := httptest.NewRecorder()
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), rec, &caddyhttp.Server{})
	e, ok := svc.Match(r.Method, r.URL.EscapedPath())
	if !ok {
		t.Fatal("no endpoint")
	}
	out := &vault.Outbound{
		Service: svc, Endpoint: e, Method: r.Method, EscapedPath: svc.FullPath(r.URL.EscapedPath()), RawQuery: r.URL.RawQuery,
		Header: r.Header, Body: r.Body, ContentLength: r.ContentLength, Prefix: "/proxy/svc",
		Authorize: func(into []vault.Credential) ([]vault.Credential, *refusal.Refusal) {
			for i := range svc.Secrets() {
				ref := svc.SecretFor(i, agent)
				into = append(into, vault.Credential{Ref: ref, Version: 1, Value: secretsOf[ref]})
			}
			return into, nil
		},
	}
	if svc.ReadsBody() {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		plan, refused := svc.PlanBody(r.Header["Content-Type"], r.Header["Content-Encoding"], body)
		if refused != nil {
			t.Fatal(refused)
		}
		out.Whole, out.ContentType = &plan, plan.ContentType
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(plan.Body)), int64(len(plan.Body))
	}
	result := new(vault.Result)
	if refused := p.Do(r.Context(), rec, r, out, result); refused != nil {
		t.Fatal(refused, refused.Cause)
	}
	return <-w.requests, rec.Result()
}

func withEndpoints(members string) string {
	if strings.Contains(members, `"endpoints"`) {
		return members
	}
	return members + `,"endpoints":{"get":{"method":"GET","path":"/*"},"post":{"method":"POST","path":"/*"}}`
}

// baseOf is the path of baseUrl that a case asks for in a comment.
func baseOf(members string) string {
	if m := regexp.MustCompile(`"_base":"([^"]*)"`).FindStringSubmatch(members); m != nil {
		return m[1]
	}
	return ""
}

func post(contentType, body string) *http.Request {
	r := httptest.NewRequest("POST", "/a/b?x=1&y", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("User-Agent", "ua")
	return r
}

func get() *http.Request {
	r := httptest.NewRequest("GET", "/a%2Fb?x=1&y", nil)
	r.Header.Set("User-Agent", "ua")
	return r
}

func TestEveryPlaceOnTheWire(t *testing.T) {
	const form = `"endpoints":{"post":{"method":"POST","path":"/*","body":"form"}}`
	const escaped = `k-0123%2F45%2B6%267%3D8%20%229%22%5C`
	basic := base64.StdEncoding.EncodeToString([]byte("me:" + secretsOf["key"]))
	for _, tt := range []struct {
		name    string
		members string
		request *http.Request
		agent   string
		want    []string // lines, or the body
		not     []string
	}{
		{"header in short", `"secretRef":"key"`, get(), "", []string{"GET /a%2Fb?x=1&y HTTP/1.1", "Authorization: Bearer " + secretsOf["key"]}, nil},
		{"header", `"secretRef":"key","auth":[{"in":"header","name":"x-api-key"}]`, get(), "", []string{"X-Api-Key: " + secretsOf["key"]}, []string{"Authorization"}},
		{"header with words", `"secretRef":"key","auth":[{"in":"header","name":"x-api-key","value":"a={secret};b"}]`, get(), "", []string{"X-Api-Key: a=" + secretsOf["key"] + ";b"}, nil},
		{"two secrets in one header", `"secretRef":"key","auth":[{"in":"header","name":"x-api-key","value":"{secret}:{secret:other}"}]`, get(), "", []string{"X-Api-Key: " + secretsOf["key"] + ":" + secretsOf["other"]}, nil},
		{"two headers", `"secretRef":"key","auth":[{"in":"header","name":"dd-api-key"},{"in":"header","name":"dd-app","value":"{secret:other}"}]`, get(), "", []string{"Dd-Api-Key: " + secretsOf["key"], "Dd-App: " + secretsOf["other"]}, nil},
		{"basic", `"secretRef":"key","auth":[{"in":"basic","user":"me","password":"{secret}"}]`, get(), "", []string{"Authorization: Basic " + basic}, nil},
		{"query", `"secretRef":"key","auth":[{"in":"query","name":"api_key"}]`, get(), "", []string{"GET /a%2Fb?x=1&y&api_key=" + escaped + " HTTP/1.1"}, []string{"Authorization"}},
		{"path", `"_base":"/v1/bot{secret}x","secretRef":"other","auth":[{"in":"path"}]`, get(), "", []string{"GET /v1/boto-secret-0123456789x/a%2Fb?x=1&y HTTP/1.1"}, []string{"{secret}"}},
		{"path, escaped", `"_base":"/{secret}","secretRef":"key","auth":[{"in":"path"}]`, get(), "", []string{"GET /" + escaped + "/a%2Fb?x=1&y HTTP/1.1"}, nil},
		{
			"JSON", `"secretRef":"key","auth":[{"in":"body","pointer":"/token"}]` + `,"endpoints":{"post":{"method":"POST","path":"/*"}}`, post("application/json", ` {"a": 1.0}`), "",
			[]string{` {"token":"k-0123/45+6&7=8 \"9\"\\","a": 1.0}`, "Content-Length: 45"},
			nil,
		},
		{
			"JSON, empty", `"secretRef":"other","auth":[{"in":"body","pointer":"/auth/token"},{"in":"body","pointer":"/id","value":"{secret:b64}"}]` + `,"endpoints":{"post":{"method":"POST","path":"/*"}}`, post("application/json", `{}`), "",
			[]string{`{"auth":{"token":"o-secret-0123456789"},"id":"AAECAwQFBgc="}`},
			nil,
		},
		{"JSON, none at all", `"secretRef":"other","auth":[{"in":"body","pointer":"/token"}]` + `,"endpoints":{"post":{"method":"POST","path":"/*"}}`, func() *http.Request {
			r := post("", "")
			r.Header.Del("Content-Type")
			return r
		}(), "", []string{`{"token":"o-secret-0123456789"}`, "Content-Type: application/json"}, nil},
		{
			"form", `"secretRef":"key","auth":[{"in":"body","name":"token"}],` + form, post("application/x-www-form-urlencoded", "a=1&b=%20"), "",
			[]string{"a=1&b=%20&token=" + escaped},
			nil,
		},
		{"by agent", `"secretRef":"key","secretByAgent":{"tony":"tony"}`, get(), "tony", []string{"Authorization: Bearer " + secretsOf["tony"]}, nil},
		{"by agent, another", `"secretRef":"other","secretByAgent":{"tony":"tony"}`, get(), "steve", []string{"Authorization: Bearer " + secretsOf["other"]}, nil},
		{
			"GitHub's signature", `"secretRef":"pem","auth":[{"in":"sign","name":"X-Hub-Signature-256","value":"sha256={signature}","signed":"{body}"},{"in":"sign","name":"X-Hub-Signature","value":"sha1={signature}","algorithm":"sha1","signed":"{body}"}]`,
			post("application/json", `{"zen":1}`), "",
			[]string{
				"X-Hub-Signature-256: sha256=" + hex.EncodeToString(mac(sha256.New, secretsOf["pem"], `{"zen":1}`)),
				"X-Hub-Signature: sha1=" + hex.EncodeToString(mac(sha1.New, secretsOf["pem"], `{"zen":1}`)), `{"zen":1}`,
			},
			[]string{"BEGIN KEY"},
		},
		{
			"a vendor's signature", `"secretRef":"hex","auth":[{"in":"query","name":"id","value":"{secret:other}"},{"in":"sign","name":"X-Sign","encoding":"base64","keyEncoding":"hex","signed":"{method}\n{host}\n{path}\n{query}\n{target}\n{header:User-Agent}\n{body:sha256}"}]`,
			post("text/plain", "hello"), "",
			[]string{"X-Sign: " + base64.StdEncoding.EncodeToString(mac(sha256.New, "\x00\xff\x10\xaa\xbb\xcc\xdd\xee",
				"POST\n$HOST\n/a/b\nx=1&y&id=o-secret-0123456789\n/a/b?x=1&y&id=o-secret-0123456789\nua\n2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"))},
			nil,
		},
		{"what the client may not", `"secretRef":"other","auth":[{"in":"header","name":"x-key"},{"in":"sign","name":"x-sig","timestampHeader":"x-time","signed":"{timestamp}"}],"passHeaders":["X-A"]`, func() *http.Request {
			r := get()
			for _, name := range []string{"X-Key", "X-Sig", "X-Time", "X_key", "Authorization", "X-A"} {
				r.Header[name] = []string{"mine"}
			}
			r.Header["Connection"] = []string{"x-key, x-sig"}
			return r
		}(), "", []string{"X-A: mine", "X-Key: o-secret-0123456789"}, []string{"X-Key: mine", "X-Sig: mine", "X-Time: mine", "X_key", "Authorization"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWire(t, nil)
			got, _ := sendAuth(t, w, tt.members, tt.request, tt.agent)
			head, body, _ := strings.Cut(got, "\r\n\r\n")
			lines := append(strings.Split(head, "\r\n"), body)
			for _, want := range tt.want {
				if strings.HasPrefix(want, "X-Sign: ") {
					want = "X-Sign: " + base64.StdEncoding.EncodeToString(mac(sha256.New, "\x00\xff\x10\xaa\xbb\xcc\xdd\xee",
						strings.ReplaceAll("POST\n$HOST\n/a/b\nx=1&y&id=o-secret-0123456789\n/a/b?x=1&y&id=o-secret-0123456789\nua\n2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "$HOST", w.addr)))
				}
				if !slices.Contains(lines, want) {
					t.Errorf("no line %q in\n%s", want, got)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(got, not) {
					t.Errorf("%q is in\n%s", not, got)
				}
			}
		})
	}
}

func mac(h func() hash.Hash, key, text string) []byte {
	m := hmac.New(h, []byte(key))
	m.Write([]byte(text))
	return m.Sum(nil)
}

// TestSlackSignature checks a signature as Slack's own documentation says a
// receiver does it.
func TestSlackSignature(t *testing.T) {
	w := newWire(t, nil)
	got, _ := sendAuth(t, w, `"secretRef":"other","auth":[{"in":"sign","name":"X-Slack-Signature","value":"v0={signature}","signed":"v0:{timestamp}:{body}","timestampHeader":"X-Slack-Request-Timestamp"}]`,
		post("application/x-www-form-urlencoded", "token=x&team_id=T1"), "")
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(got)))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(req.Body)
	stamp := req.Header.Get("X-Slack-Request-Timestamp")
	if !regexp.MustCompile(`^[0-9]{10}$`).MatchString(stamp) {
		t.Fatalf("time stamp %q", stamp)
	}
	want := "v0=" + hex.EncodeToString(mac(sha256.New, secretsOf["other"], "v0:"+stamp+":"+string(body)))
	if req.Header.Get("X-Slack-Signature") != want {
		t.Errorf("signature %q, want %q", req.Header.Get("X-Slack-Signature"), want)
	}
}

// TestLinksOfEveryPlace looks for the secret in what an upstream says of its
// own URLs.
func TestLinksOfEveryPlace(t *testing.T) {
	answer := func(request string) string {
		target := strings.Fields(request)[1]
		path, _, _ := strings.Cut(target, "?")
		return "Location: " + target + "&page=2\r\nContent-Location: /elsewhere\r\nLink: <" + path + "?page=3&api_key=o-secret-0123456789>; rel=\"next\"\r\nX-Echo: " + target + "\r\n"
	}
	for _, tt := range []struct{ name, members, location, link string }{
		{"path", `"_base":"/bot{secret}/v1","secretRef":"other","auth":[{"in":"path"}]`, "/proxy/svc/a%2Fb?x=1&y&page=2", "/proxy/svc/a%2Fb?page=3&api_key=[REDACTED:other]"},
		{"query", `"secretRef":"other","auth":[{"in":"query","name":"api_key"}]`, "/proxy/svc/a%2Fb?x=1&y&page=2", "/proxy/svc/a%2Fb?page=3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, res := sendAuth(t, newWire(t, answer), tt.members, get(), "")
			if got := res.Header.Get("Location"); got != tt.location {
				t.Errorf("Location %q", got)
			}
			if got := res.Header.Get("Link"); !strings.Contains(got, tt.link+">") {
				t.Errorf("Link %q", got)
			}
			for name, values := range res.Header {
				if strings.Contains(strings.Join(values, ""), secretsOf["other"]) {
					t.Errorf("%s: %q", name, values)
				}
			}
		})
	}
}
