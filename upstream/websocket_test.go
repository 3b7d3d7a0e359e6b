package upstream

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/upstream/scrub"
	"github.com/caddyvault/caddyvault/vault"
)

// wsUpstream takes a WebSocket's handshake and hands the connection to f. The
// header of the request comes out of the channel.
func wsUpstream(t *testing.T, edit func(http.Header), f func(net.Conn, *bufio.Reader)) (url string, seen chan http.Header) {
	t.Helper()
	seen = make(chan http.Header, 8)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		h := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Accept": {accept(r.Header.Get("Sec-Websocket-Key"))}}
		if edit != nil {
			edit(h)
		}
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\n")
		_ = h.Write(conn)
		fmt.Fprint(conn, "\r\n")
		f(conn, rw.Reader)
	}))
	t.Cleanup(s.Close)
	return s.URL, seen
}

// wsClient is a client that sees frames.
type wsClient struct {
	t    *testing.T
	conn net.Conn
	br   *bufio.Reader
	res  *http.Response
}

func wsDial(t *testing.T, site string, more ...string) *wsClient {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(site, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 16))
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: gateway\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s\r\n", key, strings.Join(append(more, ""), "\r\n"))
	c := &wsClient{t: t, conn: conn, br: bufio.NewReader(conn)}
	if c.res, err = http.ReadResponse(c.br, nil); err != nil {
		t.Fatal(err)
	}
	if c.res.StatusCode == 101 && c.res.Header.Get("Sec-Websocket-Accept") != accept(key) {
		t.Errorf("the client's key was not accepted: %v", c.res.Header)
	}
	return c
}

// frame reads a frame and writes it as the tests do.
func (c *wsClient) frame() (f frameHeader, payload string, ok bool) {
	f, err := readFrame(c.br)
	if err != nil {
		return f, err.Error(), false
	}
	b := make([]byte, f.length)
	if _, err := io.ReadFull(c.br, b); err != nil {
		return f, err.Error(), false
	}
	return f, string(b), true
}

// send sends a masked frame.
func (c *wsClient) send(fin bool, opcode byte, payload string) {
	_, _ = c.conn.Write(masked(fin, opcode, payload))
}

func masked(fin bool, opcode byte, payload string) []byte {
	b := appendFrame(nil, fin, opcode, []byte(payload))
	b[1] |= 0x80
	head := len(b) - len(payload)
	mask := []byte{1, 2, 3, 4}
	out := append(bytes.Clone(b[:head]), mask...)
	for i, c := range b[head:] {
		out = append(out, c^mask[i%4])
	}
	return out
}

// rest reads all frames to the end: messages put together, control frames as
// they are, and the code of the Close frame.
func (c *wsClient) rest() (messages []string, closed uint16, reason string) {
	c.t.Helper()
	open := ""
	for {
		f, payload, ok := c.frame()
		if !ok {
			return messages, closed, reason
		}
		switch {
		case f.opcode == opClose:
			if len(payload) >= 2 {
				closed, reason = binary.BigEndian.Uint16([]byte(payload)), payload[2:]
			}
			c.send(true, opClose, payload)
		case f.control():
			messages = append(messages, fmt.Sprintf("%x:%s", f.opcode, payload))
		default:
			open += payload
			if f.fin {
				messages = append(messages, open)
				open = ""
			}
		}
	}
}

