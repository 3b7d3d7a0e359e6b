package integration

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// agentVault is a vault that knows agents by their keys only.
func agentVault(t *testing.T) *server {
	s := start(t, config{vault: "agents {\n keys on\n trust none\n }"})
	s.addService("crew", fmt.Sprintf(`{"baseUrl":%q,"allowedAgents":["group:crew"],"allowedActions":["*"],"allowedScopes":["a","b"],
		"agentScopes":{"group:crew":["a"]},"endpoints":{"a":{"method":"GET","path":"/a","requiredScope":["a"]},"slow":{"method":"GET","path":"/slow"}}}`, s.up.URL), secret)
	return s
}

// addAgent adds an agent and returns its key.
func (s *server) addAgent(id, members string) string {
	s.t.Helper()
	var out struct{ AgentKey string }
	r := s.ok("/vault.admin.addAgent", `{"agentId":`+quote(id)+members+`}`, nil, bearer(adminToken))
	decode(s.t, r.body, &out)
	if r.header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(out.AgentKey, "cva_") {
		s.t.Fatalf("addAgent: %v %s", r.header, r.body)
	}
	s.hide(out.AgentKey, "the key of "+id)
	return out.AgentKey
}

func (s *server) admin(name, body string) {
	s.t.Helper()
	s.ok("/vault.admin."+name, body, nil, bearer(adminToken))
}

// TestAgentKeys follows an agent from its first key to its end.
func TestAgentKeys(t *testing.T) {
	t.Parallel()
	s := agentVault(t)
	key := s.addAgent("tony", `,"groups":["crew"],"expiresAt":"2040-01-01T00:00:00Z"`)
	got := s.issueWith(`"service":"crew","scope":["a"]`, bearer(key))
	if sub := string(claimsOf(t, got.Token)["sub"]); sub != `"tony"` {
		t.Errorf("the token is for %s", sub)
	}
	if _, there := claimsOf(t, got.Token)["groups"]; there {
		t.Error("the token carries groups of the record")
	}
	call := func(want int, code string) {
		t.Helper()
		defer s.ok("/vault.audit.query", `{"limit":1}`, nil, bearer(adminToken)) // its record is there
		if r := s.call(got.Token, "crew", "a", "{}"); r.status != want || r.header.Get("Vault-Error") != code {
			t.Errorf("call: %d %s, want %d %s", r.status, r.body, want, code)
		}
	}
	call(200, "")

	// Rotation, with an overlap and without.
	var rotated struct{ AgentKey string }
	decode(t, s.ok("/vault.admin.rotateAgentKey", `{"agentId":"tony","overlap":600}`, nil, bearer(adminToken)).body, &rotated)
	second := rotated.AgentKey
	s.hide(second, "the second key")
	s.issueWith(`"service":"crew","scope":["a"]`, bearer(key))
	s.issueWith(`"service":"crew","scope":["a"]`, bearer(second))
	decode(t, s.ok("/vault.admin.rotateAgentKey", `{"agentId":"tony"}`, nil, bearer(adminToken)).body, &rotated)
	third := rotated.AgentKey
	s.hide(third, "the third key")
	body := `{"service":"crew","scope":["a"]}`
	s.run(t, []refusal{
		{name: "a rotated key", path: "/vault.issueToken", body: body, edits: []edit{bearer(key)}, status: 401, code: "AGENT_KEY_INVALID", event: "token.issue"},
		{name: "the one after", path: "/vault.issueToken", body: body, edits: []edit{bearer(second)}, status: 401, code: "AGENT_KEY_INVALID", event: "token.issue"},
	})
	as := bearer(third)
	var list struct {
		Agents []struct {
			AgentID, Error string
			Groups         []string
			LastUse        int64
			Keys           []struct{ ID string }
		}
	}
	r := s.ok("/vault.admin.listAgents", `{}`, nil, bearer(adminToken))
	decode(t, r.body, &list)
	s.noSecrets(t, "listAgents", r.body)
	if len(list.Agents) != 1 || list.Agents[0].AgentID != "tony" || list.Agents[0].LastUse < time.Now().Add(-time.Hour).UnixMilli() || len(list.Agents[0].Keys) != 1 || strings.Contains(r.body, "digest") {
		t.Errorf("listAgents: %s", r.body)
	}

	// A group that is left is left for the next call.
	s.admin("updateAgent", `{"agentId":"tony","groups":[]}`)
	call(403, "POLICY_DENY")
	s.admin("updateAgent", `{"agentId":"tony","groups":["crew"]}`)
	call(200, "")

	// Disabled and enabled: a switch.
	s.admin("disableAgent", `{"agentId":"tony"}`)
	call(401, "AGENT_DISABLED")
	s.run(t, []refusal{
		{name: "disabled", path: "/vault.issueToken", body: body, edits: []edit{as}, status: 401, code: "AGENT_DISABLED", event: "token.issue"},
		{name: "disabled, revoke", path: "/vault.revoke", body: `{"sessionId":"s"}`, edits: []edit{as}, status: 401, code: "AGENT_DISABLED", event: "token.revoke"},
		{name: "disabled, query", path: "/vault.audit.query", body: `{}`, edits: []edit{as}, status: 401, code: "AGENT_DISABLED", event: "audit.query"},
	})
	s.admin("updateAgent", `{"agentId":"tony","disabled":false}`)
	call(200, "")

	// Everything but when it was last used is as it was after a restart, and
	// that, too.
	s.stop()
	s.start()
	call(200, "")
	decode(t, s.ok("/vault.admin.listAgents", `{}`, nil, bearer(adminToken)).body, &list)
	if len(list.Agents) != 1 || list.Agents[0].LastUse == 0 {
		t.Errorf("after a restart: %+v", list)
	}

	s.admin("updateAgent", `{"agentId":"tony","expiresAt":1000}`)
	call(401, "AGENT_EXPIRED")
	s.run(t, []refusal{{name: "expired", path: "/vault.issueToken", body: body, edits: []edit{as}, status: 401, code: "AGENT_EXPIRED", event: "token.issue"}})
	s.admin("updateAgent", `{"agentId":"tony","expiresAt":null}`)
	call(200, "")

	s.admin("removeAgent", `{"agentId":"tony"}`)
	call(401, "AGENT_REVOKED")
	s.run(t, []refusal{
		{name: "removed", path: "/vault.issueToken", body: body, edits: []edit{as}, status: 401, code: "AGENT_KEY_INVALID", event: "token.issue"},
		{name: "added too soon", path: "/vault.admin.addAgent", body: `{"agentId":"tony"}`, edits: []edit{bearer(adminToken)}, status: 409, code: "AGENT_REVOKED", event: "admin.addAgent"},
	})
	s.admin("unrevoke", `{"agentId":"tony"}`)
	s.addAgent("tony", "")
}

