package upstream

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/klauspost/compress/zstd"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

const secret = "s3cr3t/value+0123456789"

// gateway serves one service through a Proxy, as a site would.
type gateway struct {
	t       *testing.T
	proxy   *Proxy
	service *policy.Compiled
	results chan *vault.Result
	refused chan *refusal.Refusal
	auth    func() (vault.Credential, *refusal.Refusal)
	cut     atomic.Pointer[context.CancelCauseFunc] // of the call that came last
}

// newProxy returns a Proxy under an empty configuration of Caddy's.
func newProxy(t testing.TB) *Proxy {
	t.Helper()
	ctx, err := caddy.ProvisionContext(&caddy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func newGateway(t *testing.T, upstream, settings string) (*gateway, *httptest.Server) {
	t.Helper()
	p := newProxy(t)
	g := &gateway{
		t: t, proxy: p, service: compile(t, "svc", upstream, settings),
		results: make(chan *vault.Result, 256), refused: make(chan *refusal.Refusal, 256),
		auth: func() (vault.Credential, *refusal.Refusal) {
			return vault.Credential{Ref: "key", Version: 1, Value: secret}, nil
		},
	}
	site := httptest.NewServer(g)
	t.Cleanup(site.Close)
	return g, site
}

func compile(t testing.TB, name, upstream, settings string) *policy.Compiled {
	t.Helper()
	svc, err := policy.ParseService(name, fmt.Appendf(nil, `{"baseUrl":%q,"secretRef":"key","allowedAgents":["*"],"allowedActions":["*"],
		"allowedScopes":["s"],"endpoints":{"all":{"method":"GET","path":"/*"},"post":{"method":"POST","path":"/*"},
		"part":{"method":"GET","path":"/part","range":true},
		"ws":{"method":"GET","path":"/ws","upgrade":"websocket","subprotocols":["chat","other"]}}%s}`, upstream, settings))
	if err != nil {
		t.Fatal(err)
	}
	return svc
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
	result := new(vault.Result)
	name := "all"
	if r.Method == http.MethodPost {
		name = "post"
	}
	upgrade := r.URL.Path == "/ws"
	if name == "all" && g.service.Endpoint(r.URL.Path[1:]) != nil {
		name = r.URL.Path[1:]
	}
	defer func() { g.results <- result }()
	ctx, cut := context.WithCancelCause(r.Context())
	defer cut(nil)
	g.cut.Store(&cut)
	refused := g.proxy.Do(ctx, w, r, &vault.Outbound{
		Service: g.service, Endpoint: g.service.Endpoint(name), Method: r.Method,
		Upgrade: upgrade, Cut: cut, EscapedPath: r.URL.EscapedPath(), RawQuery: r.URL.RawQuery,
		Header: r.Header, Body: r.Body, ContentLength: r.ContentLength, Prefix: "/proxy/svc",
		Authorize: func(into []vault.Credential) ([]vault.Credential, *refusal.Refusal) {
			c, refused := g.auth()
			return append(into, c), refused
		},
	}, result)
	if refused != nil {
		g.refused <- refused
		http.Error(w, refused.Code, refused.Status)
	}
}

// A compressor is a Writer that can be flushed.
type compressor interface {
	io.WriteCloser
	Flush() error
}

// compress has what an answer may be encoded with.
var compress = map[string]func(io.Writer) compressor{
	"":        nil,
	"gzip":    func(w io.Writer) compressor { return gzip.NewWriter(w) },
	"deflate": func(w io.Writer) compressor { return zlib.NewWriter(w) },
	"br":      func(w io.Writer) compressor { return brotli.NewWriter(w) },
	"x-raw": func(w io.Writer) compressor {
		f, _ := flate.NewWriter(w, 5)
		return f
	},
	"zstd": func(w io.Writer) compressor {
		z, _ := zstd.NewWriter(w)
		return z
	},
}

func TestTheSecretGoesOutAndNotBack(t *testing.T) {
	forms := map[string]string{
		"plain":   secret,
		"base64":  base64.StdEncoding.EncodeToString([]byte("u:" + secret)),
		"base64u": base64.URLEncoding.EncodeToString([]byte(secret)),
		"HEX":     strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"hex":     hex.EncodeToString([]byte(secret)),
		"percent": url.QueryEscape(secret),
		"json":    strings.ReplaceAll(secret, "/", `\/`),
		"unicode": strings.ReplaceAll(secret, "s", `\u0073`),
	}
	var got struct {
		sync.Mutex
		auth string
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Lock()
		got.auth = strings.Join(r.Header["Authorization"], "|")
		got.Unlock()
		q := r.URL.Query()
		body := strings.Repeat("x", 100) + forms[q.Get("form")] + strings.Repeat("y", 100)
		if q.Get("size") == "large" {
			body = strings.Repeat(body, 1000)
		}
		w.Header().Set("X-Echo", forms[q.Get("form")])
		w.Header().Set("Etag", `"strong"`)
		w.Header().Set("Trailer", "X-Late")
		c := compress[q.Get("encoding")]
		if c != nil {
			w.Header().Set("Content-Encoding", strings.Replace(q.Get("encoding"), "x-raw", "deflate", 1))
			var b bytes.Buffer
			z := c(&b)
			_, _ = io.WriteString(z, body)
			_ = z.Close()
			body = b.String()
		}
		for len(body) > 0 { // in pieces
			n := min(len(body), 4099)
			_, _ = io.WriteString(w, body[:n])
			_ = http.NewResponseController(w).Flush()
			body = body[n:]
		}
		w.Header().Set("X-Late", forms[q.Get("form")])
	}))
	defer upstream.Close()
	g, site := newGateway(t, upstream.URL, "")

	for form, text := range forms {
		for encoding := range compress {
			for _, size := range []string{"small", "large"} {
				name := form + " " + encoding + " " + size
				res, err := http.Get(site.URL + "/?form=" + form + "&encoding=" + encoding + "&size=" + size)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				res.Body.Close()
				shown := fmt.Sprint(res.Header, res.Trailer) + string(body)
				if strings.Contains(shown, text) || strings.Contains(shown, secret) {
					t.Errorf("%s: the secret came back", name)
				}
				if !strings.Contains(string(body), "[REDACTED:key]") || !strings.Contains(res.Trailer.Get("X-Late"), "[REDACTED:key]") {
					t.Errorf("%s: no mark in %.300s %v", name, body, res.Trailer)
				}
				if res.Header.Get("Content-Encoding") != "" || res.Header.Get("Etag") != `"strong"` {
					t.Errorf("%s: %v", name, res.Header)
				}
				want := 3
				if size == "large" {
					want = 1002
				}
				if r := <-g.results; r.Redactions != want || r.Status != 200 {
					t.Errorf("%s: %d redactions, status %d", name, r.Redactions, r.Status)
				}
			}
		}
	}
	got.Lock()
	defer got.Unlock()
	if got.auth != "Bearer "+secret {
		t.Errorf("the upstream got Authorization %q", got.auth)
	}
}