// TestFramesAreScrubbed: whatever frames the secret is cut into.
func TestFramesAreScrubbed(t *testing.T) {
	frame := func(fin bool, op byte, payload string) string {
		return string(appendFrame(nil, fin, op, []byte(payload)))
	}
	bye := frame(true, opClose, "\x03\xe8")
	escaped := strings.ReplaceAll(secret, "s", `\u0073`)
	large := strings.Repeat("x", 200_000) // two of them are no whole frame
	tests := []struct {
		name, frames string
		want         []string
		hits         int
	}{
		{"text", frame(true, opText, "a "+secret+" b"), []string{"a [REDACTED:key] b"}, 1},
		{"binary", frame(true, opBinary, "\x00"+secret+"\xff"), []string{"\x00[REDACTED:key]\xff"}, 1},
		{"base64", frame(true, opText, base64.StdEncoding.EncodeToString([]byte("u:"+secret))), nil, 1},
		{"escaped", frame(true, opText, escaped), []string{"[REDACTED:key]"}, 1},
		{"fragments", frame(false, opText, "a "+secret[:3]) + frame(false, 0, secret[3:9]) + frame(true, 0, secret[9:]+" b"), []string{"a [REDACTED:key] b"}, 1},
		{"a ping between fragments", frame(false, opText, secret[:5]) + frame(true, opPing, "hi") + frame(true, 0, secret[5:]), []string{"9:hi", "[REDACTED:key]"}, 1},
		{"an empty last fragment", frame(false, opText, secret) + frame(true, 0, ""), []string{"[REDACTED:key]"}, 1},
		{"what only begins like it", frame(false, opText, secret[:5]) + frame(true, 0, "no"), []string{secret[:5] + "no"}, 0},
		{"two messages are two texts", frame(true, opText, secret[:5]) + frame(true, opText, secret[5:]), []string{secret[:5], secret[5:]}, 0},
		{"in a large frame", frame(true, opText, large+secret+large), []string{large + "[REDACTED:key]" + large}, 1},
		{"an empty message", frame(true, opText, ""), []string{""}, 0},
		{"in a ping", frame(true, opPing, "p"+secret), []string{"9:p[REDACTED:key]"}, 1},
		{"in a pong", frame(true, opPong, secret), []string{"a:[REDACTED:key]"}, 1},
	}
	for _, tt := range tests {
		for _, size := range []int{1, 7, 1 << 20} { // how the connection cuts it
			if size < 7 && len(tt.frames) > 10_000 {
				continue
			}
			t.Run(fmt.Sprint(tt.name, " ", size), func(t *testing.T) {
				upstream, _ := wsUpstream(t, nil, func(c net.Conn, br *bufio.Reader) {
					for p := []byte(tt.frames + bye); len(p) > 0; {
						n := min(size, len(p))
						_, _ = c.Write(p[:n])
						p = p[n:]
					}
					_, _ = io.Copy(io.Discard, br)
				})
				g, site := newGateway(t, upstream, "")
				messages, code, _ := wsDial(t, site.URL).rest()
				if tt.want != nil && !equal(messages, tt.want) || code != 1000 || strings.Contains(fmt.Sprint(messages), secret) {
					t.Errorf("%d messages %.300q, closed with %d", len(messages), messages, code)
				}
				if r := <-g.results; r.Redactions != tt.hits || r.Code != "" || r.Status != 101 {
					t.Errorf("%d redactions, code %q, status %d", r.Redactions, r.Code, r.Status)
				}
			})
		}
	}
}

func equal(a, b []string) bool { return strings.Join(a, "\x00|") == strings.Join(b, "\x00|") }

// TestASecretInACloseFrame: its reason is a text too, and stays one.
func TestASecretInACloseFrame(t *testing.T) {
	for _, reason := range []string{secret, strings.Repeat("é", 45) + secret} {
		upstream, _ := wsUpstream(t, nil, func(c net.Conn, br *bufio.Reader) {
			_, _ = c.Write(appendFrame(nil, true, opClose, closePayload(1000, reason)))
			_, _ = io.Copy(io.Discard, br)
		})
		_, site := newGateway(t, upstream, "")
		_, code, got := wsDial(t, site.URL).rest()
		if code != 1000 || strings.Contains(got, secret[:8]) || !strings.Contains(got, "[REDACTED") {
			t.Errorf("closed with %d %q", code, got)
		}
	}
}

