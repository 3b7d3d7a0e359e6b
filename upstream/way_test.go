package upstream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// TestBothWays: what was read whole is written without Caddy's proxy, and
// nobody can tell. Every answer, and what is recorded of it, is the same as
// through the proxy, which serves every call while Caddy's log is at DEBUG.
func TestBothWays(t *testing.T) {
	long := strings.Repeat("x", smallBody+1)
	// What is streamed has a type: whether the server guesses one depends on
	// what comes first there, the first byte or a flush.
	answers := map[string]string{
		"small":               "200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
		"empty":               "200 OK\r\nContent-Length: 0\r\n\r\n",
		"the secret":          "200 OK\r\nContent-Length: " + fmt.Sprint(len(secret)) + "\r\nETag: \"x\"\r\nDigest: sha-256=x\r\nX-Key: a" + secret + "\r\n\r\n" + secret,
		"chunked":             "200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"trailers":            "200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
		"to its end":          "200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nhello",
		"large":               "200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + fmt.Sprint(len(long)) + "\r\n\r\n" + long,
		"events":              "200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\ndata: x\n\n",
		"no content":          "204 No Content\r\n\r\n",
		"not modified":        "304 Not Modified\r\nETag: \"x\"\r\n\r\n",
		"a refusal":           "404 Not Here\r\nContent-Length: 2\r\n\r\n{}",
		"an odd status":       "599 Odd\r\nContent-Length: 2\r\n\r\n{}",
		"a redirect":          "302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
		"cookies, hops":       "200 OK\r\nSet-Cookie: a=b\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: x\r\nProxy-Connection: x\r\nServer: s\r\nVia: 1.0 x\r\nContent-Length: 1\r\n\r\n1",
		"values":              "200 OK\r\nX-A: 1\r\nX-A: 2\r\nCache-Control: no-store\r\nVary: a\r\nVary: b\r\nContent-Length: 1\r\n\r\n1",
		"incremental":         "200 OK\r\nIncremental: ?1\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\n1",
		"gzip that is none":   "200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
		"identity":            "200 OK\r\nContent-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.0":            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"less than it says":   "200 OK\r\nContent-Length: 9\r\n\r\nhello",
		"hints first":         "103 Early Hints\r\nX-Hint: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"switched":            "101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
		"nothing":             "",
		"no HTTP":             "hello\r\n\r\n",
		"two lengths":         "200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"no such transfer":    "200 OK\r\nTransfer-Encoding: x\r\n\r\nhello",
		"a header of no name": "200 OK\r\n: x\r\nContent-Length: 5\r\n\r\nhello",
	}
	requests := map[string]string{
		"GET":     "GET /%s HTTP/1.1\r\nHost: gw\r\nTE: trailers\r\nConnection: close\r\n\r\n",
		"HEAD":    "HEAD /%s HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n",
		"POST":    "POST /%s HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
		"expect":  "POST /%s HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody",
		"chunked": "POST /%s HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n4\r\nbody\r\n0\r\nX-T: 1\r\n\r\n",
	}
	sent := make(chan string, 16) // more than one where Go's transport tries again
	upstream := "http://" + listen(t, func(conn net.Conn) {
		defer conn.Close()
		for r := bufio.NewReader(conn); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return // nobody needs it any more
			}
			if req.Header.Get("Expect") != "" {
				_, _ = io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
			}
			body, err := io.ReadAll(req.Body)
			req.Header.Del("Traceparent")
			sent <- fmt.Sprintln(req.Method, req.URL, req.Host, req.Header, string(body), req.Trailer, err)
			name, _ := url.PathUnescape(req.URL.Path[1:])
			answer := answers[name]
			if !strings.HasPrefix(answer, "HTTP/") && answer != "" && name != "no HTTP" {
				answer = "HTTP/1.1 " + answer
			}
			if head, _, ok := strings.Cut(answer, "\r\n\r\n"); ok && req.Method == http.MethodHead && name != "hints first" {
				answer = head + "\r\n\r\n" // what came behind would be found by the next request, or not
			}
			_, _ = io.WriteString(conn, answer)
			switch name { // Go's transport keeps no connection after these
			case "nothing", "to its end", "less than it says", "HTTP/1.0", "switched", "no HTTP":
				return
			}
		}
	})
	straight, site := newGateway(t, upstream, "")
	proxied, proxiedSite := newGateway(t, upstream, "")
	proxied.proxy.debugs = true
	asked := countProxied(t, straight)
	date := regexp.MustCompile(`Date: [^\r]*`)

	// ask returns what went to the upstream, what came back, and what is
	// recorded of it.
	ask := func(g *gateway, site, request string) (got [3]string) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(site, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, request)
		answer, err := io.ReadAll(conn)
		r := <-g.results
		code := ""
		select {
		case refused := <-g.refused:
			code = refused.Code
		default:
		}
		for len(sent) > 0 {
			got[0] = <-sent
		}
		got[1] = fmt.Sprintf("%s%v", sortedHead(date.ReplaceAllString(string(answer), "Date: x")), err)
		got[2] = fmt.Sprint(r.Status, r.Code, " ", code, r.Redactions, r.RequestBytes.Load(), r.ResponseBytes.Load())
		return got
	}
	for kind, request := range requests {
		for name := range answers {
			t.Run(kind+" "+name, func(t *testing.T) {
				request := fmt.Sprintf(request, url.PathEscape(name))
				want := ask(proxied, proxiedSite.URL, request)
				before := asked.Load()
				got := ask(straight, site.URL, request)
				if name == "small" && kind == "GET" && asked.Load() != before || name == "events" && kind == "GET" && asked.Load() == before {
					t.Error("it went the other way")
				}
				for i, what := range [...]string{"sent", "answer", "result"} {
					if got[i] != want[i] {
						t.Errorf("%s: %.600q\nthrough the proxy: %.600q", what, got[i], want[i])
					}
				}
				if strings.Contains(got[1], secret) {
					t.Error("the secret came back")
				}
			})
		}
	}
}

