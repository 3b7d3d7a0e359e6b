package upstream

import (
	"bufio"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
)

// TestEventsComeOneByOne: each event is with the client before the next is
// sent, whatever it was encoded with and whatever way it takes.
func TestEventsComeOneByOne(t *testing.T) {
	got := make(chan string)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		encoding, kind := r.URL.Query().Get("encoding"), r.URL.Query().Get("type")
		w.Header().Set("Content-Type", kind)
		var out io.Writer = w
		flush := func() error { return nil }
		if c := compress[encoding]; c != nil {
			w.Header().Set("Content-Encoding", strings.Replace(encoding, "x-raw", "deflate", 1))
			z := c(w)
			out, flush = z, z.Flush
		} else if r.URL.Query().Has("length") {
			w.Header().Set("Content-Length", strconv.Itoa(3*len("event 0\n")))
		}
		for i := range 3 {
			fmt.Fprintf(out, "event %d\n", i)
			_ = flush()
			_ = http.NewResponseController(w).Flush()
			select {
			case <-got:
			case <-r.Context().Done():
				return
			}
		}
	}))
	defer upstream.Close()
	for _, settings := range []string{"", `,"scrub":"off"`, `,"reverseProxy":{"flush_interval":"1h"}`} {
		_, site := newGateway(t, upstream.URL, settings)
		for encoding := range compress {
			if encoding != "" && strings.Contains(settings, "off") {
				continue // it passes as it is
			}
			for _, kind := range []string{"text/event-stream", "application/x-ndjson&length", "application/jsonl", "text/plain"} {
				res, err := http.Get(site.URL + "/?encoding=" + encoding + "&type=" + kind)
				if err != nil {
					t.Fatal(err)
				}
				lines := bufio.NewReader(res.Body)
				for i := range 3 {
					line, err := lines.ReadString('\n')
					if line != fmt.Sprintf("event %d\n", i) {
						t.Fatalf("%s %s %s: %q %v", settings, encoding, kind, line, err)
					}
					got <- line
				}
				res.Body.Close()
			}
		}
	}
}

// TestBothWaysAtOnce: a body goes up while the answer comes down, where the
// protocol of the client can do that.
func TestBothWaysAtOnce(t *testing.T) {
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 does by itself
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		lines := bufio.NewReader(r.Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, line)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	upstream.EnableHTTP2 = true
	upstream.StartTLS()
	defer upstream.Close()
	pool := base64.StdEncoding.EncodeToString(upstream.Certificate().Raw)
	g, _ := newGateway(t, upstream.URL, `,"reverseProxy":{"transport":{"protocol":"http","tls":{"root_ca_pool":["`+pool+`"],"server_name":"example.com"}}}`)
	site := httptest.NewUnstartedServer(g)
	site.EnableHTTP2 = true
	site.StartTLS()
	defer site.Close()
	body, w := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, site.URL+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := site.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for i := range 5 {
		fmt.Fprintf(w, "line %d\n", i)
		if line, err := lines.ReadString('\n'); line != fmt.Sprintf("line %d\n", i) {
			t.Fatalf("%q %v", line, err)
		}
	}
	w.Close()
	if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

// TestVersions is which HTTP the upstream is spoken to with.
func TestVersions(t *testing.T) {
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.WriteString(w, r.Proto+" "+r.Header.Get("Te"))
		w.Header().Set("Grpc-Status", "0")
	})
	secure := httptest.NewUnstartedServer(serve)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	defer secure.Close()
	pool := pemOf(secure)
	plainText := httptest.NewUnstartedServer(serve)
	plainText.Config.Protocols = new(http.Protocols)
	plainText.Config.Protocols.SetUnencryptedHTTP2(true)
	plainText.Config.Protocols.SetHTTP1(true)
	plainText.Start()
	defer plainText.Close()
	tlsSettings := `"tls":{"root_ca_pool":["` + pool + `"],"server_name":"example.com"}`
	for _, tt := range []struct{ url, transport, want string }{
		{plainText.URL, `"protocol":"http"`, "HTTP/1.1"},
		{plainText.URL, `"protocol":"http","versions":["h2c"]`, "HTTP/2.0"},
		{secure.URL, tlsSettings, "HTTP/2.0"},
		{secure.URL, tlsSettings + `,"versions":["1.1"]`, "HTTP/1.1"},
		{secure.URL, tlsSettings + `,"local_address":"127.0.0.1"`, "HTTP/2.0"},
	} {
		_, site := newGateway(t, tt.url, `,"reverseProxy":{"transport":{`+tt.transport+`}}`)
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, site.URL, nil)
		req.Header.Set("Te", "gzip, trailers")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(b) != tt.want+" trailers" || res.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%s: %d %q, trailers %v", tt.transport, res.StatusCode, b, res.Trailer)
		}
	}
}

