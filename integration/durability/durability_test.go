package durability

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/audit"
)

// killRounds is how often the server is killed: 50 times, or
// CADDYVAULT_KILL_ROUNDS.
func killRounds(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("CADDYVAULT_KILL_ROUNDS"))
	if err != nil {
		return 50
	}
	return n
}

// killsPerServer is after how many kills everything is looked at and another
// server begun, so that a round costs the same however many there are.
const killsPerServer = 50

// TestKill kills the server under 64 writers, again and again, while segments
// are sealed every few records, and holds what it has acknowledged against
// what is on disk.
func TestKill(t *testing.T) {
	start := time.Now()
	rounds := killRounds(t)
	var acked, records int
	for left := rounds; left > 0 && !t.Failed(); left -= killsPerServer {
		a, r := killServer(t, min(left, killsPerServer))
		acked, records = acked+a, records+r
	}
	if t.Failed() {
		return
	}
	t.Logf("%d rounds, %d acknowledged writes, none lost, %d records, %.1f s", rounds, acked, records, time.Since(start).Seconds())
}

// killServer kills one server, and returns how many writes it has
// acknowledged and how many records there are.
func killServer(t *testing.T, rounds int) (writes, records int) {
	s := newServer(t, "audit {\n segment_size 4KiB\n checkpoint_every 100ms\n}")
	defer os.RemoveAll(s.dir)
	tokens, sessions, secrets := new(sync.Map), new(sync.Map), new(sync.Map)
	acked := new(atomic.Int64)
	for round := range rounds {
		s.start()
		if round == 0 {
			s.addService("http://127.0.0.1:1")
		}
		checkRevocations(t, s, sessions)
		checkSecrets(t, s, secrets)

		target := acked.Load() + 50 + rand.Int64N(450)
		reached := make(chan struct{})
		var once sync.Once
		var writers sync.WaitGroup
		for w := range 64 {
			writers.Go(func() {
				for i := 0; ; i++ {
					id := fmt.Sprintf("%d-%d-%d", round, w, i)
					var status int
					switch {
					case w == 0:
						status, _ = s.post("vault.admin.addSecret", map[string]string{"secretRef": "r" + id, "secret": "v" + id}, "Authorization", "Bearer "+s.admin)
						if status == http.StatusOK {
							secrets.Store("r"+id, true)
						}
					case w%2 == 0:
						var out []byte
						status, out = s.post("vault.issueToken", map[string]any{"service": "svc", "scope": []string{"s"}})
						if status == http.StatusOK {
							var answer struct{ TokenID string }
							if err := json.Unmarshal(out, &answer); err != nil {
								t.Error(err)
							}
							tokens.Store(answer.TokenID, true)
						}
					default:
						status, _ = s.post("vault.revoke", map[string]string{"sessionId": "s" + id})
						if status == http.StatusOK {
							sessions.Store("s"+id, true)
						}
					}
					if status == 0 {
						return // the server is gone
					}
					if status == http.StatusOK && acked.Add(1) >= target {
						once.Do(func() { close(reached) })
					}
				}
			})
		}
		<-reached
		s.signal(syscall.SIGKILL)
		writers.Wait()
	}

	s.start()
	checkRevocations(t, s, sessions)
	checkSecrets(t, s, secrets)
	s.signal(syscall.SIGTERM)
	report, err := audit.Verify(filepath.Join(s.dir, "data"), nil)
	if err != nil {
		t.Fatalf("the chain does not hold: %v", err)
	}
	logged := make(map[string]bool)
	for _, r := range s.records() {
		switch r["event"] {
		case "token.issued":
			logged[r["tokenId"].(string)] = true
		case "token.revoked":
			logged[r["sessionId"].(string)] = true
		case "secret.set":
			logged[r["secretRef"].(string)] = true
		}
	}
	for _, set := range []*sync.Map{tokens, sessions, secrets} {
		set.Range(func(id, _ any) bool {
			if !logged[id.(string)] {
				t.Errorf("%v was acknowledged and is not in the log", id)
			}
			return !t.Failed()
		})
	}
	return int(acked.Load()), int(report.Records)
}

// checkRevocations looks for every acknowledged revocation.
func checkRevocations(t *testing.T, s *server, sessions *sync.Map) {
	t.Helper()
	var list struct{ Revocations []struct{ Kind, ID string } }
	if err := json.Unmarshal(s.asAdmin("vault.admin.listRevocations", struct{}{}), &list); err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool, len(list.Revocations))
	for _, r := range list.Revocations {
		have[r.ID] = true
	}
	sessions.Range(func(id, _ any) bool {
		if !have[id.(string)] {
			t.Errorf("the revocation of %v is lost", id)
		}
		return !t.Failed()
	})
}

