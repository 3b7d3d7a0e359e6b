package vault

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/token"
)

// TestAgentFilesBetweenRuns changes what is in the directory of agents while
// nothing runs.
func TestAgentFilesBetweenRuns(t *testing.T) {
	dir := t.TempDir()
	open := func(later time.Duration) *Vault {
		t.Helper()
		st, err := OpenState(t.Context(), StateOptions{
			DataDir: filepath.Join(dir, "data"), ServicesDir: filepath.Join(dir, "services"),
			Audit:  audit.Options{Deadline: time.Minute},
			Logger: zap.NewNop(),
			Now:    func() time.Time { return time.Now().Add(later) },

			ParseService: policy.ParseService,
		})
		if err != nil {
			t.Fatal(err)
		}
		return newVaultOn(t, st)
	}
	closed := func(v *Vault) {
		t.Helper()
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	issue := func(v *Vault, agent string) (raw, code string) {
		res, refused := v.Issue(t.Context(), local, IssueRequest{Service: "api", Scope: []string{"s1"}, Context: token.Context{AgentID: agent}}, new(audit.Record))
		if refused != nil {
			return "", refused.Code
		}
		return res.Token, ""
	}
	file := func(agent string) string { return filepath.Join(dir, "data", "agents", agent+".json") }

	v := open(0)
	if refused := v.AddService(t.Context(), "api", []byte(`{"baseUrl":"https://api.example.com","allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["s1"],
		"endpoints":{"one":{"method":"GET","path":"/one/{x}","requiredScope":["s1"]}}}`), nil, new(audit.Record)); refused != nil {
		t.Fatal(refused)
	}
	names := []string{"removed", "disabled", "broken", "lifted", "free", "stays"}
	tokens := map[string]string{}
	for _, name := range names {
		if name != "free" {
			rec := &audit.Record{Event: "admin.addAgent"}
			if _, refused := v.AddAgent(t.Context(), name, AgentChange{}, rec); refused != nil {
				t.Fatal(refused)
			}
		}
		raw, code := issue(v, name)
		if code != "" {
			t.Fatalf("%s: %s", name, code)
		}
		tokens[name] = raw
	}
	// Removed as it should be, and then let go on without a record.
	rec := &audit.Record{Event: "admin.removeAgent"}
	if refused := v.RemoveAgent(t.Context(), "lifted", rec); refused != nil {
		t.Fatal(refused)
	}
	if refused := v.record(t.Context(), audit.Entry{Record: *rec}); refused != nil {
		t.Fatal(refused)
	}
	if refused := v.Unrevoke(t.Context(), RevokeTargets{AgentID: "lifted"}, "", new(audit.Record)); refused != nil {
		t.Fatal(refused)
	}
	closed(v)

	whole, err := os.ReadFile(file("broken"))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Remove(file("removed")),
		os.WriteFile(file("disabled"), []byte(`{"disabled":true}`), 0o600),
		os.WriteFile(file("broken"), whole[:len(whole)/2], 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"removed": "AGENT_REVOKED", "disabled": "AGENT_DISABLED", "broken": "AGENT_DISABLED", "lifted": "", "free": "", "stays": ""}
	for _, again := range []string{"first", "second"} {
		v = open(0)
		for _, name := range names {
			if code := v.callCode(tokens[name], "one", `{"x":1}`); code != want[name] {
				t.Errorf("%s start: a token of %s: %q, want %q", again, name, code, want[name])
			}
			if _, code := issue(v, name); code != want[name] {
				t.Errorf("%s start: a new token of %s: %q, want %q", again, name, code, want[name])
			}
		}
		for _, a := range v.ListAgents() {
			if (a.Error != "") != (a.AgentID == "broken") {
				t.Errorf("%+v", a)
			}
		}
		if refused := v.record(t.Context(), audit.Entry{Record: audit.Record{Event: "test.barrier"}}); refused != nil {
			t.Fatal(refused)
		}
		log, err := os.ReadFile(filepath.Join(dir, "data", "audit.log.jsonl"))
		if n := strings.Count(string(log), `"event":"agent.changed","reason":"removed","agentId":"removed"`); err != nil || n != 1 {
			t.Errorf("%s start: %d records of the removal, %v", again, n, err)
		}
		if again == "second" {
			break
		}
		closed(v)
	}

	// Mended by hand, it goes on.
	if err := os.WriteFile(file("broken"), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); v.callCode(tokens["broken"], "one", `{"x":1}`) != ""; {
		if time.Now().After(deadline) {
			t.Fatal("a mended file does not count")
		}
		time.Sleep(5 * time.Millisecond) // the interval of polling
	}
	closed(v)

	// Long after, nothing is left to end: an agent without a record may go on.
	if err := os.Remove(file("stays")); err != nil {
		t.Fatal(err)
	}
	v = open(outlived + time.Minute)
	for _, name := range []string{"stays", "removed"} {
		if _, code := issue(v, name); code != "" {
			t.Errorf("long after: %s: %s", name, code)
		}
	}

	// A watch that broke is begun anew, and what went meanwhile is ended.
	if _, refused := v.AddAgent(t.Context(), "late", AgentChange{}, new(audit.Record)); refused != nil {
		t.Fatal(refused)
	}
	raw, code := issue(v, "late")
	if code != "" || v.callCode(raw, "one", `{"x":1}`) != "" {
		t.Fatalf("a new agent: %s", code)
	}
	// The true one ends first: it would find the file, which is there.
	v.stop()
	v.background.Wait()
	if err := v.loadAgents(t.Context(), emptyStore{v.store}); err != nil {
		t.Fatal(err)
	}
	if code := v.callCode(raw, "one", `{"x":1}`); code != "AGENT_REVOKED" {
		t.Errorf("an agent that went unseen: %q", code)
	}
	closed(v)
}

// emptyStore lists nothing.
type emptyStore struct{ store.Store }

func (emptyStore) List(context.Context, string) ([]store.Entry, error) { return nil, nil }
