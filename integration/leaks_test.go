package integration

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

// TestNothingIsLeftOver looks at a server after it has refused and failed much:
// at its goroutines, and where the system shows them at its open files.
func TestNothingIsLeftOver(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issue("main", "github", "github:repos:read")
	s.ok("/vault.admin.addService", `{"service":"down","baseUrl":"http://127.0.0.1:`+freePorts(t, 1)[0]+`","masterSecret":`+quote(secret)+`,"allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["x"],"endpoints":{"get":{"method":"GET","path":"/"}}}`, nil)
	down := s.issue("main", "down", "x")
	round := func() {
		for i := range 40 {
			for _, r := range []reply{
				s.post("/vault.call", `{`),
				s.post("/vault.call", `{"token":"x.y.z"}`),
				s.call(token, "github", "hidden.get", "null"),
				s.call(down, "down", "get", "null"),
				s.post("/vault.issueToken", `{"service":"`+fmt.Sprint(i)+`","scope":["x"]}`),
				s.post("/vault.admin.addSecret", `{"secretRef":"/"}`),
				s.do("DELETE", "/vault.call", ""),
			} {
				if r.status < 400 {
					t.Fatalf("%d %s", r.status, r.body)
				}
			}
			if r := s.call(token, "github", "public.get", "null"); r.status != 200 {
				t.Fatalf("%d %s", r.status, r.body)
			}
		}
		s.client.CloseIdleConnections()
	}
	count := func() (goroutines, files int) {
		_, stacks := s.adminAPI("GET", "/debug/pprof/goroutine?debug=2", nil)
		goroutines = strings.Count("\n"+string(stacks), "\ngoroutine ")
		if runtime.GOOS == "linux" {
			open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			files = len(open)
		}
		return goroutines, files
	}
	round() // what is made once is made now
	goroutines, files := count()
	if goroutines < 5 {
		t.Fatalf("%d goroutines cannot be all", goroutines)
	}
	for range 5 {
		round()
	}
	const few = 3 // the connection that asks, and one that is just closing
	eventually(t, "goroutines and files are back where they were", func() bool {
		g, f := count()
		return g <= goroutines+few && f <= files+few
	})
}