func pemOf(s *httptest.Server) string {
	block, _ := pem.Decode(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	return base64.StdEncoding.EncodeToString(block.Bytes)
}

// TestTrailers: what may stand in a header may stand behind a body, both ways,
// and nothing else.
func TestTrailers(t *testing.T) {
	seen := make(chan http.Header, 1)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r.Trailer
		w.Header().Set("Trailer", "X-Late, Set-Cookie, Vault-Error, Location, Access-Control-Allow-Origin, Content-Digest, X-Dropped")
		_, _ = io.WriteString(w, "x")
		for _, name := range []string{"X-Late", "Set-Cookie", "Vault-Error", "Location", "Access-Control-Allow-Origin", "Content-Digest", "X-Dropped"} {
			w.Header().Set(name, "late "+secret)
		}
		w.Header().Set(http.TrailerPrefix+"X-Unannounced", secret)
	}))
	defer upstream.Close()
	for _, settings := range []string{"", `,"reverseProxy":{"flush_interval":"1s"}`} {
		g, site := newGateway(t, upstream.URL, `,"passHeaders":["X-Passed"],"dropHeaders":["X-Dropped"]`+settings)
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, site.URL, struct{ io.Reader }{strings.NewReader("body")})
		req.Trailer = http.Header{"X-Passed": {"1"}, "Digest": {"2"}, "Authorization": {"Bearer evil"}, "Cookie": {"a=b"}, "X-Forwarded-For": {"1.2.3.4"}, "X-Other": {"3"}}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if got := fmt.Sprint(<-seen); got != "map[Digest:[2] X-Passed:[1]]" {
			t.Errorf("the upstream got the trailers %s", got)
		}
		for name, values := range res.Trailer {
			if name != "X-Late" && name != "X-Unannounced" || strings.Contains(fmt.Sprint(values), secret) {
				t.Errorf("the client got the trailer %s: %q", name, values)
			}
		}
		if got := res.Trailer.Get("X-Late"); got != "late [REDACTED:key]" {
			t.Errorf("X-Late: %q", got)
		}
		<-g.results
	}
}

// TestContinue: a body is asked for when somebody wants it.
func TestContinue(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			http.Error(w, "no", http.StatusRequestEntityTooLarge)
			return
		}
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Header.Get("Expect"), b)
	}))
	defer upstream.Close()
	_, site := newGateway(t, upstream.URL, "")
	for _, tt := range []struct{ path, want string }{{"/no", "HTTP/1.1 413 "}, {"/yes", "HTTP/1.1 100 "}} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(site.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n", tt.path)
		br := bufio.NewReader(conn)
		line, err := br.ReadString('\n')
		if !strings.HasPrefix(line, tt.want) {
			t.Errorf("%s: %q %v", tt.path, line, err)
		}
		if tt.path == "/yes" {
			_, _ = br.ReadString('\n')
			fmt.Fprint(conn, "body")
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			if string(b) != "100-continue body" {
				t.Errorf("%q", b)
			}
		}
		conn.Close()
	}
}

// TestParts: a part of an answer passes as it is or not at all.
func TestParts(t *testing.T) {
	whole := strings.Repeat("x", 100_000) + secret
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(whole))
	}))
	defer upstream.Close()
	g, site := newGateway(t, upstream.URL, "")
	for _, tt := range []struct {
		ranges string
		status int
		size   int // -1 if the body breaks off
	}{
		{"bytes=0-99", 206, 100},
		{"bytes=0-0,5-9", 206, -2},
		{"bytes=99990-", 502, -2},
		{"bytes=0-", 206, -1},
		{"bytes=900000-", 416, -2},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, site.URL+"/part", nil)
		req.Header.Set("Range", tt.ranges)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != tt.status || (tt.size == -1) != (err != nil) || tt.size >= 0 && len(b) != tt.size || strings.Contains(string(b), secret[:8]) {
			t.Errorf("%s: %d, %d bytes, %v", tt.ranges, res.StatusCode, len(b), err)
		}
		<-g.results
	}
}

