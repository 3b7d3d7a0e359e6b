package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// rawUpstream answers every connection with the same bytes.
func rawUpstream(t *testing.T, answer func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					answer(c)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// TestUpstreamFailures is about upstreams that do not answer as they should.
// Each call has one record at its start and one at its end, with the code.
func TestUpstreamFailures(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	says := func(text string) string {
		return rawUpstream(t, func(c net.Conn) { _, _ = io.WriteString(c, text) })
	}
	for _, c := range []struct {
		name, url, more string
		status          int
		code            string
	}{
		{"down", "http://127.0.0.1:1", "", 502, "UPSTREAM_UNREACHABLE"},
		{"closes", says(""), "", 502, "UPSTREAM_UNREACHABLE"},
		{"certificate", secure.URL, "", 502, "UPSTREAM_TLS"},
		{"no-tls", strings.Replace(s.up.URL, "http://", "https://", 1), "", 502, "UPSTREAM_TLS"},
		{"garbage", says("220 mail.example ESMTP\r\n\r\n"), "", 502, "UPSTREAM_PROTOCOL"},
		{"bad-header", says("HTTP/1.1 200 OK\r\nnot a header\r\n\r\n"), "", 502, "UPSTREAM_PROTOCOL"},
		{"huge-header", says("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"), "", 502, "UPSTREAM_PROTOCOL"},
		{"switches", says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "", 502, "UPSTREAM_PROTOCOL"},
		{"encoding", says("HTTP/1.1 200 OK\r\nContent-Encoding: compress\r\nContent-Length: 3\r\n\r\nabc"), "", 502, "UPSTREAM_PROTOCOL"},
		{"slow", rawUpstream(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), `"timeouts":{"firstByte":"50ms"},`, 504, "UPSTREAM_TIMEOUT:first_byte"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.ok("/vault.admin.addService", `{"service":"`+c.name+`",`+c.more+`"baseUrl":"`+c.url+`","masterSecret":`+quote(secret)+`,"allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["x"],"endpoints":{"get":{"method":"GET","path":"/"}}}`, nil)
			s.failedCall(t, c.name, c.status, c.code)
		})
	}
}

// failedCall makes a call that must fail on its way, after it was recorded.
func (s *server) failedCall(t *testing.T, service string, status int, code string) {
	t.Helper()
	token := s.issue("main", service, "x")
	s.barrier()
	_, end := s.auditLog(0)
	r := s.call(token, service, "get", "null")
	if r.status != status || r.header.Get("Vault-Error") != code {
		t.Fatalf("%d %s, want %d %s", r.status, r.body, status, code)
	}
	checkProblem(t, refusal{code: code}, r)
	s.noSecrets(t, "the answer", r.body+headerText(r))
	s.barrier()
	records, _ := s.auditLog(end)
	if len(records) != 2 || records[0].text("event") != "proxy.call.started" || records[1].text("event") != "proxy.call" ||
		records[0].text("callId") != records[1].text("callId") || records[1].text("error") != code || fmt.Sprint(records[1]["status"]) != fmt.Sprint(status) {
		t.Errorf("%v", records)
	}
}

// TestForbiddenAddresses is about addresses where no service may be. Those of
// metadata services are no base URL to begin with; these are refused as they
// are dialled, as is what a name leads to.
func TestForbiddenAddresses(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	hosts := []string{"198.18.0.1", "240.0.0.1", "192.0.0.1", "168.63.129.16", "[100::1]", "[2001:db8::1]", "[fd20:ce::254]", "[64:ff9b:1::7f00:1]", "[2001:0:a9fe:a9fe::]"}
	// The machine's own name mostly leads to a private or loopback address,
	// which a service may be on only if its base URL says so.
	if name, err := os.Hostname(); err == nil {
		if ips, err := net.LookupIP(name); err == nil && ips[0].IsLoopback() {
			hosts = append(hosts, name)
		}
	}
	_, port, _ := net.SplitHostPort(s.up.Listener.Addr().String())
	for i, host := range hosts {
		name := fmt.Sprint("forbidden", i)
		s.ok("/vault.admin.addService", `{"service":"`+name+`","allowPlaintext":true,"baseUrl":"http://`+host+`:`+port+`","masterSecret":`+quote(secret)+`,"allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["x"],"endpoints":{"get":{"method":"GET","path":"/"}}}`, nil)
		s.failedCall(t, name, 502, "UPSTREAM_FORBIDDEN")
	}
	if n := s.up.count(); n != 0 {
		t.Errorf("the upstream was reached %d times", n)
	}
}

// TestClientGoesAway is about a client that does not wait for its answer.
func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issue("main", "github", "github:repos:read")
	arrived, gone := make(chan struct{}), make(chan struct{})
	s.up.answer(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done() // the vault hangs up as its client does
		close(gone)
	})
	conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
	if err != nil {
		t.Fatal(err)
	}
	body := `{"token":"` + token + `","service":"github","action":"public.get"}`
	fmt.Fprintf(conn, "POST /vault.call HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	wait(t, "the call arrives", arrived)
	conn.Close()
	wait(t, "the upstream is left", gone)
	eventually(t, "the call's end is recorded", func() bool {
		records, _ := s.auditLog(0)
		return records[len(records)-1].text("event") == "proxy.call"
	})
}

func wait(t testing.TB, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("never happened: %s", what)
	}
}
