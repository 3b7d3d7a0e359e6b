package integration

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestSiteAuth guards sites that are none of the vault's with its tokens.
func TestSiteAuth(t *testing.T) {
	t.Parallel()
	backend := newUpstream(t)
	s := prepare(t, config{sites: `
http://:$PORT {
	bind 127.0.0.1
	vault
}
http://:$PORT2 {
	bind 127.0.0.1
	log
	handle {
		vault_auth github github:repos:read
		reverse_proxy ` + strings.TrimPrefix(backend.URL, "http://") + ` {
			header_up X-Agent {http.auth.user.id}
			header_up X-Session {http.auth.user.session}
			header_up X-Scope "{http.auth.user.scope}"
			flush_interval -1
		}
	}
}`})
	s.start()
	s.addService("github", s.githubService(), secret)
	site := "http://127.0.0.1:" + s.port2

	token := s.issueWith(forTony + `"maxCalls":3`)
	r := s.do("GET", site+"/x?y=1", "", bearer(token.Token))
	got := backend.last(t)
	if r.status != 200 || got.uri != "/x?y=1" || got.header.Get("X-Agent") != "tony" || got.header.Get("X-Session") != "s1" || got.header.Get("X-Scope") != "github:repos:read" {
		t.Errorf("%d %+v", r.status, got)
	}
	if got.header["Authorization"] != nil {
		t.Error("the site behind sees the token")
	}

	s.addService("other", `{"baseUrl":"`+s.up.URL+`","allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["github:repos:read"],"endpoints":{"a":{"method":"GET","path":"/"}}}`, "")
	other := s.issue("tony", "other", "github:repos:read")
	writer := s.issue("main", "github", "github:issues:write")
	actions := s.issueWith(forTony + `"actions":["repo.get"]`).Token
	bytes := s.issueWith(forTony + `"maxBytes":1000`).Token
	bad := func(name string, status int, code, challenge string, edits ...edit) {
		t.Helper()
		before := backend.count()
		r := s.refused(t, refusal{name: name, method: "GET", path: site + "/x", event: "site.auth", status: status, code: code, edits: edits})
		if c := r.header.Get("WWW-Authenticate"); status == 401 && !strings.HasPrefix(c, challenge) {
			t.Errorf("%s: challenge %q", name, c)
		}
		if backend.count() != before {
			t.Errorf("%s: the site behind was asked", name)
		}
	}
	bad("none", 401, "TOKEN_REQUIRED", `Bearer realm="caddyvault", scope="github:repos:read"`)
	bad("nonsense", 401, "TOKEN_INVALID", `Bearer error="invalid_token"`, bearer("x.y.z"))
	bad("basic", 401, "TOKEN_INVALID", `Bearer`, header("Authorization", "Basic eDp5"))
	bad("two", 401, "TOKEN_INVALID", `Bearer`, header("Authorization", "Bearer "+token.Token, "Bearer "+token.Token))
	bad("of another service", 403, "SERVICE_MISMATCH", "", bearer(other))
	bad("limited to actions", 403, "ACTION_NOT_GRANTED", "", bearer(actions))
	bad("limited to bytes", 403, "ACTION_NOT_GRANTED", "", bearer(bytes))

	// The challenge of a scope that lacks is no 401, so not for refused.
	if r := s.do("GET", site+"/x", "", bearer(writer)); r.status != 403 || r.header.Get("Vault-Error") != "INSUFFICIENT_SCOPE:github:repos:read" ||
		r.header.Get("WWW-Authenticate") != `Bearer error="insufficient_scope", scope="github:repos:read"` {
		t.Errorf("%d %v", r.status, r.header)
	}

	// Budgets count, through a restart too.
	s.do("GET", site+"/x", "", bearer(token.Token))
	s.stop()
	s.start()
	site = "http://127.0.0.1:" + s.port2
	if r := s.do("GET", site+"/x", "", bearer(token.Token)); r.status != 200 {
		t.Errorf("the third of three: %d", r.status)
	}
	bad("spent", 429, "BUDGET_EXHAUSTED", "", bearer(token.Token))

	// A revocation ends what is under way.
	backend.answer(oneEvent)
	live := s.issueWith(forTony + `"ttl":300`)
	stream := s.stream(site+"/stream", live.Token)
	s.ok("/vault.revoke", `{"tokenId":"`+live.TokenID+`"}`, nil)
	_, _ = io.Copy(io.Discard, stream) // it ends
	bad("revoked", 401, "TOKEN_REVOKED", "Bearer", bearer(live.Token))

	records, _ := s.auditLog(0)
	admitted := 0
	for _, r := range records {
		if r.text("event") == "site.auth" && r.text("tokenId") == token.TokenID {
			admitted++
			if fmt.Sprint(r["spends"]) != "["+token.TokenID+"]" || !strings.HasPrefix(r.text("upstream"), "http://127.0.0.1:") || strings.Contains(r.text("upstream"), "?") {
				t.Errorf("%v", r)
			}
		}
	}
	if admitted != 3 {
		t.Errorf("%d records of three requests", admitted)
	}
}

// TestSiteProvider is about the same as a provider of Caddy's authentication.
func TestSiteProvider(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	reader, writer := s.issue("tony", "github", "github:repos:read"), s.issue("main", "github", "github:issues:write")
	route := `{"listen":["127.0.0.1:` + s.port2 + `"],"automatic_https":{"disable":true},"routes":[{"handle":[
		{"handler":"authentication","providers":{"vault":{"service":"github","scope":["github:repos:read"]}}},
		{"handler":"static_response","body":"{http.auth.user.id} {http.auth.user.session} {http.auth.user.scope} [{http.request.header.Authorization}]"}]}]}`
	if status, body := s.adminAPI("PUT", "/config/apps/http/servers/guarded", strings.NewReader(route)); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	site := "http://127.0.0.1:" + s.port2 + "/"
	if r := s.do("GET", site, "", bearer(reader)); r.body != "tony s1 github:repos:read []" {
		t.Errorf("%d %s", r.status, r.body)
	}
	r := s.do("GET", site, "", bearer(writer))
	if r.status != 401 || r.header.Get("WWW-Authenticate") != `Bearer error="insufficient_scope", scope="github:repos:read"` || r.header.Get("Vault-Error") != "INSUFFICIENT_SCOPE:github:repos:read" {
		t.Errorf("%d %v", r.status, r.header)
	}
	eventually(t, "the refusal is recorded", func() bool {
		records, _ := s.auditLog(0)
		return records[len(records)-1].text("event") == "site.auth.denied"
	})
}