func TestWebSocketEnds(t *testing.T) {
	hello := string(appendFrame(nil, true, opText, []byte("hello")))
	raw := func(b ...byte) string { return string(b) }
	tests := []struct {
		name, settings, frames string
		client                 func(c *wsClient)
		cut                    *refusal.Refusal
		closed                 uint16
		code                   string
	}{
		{name: "a reserved bit", frames: raw(0xC1, 1, 'x'), closed: 1002, code: "UPSTREAM_PROTOCOL"},
		{name: "an unknown opcode", frames: raw(0x83, 0), closed: 1002, code: "UPSTREAM_PROTOCOL"},
		{name: "an unknown control opcode", frames: raw(0x8B, 0), closed: 1002, code: "UPSTREAM_PROTOCOL"},
		{name: "a masked frame", frames: raw(0x81, 0x81, 1, 2, 3, 4, 5), closed: 1002, code: "UPSTREAM_PROTOCOL"},
		{name: "nothing to continue", frames: raw(0x80, 1, 'x'), closed: 1002, code: "UPSTREAM_PROTOCOL"},
		{name: "a message within one", frames: raw(0x01, 1, 'x', 0x81, 1, 'y'), closed: 1002, code: "UPSTREAM_PROTOCOL"},
		{name: "a fragmented ping", frames: raw(0x09, 0), closed: 1002, code: "UPSTREAM_PROTOCOL"},
		{name: "a long ping", frames: raw(0x89, 126, 0, 126), closed: 1002, code: "UPSTREAM_PROTOCOL"},
		{name: "a negative length", frames: raw(0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0), closed: 1002, code: "UPSTREAM_PROTOCOL"},
		{name: "half a code", frames: raw(0x88, 1, 3), closed: 1002, code: "UPSTREAM_PROTOCOL"},
		{name: "no frames at all", frames: "HTTP/1.1 200 OK\r\n\r\n", closed: 1002, code: "UPSTREAM_PROTOCOL"},
		{name: "the end of the connection", frames: "", closed: 1011, code: "UPSTREAM_UNREACHABLE"},
		{name: "the end within a frame", frames: raw(0x81, 5, 'x'), closed: 1011, code: "UPSTREAM_UNREACHABLE"},
		{name: "the secret, blocked", settings: `,"scrub":"block"`, frames: string(appendFrame(nil, true, opText, []byte(secret))), closed: 1008, code: "UPSTREAM_PROTOCOL"},
		{name: "the secret in a ping, blocked", settings: `,"scrub":"block"`, frames: string(appendFrame(nil, true, opPing, []byte(secret))), closed: 1008, code: "UPSTREAM_PROTOCOL"},
		{name: "a revocation", frames: hello + "wait", cut: refusal.New("SESSION_REVOKED", ""), closed: 1008, code: "SESSION_REVOKED"},
		{name: "a revocation within a frame", frames: raw(0x81, 100, 'x') + "wait", cut: refusal.New("SESSION_REVOKED", ""), closed: 1008, code: "SESSION_REVOKED"},
		{name: "an expired token", frames: hello + "wait", cut: expiredRefusal(), closed: 1008, code: "TOKEN_EXPIRED"},
		{name: "silence", settings: `,"timeouts":{"idle":"100ms"}`, frames: hello + "wait", closed: 1001, code: "UPSTREAM_TIMEOUT:idle"},
		{name: "a client that does not mask", frames: "wait", client: func(c *wsClient) { _, _ = io.WriteString(c.conn, hello) }, closed: 1002, code: "UPGRADE_INVALID"},
		{name: "a client that sends no frames", frames: "wait", client: func(c *wsClient) { _, _ = io.WriteString(c.conn, "GET /admin HTTP/1.1\r\n\r\n") }, closed: 1002, code: "UPGRADE_INVALID"},
		{name: "a client that is gone", frames: "wait", client: func(c *wsClient) { c.conn.Close() }, code: "CLIENT_CLOSED"},
		{name: "a client that says goodbye", frames: "echo", client: func(c *wsClient) { c.send(true, opClose, "\x03\xe8") }, closed: 1000, code: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ended := make(chan string, 1)
			upstream, _ := wsUpstream(t, nil, func(c net.Conn, br *bufio.Reader) {
				frames, wait := strings.CutSuffix(tt.frames, "wait")
				frames, echo := strings.CutSuffix(frames, "echo")
				_, _ = io.WriteString(c, frames)
				switch {
				case echo:
					_, _ = io.Copy(c, &unmasked{r: br})
				case wait:
					b, _ := io.ReadAll(br)
					ended <- string(b)
				}
			})
			g, site := newGateway(t, upstream, tt.settings)
			c := wsDial(t, site.URL)
			if strings.HasPrefix(tt.frames, hello) {
				if _, payload, ok := c.frame(); !ok || payload != "hello" {
					t.Fatalf("the first message is %q", payload)
				}
			}
			if tt.client != nil {
				tt.client(c)
			}
			if tt.cut != nil {
				(*g.cut.Load())(tt.cut)
			}
			messages, closed, reason := c.rest()
			if closed != tt.closed || strings.Contains(fmt.Sprint(messages, reason), secret) {
				t.Errorf("closed with %d %q after %q, want %d", closed, reason, messages, tt.closed)
			}
			if r := <-g.results; r.Code != tt.code || r.Status != 101 {
				t.Errorf("recorded as %q, status %d", r.Code, r.Status)
			}
			if strings.HasSuffix(tt.frames, "wait") {
				// The upstream is told too, in a frame that a client may send.
				last := <-ended
				f, n, err := parseFrame([]byte(last), true)
				if err != nil || n == 0 || f.opcode != opClose {
					t.Errorf("the upstream got %q", last)
				}
			}
		})
	}
}

