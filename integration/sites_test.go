package integration

import (
	"net/http"
	"strings"
	"testing"
)

const issueRead = `{"service":"github","scope":["github:repos:read"]}`

// passwordHash is the bcrypt of "hunter2hunter2", at the least cost.
const passwordHash = "$2a$04$dA.Qa4eX2jqObW.WkvnnPu5teAOIyC.1NCtshncQGvQUC1FSuYByq"

// TestIdentity is about agents whom authentication in front of the vault
// knows.
func TestIdentity(t *testing.T) {
	t.Parallel()
	s := start(t, config{
		vault: `
		agents {
			identity {http.auth.user.id}
			trust none
		}`,
		sites: `
http://:$PORT {
	bind 127.0.0.1
	log
	@agents path /vault.issueToken /vault.revoke /vault.audit.query
	basic_auth @agents {
		tony ` + passwordHash + `
		stranger ` + passwordHash + `
	}
	vault
}
http://:$PORT2 {
	bind 127.0.0.1
	vault
}`,
	})
	as := func(user string) edit {
		return func(r *http.Request) { r.SetBasicAuth(user, "hunter2hunter2") }
	}
	s.hide("hunter2hunter2", "a password")

	got := s.issueWith(strings.Trim(issueRead, "{}"), as("tony"))
	if sub := string(claimsOf(t, got.Token)["sub"]); sub != `"tony"` {
		t.Errorf("the token is for %s", sub)
	}
	if r := s.post("/vault.issueToken", `{"agentId":"tony",`+issueRead[1:], as("tony")); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := s.call(got.Token, "github", "public.get", "null"); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := s.post("/vault.revoke", `{"sessionId":"nobody's"}`, as("tony")); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := s.post("/vault.issueToken", issueRead); r.status != 401 || r.header.Get("Vault-Error") != "" {
		t.Errorf("without a password: %d %s", r.status, r.body)
	}
	if !strings.Contains(s.read("caddy.log"), `"user_id":"tony"`) {
		t.Error("the access log does not name the agent")
	}
	open := "http://127.0.0.1:" + s.port2
	s.run(t, []refusal{
		{path: "/vault.issueToken", body: `{"agentId":"main",` + issueRead[1:], edits: []edit{as("tony")}, status: 403, code: "AGENT_MISMATCH", event: "token.issue"},
		{path: "/vault.issueToken", body: `{"agentId":"Tony",` + issueRead[1:], edits: []edit{as("tony")}, status: 403, code: "AGENT_MISMATCH", event: "token.issue"},
		{path: "/vault.issueToken", body: issueRead, edits: []edit{as("stranger")}, status: 403, code: "POLICY_DENY", event: "token.issue"},
		// Nobody has authenticated here, and a password that nobody has
		// checked says nothing.
		{path: open + "/vault.issueToken", body: issueRead, status: 401, code: "AGENT_UNAUTHENTICATED", event: "token.issue"},
		{path: open + "/vault.issueToken", body: `{"agentId":"tony",` + issueRead[1:], edits: []edit{as("tony")}, status: 401, code: "AGENT_UNAUTHENTICATED", event: "token.issue"},
		{path: open + "/vault.revoke", body: `{"agentId":"tony"}`, status: 401, code: "AGENT_UNAUTHENTICATED", event: "token.revoke"},
		{path: open + "/vault.audit.query", body: `{}`, status: 401, code: "AGENT_UNAUTHENTICATED", event: "audit.query"},
	})
}

// TestTrustNone is about a vault that takes nobody's word.
func TestTrustNone(t *testing.T) {
	t.Parallel()
	s := start(t, config{vault: "agents {\n trust none\n }"})
	s.run(t, []refusal{
		{path: "/vault.issueToken", body: issueRead, status: 401, code: "AGENT_UNAUTHENTICATED", event: "token.issue"},
		{path: "/vault.revoke", body: `{"agentId":"tony"}`, status: 401, code: "AGENT_UNAUTHENTICATED", event: "token.revoke"},
		{path: "/vault.audit.query", body: `{}`, status: 401, code: "AGENT_UNAUTHENTICATED", event: "audit.query"},
		{path: "/vault.audit.query", body: `{}`, edits: []edit{bearer(adminToken + "x")}, status: 401, code: "AGENT_UNAUTHENTICATED", event: "audit.query"},
		{path: "/vault.issueToken", body: issueRead, edits: []edit{bearer(adminToken)}, status: 401, code: "AGENT_UNAUTHENTICATED", event: "token.issue"},
	})
}