func TestBlockAndWhatCannotBeUndone(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/compress":
			w.Header().Set("Content-Encoding", "compress")
			_, _ = io.WriteString(w, "whatever")
		case "/twice":
			w.Header().Set("Content-Encoding", "gzip, br")
			_, _ = io.WriteString(w, "whatever")
		case "/header":
			w.Header().Set("X-Echo", secret)
		case "/small":
			_, _ = io.WriteString(w, "a"+secret)
		case "/stream":
			_, _ = io.WriteString(w, strings.Repeat("a", 100_000))
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, secret)
		}
	}))
	defer upstream.Close()
	g, site := newGateway(t, upstream.URL, `,"scrub":"block"`)
	for _, path := range []string{"/compress", "/twice", "/small", "/header"} {
		res, err := http.Get(site.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusBadGateway || strings.Contains(string(body), secret) {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
		if r := <-g.refused; r.Code != "UPSTREAM_PROTOCOL" {
			t.Errorf("%s: %s", path, r.Code)
		}
		<-g.results
	}
	res, err := http.Get(site.URL + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err == nil || strings.Contains(string(body), secret[:8]) {
		t.Errorf("a stream with the secret ends with %v after %d bytes", err, len(body))
	}
	if r := <-g.results; r.Code != "UPSTREAM_PROTOCOL" {
		t.Errorf("recorded as %q", r.Code)
	}
}

// TestAuthorizeIsTheLastWord: a token that is revoked after the record and
// before the sending leaves nothing.
func TestAuthorizeIsTheLastWord(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the upstream saw a request")
	}))
	defer upstream.Close()
	g, site := newGateway(t, upstream.URL, "")
	g.auth = func() (vault.Credential, *refusal.Refusal) {
		return vault.Credential{}, refusal.New("TOKEN_REVOKED", "")
	}
	res, err := http.Get(site.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if r := <-g.refused; r.Code != "TOKEN_REVOKED" || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("%s, %d", r.Code, res.StatusCode)
	}
}

// TestACallIsCut: the refusal that ends a call's context before the answer is
// what the client gets.
func TestACallIsCut(t *testing.T) {
	arrived := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	}))
	defer upstream.Close()
	g, _ := newGateway(t, upstream.URL, "")
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(r.Context())
		go func() {
			<-arrived
			cancel(refusal.New("SESSION_REVOKED", ""))
		}()
		g.ServeHTTP(w, r.WithContext(ctx))
	}))
	defer cut.Close()
	res, err := http.Get(cut.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if r := <-g.refused; r.Code != "SESSION_REVOKED" {
		t.Errorf("refused with %s", r.Code)
	}
}