// unmasked undoes the mask of short frames, for a stand-in that echoes.
type unmasked struct{ r *bufio.Reader }

func (u *unmasked) Read(p []byte) (int, error) {
	head := make([]byte, 6)
	if _, err := io.ReadFull(u.r, head); err != nil {
		return 0, err
	}
	b := make([]byte, head[1]&0x7f)
	if _, err := io.ReadFull(u.r, b); err != nil {
		return 0, err
	}
	for i := range b {
		b[i] ^= head[2+i%4]
	}
	return copy(p, appendFrame(nil, true, head[0]&0x0f, b)), nil
}

// TestHandshake is what either side is told of the other.
func TestHandshake(t *testing.T) {
	upstream, seen := wsUpstream(t, func(h http.Header) {
		h.Set("Sec-WebSocket-Protocol", "chat")
		h.Set("Set-Cookie", "a=b")
		h.Set("X-Echo", secret)
		h.Set("Server", "x")
	}, func(c net.Conn, br *bufio.Reader) { _, _ = io.Copy(c, &unmasked{r: br}) })
	g, site := newGateway(t, upstream, "")
	c := wsDial(t, site.URL, "Origin: https://evil.example", "Authorization: Bearer agent", "Cookie: a=b",
		"Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: chat, openai-insecure-api-key.agent, other", "X-Custom: 1")
	if c.res.StatusCode != 101 {
		t.Fatalf("status %d", c.res.StatusCode)
	}
	h := <-seen
	for name, want := range map[string]string{
		"Authorization": "Bearer " + secret, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13",
		"Sec-Websocket-Protocol": "chat, other", "Sec-Websocket-Extensions": "", "Origin": "", "Cookie": "", "X-Custom": "",
	} {
		if got := strings.Join(h[name], "|"); got != want {
			t.Errorf("the upstream got %s: %q, want %q", name, got, want)
		}
	}
	if h.Get("Sec-Websocket-Key") == base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 16)) {
		t.Error("the client chose the key")
	}
	for name, want := range map[string]string{
		"Sec-Websocket-Protocol": "chat", "Set-Cookie": "", "X-Echo": "[REDACTED:key]", "Sec-Websocket-Extensions": "",
	} {
		if got := strings.Join(c.res.Header[name], "|"); got != want {
			t.Errorf("the client got %s: %q, want %q", name, got, want)
		}
	}
	c.send(true, opText, "hello")
	if _, payload, _ := c.frame(); payload != "hello" {
		t.Errorf("the echo is %q", payload)
	}
	c.send(true, opClose, "\x03\xe8")
	if _, code, _ := c.rest(); code != 1000 {
		t.Errorf("closed with %d", code)
	}
	if r := <-g.results; r.RequestBytes.Load() == 0 || r.ResponseBytes.Load() == 0 {
		t.Error("nothing was counted")
	}
}

// TestBadHandshakes: an upstream that switches without having understood gets
// nothing of what a client sends.
func TestBadHandshakes(t *testing.T) {
	for name, edit := range map[string]func(http.Header){
		"another key":           func(h http.Header) { h.Set("Sec-WebSocket-Accept", accept("x")) },
		"no key":                func(h http.Header) { h.Del("Sec-WebSocket-Accept") },
		"another protocol":      func(h http.Header) { h.Set("Upgrade", "h2c") },
		"no connection":         func(h http.Header) { h.Del("Connection") },
		"extensions":            func(h http.Header) { h.Set("Sec-WebSocket-Extensions", "permessage-deflate") },
		"a subprotocol unasked": func(h http.Header) { h.Set("Sec-WebSocket-Protocol", "chat") },
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			upstream, _ := wsUpstream(t, edit, func(_ net.Conn, br *bufio.Reader) {
				b, _ := io.ReadAll(br)
				got <- string(b)
			})
			g, site := newGateway(t, upstream, "")
			c := wsDial(t, site.URL)
			if c.res.StatusCode != http.StatusBadGateway {
				t.Errorf("status %d", c.res.StatusCode)
			}
			if r := <-g.refused; r.Code != "UPSTREAM_PROTOCOL" {
				t.Errorf("%s", r.Code)
			}
			if b := <-got; b != "" {
				t.Errorf("the upstream got %q", b)
			}
		})
	}
	// And one that does not switch answers as it does.
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no "+secret, http.StatusForbidden) }))
	defer s.Close()
	_, site := newGateway(t, s.URL, "")
	c := wsDial(t, site.URL)
	if b, _ := io.ReadAll(c.res.Body); c.res.StatusCode != http.StatusForbidden || !strings.Contains(string(b), "no [REDACTED:key]") {
		t.Errorf("%d %s", c.res.StatusCode, b)
	}
}

