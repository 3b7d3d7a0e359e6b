package integration

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

// openCall is one of a client's calls under way.
type openCall struct {
	name string
	res  *http.Response // nil for a WebSocket and an upload
	r    *bufio.Reader

	sent   chan int // of an upload: the status of its answer
	status string   // as it is recorded
}

// hear reads a line, or a WebSocket's message.
func (o *openCall) hear(t *testing.T, want string) {
	t.Helper()
	got := ""
	if o.res == nil {
		opcode, payload := serverFrame(t, o.r)
		got = fmt.Sprint(opcode, " ", payload)
		want = "1 " + want
	} else {
		for got == "" || got == "\n" {
			var err error
			if got, err = o.r.ReadString('\n'); err != nil {
				t.Fatalf("%s: %v", o.name, err)
			}
		}
		want = "data: " + want + "\n"
	}
	if got != want {
		t.Fatalf("%s: %q, want %q", o.name, got, want)
	}
}

// end waits for the end, which for a WebSocket names the code.
func (o *openCall) end(t *testing.T, code string) {
	t.Helper()
	switch {
	case o.sent != nil:
		if status := <-o.sent; status != http.StatusUnauthorized {
			t.Errorf("%s: %d", o.name, status)
		}
	case o.res == nil:
		opcode, payload := serverFrame(t, o.r)
		if opcode != 8 || len(payload) < 2 || binary.BigEndian.Uint16([]byte(payload)) != 1008 || payload[2:] != code {
			t.Errorf("%s: %d %q", o.name, opcode, payload)
		}
	default:
		var timeout net.Error
		b, err := io.ReadAll(o.r)
		if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%s: %q %v", o.name, b, err)
		}
	}
}

