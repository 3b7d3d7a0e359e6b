package integration

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/net/websocket"
)

// socketSite is a server with a service whose /echo is a WebSocket, over
// HTTP/1.1 and HTTP/2 on one port and HTTP/3 on the other. The stand-in sends
// back what it is sent, and for "key" the key that it was given.
func socketSite(t *testing.T) (s *server, token issued) {
	s = prepare(t, config{
		env:    []string{"GODEBUG=http2xconnect=1"},
		global: "servers {\n protocols h1 h2 h2c h3\n }",
		sites: `
http://:$PORT {
	bind 127.0.0.1
	log
	vault
}
https://127.0.0.1:$PORT2 {
	bind 127.0.0.1
	tls $DIR/cert.pem $DIR/key.pem
	log
	vault
}`,
	})
	writeCertificate(t, s.dir)
	s.start()
	s.up.answer(func(w http.ResponseWriter, r *http.Request) {
		websocket.Server{Handler: func(ws *websocket.Conn) {
			for {
				var message string
				if err := websocket.Message.Receive(ws, &message); err != nil {
					return
				}
				if message == "key" {
					message = r.Header.Get("Authorization")
				}
				if err := websocket.Message.Send(ws, message); err != nil {
					return
				}
			}
		}}.ServeHTTP(w, r)
	})
	s.addService("live", `{"baseUrl":"`+s.up.URL+`","secretRef":"live_key","allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["live:use","live:more"],
		"endpoints":{"echo":{"method":"GET","path":"/echo","upgrade":"websocket","requiredScope":["live:use"]},
		"more":{"method":"GET","path":"/more","upgrade":"websocket","requiredScope":["live:more"]},
		"plain":{"method":"GET","path":"/plain"}}}`, secret)
	token = s.issueWith(`"agentId":"main","service":"live","scope":["live:use"]`)
	return s, token
}

// endOfCall waits for the record of the one call since a place in the log.
func (s *server) endOfCall(t *testing.T, from int64) record {
	t.Helper()
	var end record
	eventually(t, "the end of the call is recorded", func() bool {
		records, _ := s.auditLog(from)
		for _, r := range records {
			if r.text("event") == "proxy.call" {
				end = r
			}
		}
		return end != nil
	})
	return end
}

// TestWebSocket is a client over HTTP/1.1 that is not ours.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	s, token := socketSite(t)
	dial := func() *websocket.Conn {
		t.Helper()
		c, err := websocket.NewConfig("ws://127.0.0.1:"+s.port+"/proxy/live/echo", s.base)
		if err != nil {
			t.Fatal(err)
		}
		c.Header.Set("Authorization", "Bearer "+token.Token)
		ws, err := c.DialContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ws.Close() })
		_ = ws.SetDeadline(time.Now().Add(patience)) // a TCP connection has deadlines
		return ws
	}
	say := func(ws *websocket.Conn, message, want string) {
		t.Helper()
		var got string
		if err := websocket.Message.Send(ws, message); err != nil {
			t.Fatal(err)
		}
		if err := websocket.Message.Receive(ws, &got); err != nil || got != want {
			t.Fatalf("%q comes back as %.100q, %v", message, got, err)
		}
	}

	_, from := s.auditLog(0)
	ws := dial()
	say(ws, "hello", "hello")
	say(ws, "key", "Bearer [REDACTED:live_key]")
	large := strings.Repeat("large ", 40_000)
	say(ws, large, large)
	seen := s.up.last(t)
	if seen.header.Get("Origin") != "" || seen.header.Get("Authorization") != "Bearer "+secret {
		t.Errorf("the upstream got %v", seen.header)
	}
	ws.Close()
	if end := s.endOfCall(t, from); fmt.Sprintf("%v %v %v", end["status"], end["error"], end["redactions"]) != "101 <nil> 1" {
		t.Errorf("recorded: %v", end)
	}

	// A revocation ends it, and says so.
	_, from = s.auditLog(0)
	ws = dial()
	say(ws, "hello", "hello")
	s.ok("/vault.revoke", `{"tokenId":"`+token.TokenID+`"}`, nil)
	b, err := io.ReadAll(ws)
	if err != nil || len(b) != 0 {
		t.Errorf("after the revocation: %q %v", b, err)
	}
	ws.Close()
	if end := s.endOfCall(t, from); fmt.Sprintf("%v %v", end["status"], end["error"]) != "101 TOKEN_REVOKED" {
		t.Errorf("recorded: %v", end)
	}
}

