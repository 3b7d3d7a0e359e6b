package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault/refusal"
)

const github = `{
  "baseUrl": "https://api.github.com",
  "allowedAgents": ["main", "tony", "steve"],
  "allowedActions": ["issue", "repo.get", "issues.create", "repo.delete", "git.push"],
  "allowedScopes": ["github:repos:read", "github:issues:write"],
  "agentScopes": {"steve": ["github:repos:read"]},
  "endpoints": {
    "repo.get": {"method": "GET", "path": "/repos/{owner}/{repo}", "requiredScope": ["github:repos:read"]},
    "issues.create": {"method": "POST", "path": "/repos/{owner}/{repo}/issues", "requiredScope": ["github:repos:read", "github:issues:write"]},
    "repo.delete": {"method": "DELETE", "path": "/repos/{owner}/{repo}", "requiredScope": ["github:repos:admin"]},
    "issues.list": {"method": "GET", "path": "/repos/{owner}/{repo}/issues"},
    "open": {"method": "GET", "path": "/zen"}
  }
}`

func parse(t testing.TB, data string) *Compiled {
	t.Helper()
	c, err := ParseService("github", []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func code(r *refusal.Refusal) string {
	if r == nil {
		return ""
	}
	return r.Code
}

func TestDecideIssue(t *testing.T) {
	c := parse(t, github)
	read, write := "github:repos:read", "github:issues:write"
	for _, tc := range []struct {
		agent  string
		scopes []string
		want   string
	}{
		{"tony", []string{read}, ""},
		{"tony", []string{read, write}, ""},
		{"tony", []string{read, read}, ""},
		{"steve", []string{read}, ""},
		{"steve", []string{write}, "INSUFFICIENT_SCOPE:" + write},
		{"steve", []string{read, write}, "INSUFFICIENT_SCOPE:" + write},
		{"eve", []string{read}, "POLICY_DENY"},
		{"", []string{read}, "POLICY_DENY"},
		{"*", []string{read}, "POLICY_DENY"},
		{"Tony", []string{read}, "POLICY_DENY"},
		{"eve", nil, "POLICY_DENY"},
		{"tony", nil, "SCOPE_REQUIRED"},
		{"tony", []string{}, "SCOPE_REQUIRED"},
		{"tony", []string{""}, "SCOPE_INVALID"},
		{"tony", []string{"a\r\nb"}, "SCOPE_INVALID"},
		{"tony", []string{"é"}, "SCOPE_INVALID"},
		{"tony", slices.Repeat([]string{read}, maxScopes+1), "SCOPE_INVALID"},
		{"tony", []string{"x", read, "y", "x"}, "INVALID_SCOPE:x,y"},
		{"tony", []string{"GITHUB:REPOS:READ"}, "INVALID_SCOPE:GITHUB:REPOS:READ"},
		{"tony", []string{"*"}, "INVALID_SCOPE:*"},
		{"steve", []string{"x", write}, "INVALID_SCOPE:x"},
	} {
		if got := code(c.DecideIssue(Agent{ID: tc.agent}, tc.scopes)); got != tc.want {
			t.Errorf("%s %v: got %q, want %q", tc.agent, tc.scopes, got, tc.want)
		}
	}
	r := c.DecideIssue(Agent{ID: "steve"}, []string{write})
	if !strings.Contains(r.Hint, read) || strings.Contains(r.Hint, write) {
		t.Errorf("the hint lists what the agent may have: %q", r.Hint)
	}

	closed := parse(t, strings.Replace(github, `"issue", `, "", 1))
	if got := code(closed.DecideIssue(Agent{ID: "tony"}, []string{read})); got != "POLICY_DENY" {
		t.Errorf("without the action issue: %q", got)
	}
	noScopes := parse(t, strings.Replace(github, `["github:repos:read", "github:issues:write"],
  "agent`, `[],
  "agent`, 1))
	if got := code(noScopes.DecideIssue(Agent{ID: "tony"}, []string{read})); got != "SERVICE_ALLOWED_SCOPES_NOT_CONFIGURED" {
		t.Errorf("without scopes: %q", got)
	}
	if got := code(noScopes.DecideIssue(Agent{ID: "tony"}, nil)); got != "SCOPE_REQUIRED" {
		t.Errorf("without scopes, asking for none: %q", got)
	}
}

func TestDecideAction(t *testing.T) {
	c := parse(t, github)
	for _, tc := range []struct{ agent, action, want, hint string }{
		{"tony", "repo.get", "", ""},
		{"eve", "repo.get", "POLICY_DENY", "allowedAgents"},
		{"eve", "nothing", "POLICY_DENY", "allowedAgents"},
		{"tony", "issues.list", "POLICY_DENY", "repo.get"},
		{"tony", "repos.get", "POLICY_DENY", "the nearest action is repo.get"},
		{"tony", "Repo.Get", "POLICY_DENY", "the nearest action is repo.get"},
		{"tony", "git.push", "UNKNOWN_ACTION", "repo.get"},
		{"tony", "issue", "UNKNOWN_ACTION", "repo.get"},
		{"tony", "", "POLICY_DENY", ""},
		{"tony", "*", "POLICY_DENY", ""},
		{"tony", "../../x\r\n", "POLICY_DENY", ""},
		{"tony", strings.Repeat("a", 10_000), "POLICY_DENY", ""},
	} {
		e, r := c.DecideAction(Agent{ID: tc.agent}, tc.action)
		if code(r) != tc.want || (e == nil) != (r != nil) {
			t.Errorf("%s %s: got %v", tc.agent, tc.action, r)
			continue
		}
		if r != nil && (!strings.Contains(r.Hint, tc.hint) || strings.ContainsAny(r.Detail+r.Hint, "\r\n") || len(r.Detail) > 300) {
			t.Errorf("%s %s: hint %q", tc.agent, tc.action, r.Hint)
		}
	}

	all := parse(t, strings.NewReplacer(`["main", "tony", "steve"]`, `["*"]`,
		`["issue", "repo.get", "issues.create", "repo.delete", "git.push"]`, `["*"]`).Replace(github))
	if _, r := all.DecideAction(Agent{ID: "anyone"}, "open"); r != nil {
		t.Errorf("wildcards: %v", r)
	}
	if _, r := all.DecideAction(Agent{ID: "anyone"}, "nothing"); code(r) != "UNKNOWN_ACTION" {
		t.Errorf("wildcards, no endpoint: %v", r)
	}
	if r := all.DecideIssue(Agent{ID: "anyone"}, []string{"github:repos:read"}); r != nil {
		t.Errorf("wildcards, issue: %v", r)
	}
	none := parse(t, strings.NewReplacer(`["main", "tony", "steve"]`, `[]`).Replace(github))
	if _, r := none.DecideAction(Agent{ID: "tony"}, "open"); code(r) != "POLICY_DENY" {
		t.Errorf("nobody is allowed: %v", r)
	}
}

func TestDecideScope(t *testing.T) {
	c := parse(t, github)
	read, write := "github:repos:read", "github:issues:write"
	for _, tc := range []struct {
		action  string
		granted []string
		want    string
	}{
		{"repo.get", []string{read}, ""},
		{"repo.get", []string{write, read}, ""},
		{"repo.get", []string{write}, "INSUFFICIENT_SCOPE:" + read},
		{"repo.get", nil, "INSUFFICIENT_SCOPE:" + read},
		{"repo.get", []string{"github:repos"}, "INSUFFICIENT_SCOPE:" + read},
		{"repo.get", []string{"*"}, "INSUFFICIENT_SCOPE:" + read},
		{"issues.create", []string{read}, "INSUFFICIENT_SCOPE:" + write},
		{"issues.create", []string{}, "INSUFFICIENT_SCOPE:" + read + "," + write},
		{"issues.create", []string{write, read}, ""},
		{"open", nil, ""},
	} {
		r := c.Endpoint(tc.action).DecideScope(tc.granted)
		if code(r) != tc.want {
			t.Errorf("%s %v: got %v", tc.action, tc.granted, r)
		}
		if r != nil && !strings.Contains(r.Hint, read) {
			t.Errorf("%s: the hint names the scope: %q", tc.action, r.Hint)
		}
	}
}

func TestNoEndpoint(t *testing.T) {
	c := parse(t, github)
	for _, tc := range []struct{ method, path, hint string }{
		{"PATCH", "/repos/o/r", "GET (repo.get), DELETE (repo.delete)"},
		{"GET", "/repos/o", "near it are: GET /repos/{owner}/{repo} (repo.get)"},
		{"GET", "/nothing/here", "actions of the service: issues.create, repo.delete, repo.get"},
		{"GET", "", "actions of the service"},
		{"BREW", "/x", "actions of the service"},
	} {
		r := c.NoEndpoint(tc.method, tc.path)
		if r.Code != "NO_ENDPOINT" || r.Status != 404 || !strings.Contains(r.Hint, tc.hint) {
			t.Errorf("%s %s: %d %s, hint %q", tc.method, tc.path, r.Status, r.Code, r.Hint)
		}
	}
	// Vendors write their base URL with /v1 in one place and without in another.
	c = service(t, "https://api.example.com/api/v1", map[string]string{"chat": "POST /chat/completions r", "root": "GET / r", "version": "GET /v1/version r"})
	for _, tc := range []struct{ method, path, hint string }{
		{"POST", "/api/v1/chat/completions", "begins with /api/v1, which the service's baseUrl has already: the client's base URL ends in it and so does its path; leave it out of one, for the action chat"},
		{"GET", "/api/v1", "for the action root"},
		{"GET", "/api/v1/chat/completions", "actions of the service"},
		{"POST", "/api/v12/chat/completions", "actions of the service"},
		{"POST", "/v1/chat/completions", "actions of the service"},
	} {
		if r := c.NoEndpoint(tc.method, tc.path); r.Code != "NO_ENDPOINT" || !strings.Contains(r.Hint, tc.hint) {
			t.Errorf("%s %s: %s, hint %q", tc.method, tc.path, r.Code, r.Hint)
		}
	}
}

func TestActions(t *testing.T) {
	got := parse(t, github).Actions()
	if !slices.Equal(got, []string{"issues.create", "issues.list", "open", "repo.delete", "repo.get"}) {
		t.Errorf("got %v", got)
	}
}

// TestGroups decides with groups: of the agent's record, of its issuer, and of
// neither.
func TestGroups(t *testing.T) {
	c := parse(t, `{"baseUrl":"https://x.example","allowedActions":["*"],
		"allowedAgents":["main","group:ci","group:ops team"],"allowedScopes":["a","b","c"],
		"agentScopes":{"main":["a"],"group:ci":["a","b"],"group:nobody":[]},
		"endpoints":{"a.get":{"method":"GET","path":"/a","requiredScope":["a"]},"c.get":{"method":"GET","path":"/c","requiredScope":["c"]}}}`)
	for _, tc := range []struct {
		name   string
		agent  Agent
		scopes []string
		want   string
	}{
		{"by name", Agent{ID: "main"}, []string{"a"}, ""},
		{"its own entry alone counts", Agent{ID: "main", Groups: []string{"ci"}}, []string{"b"}, "INSUFFICIENT_SCOPE:b"},
		{"by its record", Agent{ID: "x", Groups: []string{"other", "ci"}}, []string{"a", "b"}, ""},
		{"by its issuer", Agent{ID: "x", Claimed: []string{"ci"}}, []string{"b"}, ""},
		{"a group's entry", Agent{ID: "x", Groups: []string{"ci"}}, []string{"a", "c", "c"}, "INSUFFICIENT_SCOPE:c"},
		{"a group without an entry", Agent{ID: "x", Groups: []string{"ops team"}}, []string{"c"}, ""},
		{"a group that may nothing", Agent{ID: "x", Groups: []string{"ops team"}, Claimed: []string{"nobody"}}, []string{"c"}, "INSUFFICIENT_SCOPE:c"},
		{"two entries add up", Agent{ID: "x", Groups: []string{"nobody"}, Claimed: []string{"ci"}}, []string{"b"}, ""},
		{"in no group", Agent{ID: "x"}, []string{"a"}, "POLICY_DENY"},
		{"another group", Agent{ID: "x", Groups: []string{"CI", "group:ci", "", "*"}}, []string{"a"}, "POLICY_DENY"},
		{"called like an entry", Agent{ID: "group:ci"}, []string{"a"}, "POLICY_DENY"},
		{"called like a group", Agent{ID: "ci"}, []string{"a"}, "POLICY_DENY"},
		{"in a group called like an agent", Agent{ID: "x", Groups: []string{"main"}}, []string{"a"}, "POLICY_DENY"},
	} {
		if got := code(c.DecideIssue(tc.agent, tc.scopes)); got != tc.want {
			t.Errorf("%s: issue: %q, want %q", tc.name, got, tc.want)
		}
	}
	ci := Agent{ID: "x", Groups: []string{"ci"}}
	if _, r := c.DecideAction(ci, "a.get"); r != nil {
		t.Errorf("call: %v", r)
	}
	if _, r := c.DecideAction(ci, "c.get"); code(r) != "INSUFFICIENT_SCOPE:c" {
		t.Errorf("call beyond the group's entry: %v", r)
	}
	if _, r := c.DecideAction(Agent{ID: "x"}, "a.get"); code(r) != "POLICY_DENY" {
		t.Errorf("call after the group was left: %v", r)
	}
	if n := testing.AllocsPerRun(100, func() { c.DecideAction(ci, "a.get") }); n != 0 {
		t.Errorf("a decision allocates %v times", n)
	}
	for _, bad := range []string{`"allowedAgents":["group:"]`, `"allowedAgents":["group:*"]`, `"agentScopes":{"group:*":[]}`, `"agentScopes":{"group:":[]}`} {
		text := `{"baseUrl":"https://x.example","allowedAgents":[],"allowedActions":[],"endpoints":{"a":{"method":"GET","path":"/"}},` + bad + `}`
		if strings.HasPrefix(bad, `"allowedAgents"`) {
			text = strings.Replace(text, `"allowedAgents":[],`, "", 1)
		}
		if _, err := ParseService("x", []byte(text)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	if !c.NamesGroup("ci") || !c.NamesGroup("nobody") || c.NamesGroup("main") {
		t.Error("NamesGroup")
	}
}