func TestEarlyHintsAreFiltered(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("X-Hint", secret)
		h.Set("Set-Cookie", "a=b")
		h.Set("Link", "<https://elsewhere.example>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		clear(h)
		w.WriteHeader(http.StatusOK)
	}))
	defer upstream.Close()
	_, site := newGateway(t, upstream.URL, "")
	var hints []textproto.MIMEHeader
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code == http.StatusEarlyHints {
			hints = append(hints, h)
		}
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, site.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if len(hints) != 1 {
		t.Fatalf("%d early hints", len(hints))
	}
	if hints[0].Get("X-Hint") != "[REDACTED:key]" || hints[0].Get("Set-Cookie") != "" || hints[0].Get("Link") != "" {
		t.Errorf("early hints: %v", hints[0])
	}
}

// TestEnvironmentProxyIsIgnored: whoever sets HTTPS_PROXY does not get the
// secrets.
func TestEnvironmentProxyIsIgnored(t *testing.T) {
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the request went through the environment's proxy")
	}))
	defer thief.Close()
	t.Setenv("HTTP_PROXY", thief.URL)
	t.Setenv("HTTPS_PROXY", thief.URL)
	g, _ := newGateway(t, "http://127.0.0.1:1", "")
	s, err := g.proxy.acquire(t.Context(), g.service)
	if err != nil {
		t.Fatal(err)
	}
	defer s.release()
	if s.tr.Transport.Proxy != nil {
		t.Error("the transport has a proxy")
	}
}

func TestRefusalFor(t *testing.T) {
	garbage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(c, "no HTTP at all\r\n\r\n")
			c.Close()
		}
	}))
	defer garbage.Close()
	tlsServer := httptest.NewTLSServer(nil)
	defer tlsServer.Close()
	dead := httptest.NewServer(nil)
	dead.Close()
	for _, tt := range []struct{ name, upstream, code string }{
		{"nobody listens", dead.URL, "UPSTREAM_UNREACHABLE"},
		{"unknown certificate", tlsServer.URL, "UPSTREAM_TLS"},
		{"no HTTP", garbage.URL, "UPSTREAM_PROTOCOL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, site := newGateway(t, tt.upstream, "")
			res, err := http.Get(site.URL)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			r := <-g.refused
			if r.Code != tt.code {
				t.Errorf("%s (%v), want %s", r.Code, r.Cause, tt.code)
			}
			if strings.Contains(r.Detail+r.Hint, "127.0.0.1") {
				t.Errorf("the answer names an address: %s", r.Detail)
			}
		})
	}
	if r := refusalFor(fmt.Errorf("dial: %w", errForbidden)); r.Code != "UPSTREAM_FORBIDDEN" {
		t.Errorf("forbidden: %s", r.Code)
	}
	timeout := &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	if r := refusalFor(dialError{reverseproxy.NewDialError(timeout), timeout}); r.Code != "UPSTREAM_TIMEOUT:connect" {
		t.Errorf("a connection that takes too long: %s", r.Code)
	}
	if !errors.As(error(dialError{reverseproxy.NewDialError(timeout), timeout}), new(reverseproxy.DialError)) {
		t.Error("Caddy would not try again")
	}
	if r := refusalFor(context.DeadlineExceeded); r.Code != "UPSTREAM_TIMEOUT" {
		t.Errorf("deadline: %s", r.Code)
	}
	if r := refusalFor(errors.New("http: malformed response")); r.Code != "UPSTREAM_PROTOCOL" {
		t.Errorf("anything else: %s", r.Code)
	}
}

// TestServicesLeaveNothing makes and drops many services, from many sides, and
// looks for what is left of them.
func TestServicesLeaveNothing(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer upstream.Close()
	g, _ := newGateway(t, upstream.URL, "")
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for i := range 100 {
		svc := compile(t, fmt.Sprintf("svc%d", i%20), upstream.URL, "")
		wg.Go(func() {
			s, err := g.proxy.acquire(t.Context(), svc)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.release()
			if s.compiled != svc {
				t.Error("another version of the service")
			}
		})
	}
	wg.Wait()
	for i := range 20 {
		g.proxy.Forget(fmt.Sprintf("svc%d", i))
	}
	g.proxy.services.Range(func(name, _ any) bool {
		t.Errorf("%v is left", name)
		return true
	})
	// They have been told to end; that they do is what is waited for.
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if runtime.NumGoroutine() <= before {
			return
		}
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
}
