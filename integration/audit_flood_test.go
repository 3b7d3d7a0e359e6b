package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestAuditFlood has a thousand hostile requests of several kinds, from one
// address and from many, while an agent's calls go on: every call is in the
// log, and the log grows by a bounded amount.
func TestAuditFlood(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issue("main", "github", "github:repos:read")
	from := func(ip string) *http.Client {
		d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		return &http.Client{Transport: &http.Transport{DialContext: d.DialContext, MaxIdleConnsPerHost: 8}}
	}
	if l, err := net.Listen("tcp", "127.0.0.77:0"); err != nil {
		t.Skip("127.0.0.77 is no address of this machine:", err)
	} else {
		l.Close()
	}
	junk := strings.Repeat("\U000e0001", 200)
	kinds := []struct{ method, path, body, auth string }{
		{"POST", "/vault.call", `{"token":"x.y.z","service":` + quote(junk) + `,"action":` + quote(junk) + `}`, ""},
		{"POST", "/vault.call", `{`, ""},
		{"GET", "/vault." + strings.Repeat("a", 500), "", ""},
		{"POST", "/vault.admin.listServices", `{}`, "Bearer " + strings.Repeat("wrong", 20)},
		{"GET", "/vault.audit.stream?event=" + strings.Repeat("x", 1000), "", "Bearer no"},
		{"GET", "/proxy/github/none", "", "Bearer nonsense"},
		{"DELETE", "/vault.revoke", "", ""},
	}
	_, begin := s.auditLog(0)
	stop := make(chan struct{})
	calls := 0
	var agent, hostile sync.WaitGroup
	agent.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if r, err := s.try("POST", "/vault.call", fmt.Sprintf(`{"token":%q,"service":"github","action":"public.get"}`, token)); err != nil || r.status != 200 {
				t.Errorf("call %d: %d %s %v", calls, r.status, r.body, err)
				return
			}
			calls++
		}
	})
	for worker := range 4 {
		hostile.Go(func() {
			clients := []*http.Client{from("127.0.0.77")}
			for i := range 8 {
				clients = append(clients, from(fmt.Sprintf("127.0.%d.%d", worker+1, i+1)))
			}
			for i := range 1000 {
				k, c := kinds[i%len(kinds)], clients[0]
				if i%2 == 1 {
					c = clients[1+i/2%8]
				}
				req, err := http.NewRequest(k.method, s.base+k.path, strings.NewReader(k.body))
				if err != nil {
					t.Error(err)
					return
				}
				if k.method == "POST" {
					req.Header.Set("Content-Type", "application/json")
				}
				if k.auth != "" {
					req.Header.Set("Authorization", k.auth)
				}
				res, err := c.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode < 400 {
					t.Errorf("%s %s: %d", k.method, k.path, res.StatusCode)
				}
			}
			for _, c := range clients {
				c.CloseIdleConnections()
			}
		})
	}
	hostile.Wait()
	close(stop)
	agent.Wait()
	s.stop() // which writes what was counted
	records, _ := s.auditLog(begin)
	started, ended, refused := 0, 0, 0
	size := map[string]int{}
	for _, r := range records {
		switch event := r.text("event"); {
		case event == "proxy.call.started":
			started++
		case event == "proxy.call":
			ended++
		case strings.HasSuffix(event, ".denied"):
			refused++
			if n, ok := r["suppressed"]; ok {
				var more int
				fmt.Sscan(fmt.Sprint(n), &more)
				refused += more - 1
			}
			size[r.text("client")] += len(fmt.Sprint(r))
		}
	}
	if started != calls || ended != calls {
		t.Errorf("%d calls, of which %d started and %d ended in the log", calls, started, ended)
	}
	if refused != 4000 {
		t.Errorf("%d of 4000 refusals are written or counted", refused)
	}
	for client, n := range size {
		if n > 1<<20 {
			t.Errorf("%d bytes of %s", n, client)
		}
	}
	if fi, err := os.Stat(filepath.Join(s.data, "audit.log.jsonl")); err != nil || fi.Size() > 24<<20 {
		t.Errorf("%d bytes of log, %v", fi.Size(), err)
	}
}