// TestNoBody: answers without a body keep their length and their validators.
func TestNoBody(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"a"`)
		switch {
		case r.Method == http.MethodHead:
			w.Header().Set("Content-Length", "123456")
			w.Header().Set("X-Encoding", r.Header.Get("Accept-Encoding"))
		case r.URL.Path == "/204":
			w.WriteHeader(http.StatusNoContent)
		case r.URL.Path == "/304":
			w.WriteHeader(http.StatusNotModified)
		}
	}))
	defer upstream.Close()
	_, site := newGateway(t, upstream.URL, "")
	for _, tt := range []struct {
		method, path string
		status       int
		length       int64
	}{{"HEAD", "/", 200, 123456}, {"GET", "/204", 204, 0}, {"GET", "/304", 304, 0}} {
		req, _ := http.NewRequestWithContext(t.Context(), tt.method, site.URL+tt.path, nil)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != tt.status || res.ContentLength != tt.length || res.Header.Get("Etag") != `"a"` {
			t.Errorf("%s %s: %d, length %d, %v", tt.method, tt.path, res.StatusCode, res.ContentLength, res.Header)
		}
	}
}

// TestHintsAreCounted: the secret in a 103 is counted, and ends the call where
// it is to.
func TestHintsAreCounted(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Hint", secret)
		w.Header().Set("X-"+strings.Repeat("A", 10), "1")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("X-Hint")
		w.WriteHeader(http.StatusOK)
	}))
	defer upstream.Close()
	for _, tt := range []struct {
		settings string
		status   int
	}{{"", 200}, {`,"scrub":"block"`, 502}} {
		g, site := newGateway(t, upstream.URL, tt.settings)
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
			if strings.Contains(fmt.Sprint(h), secret) {
				t.Error("the secret is in a hint")
			}
			return nil
		}})
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, site.URL, nil)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if r := <-g.results; res.StatusCode != tt.status || r.Redactions != 1 {
			t.Errorf("%s: %d, %d redactions", tt.settings, res.StatusCode, r.Redactions)
		}
	}
}

// hints is an upstream that sends hints of a size for as long as anybody takes
// them, and tells how many it has sent.
func hints(t *testing.T, size int) (url string, sent *atomic.Int64) {
	sent = new(atomic.Int64)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Hint", strings.Repeat("x", size))
		for r.Context().Err() == nil {
			w.WriteHeader(http.StatusEarlyHints)
			sent.Add(1)
		}
	}))
	t.Cleanup(upstream.Close)
	return upstream.URL, sent
}

// TestHintsWithoutEnd: an upstream that never comes to its answer is given up.
func TestHintsWithoutEnd(t *testing.T) {
	url, _ := hints(t, 1)
	g, site := newGateway(t, url, "")
	n := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
		n++
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
	if res.StatusCode != http.StatusBadGateway || n > maxEarly || (<-g.refused).Code != "UPSTREAM_PROTOCOL" {
		t.Errorf("%d after %d hints", res.StatusCode, n)
	}
}

// TestHintsNobodyTakes: a call that is cut does not wait for a client that
// takes no hints.
func TestHintsNobodyTakes(t *testing.T) {
	url, sent := hints(t, 200<<10)
	g, site := newGateway(t, url, "")
	conn, err := net.Dial("tcp", site.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for before := int64(-1); before != sent.Load() || before < 1; { // until it stands still
		before = sent.Load()
		time.Sleep(50 * time.Millisecond) // the interval of looking
	}
	(*g.cut.Load())(refusal.New("TOKEN_REVOKED", ""))
	<-g.results
	if n := sent.Load(); n >= maxEarly {
		t.Errorf("%d hints were taken", n)
	}
}