// TestAgentStreamCut changes the record of an agent with a call under way.
func TestAgentStreamCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, route, change, code string }{
		{"switched off", "disableAgent", "", "AGENT_DISABLED"},
		{"ended", "updateAgent", `,"expiresAt":1000`, "AGENT_EXPIRED"},
		{"to be bound from now on", "updateAgent", `,"binding":"any"`, "TOKEN_BINDING_REQUIRED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := agentVault(t)
			release := make(chan struct{})
			s.up.answer(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "first")
				_ = http.NewResponseController(w).Flush()
				select {
				case <-release:
				case <-r.Context().Done():
				}
			})
			defer close(release)
			key := s.addAgent("tony", `,"groups":["crew"]`)
			got := s.issueWith(`"service":"crew","scope":["a"]`, bearer(key))
			req, err := http.NewRequest("GET", s.base+"/proxy/crew/slow", nil)
			if err != nil {
				t.Fatal(err)
			}
			bearer(got.Token)(req)
			_, from := s.auditLog(0)
			res, err := s.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			first := make([]byte, 5)
			if _, err := io.ReadFull(res.Body, first); err != nil || res.StatusCode != 200 {
				t.Fatalf("%d %s, %v", res.StatusCode, first, err)
			}
			// What does not concern the token changes nothing for its call.
			s.admin("updateAgent", `{"agentId":"tony","groups":["crew","more"]}`)
			s.admin(c.route, `{"agentId":"tony"`+c.change+`}`)
			if rest, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("the stream ended well, with %q", rest)
			}
			if end := s.endOfCall(t, from); end.text("error") != c.code {
				t.Errorf("recorded as %q, want %q", end.text("error"), c.code)
			}
		})
	}
}