// TestExpiryEndsStreams: what is open when its token expires ends then, as its
// client sees it, unless the service says otherwise; and then it ends with a
// revocation.
func TestExpiryEndsStreams(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	taken := make(chan struct{}, 8) // a piece of an upload is with the upstream
	tell := func(r *http.Request, say func(string) error) {
		if say("one") != nil {
			return
		}
		select {
		case <-more:
			_ = say("two")
			<-r.Context().Done()
		case <-r.Context().Done():
		}
	}
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		room := ""
		switch r.URL.Path {
		case "/socket":
			websocket.Server{Handler: func(ws *websocket.Conn) {
				gone := make(chan struct{})
				go func() { _, _ = io.Copy(io.Discard, ws); close(gone) }()
				_ = websocket.Message.Send(ws, "one")
				select {
				case <-more:
					_ = websocket.Message.Send(ws, "two")
					<-gone
				case <-gone:
				}
			}}.ServeHTTP(w, r)
			return
		case "/upload":
			_, _ = r.Body.Read(make([]byte, 1))
			taken <- struct{}{}
			_, _ = io.Copy(io.Discard, r.Body)
			return
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
		case "/download":
			w.Header().Set("Content-Length", "1000000")
			room = strings.Repeat("\n", 100_000) // more than is kept back for more
		}
		tell(r, func(what string) error {
			_, err := fmt.Fprintf(w, "data: %s\n%s", what, room)
			return errors.Join(err, http.NewResponseController(w).Flush())
		})
	}))
	defer up.Close()
	defer up.CloseClientConnections()

	s := prepare(t, config{global: "servers {\n protocols h1 h2c\n }"})
	s.start()
	for name, more := range map[string]string{"ends": "", "lasts": `"streamsOutliveToken":true,`} {
		s.addService(name, `{"baseUrl":"`+up.URL+`","secretRef":"`+name+`","allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["x"],`+more+`
			"endpoints":{"get":{"method":"GET","path":"/*"},"put":{"method":"PUT","path":"/*"},"socket":{"method":"GET","path":"/socket","upgrade":"websocket"}}}`, secret)
	}
	h1, h2 := new(http.Transport), new(http.Transport)
	h2.Protocols = new(http.Protocols)
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h1.CloseIdleConnections()
	defer h2.CloseIdleConnections()

	get := func(tr *http.Transport, name, url, token string) (*openCall, bool) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(func() { res.Body.Close() })
		if res.StatusCode == http.StatusUnauthorized {
			return nil, false
		}
		return &openCall{name: name, res: res, r: bufio.NewReader(res.Body), status: "200"}, true
	}
	socket := func(service, token string) (*openCall, bool) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience)) // a TCP connection has deadlines
		fmt.Fprintf(conn, "GET /proxy/%s/socket HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer %s\r\n\r\n", service, token)
		r := bufio.NewReader(conn)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusSwitchingProtocols && res.StatusCode != http.StatusUnauthorized {
			t.Fatalf("%s: a WebSocket: %d", service, res.StatusCode)
		}
		return &openCall{name: service + ": a WebSocket", r: r, status: "101"}, res.StatusCode == http.StatusSwitchingProtocols
	}
	upload := func(service, token string) (*openCall, bool) {
		body, w := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.base+"/proxy/"+service+"/upload", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		o := &openCall{name: service + ": an upload", sent: make(chan int, 1), status: "401"}
		var sending sync.WaitGroup
		sending.Go(func() {
			status := 0
			if res, err := h1.RoundTrip(req); err == nil {
				status = res.StatusCode
				res.Body.Close()
			}
			o.sent <- status
			body.Close()
		})
		t.Cleanup(func() { w.Close(); sending.Wait() })
		_, _ = w.Write([]byte("x"))
		select {
		case <-taken:
			return o, true
		case status := <-o.sent:
			o.sent <- status
			return o, status != http.StatusUnauthorized
		}
	}
	// open opens one of each kind. A machine so busy that the token has
	// expired by then is given another.
	open := func(service string) (token issued, all []*openCall, from int64) {
		for range 5 {
			_, from = s.auditLog(0)
			token, all = s.issueWith(`"service":"`+service+`","scope":["x"],"ttl":1`), nil
			good := true
			add := func(o *openCall, ok bool) {
				all, good = append(all, o), good && ok
			}
			base := s.base + "/proxy/" + service
			add(get(h1, service+": events over HTTP/1.1", base+"/events", token.Token))
			add(get(h2, service+": events over HTTP/2", base+"/events", token.Token))
			add(get(h1, service+": a download", base+"/download", token.Token))
			add(get(h1, service+": an answer of unknown length", base+"/other", token.Token))
			add(socket(service, token.Token))
			if service == "ends" { // the other kind goes on for as long as the client likes
				add(upload(service, token.Token))
			}
			if good {
				return token, all, from
			}
		}
		t.Fatal("this machine is too busy")
		return token, nil, 0
	}
	ends := func(token issued, all []*openCall, from int64, code string) {
		t.Helper()
		for _, o := range all {
			o.end(t, code)
		}
		want := map[string]int{}
		for _, o := range all {
			want[o.status]++
		}
		got := map[string]int{}
		eventually(t, "all ends are recorded", func() bool {
			clear(got)
			n := 0
			records, _ := s.auditLog(from)
			for _, r := range records {
				if r.text("event") == "proxy.call" && r.text("tokenId") == token.TokenID {
					if r.text("error") != code {
						t.Fatalf("recorded: %v", r)
					}
					got[fmt.Sprint(r["status"])]++
					n++
				}
			}
			return n == len(all)
		})
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("recorded: %v, want %v", got, want)
		}
	}

	lasting, lasts, fromLasting := open("lasts")
	token, all, from := open("ends")
	for _, o := range append(lasts, all...) {
		if o.sent == nil {
			o.hear(t, "one")
		}
	}
	ends(token, all, from, "TOKEN_EXPIRED")

	// Its own token is older.
	if r := s.do("GET", "/proxy/lasts/events", "", bearer(lasting.Token)); r.status != http.StatusUnauthorized || !strings.Contains(r.body, "TOKEN_EXPIRED") {
		t.Fatalf("the other token: %d %s", r.status, r.body)
	}
	close(more)
	for _, o := range lasts {
		o.hear(t, "two")
	}
	s.ok("/vault.revoke", `{"tokenId":"`+lasting.TokenID+`"}`, nil)
	ends(lasting, lasts, fromLasting, "TOKEN_REVOKED")
}
