package upstream

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
)

// listen calls serve for each connection to the address that it returns.
func listen(t *testing.T, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return l.Addr().String()
}

// raw is an upstream that answers every request with the same bytes and hangs
// up.
func raw(t *testing.T, answer string) string {
	return "http://" + listen(t, func(conn net.Conn) {
		defer conn.Close()
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			_, _ = io.WriteString(conn, answer)
		}
	})
}

// TestHostileUpstream is what a client gets of answers that are made to
// confuse: nothing that holds the secret, and an end.
func TestHostileUpstream(t *testing.T) {
	gz := func(texts ...string) string { // a member each
		var b bytes.Buffer
		for _, text := range texts {
			z := gzip.NewWriter(&b)
			_, _ = io.WriteString(z, text)
			_ = z.Close()
		}
		return b.String()
	}
	br := func(text string) string {
		var b bytes.Buffer
		z := brotli.NewWriter(&b)
		_, _ = io.WriteString(z, text)
		_ = z.Close()
		return b.String()
	}
	head := func(lines ...string) string {
		return "HTTP/1.1 200 OK\r\n" + strings.Join(append(lines, "Connection: close"), "\r\n") + "\r\n\r\n"
	}
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	const end, clean = "0\r\n\r\n", "[REDACTED:key]"
	bomb := strings.Repeat("0", 1<<20)

	for _, tt := range []struct {
		name, answer string
		status       int
		body         string // "-" for any
		broken       bool   // off after its status
		trailer      string
	}{
		{name: "nothing", answer: "", status: 502, body: "-"},
		{name: "no HTTP", answer: "SSH-2.0-OpenSSH\r\n" + secret, status: 502, body: "-"},
		{name: "a status that is none", answer: "HTTP/1.1 20 OK\r\n\r\n", status: 502, body: "-"},
		{name: "HTTP/2 unasked", answer: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + secret, status: 502, body: "-"},
		{name: "the secret as reason", answer: "HTTP/1.1 200 " + secret + "\r\nContent-Length: 0\r\n\r\n", status: 200},
		{name: "the secret as a name", answer: head("X-"+strings.ReplaceAll(secret, "/", ".")+": 1", "Content-Length: 0"), status: 200},
		{name: "a header of half a megabyte", answer: head("X-Large: "+strings.Repeat("x", 512<<10), "Content-Length: 0"), status: 502, body: "-"},
		{name: "headers of half a megabyte", answer: head(strings.Repeat("X-Many: x\r\n", 50_000) + "Content-Length: 0"), status: 502, body: "-"},
		{name: "a header across lines", answer: head("X-Folded: a\r\n "+secret, "Content-Length: 0"), status: 200},
		{name: "a name with a space", answer: head("X Y: "+secret, "Content-Length: 0"), status: 200},
		{name: "a value with a NUL", answer: head("X-Y: a\x00b", "Content-Length: 0"), status: 502, body: "-"},

		{name: "shorter than it says", answer: head("Content-Length: 100") + "abc", status: 502, body: "-"},
		{name: "a long one, shorter than it says", answer: head("Content-Length: 100000") + "abc", status: 200, body: "abc", broken: true},
		{name: "longer than it says", answer: head("Content-Length: 3") + "abc" + secret, status: 200, body: "abc"},
		{name: "another answer behind it", answer: head("Content-Length: 3") + "abc" + head("X-Key: "+secret), status: 200, body: "abc"},
		{name: "two lengths", answer: head("Content-Length: 3", "Content-Length: 4") + "abcd", status: 502, body: "-"},
		{name: "a length below nothing", answer: head("Content-Length: -3") + "abc", status: 502, body: "-"},
		{name: "a length with a sign", answer: head("Content-Length: +3") + "abc", status: 502, body: "-"},
		{name: "a length, and chunks", answer: head("Content-Length: 3", "Transfer-Encoding: chunked") + chunk("abcd") + end, status: 200, body: "abcd"},
		{name: "chunked twice", answer: head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + chunk("abc") + end, status: 502, body: "-"},
		{name: "encoded for the way", answer: head("Transfer-Encoding: gzip, chunked") + chunk(gz(secret)) + end, status: 502, body: "-"},
		{name: "a chunk that is none", answer: head("Transfer-Encoding: chunked") + chunk("abc") + "zz\r\n" + secret, status: 200, body: "abc", broken: true},
		{name: "a chunk of all there is", answer: head("Transfer-Encoding: chunked") + "ffffffffffffffff\r\n" + secret, status: 200, body: "-", broken: true},
		{name: "no last chunk", answer: head("Transfer-Encoding: chunked") + chunk(secret), status: 200, body: clean, broken: true},
		{name: "the secret beside a chunk", answer: head("Transfer-Encoding: chunked") + "3;key=" + secret + "\r\nabc\r\n" + end, status: 200, body: "abc"},
		{name: "the secret in a trailer", answer: head("Transfer-Encoding: chunked", "Trailer: X-Key") + chunk("abc") + "0\r\nX-Key: " + secret + "\r\n\r\n", status: 200, body: "abc", trailer: clean},
		{name: "in a trailer nobody spoke of", answer: head("Transfer-Encoding: chunked") + chunk("abc") + "0\r\nX-Key: " + secret + "\r\n\r\n", status: 200, body: "abc", trailer: clean},
		{name: "a trailer that sets a length", answer: head("Transfer-Encoding: chunked", "Trailer: Content-Length") + chunk("abc") + "0\r\nContent-Length: 1\r\n\r\n", status: 502, body: "-"},
		{name: "a trailer without end", answer: head("Transfer-Encoding: chunked") + chunk("abc") + "0\r\nX-Key: " + strings.Repeat("x", 1<<20), status: 200, body: "abc", broken: true},
		{name: "one byte a chunk", answer: head("Transfer-Encoding: chunked") + func() (s string) {
			for _, c := range secret {
				s += chunk(string(c))
			}
			return s
		}() + end, status: 200, body: clean},

		{name: "gzip that is none", answer: head("Content-Encoding: gzip") + secret, status: 200, broken: true},
		{name: "gzip cut short", answer: head("Content-Encoding: gzip") + gz(secret)[:20], status: 200, body: "-", broken: true},
		{name: "gzip in two", answer: head("Content-Encoding: gzip") + gz("a"+secret[:7], secret[7:]+"b"), status: 200, body: "a" + clean + "b"},
		{name: "gzip twice", answer: head("Content-Encoding: gzip, gzip") + gz(gz(secret)), status: 502, body: "-"},
		{name: "gzip on two lines", answer: head("Content-Encoding: gzip", "Content-Encoding: gzip") + gz(gz(secret)), status: 200, body: gz(secret)}, // undone once: a file, too
		{name: "gzip inside of gzip", answer: head("Content-Encoding: GZIP") + gz(gz(secret)), status: 200, body: gz(secret)},                         // as any file may be
		{name: "gzip and something", answer: head("Content-Encoding: gzip, identity") + gz(secret), status: 502, body: "-"},
		{name: "an encoding that is none", answer: head("Content-Encoding: rot13") + secret, status: 502, body: "-"},
		{name: "brotli and more", answer: head("Content-Encoding: br") + br("abc") + secret, status: 200, body: "abc", broken: true},
		{name: "a bomb with the secret behind it", answer: head("Content-Encoding: gzip") + gz(bomb, bomb, bomb, bomb, bomb, bomb, bomb, bomb, secret), status: 200, body: strings.Repeat(bomb, 8) + clean},

		{name: "another protocol", answer: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + secret, status: 502, body: "-"},
		{name: "no content, and some", answer: "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n" + secret, status: 204},
		{name: "a part nobody asked for", answer: "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-22/23\r\nConnection: close\r\n\r\n" + secret, status: 206, broken: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, site := newGateway(t, raw(t, tt.answer), "")
			tr := &http.Transport{DisableCompression: true}
			defer tr.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, site.URL+"/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			all := res.Status + fmt.Sprint(res.Header) + fmt.Sprint(res.Trailer) + string(body)
			if strings.Contains(all, secret) || strings.Contains(all, strings.ReplaceAll(secret, "/", ".")) {
				t.Errorf("the client got the secret: %.500q", all)
			}
			if res.StatusCode != tt.status || (err != nil) != tt.broken || tt.body != "-" && string(body) != tt.body || res.Trailer.Get("X-Key") != tt.trailer {
				t.Errorf("%d %.200q %v, trailers %v", res.StatusCode, body, err, res.Trailer)
			}
		})
	}
}