// TestTrustAll is about an operator who has said that everybody is believed.
func TestTrustAll(t *testing.T) {
	t.Parallel()
	s := start(t, config{vault: "agents {\n trust all\n }"})
	if r := s.post("/vault.issueToken", issueRead, header("X-Forwarded-For", "203.0.113.5")); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// TestTrustedProxy is about a server that takes a client's address from a
// proxy on the same machine: that client is not on the machine.
func TestTrustedProxy(t *testing.T) {
	t.Parallel()
	s := start(t, config{sites: `
http://:$PORT {
	bind 127.0.0.1
	vault
}
`})
	// Caddy's client_ip_headers may name any header; one that the vault does
	// not know must not make the world local.
	caddyfile := strings.Replace(s.read("Caddyfile"), "	auto_https off\n", "	auto_https off\n	servers {\n		trusted_proxies static 127.0.0.1/32\n		client_ip_headers CF-Connecting-IP\n	}\n", 1)
	s.stop()
	s.write(s.file, caddyfile)
	s.start()
	s.run(t, []refusal{
		{path: "/vault.issueToken", body: issueRead, edits: []edit{header("CF-Connecting-IP", "203.0.113.5")}, status: 401, code: "AGENT_UNAUTHENTICATED", event: "token.issue"},
	})
	if r := s.post("/vault.issueToken", issueRead); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// TestSplitSites is about agents and administrators on sites of their own.
func TestSplitSites(t *testing.T) {
	t.Parallel()
	s := prepare(t, config{sites: `
http://:$PORT {
	bind 127.0.0.1
	log
	vault agent
	respond "the site's own"
}
http://:$PORT2 {
	bind 127.0.0.1
	log
	vault admin
}`})
	s.start()
	agents, admins := s.base, "http://127.0.0.1:"+s.port2
	s.base = admins
	s.addService("github", s.githubService(), secret)
	s.base = agents

	if r := s.post("/vault.issueToken", issueRead); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := s.do("GET", "/anything", ""); r.body != "the site's own" {
		t.Errorf("%d %s", r.status, r.body)
	}
	for _, site := range []string{agents, admins} {
		if r := s.do("GET", site+"/health", ""); r.status != 200 {
			t.Errorf("health on %s: %d", site, r.status)
		}
	}
	var rows []refusal
	for _, path := range []string{"/vault.issueToken", "/vault.call", "/vault.revoke", "/vault.audit.query", "/proxy/github/x", "/vault.nothing"} {
		rows = append(rows, refusal{path: admins + path, body: "{}", edits: []edit{bearer(adminToken)}, status: 404, code: "NOT_FOUND", event: "request"})
	}
	rows = append(rows, refusal{method: "GET", path: admins + "/.well-known/jwks.json", status: 404, code: "NOT_FOUND", event: "request"})
	for _, name := range []string{"listServices", "addSecret", "unrevoke", "nothing"} {
		rows = append(rows, refusal{path: agents + "/vault.admin." + name, body: "{}", status: 404, code: "NOT_FOUND", event: "request"})
	}
	s.run(t, rows)
}

// TestDefaults starts a server with an empty global block and no environment.
func TestDefaults(t *testing.T) {
	t.Parallel()
	s := prepare(t, config{unset: []string{"VAULT_ADMIN_TOKEN"}})
	caddyfile := s.read("Caddyfile")
	from, to := strings.Index(caddyfile, "\tvault {"), strings.Index(caddyfile, "http://:")
	s.write(s.file, caddyfile[:from]+"\tvault\n}\n"+caddyfile[to:])
	s.data = s.dir + "/xdg/caddy/vault"
	s.start()
	token := strings.TrimSpace(s.read("xdg/caddy/vault/admin.token"))
	if len(token) < 32 {
		t.Fatalf("admin token %q", token)
	}
	s.hide(token, "the generated admin token")
	if r := s.post("/vault.admin.listTemplates", "{}", bearer(token)); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if log := s.read("caddy.log"); !strings.Contains(log, "admin.token") {
		t.Error("no log line says where the admin token is")
	}
	s.run(t, []refusal{{path: "/vault.admin.listTemplates", body: "{}", status: 401, code: "ADMIN_UNAUTHORIZED", event: "admin.listTemplates"}})
}