// TestAgentAdmin is about what the admin routes refuse.
func TestAgentAdmin(t *testing.T) {
	t.Parallel()
	s := agentVault(t)
	key := s.addAgent("tony", "")
	as := []edit{bearer(adminToken)}
	var rows []refusal
	for _, c := range []struct {
		route, body string
		status      int
		code        string
	}{
		{"addAgent", `{}`, 400, "AGENTID_REQUIRED"},
		{"addAgent", `{"agentId":""}`, 400, "AGENTID_REQUIRED"},
		{"addAgent", `{"agentId":"*"}`, 400, "AGENTID_INVALID"},
		{"addAgent", `{"agentId":"group:x"}`, 400, "AGENTID_INVALID"},
		{"addAgent", `{"agentId":"a\n"}`, 400, "AGENTID_INVALID"},
		{"addAgent", `{"agentId":"tony"}`, 409, "AGENT_ALREADY_EXISTS"},
		{"addAgent", `{"agentId":"x","key":"y"}`, 400, "FIELD_UNKNOWN:key"},
		{"addAgent", `{"agentId":"x","groups":"y"}`, 400, "GROUPS_INVALID"},
		{"addAgent", `{"agentId":"x","groups":[""]}`, 400, "AGENT_INVALID"},
		{"addAgent", `{"agentId":"x","expiresAt":"soon"}`, 400, "EXPIRESAT_INVALID"},
		{"addAgent", `{"agentId":"x","expiresAt":-1}`, 400, "EXPIRESAT_INVALID"},
		{"addAgent", `{"agentId":"x","binding":"rope"}`, 400, "BINDING_INVALID"},
		{"updateAgent", `{"agentId":"nobody"}`, 404, "UNKNOWN_AGENT"},
		{"updateAgent", `{"agentId":"tony","disabled":"no"}`, 400, "DISABLED_INVALID"},
		{"rotateAgentKey", `{"agentId":"nobody"}`, 404, "UNKNOWN_AGENT"},
		{"rotateAgentKey", `{"agentId":"tony","overlap":-1}`, 400, "OVERLAP_INVALID"},
		{"rotateAgentKey", `{"agentId":"tony","overlap":99999999}`, 400, "OVERLAP_INVALID"},
		{"disableAgent", `{"agentId":"nobody"}`, 404, "UNKNOWN_AGENT"},
		{"removeAgent", `{"agentId":"nobody"}`, 404, "UNKNOWN_AGENT"},
		{"removeAgent", `{"agentId":"../tony"}`, 404, "UNKNOWN_AGENT"},
		{"listAgents", `{"all":true}`, 400, "FIELD_UNKNOWN:all"},
		{"unrevoke", `{"sessionId":"s","owner":"tony"}`, 404, "NOT_FOUND"},
		{"unrevoke", `{"agentId":"tony","owner":"tony"}`, 400, "OWNER_INVALID"},
	} {
		rows = append(rows, refusal{name: c.route + " " + c.body, path: "/vault.admin." + c.route, body: c.body, edits: as, status: c.status, code: c.code, event: "admin." + c.route})
	}
	rows = append(rows, refusal{name: "an agent is no administrator", path: "/vault.admin.listAgents", body: "{}", edits: []edit{bearer(key)}, status: 401, code: "ADMIN_UNAUTHORIZED", event: "admin.listAgents"})
	s.run(t, rows)
}

