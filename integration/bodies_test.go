package integration

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestBodyMemory fills the memory for bodies that are had whole, and looks at
// what is refused then: what needs more of it, and nothing else.
func TestBodyMemory(t *testing.T) {
	t.Parallel()
	s := start(t, config{vault: "body_memory 32MiB"})
	const post = `"post":{"method":"POST","path":"/*","requiredScope":["x"]}`
	s.addService("json", s.authService("", `"auth":[{"in":"body","pointer":"/token"}]`, post), secret)
	s.addService("plain", s.authService("", `"authHeader":"Authorization"`, post), secret)
	release := make(chan struct{})
	s.up.answer(func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/wait") {
			<-release
		}
	})
	as := func(service string) []edit {
		return []edit{bearer(s.issue("main", service, "x")), header("Content-Type", "application/json")}
	}
	// Each counts twice, and two have room.
	large := `{"a":"` + strings.Repeat("a", 7<<20) + `"}`
	before := s.up.count()
	var calls sync.WaitGroup
	defer calls.Wait()
	letGo := sync.OnceFunc(func() { close(release) })
	defer letGo()
	for range 2 {
		edits := as("json")
		calls.Go(func() {
			if got := s.do("POST", "/proxy/json/wait", large, edits...); got.status != 200 {
				t.Errorf("a call that had room: %d %s", got.status, got.body)
			}
		})
	}
	eventually(t, "both calls are on their way", func() bool { return s.up.count() == before+2 })

	got := s.refused(t, refusal{path: "/proxy/json/a", body: large, edits: as("json"), status: 503, code: "BODY_MEMORY_EXHAUSTED", event: "proxy.call"})
	if got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "body_memory") {
		t.Errorf("%v %s", got.header, got.body)
	}
	if got := s.do("POST", "/proxy/json/a", `{"a":1}`, as("json")...); got.status != 200 {
		t.Errorf("a small body: %d %s", got.status, got.body)
	}
	if got := s.do("POST", "/proxy/plain/a", large, as("plain")...); got.status != 200 {
		t.Errorf("a body that streams: %d %s", got.status, got.body)
	}
	letGo()
	calls.Wait()
	if got := s.do("POST", "/proxy/json/a", large, as("json")...); got.status != 200 {
		t.Errorf("when there is room again: %d %s", got.status, got.body)
	}
}

// TestBodyMemoryOfOutsiders lets senders that nobody knows keep what they have
// of it, which leaves the others theirs.
func TestBodyMemoryOfOutsiders(t *testing.T) {
	t.Parallel()
	s := start(t, config{vault: "body_memory 32MiB"})
	padded := func(n int) string { return `{"service":"api","scope":["x"]` + strings.Repeat(" ", n) + `}` }
	var open []net.Conn
	hangUp := func() {
		for _, c := range open {
			c.Close()
		}
	}
	defer hangUp()
	// Sends all that it says but the last byte.
	stall := func() {
		c, err := net.Dial("tcp", "127.0.0.1:"+s.port)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		_ = c.SetWriteDeadline(time.Now().Add(patience))
		fmt.Fprintf(c, "POST /vault.issueToken HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", 800_000, strings.Repeat(" ", 800_000-1))
	}
	issue := func(n int) reply {
		return s.do("POST", "/vault.issueToken", padded(n), header("Content-Type", "application/json"))
	}
	refused := map[any]bool{} // by requestId
	eventually(t, "the memory is taken", func() bool {
		got := issue(900_000)
		if got.header.Get("Vault-Error") != "BODY_MEMORY_EXHAUSTED" {
			stall()
			return false
		}
		if got.status != 503 || got.header.Get("Retry-After") == "" {
			t.Errorf("%d %v", got.status, got.header)
		}
		var problem struct{ RequestID string }
		decode(t, got.body, &problem)
		refused[problem.RequestID] = true
		return len(refused) == 3
	})
	eventually(t, "each refusal has its record", func() bool {
		records, _ := s.auditLog(0)
		found := 0
		for _, rec := range records {
			if refused[rec["requestId"]] && rec["error"] == "BODY_MEMORY_EXHAUSTED" && rec["event"] == "token.issue.denied" {
				found++
			}
		}
		return found == len(refused)
	})
	if got := issue(1000); got.status != 404 {
		t.Errorf("a small body: %d %s", got.status, got.body)
	}
	s.admin("listAgents", "{"+strings.Repeat(" ", 900_000)+"}")
	hangUp()
	eventually(t, "the memory is free", func() bool { return issue(900_000).status == 404 })
}