func checkSecrets(t *testing.T, s *server, secrets *sync.Map) {
	t.Helper()
	var list struct{ Secrets []struct{ SecretRef string } }
	if err := json.Unmarshal(s.asAdmin("vault.admin.listSecrets", struct{}{}), &list); err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool, len(list.Secrets))
	for _, r := range list.Secrets {
		have[r.SecretRef] = true
	}
	secrets.Range(func(ref, _ any) bool {
		if !have[ref.(string)] {
			t.Errorf("the secret %v is lost", ref)
		}
		return !t.Failed()
	})
}

// TestReload loads the configuration 100 times under calls, with a stream open
// throughout.
func TestReload(t *testing.T) {
	next := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stream" {
			_, _ = io.WriteString(w, "ok")
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; ; i++ {
			fmt.Fprintf(w, "data: %d\n\n", i)
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	}))
	defer upstream.Close()
	s := newServer(t)
	s.start()
	s.addService(upstream.URL)
	token := func(session string) string {
		status, out := s.post("vault.issueToken", map[string]any{"service": "svc", "scope": []string{"s"}, "sessionId": session})
		var answer struct{ Token string }
		if err := json.Unmarshal(out, &answer); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s", status, out)
		}
		return answer.Token
	}
	good, revoked := token("good"), token("revoked")
	if status, out := s.post("vault.revoke", map[string]string{"sessionId": "revoked"}); status != http.StatusOK {
		t.Fatalf("%d %s", status, out)
	}
	before, err := os.Stat(filepath.Join(s.dir, "data", "audit.log.jsonl"))
	if err != nil {
		t.Fatal(err)
	}

	req, err := http.NewRequest(http.MethodGet, s.base+"/proxy/svc/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+good)
	stream, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	events := bufio.NewReader(stream.Body)
	event := func(want int) {
		t.Helper()
		for {
			line, err := events.ReadString('\n')
			if err != nil {
				t.Fatalf("the stream broke before event %d: %v", want, err)
			}
			if line = strings.TrimSpace(line); line != "" {
				if line != "data: "+strconv.Itoa(want) {
					t.Fatalf("%q is not event %d", line, want)
				}
				return
			}
		}
	}
	event(0)

	stop := make(chan struct{})
	var calls atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if status, out := s.post("vault.call", map[string]string{"token": good, "service": "svc", "action": "get"}); status == http.StatusOK {
					calls.Add(1)
				} else if status != 0 && !strings.Contains(string(out), "AUDIT_UNAVAILABLE") {
					// A connection may end with the old configuration, and a
					// disk may be busy: then the vault refuses, as it says.
					t.Errorf("%d %s", status, out)
					return
				}
				if status, _ := s.post("vault.call", map[string]string{"token": revoked, "service": "svc", "action": "get"}); status == http.StatusOK {
					t.Errorf("a call with a revoked token: %d", status)
					return
				}
			}
		})
	}
	for i := range 100 {
		if err := s.load(); err != nil {
			t.Fatalf("reload %d: %v", i, err)
		}
		next <- struct{}{}
		event(i + 1)
		for calls.Load() < int64(20*(i+1)) && !t.Failed() { // under load, not beside it
			runtime.Gosched()
		}
	}
	close(stop)
	callers.Wait()

	// A second process is refused, and validating beside this one is not.
	if out, err := s.command("validate", "--config", s.config).CombinedOutput(); err != nil {
		t.Errorf("validate beside a running server: %v\n%s", err, out)
	}
	other, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(s.dir, "Second")
	config := strings.NewReplacer("admin.sock", "second.sock", s.base, "http://127.0.0.1:0").Replace(string(other))
	if err := os.WriteFile(second, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := s.command("run", "--config", second, "--adapter", "caddyfile").CombinedOutput(); err == nil || !strings.Contains(string(out), "in use by another process") {
		t.Errorf("a second process on the same data: %v\n%s", err, out)
	}

	stream.Body.Close()
	s.signal(syscall.SIGTERM)
	after, err := os.Stat(filepath.Join(s.dir, "data", "audit.log.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("the log is another file than before the reloads")
	}
	report, err := audit.Verify(filepath.Join(s.dir, "data"), nil)
	if err != nil {
		t.Fatalf("the chain does not hold: %v", err)
	}
	counts := make(map[any]int64)
	for _, r := range s.records() {
		counts[r["event"]]++
	}
	if uint64(len(s.records())) != report.Records || report.LastSeq != report.Records {
		t.Errorf("%d records, the last has seq %d", report.Records, report.LastSeq)
	}
	if counts["proxy.call"] < calls.Load() || counts["proxy.call"] != counts["proxy.call.started"] {
		t.Errorf("%d calls were answered, the log has %d of %d", calls.Load(), counts["proxy.call"], counts["proxy.call.started"])
	}
	for _, event := range []string{"audit.segment", "audit.recovered", "proxy.call.unknown"} {
		if counts[event] != 0 {
			t.Errorf("%d records of %s: the log was opened anew", counts[event], event)
		}
	}
	t.Logf("100 reloads, %d calls", calls.Load())
}