func TestRefusedWebSocket(t *testing.T) {
	t.Parallel()
	s, token := socketSite(t)
	ws := func(edits ...edit) []edit {
		return append([]edit{
			bearer(token.Token), header("Connection", "Upgrade"), header("Upgrade", "websocket"),
			header("Sec-WebSocket-Version", "13"), header("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
		}, edits...)
	}
	row := func(name, path string, status int, code string, edits ...edit) refusal {
		return refusal{name: name, method: "GET", path: "/proxy/live" + path, status: status, code: code, event: "proxy.call", edits: edits}
	}
	origin := row("a page of another origin", "/echo", 403, "ORIGIN_DENIED", ws(header("Origin", "https://evil.example"))...)
	origin.event = "request"
	s.run(t, []refusal{
		row("where there is none", "/plain", 403, "UPGRADE_DENIED", ws()...),
		row("a plain request where there is one", "/echo", 426, "UPGRADE_REQUIRED", bearer(token.Token)),
		row("another protocol where there is one", "/echo", 426, "UPGRADE_REQUIRED", ws(header("Upgrade", "h2c"))...),
		row("no such path", "/nothing", 404, "NO_ENDPOINT", ws()...),
		row("no scope", "/more", 403, "INSUFFICIENT_SCOPE:live:more", ws()...),
		row("no token", "/echo", 401, "TOKEN_REQUIRED", ws(noHeader("Authorization"))...),
		row("an old version", "/echo", 400, "UPGRADE_INVALID", ws(header("Sec-WebSocket-Version", "8"))...),
		row("no version", "/echo", 400, "UPGRADE_INVALID", ws(noHeader("Sec-WebSocket-Version"))...),
		row("no key", "/echo", 400, "UPGRADE_INVALID", ws(noHeader("Sec-WebSocket-Key"))...),
		row("a short key", "/echo", 400, "UPGRADE_INVALID", ws(header("Sec-WebSocket-Key", "AAAA"))...),
		row("two keys", "/echo", 400, "UPGRADE_INVALID", ws(header("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAAAA=="))...),
		{name: "with POST", path: "/proxy/live/echo", body: "x", status: 400, code: "UPGRADE_INVALID", event: "proxy.call", edits: ws()},
		{name: "with vault.call", path: "/vault.call", body: `{"token":"` + token.Token + `","service":"live","action":"echo"}`, status: 426, code: "UPGRADE_REQUIRED", event: "proxy.call"},
		origin,
	})
}

// clientFrame is a text frame as a client sends it, with a mask of zeros.
func clientFrame(text string) []byte {
	return append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
}

// serverFrames reads short frames from a stream.
func serverFrame(t *testing.T, r *bufio.Reader) (opcode byte, payload string) {
	t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, head[1])
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	return head[0] & 0x0f, string(b)
}

// converse says something, asks for the key, revokes and is told.
func (s *server) converse(t *testing.T, token issued, w io.Writer, r *bufio.Reader) {
	t.Helper()
	_, from := s.auditLog(0)
	for _, say := range [][2]string{{"hello", "hello"}, {"key", "Bearer [REDACTED:live_key]"}} {
		if _, err := w.Write(clientFrame(say[0])); err != nil {
			t.Fatal(err)
		}
		if _, got := serverFrame(t, r); got != say[1] {
			t.Errorf("%q comes back as %q", say[0], got)
		}
	}
	s.ok("/vault.revoke", `{"tokenId":"`+token.TokenID+`"}`, nil)
	opcode, payload := serverFrame(t, r)
	if opcode != 8 || len(payload) < 2 || binary.BigEndian.Uint16([]byte(payload)) != 1008 || payload[2:] != "TOKEN_REVOKED" {
		t.Errorf("after the revocation: %x %q", opcode, payload)
	}
	_, _ = w.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8}) // the client's Close, if it is still wanted
	if end := s.endOfCall(t, from); fmt.Sprintf("%v %v %v %v", end["method"], end["status"], end["error"], end["redactions"]) != "GET 101 TOKEN_REVOKED 1" {
		t.Errorf("recorded: %v", end)
	}
	if seen := s.up.last(t); seen.method != "GET" || seen.header.Get("Sec-Websocket-Version") != "13" {
		t.Errorf("the upstream got %v", seen)
	}
}

// TestWebSocketOverHTTP2 is RFC 8441, with a client made of frames.
func TestWebSocketOverHTTP2(t *testing.T) {
	t.Parallel()
	s, token := socketSite(t)
	conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience)) // a TCP connection has deadlines
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "CONNECT"},
		{":protocol", "websocket"},
		{":scheme", "http"},
		{":path", "/proxy/live/echo"},
		{":authority", "127.0.0.1"},
		{"authorization", "Bearer " + token.Token},
		{"sec-websocket-version", "13"},
	} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // to memory
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	fr := http2.NewFramer(conn, conn)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	for status := ""; status == ""; {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if v, ok := f.Value(http2.SettingEnableConnectProtocol); !f.IsAck() && (!ok || v != 1) {
				t.Fatal("the server does not take CONNECT with a protocol")
			}
		case *http2.MetaHeadersFrame:
			if status = f.PseudoValue("status"); status != strconv.Itoa(http.StatusOK) {
				t.Fatalf("status %s %v", status, f.Fields)
			}
		}
	}
	body, data := io.Pipe()
	go func() {
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				_ = data.CloseWithError(err)
				return
			}
			if d, ok := f.(*http2.DataFrame); ok {
				_, _ = data.Write(d.Data())
			}
		}
	}()
	s.converse(t, token, writerFunc(func(p []byte) (int, error) { return len(p), fr.WriteData(1, false, p) }), bufio.NewReader(body))
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestWebSocketOverHTTP3 is RFC 9220.
func TestWebSocketOverHTTP3(t *testing.T) {
	t.Parallel()
	s, token := socketSite(t)
	pem, err := os.ReadFile(filepath.Join(s.dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	// A busy machine may take longer than five seconds to shake hands.
	tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, QUICConfig: &quic.Config{HandshakeIdleTimeout: time.Minute}}
	defer tr.Close()
	body, w := io.Pipe()
	defer w.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, "https://127.0.0.1:"+s.port2+"/proxy/live/echo", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Proto = "websocket"
	req.Header.Set("Authorization", "Bearer "+token.Token)
	req.Header.Set("Sec-WebSocket-Version", "13")
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body)
		t.Fatalf("%d %s", res.StatusCode, b)
	}
	s.converse(t, token, w, bufio.NewReader(res.Body))
}