// TestAgentFiles edits agents by hand.
func TestAgentFiles(t *testing.T) {
	t.Parallel()
	s := agentVault(t)
	key := s.addAgent("tony", `,"groups":["crew"]`)
	path := filepath.Join(s.data, "agents", "tony.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	listed := func() string { return s.ok("/vault.admin.listAgents", `{}`, nil, bearer(adminToken)).body }
	s.write(path, strings.Replace(string(b), "crew", "crew\",\"added", 1))
	eventually(t, "an edit", func() bool { return strings.Contains(listed(), "added") })
	s.write(path, strings.Replace(string(b), `"groups"`, `"grups"`, 1))
	eventually(t, "a broken edit", func() bool { return strings.Contains(listed(), "grups") })
	s.issueWith(`"service":"crew","scope":["a"]`, bearer(key)) // the last good one
	s.write(path, string(b))
	eventually(t, "a mended edit", func() bool { return !strings.Contains(listed(), "error") })
	s.write(filepath.Join(s.data, "agents", "steve.json"), strings.Replace(string(b), "tony", "steve", 1))
	eventually(t, "a copied file", func() bool { return strings.Contains(listed(), "steve") })
	got := s.refused(t, refusal{path: "/vault.issueToken", body: `{"service":"crew","scope":["a"]}`, edits: []edit{bearer(key)}, status: 401, code: "AGENT_KEY_INVALID", event: "token.issue"})
	_ = got
	if err := os.Remove(filepath.Join(s.data, "agents", "steve.json")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a removed file", func() bool { return !strings.Contains(listed(), "steve") })
	tok := s.issueWith(`"service":"crew","scope":["a"]`, bearer(key))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of its tokens", func() bool { return s.call(tok.Token, "crew", "a", "{}").header.Get("Vault-Error") == "AGENT_REVOKED" })
}

// TestAgentFileGoneAtStart removes an agent's file while the server is down: its
// tokens are those of nobody, and nor is it known by other means for a while.
func TestAgentFileGoneAtStart(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	for _, agent := range []string{"tony", "steve"} {
		s.addAgent(agent, "")
	}
	tony, steve := s.issue("tony", "github", "github:repos:read"), s.issue("steve", "github", "github:repos:read")
	s.signal(syscall.SIGKILL)
	if err := os.Remove(filepath.Join(s.data, "agents", "tony.json")); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.refused(t, refusal{method: "GET", path: "/proxy/github/repos/o/r", edits: []edit{bearer(tony)}, status: 401, code: "AGENT_REVOKED", event: "proxy.call"})
	s.refused(t, refusal{path: "/vault.issueToken", body: `{"agentId":"tony",` + forGitHub + `}`, status: 401, code: "AGENT_REVOKED", event: "token.issue"})
	if r := s.do("GET", "/proxy/github/repos/o/r", "", bearer(steve)); r.status != 200 {
		t.Errorf("an agent that is there: %d %s", r.status, r.body)
	}
	s.admin("unrevoke", `{"agentId":"tony"}`)
	s.issue("tony", "github", "github:repos:read")
}

// TestOwnOnly is about what an agent may revoke and read.
func TestOwnOnly(t *testing.T) {
	t.Parallel()
	s := agentVault(t)
	tony, steve := s.addAgent("tony", `,"groups":["crew"]`), s.addAgent("steve", `,"groups":["crew"]`)
	issue := func(key string) issued {
		t.Helper()
		return s.issueWith(`"service":"crew","scope":["a"],"sessionId":"shared","taskId":"shared"`, bearer(key))
	}
	works := func(tok issued, want string) {
		t.Helper()
		defer s.ok("/vault.audit.query", `{"limit":1}`, nil, bearer(adminToken)) // its record is there
		if r := s.call(tok.Token, "crew", "a", "{}"); r.header.Get("Vault-Error") != want {
			t.Errorf("call: %d %s, want %q", r.status, r.body, want)
		}
	}
	t1, s1 := issue(tony), issue(steve)
	// Steve revokes what is Tony's by every name that he may know.
	for _, body := range []string{`{"tokenId":` + quote(t1.TokenID) + `}`, `{"sessionId":"shared"}`} {
		s.ok("/vault.revoke", body, nil, bearer(steve))
		works(t1, "")
	}
	works(s1, "SESSION_REVOKED")
	s.run(t, []refusal{
		{name: "another agent", path: "/vault.revoke", body: `{"agentId":"tony"}`, edits: []edit{bearer(steve)}, status: 403, code: "AGENT_MISMATCH", event: "token.revoke"},
		{name: "another agent beside an own session", path: "/vault.revoke", body: `{"sessionId":"shared","agentId":"tony"}`, edits: []edit{bearer(steve)}, status: 403, code: "AGENT_MISMATCH", event: "token.revoke"},
		{name: "another agent's records", path: "/vault.audit.query", body: `{"filters":{"agentId":"tony"}}`, edits: []edit{bearer(steve)}, status: 403, code: "AGENT_MISMATCH", event: "audit.query"},
		{name: "a token is no identity", path: "/vault.revoke", body: `{"sessionId":"x"}`, edits: []edit{bearer(t1.Token)}, status: 401, code: "AGENT_UNAUTHENTICATED", event: "token.revoke"},
		{name: "a token asks for a token", path: "/vault.issueToken", body: `{"service":"crew","scope":["a"]}`, edits: []edit{bearer(t1.Token)}, status: 401, code: "AGENT_UNAUTHENTICATED", event: "token.issue"},
		{name: "the admin token asks for a token", path: "/vault.issueToken", body: `{"service":"crew","scope":["a"]}`, edits: []edit{bearer(adminToken)}, status: 401, code: "AGENT_UNAUTHENTICATED", event: "token.issue"},
		{name: "somebody else", path: "/vault.issueToken", body: `{"agentId":"tony","service":"crew","scope":["a"]}`, edits: []edit{bearer(steve)}, status: 403, code: "AGENT_MISMATCH", event: "token.issue"},
	})

	// It survives a restart, and an administrator sees whose it is.
	s.stop()
	s.start()
	works(t1, "")
	works(s1, "SESSION_REVOKED")
	if list := s.ok("/vault.admin.listRevocations", `{}`, nil, bearer(adminToken)).body; !strings.Contains(list, `"owner":"steve"`) || strings.Contains(list, `"owner":"tony"`) {
		t.Errorf("listRevocations: %s", list)
	}
	s.admin("unrevoke", `{"sessionId":"shared","owner":"steve"}`)
	works(s1, "")

	// Each reads its own, and the administrator reads all.
	var mine []record
	decode(t, s.ok("/vault.audit.query", `{"limit":1000}`, nil, bearer(tony)).body, &mine)
	if len(mine) == 0 {
		t.Error("tony reads nothing")
	}
	for _, rec := range mine {
		ctx, _ := rec["context"].(map[string]any)
		if ctx["agentId"] != "tony" && rec["agentId"] != "tony" {
			t.Errorf("tony reads %v", rec)
		}
	}
	if all := s.ok("/vault.audit.query", `{"limit":1000}`, nil, bearer(adminToken)).body; !strings.Contains(all, `"tony"`) || !strings.Contains(all, `"steve"`) {
		t.Error("the administrator does not read all")
	}
	s.ok("/vault.revoke", `{"sessionId":"shared"}`, nil, bearer(adminToken))
	works(t1, "SESSION_REVOKED")
	works(s1, "SESSION_REVOKED")

	// Its own token, and itself.
	t2 := s.issueWith(`"service":"crew","scope":["a"]`, bearer(tony))
	s.ok("/vault.revoke", `{"tokenId":`+quote(t2.TokenID)+`}`, nil, bearer(tony))
	works(t2, "TOKEN_REVOKED")
	s.ok("/vault.revoke", `{"agentId":"tony"}`, nil, bearer(tony))
	s.run(t, []refusal{{name: "revoked", path: "/vault.issueToken", body: `{"service":"crew","scope":["a"]}`, edits: []edit{bearer(tony)}, status: 401, code: "AGENT_REVOKED", event: "token.issue"}})
}

// TestAgentKeyGuesses counts wrong keys by client; the right one passes.
func TestAgentKeyGuesses(t *testing.T) {
	t.Parallel()
	s := agentVault(t)
	key := s.addAgent("tony", `,"groups":["crew"]`)
	limited := 0
	for i := range 30 {
		wrong := fmt.Sprintf("cva_%016x_%064x", i, i)
		switch r := s.post("/vault.issueToken", `{"service":"crew","scope":["a"]}`, bearer(wrong)); r.header.Get("Vault-Error") {
		case "RATE_LIMITED":
			limited++
		case "AGENT_KEY_INVALID":
		default:
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	if limited == 0 {
		t.Error("30 guesses are all looked at")
	}
	s.issueWith(`"service":"crew","scope":["a"]`, bearer(key))
}