// countProxied counts what Caddy's proxy asks of a gateway's transport.
func countProxied(t *testing.T, g *gateway) *atomic.Int64 {
	t.Helper()
	s, err := g.proxy.acquire(t.Context(), g.service)
	if err != nil {
		t.Fatal(err)
	}
	defer s.release()
	n := new(atomic.Int64)
	s.handler.Transport = countingTransport{s.tr, n}
	return n
}

type countingTransport struct {
	http.RoundTripper
	n *atomic.Int64
}

func (c countingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.RoundTripper.RoundTrip(r)
}

// TestCutAsItEnds: a call that is cut while the last of a streamed answer is on
// its way did not end by itself, for its client is cut as well. One that was
// read whole is written, and did.
func TestCutAsItEnds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cut   error
		whole bool
		code  string
	}{
		{"not cut", nil, false, ""},
		{"cut", refusal.New("SESSION_REVOKED", ""), false, "SESSION_REVOKED"},
		{"cut, and whole", refusal.New("SESSION_REVOKED", ""), true, ""},
		{"the client is gone", context.Canceled, false, ""},
	} {
		ctx, cut := context.WithCancelCause(t.Context())
		if tt.cut != nil {
			cut(tt.cut)
		}
		ends := 0
		result := &vault.Result{End: func() { ends++ }}
		b := &answerBody{ctx: ctx, res: new(http.Response), result: result, r: strings.NewReader("the last")}
		if tt.whole {
			b.is([]byte("the last"))
		}
		if _, err := io.ReadAll(b); err != nil || result.Code != tt.code || ends != 1 {
			t.Errorf("%s: %q, %v, %d ends", tt.name, result.Code, err, ends)
		}
		cut(nil)
	}
}

// sortedHead returns an HTTP/1.1 answer with the lines of each of its headers
// in order.
func sortedHead(answer string) string {
	var out strings.Builder
	for {
		head, rest, ok := strings.Cut(answer, "\r\n\r\n")
		if !ok || !strings.HasPrefix(head, "HTTP/") {
			return out.String() + answer
		}
		lines := strings.Split(head, "\r\n")
		slices.Sort(lines[1:])
		out.WriteString(strings.Join(lines, "\r\n") + "\r\n\r\n")
		answer = rest
	}
}