// sentTo is the connection to an upstream.
type sentTo struct{ bytes.Buffer }

func (*sentTo) Close() error { return nil }

func codeOf(err error) string {
	var r *refusal.Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

func TestTunnelPassesWholeHeaders(t *testing.T) {
	long := masked(true, opBinary, strings.Repeat("x", 300))
	tests := []struct {
		name, in, out, cut string
	}{
		{"frames", string(long) + string(masked(true, opPing, "hi")), string(long) + string(masked(true, opPing, "hi")), ""},
		{"a header that is not whole", string(long[:7]), "", ""},
		{"a frame that is not whole", string(long[:9]), string(long[:9]), ""},
		{"no frame", "GET /admin HTTP/1.1\r\n", "", "UPGRADE_INVALID"},
		{"no mask", "\x81\x01x", "", "UPGRADE_INVALID"},
		{"no frame after one", string(long) + "\x81\x01x", string(long), "UPGRADE_INVALID"},
	}
	for _, tt := range tests {
		for _, size := range []int{1, 2, 5, len(tt.in)} {
			t.Run(fmt.Sprintf("%s by %d", tt.name, size), func(t *testing.T) {
				var cut error
				to := new(sentTo)
				c := &call{
					out:    &vault.Outbound{Cut: func(err error) { cut = err }},
					result: &vault.Result{},
				}
				tun := &tunnel{ctx: t.Context(), conn: to, c: c, hangUp: make(chan struct{}), upstreamUp: true}
				for b := range slices.Chunk([]byte(tt.in), size) {
					if n, err := tun.Write(b); n != len(b) || err != nil {
						t.Fatal(n, err)
					}
					if cut != nil { // what follows it does not count
						_, _ = tun.Write(masked(true, opText, "hi"))
						break
					}
				}
				// Of a piece that does not hold nothing is sent.
				short := tt.cut != "" && len(to.String()) > len(tt.out)-size && strings.HasPrefix(tt.out, to.String())
				if to.String() != tt.out && !short || codeOf(cut) != tt.cut {
					t.Errorf("the upstream got %q, cut with %v; want %q, %q", to.String(), cut, tt.out, tt.cut)
				}
			})
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(nil, true, opText, []byte("hello")), true)
	f.Add(masked(false, opBinary, strings.Repeat("x", 200)), true)
	f.Add(maskedClose(1001), false)
	f.Add([]byte{0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}, false)
	f.Fuzz(func(t *testing.T, b []byte, whole bool) {
		// However it is cut, a client's bytes are followed to the same place.
		var one, other follower
		errOne := one.follow(b)
		var errOther error
		for i := range b {
			if errOther = other.follow(b[i : i+1]); errOther != nil {
				break
			}
		}
		if (errOne == nil) != (errOther == nil) || errOne == nil && (one.left != other.left || one.have != other.have || one.closed != other.closed) {
			t.Errorf("%+v %v, byte by byte %+v %v", one, errOne, other, errOther)
		}
		if h, n, err := parseFrame(b, whole); err == nil && n > 0 && (n > maxFrameHeader || h.length < 0 || h.control() && h.length > maxControl) {
			t.Errorf("%+v of %d bytes", h, n)
		}
		if clean, _ := cleanControl(opClose, b[:min(len(b), maxControl)], scrub.New([]scrub.Named{{Ref: strings.Repeat("r", 63), Value: secret}})); len(clean) > maxControl {
			t.Errorf("%d bytes of a control frame", len(clean))
		}
	})
}
