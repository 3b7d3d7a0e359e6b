package integration

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	autoPattern = regexp.MustCompile(`^auto-[0-9a-f]{8}$`)
)

// TestRoutes goes through every route as it is meant to be used, and holds the
// answers to the exact names of their fields.
func TestRoutes(t *testing.T) {
	t.Parallel()
	s := prepare(t, config{})
	s.start()

	t.Run("health", func(t *testing.T) {
		r := s.do("GET", "/health", "")
		if r.status != 200 || r.body != `{"ok":true}` {
			t.Errorf("%d %s", r.status, r.body)
		}
		if r := s.do("HEAD", "/health", ""); r.status != 200 || r.body != "" {
			t.Errorf("HEAD: %d %q", r.status, r.body)
		}
	})

	t.Run("services", func(t *testing.T) {
		add := `{"service":"github","masterSecret":` + quote(secret) + "," + strings.TrimPrefix(s.githubService(), "{")
		s.same("/vault.admin.addService", add, `{"ok":true,"service":"github"}`)
		s.same("/vault.admin.listServices", `{}`, fmt.Sprintf(`{"services":[{"service":"github","baseUrl":%q,"secretRef":"github_pat","authHeader":"Authorization",
			"allowedAgents":["main","tony","steve","victim"],
			"allowedActions":["issue","repo.get","contents.get","issues.create","issue.close","form.post","none.get","raw.put","thing.delete","head.get","archive.get","public.get","ghost","query.post"],
			"allowedScopes":["github:repos:read","github:issues:write"],"agentScopes":{"steve":["github:repos:read"]},
			"endpointNames":["archive.get","contents.get","form.post","head.get","hidden.get","issue.close","issues.create","none.get","public.get","query.post","raw.put","repo.get","thing.delete"]}]}`, s.up.URL+"/base"))
		s.same("/vault.admin.getService", `{"service":"github"}`, `{"service":"github",`+strings.TrimPrefix(s.githubService(), "{"))

		// Objects merge deeply, arrays replace, null removes.
		s.same("/vault.admin.updateService", `{"service":"github","allowedAgents":["tony"],"endpoints":{"hidden.get":null,"repo.get":{"requiredScope":[]}},"agentScopes":null,"_comment":"ignored"}`, `{"ok":true,"service":"github"}`)
		var got struct {
			AllowedAgents []string            `json:"allowedAgents"`
			AgentScopes   map[string][]string `json:"agentScopes"`
			Endpoints     map[string]struct {
				Method        string   `json:"method"`
				Path          string   `json:"path"`
				RequiredScope []string `json:"requiredScope"`
			} `json:"endpoints"`
		}
		if err := json.Unmarshal([]byte(s.post("/vault.admin.getService", `{"service":"github"}`).body), &got); err != nil {
			t.Fatal(err)
		}
		e := got.Endpoints["repo.get"]
		if !slices.Equal(got.AllowedAgents, []string{"tony"}) || got.AgentScopes != nil || e.Path != "/repos/{owner}/{repo}" || e.Method != "GET" || len(e.RequiredScope) != 0 {
			t.Errorf("after the update: %+v", got)
		}
		if _, ok := got.Endpoints["hidden.get"]; ok {
			t.Error("null did not remove the endpoint")
		}

		// A service without a secret, and two that share one.
		s.same("/vault.admin.addService", `{"service":"open","baseUrl":"https://api.example.com","allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["x"],"endpoints":{"a":{"method":"GET","path":"/"}}}`, `{"ok":true,"service":"open"}`)
		s.same("/vault.admin.addService", `{"service":"twin","secretRef":"github_pat","baseUrl":"https://api.example.com","allowedAgents":["tony"],"allowedActions":["issue"],"allowedScopes":["x"],"endpoints":{"a":{"method":"GET","path":"/"}}}`, `{"ok":true,"service":"twin"}`)
		s.same("/vault.admin.removeService", `{"service":"twin"}`, `{"ok":true,"service":"twin"}`)
		if list := s.post("/vault.admin.listSecrets", `{}`).body; !strings.Contains(list, `"github_pat"`) {
			t.Errorf("a shared secret went with one service: %s", list)
		}
		s.same("/vault.admin.removeService", `{"service":"github"}`, `{"ok":true,"service":"github"}`)
		s.same("/vault.admin.listSecrets", `{}`, `{"secrets":[]}`)
		s.addService("github", s.githubService(), secret)
	})

	t.Run("templates", func(t *testing.T) {
		var list struct{ Templates []string }
		s.ok("/vault.admin.listTemplates", `{}`, &list)
		for _, name := range []string{"github", "stripe", "shopify", "openai", "anthropic", "agentmail", "posthog", "railway"} {
			if !slices.Contains(list.Templates, name) {
				t.Errorf("no template %s", name)
			}
		}
		if !slices.IsSorted(list.Templates) {
			t.Errorf("not sorted: %v", list.Templates)
		}
		s.same("/vault.admin.loadTemplate", `{"template":"openai"}`, `{"ok":true,"service":"openai","template":"openai","secretConfigured":false}`)
		s.same("/vault.admin.loadTemplate", `{"template":"stripe","masterSecret":"sk_live_0123456789abcdef","allowedAgents":["tony"]}`, `{"ok":true,"service":"stripe","template":"stripe","secretConfigured":true}`)
		s.hide("sk_live_0123456789abcdef", "the Stripe key")
		s.same("/vault.admin.loadTemplate", `{"template":"shopify","variables":{"store":"my-shop"}}`, `{"ok":true,"service":"shopify","template":"shopify","secretConfigured":false}`)
		var got struct{ BaseURL string }
		if err := json.Unmarshal([]byte(s.post("/vault.admin.getService", `{"service":"shopify"}`).body), &got); err != nil || !strings.Contains(got.BaseURL, "my-shop.myshopify.com") {
			t.Errorf("baseUrl %q, %v", got.BaseURL, err)
		}
		// Over what is there it merges.
		s.ok("/vault.admin.updateService", `{"service":"openai","dropHeaders":["X-Mine"]}`, nil)
		s.ok("/vault.admin.loadTemplate", `{"template":"openai","masterSecret":"sk-0123456789abcdefgh"}`, nil)
		s.hide("sk-0123456789abcdefgh", "the OpenAI key")
		if got := s.post("/vault.admin.getService", `{"service":"openai"}`).body; !strings.Contains(got, "X-Mine") {
			t.Errorf("loading the template again dropped a field: %s", got)
		}
		for _, name := range []string{"openai", "stripe", "shopify"} {
			s.same("/vault.admin.removeService", `{"service":"`+name+`"}`, `{"ok":true,"service":"`+name+`"}`)
		}
	})

	t.Run("secrets", func(t *testing.T) {
		s.same("/vault.admin.addSecret", `{"secretRef":"other_key","secret":"first-value-0123456789"}`, `{"ok":true,"secretRef":"other_key"}`)
		s.hide("first-value-0123456789", "a secret")
		var list struct {
			Secrets []struct {
				SecretRef string
				UpdatedAt json.Number
				UsedBy    []string
			}
		}
		s.ok("/vault.admin.listSecrets", `{}`, &list)
		if len(list.Secrets) != 2 || list.Secrets[0].SecretRef != "github_pat" || !slices.Equal(list.Secrets[0].UsedBy, []string{"github"}) ||
			list.Secrets[1].SecretRef != "other_key" || list.Secrets[1].UsedBy == nil || len(list.Secrets[1].UsedBy) != 0 || len(list.Secrets[1].UpdatedAt) != 13 {
			t.Errorf("%+v", list)
		}
		s.same("/vault.admin.removeSecret", `{"secretRef":"other_key"}`, `{"ok":true,"secretRef":"other_key"}`)

		// A replaced secret is the one that the next call uses.
		token := s.issue("tony", "github", "github:repos:read")
		const other = "ghp_replaced_0123456789"
		s.hide(other, "the replaced secret")
		for _, value := range []string{other, secret} {
			s.same("/vault.admin.addSecret", `{"secretRef":"github_pat","secret":`+quote(value)+`}`, `{"ok":true,"secretRef":"github_pat"}`)
			if r := s.call(token, "github", "repo.get", `{"owner":"o","repo":"r"}`); r.status != 200 {
				t.Fatalf("%d %s", r.status, r.body)
			}
			if got := s.up.last(t).header["Authorization"]; len(got) != 1 || got[0] != "Bearer "+value {
				t.Errorf("the upstream got another secret")
			}
		}
	})

	t.Run("tokens", func(t *testing.T) { tokens(t, s) })
	t.Run("call", func(t *testing.T) {
		token := s.issueWith(`"agentId":"tony","sessionId":"s1","taskId":"t1","skillId":"k1","service":"github","scope":["github:repos:read"]`).Token
		r := s.post("/vault.call", `{"token":"`+token+`","service":"github","action":"repo.get","params":{"owner":"o","repo":"r","page":2},"context":{"agentId":"tony","sessionId":"s1","taskId":"t1","skillId":"k1"}}`)
		if r.status != 200 || r.body != `{"full_name":"o/r"}` || r.header.Get("Vault-Error") != "" {
			t.Errorf("%d %s", r.status, r.body)
		}
		got := s.up.last(t)
		if got.method != "GET" || got.uri != "/base/repos/o/r?page=2" || got.header.Get("Authorization") != "Bearer "+secret || got.host != strings.TrimPrefix(s.up.URL, "http://") {
			t.Errorf("the upstream got %s %s for %s", got.method, got.uri, got.host)
		}
		// In the header instead, or in both.
		for _, body := range []string{`{`, `{"token":"` + token + `",`} {
			if r := s.post("/vault.call", body+`"service":"github","action":"repo.get","params":{"owner":"o","repo":"r"}}`, bearer(token)); r.status != 200 {
				t.Errorf("%d %s", r.status, r.body)
			}
		}
		// An upstream's refusal is its own.
		if r := s.call(token, "github", "public.get", `null`); r.status != 200 {
			t.Errorf("%d %s", r.status, r.body)
		}
		// What the vault chose need not be repeated.
		auto := s.issueWith(`"service":"github","scope":["github:repos:read"]`).Token
		if r := s.post("/vault.call", `{"token":"`+auto+`","service":"github","action":"public.get","context":{"agentId":"main","sessionId":"mine","taskId":"mine","skillId":"default","unknown":1}}`); r.status != 200 {
			t.Errorf("%d %s", r.status, r.body)
		}
	})
	t.Run("revoke", func(t *testing.T) { revocation(t, s) })
	t.Run("audit", func(t *testing.T) { auditQuery(t, s) })
	t.Run("other paths", func(t *testing.T) {
		if r := s.do("GET", "/", ""); r.header.Get("Vault-Error") != "" || r.status != 200 {
			t.Errorf("%d %v", r.status, r.header)
		}
	})
}

func tokens(t *testing.T, s *server) {
	got := s.issueWith(`"service":"github","scope":["github:repos:read"],"ttl":600,"agentId":"tony","sessionId":"s1","taskId":"t1","skillId":"k","tool":"x","extra":[1]`)
	if !uuidPattern.MatchString(got.TokenID) || got.ExpiresInSec != 600 {
		t.Errorf("%+v", got)
	}
	claims := claimsOf(t, got.Token)
	iat, _ := strconv.Atoi(string(claims["iat"]))
	want := fmt.Sprintf(`{"aud":"agentic-credential-vault-proxy","iss":"caddyvault","sub":"tony","jti":%q,"iat":%d,"exp":%d,"service":"github","scope":["github:repos:read"],
		"ctx":{"agentId":"tony","sessionId":"s1","taskId":"t1","skillId":"k","tool":"x"}}`, got.TokenID, iat, iat+600)
	b, err := json.Marshal(claims)
	if err != nil || canonical(t, string(b)) != canonical(t, want) {
		t.Errorf("claims\n%s\nwant\n%s", b, want)
	}
	if r := s.post("/vault.issueToken", `{"service":"github","scope":["github:repos:read"]}`); r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("cache-control %q", r.header.Get("Cache-Control"))
	}

	for ttl, granted := range map[string]int{"": 600, `"ttl":null,`: 600, `"ttl":1,`: 1, `"ttl":900,`: 900, `"ttl":901,`: 900, `"ttl":99999999999999999999999,`: 900} {
		if got := s.issueWith(ttl + `"service":"github","scope":["github:repos:read"]`); got.ExpiresInSec != granted {
			t.Errorf("%s is granted as %d, want %d", ttl, got.ExpiresInSec, granted)
		}
	}

	// What is absent is filled in.
	auto := claimsOf(t, s.issueWith(`"service":"github","scope":["github:repos:read","github:repos:read","github:issues:write"]`).Token)
	var ctx map[string]string
	if err := json.Unmarshal(auto["ctx"], &ctx); err != nil {
		t.Fatal(err)
	}
	if ctx["agentId"] != "main" || string(auto["sub"]) != `"main"` || ctx["skillId"] != "default" || ctx["tool"] != "vault.issueToken" ||
		!autoPattern.MatchString(ctx["sessionId"]) || !autoPattern.MatchString(ctx["taskId"]) || ctx["sessionId"] == ctx["taskId"] {
		t.Errorf("%v", ctx)
	}
	if string(auto["scope"]) != `["github:repos:read","github:issues:write"]` {
		t.Errorf("scope %s", auto["scope"])
	}

	// The key set.
	r := s.do("GET", "/.well-known/jwks.json", "")
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal([]byte(r.body), &set); err != nil || len(set.Keys) != 1 {
		t.Fatalf("%v: %s", err, r.body)
	}
	key := set.Keys[0]
	var head map[string]string
	b, err = base64.RawURLEncoding.DecodeString(strings.Split(got.Token, ".")[0])
	if err != nil || json.Unmarshal(b, &head) != nil {
		t.Fatalf("header %q: %v", b, err)
	}
	if key["kty"] != "OKP" || key["crv"] != "Ed25519" || key["kid"] == "" || key["kid"] != head["kid"] || head["alg"] != "EdDSA" || key["d"] != "" {
		t.Errorf("key %v, header %v", key, head)
	}
}

func claimsOf(t testing.TB, token string) map[string]json.RawMessage {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token of %d parts", len(parts))
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]json.RawMessage
	if err := json.Unmarshal(b, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func revocation(t *testing.T, s *server) {
	tok := s.issueWith(`"service":"github","scope":["github:repos:read"]`)
	s.same("/vault.revoke", `{"tokenId":"`+tok.TokenID+`","reason":"lost"}`, `{"ok":true,"revoked":{"tokenId":"`+tok.TokenID+`"}}`)
	s.same("/vault.revoke", `{"sessionId":"sx","taskId":"tx","agentId":"ax"}`, `{"ok":true,"revoked":{"sessionId":"sx","taskId":"tx","agentId":"ax"}}`)
	var list struct {
		Revocations []struct {
			Kind, ID, Reason string
			Since, Expires   int64
		}
	}
	s.ok("/vault.admin.listRevocations", `{}`, &list)
	found := map[string]int64{}
	for _, r := range list.Revocations {
		found[r.Kind+" "+r.ID+" "+r.Reason] = r.Expires - r.Since
	}
	const day = 24 * 60 * 60 * 1000
	for name, life := range map[string][2]int64{
		"token " + tok.TokenID + " lost": {15 * 60 * 1000, 20 * 60 * 1000},
		"session sx manual":              {30 * day, 30*day + 1},
		"task tx manual":                 {30 * day, 30*day + 1},
	} {
		if got, ok := found[name]; !ok || got < life[0] || got > life[1] {
			t.Errorf("%s: %d, %v in %v", name, got, ok, list)
		}
	}
	if got, ok := found["agent ax manual"]; !ok || got > 0 {
		t.Errorf("the agent's revocation expires: %v", list)
	}
	s.same("/vault.admin.unrevoke", `{"sessionId":"sx","taskId":"tx","agentId":"ax"}`, `{"ok":true}`)
	s.same("/vault.admin.unrevoke", `{"tokenId":"`+tok.TokenID+`"}`, `{"ok":true}`)
	s.same("/vault.admin.listRevocations", `{}`, `{"revocations":[]}`)
	if r := s.call(tok.Token, "github", "public.get", "null"); r.status != 200 {
		t.Errorf("after unrevoke: %d %s", r.status, r.body)
	}
}

func auditQuery(t *testing.T, s *server) {
	tok := s.issueWith(`"agentId":"tony","sessionId":"audited","taskId":"ta","skillId":"ka","tool":"x","service":"github","scope":["github:repos:read"]`)
	r := s.post("/vault.call", `{"token":"`+tok.Token+`","service":"github","action":"repo.get","params":{"owner":"o","repo":"r","q":"searched"}}`)
	if r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	query := func(body string) (out []record) {
		t.Helper()
		r := s.post("/vault.audit.query", body)
		d := json.NewDecoder(strings.NewReader(r.body))
		d.UseNumber()
		if err := d.Decode(&out); err != nil || r.status != 200 {
			t.Fatalf("%s: %d %s", body, r.status, r.body)
		}
		return out
	}
	got := query(`{"filters":{"sessionId":"audited","agentId":"tony"}}`)
	events := make([]string, len(got))
	for i, rec := range got {
		events[i] = rec.text("event")
	}
	if !slices.Equal(events, []string{"token.issued", "proxy.call.started", "proxy.call"}) {
		t.Fatalf("events %v", events)
	}
	start, end := got[1], got[2]
	if start.text("callId") == "" || start.text("callId") != end.text("callId") || start.text("method") != "GET" || start.text("paramsDigest") == "" {
		t.Errorf("%v", start)
	}
	ctx, _ := json.Marshal(end["context"])
	if end.text("service") != "github" || end.text("action") != "repo.get" || end.text("tokenId") != tok.TokenID ||
		fmt.Sprint(end["scope"]) != "[github:repos:read]" || fmt.Sprint(end["status"]) != "200" || end.text("upstream") != s.up.URL+"/base/repos/o/r" ||
		fmt.Sprint(end["responseBytes"]) != "19" || fmt.Sprint(end["requestBytes"]) != "0" ||
		string(ctx) != `{"agentId":"tony","sessionId":"audited","skillId":"ka","taskId":"ta","tool":"x"}` {
		t.Errorf("%v", end)
	}
	for _, name := range []string{"ts", "seq", "durationMs"} {
		if _, ok := end[name].(json.Number); !ok {
			t.Errorf("%s is %#v", name, end[name])
		}
	}
	if len(end.text("prev")) != 43 {
		t.Errorf("prev %q", end.text("prev"))
	}

	// Limit, paging, and times.
	all := query(`{"limit":1000}`)
	if n := query(`{"limit":1000000}`); len(n) != len(all) {
		t.Errorf("%d and %d records", len(n), len(all))
	}
	page := query(`{"limit":3}`)
	if len(page) != 3 || page[2]["seq"] != all[len(all)-1]["seq"] {
		t.Errorf("the newest three are %v", page)
	}
	earlier := query(fmt.Sprintf(`{"limit":3,"before":%v}`, page[0]["seq"]))
	if len(earlier) != 3 || earlier[2]["seq"] != all[len(all)-4]["seq"] {
		t.Errorf("the three before are %v", earlier)
	}
	ts := end["ts"].(json.Number)
	for _, rec := range query(fmt.Sprintf(`{"since":%s,"until":%s}`, ts, ts)) {
		if rec["ts"] != ts {
			t.Errorf("out of time: %v", rec)
		}
	}
	if n := query(fmt.Sprintf(`{"filters":{"event":"proxy.call","tokenId":%q,"status":200}}`, tok.TokenID)); len(n) != 1 {
		t.Errorf("%d calls", len(n))
	}
	if r := s.post("/vault.audit.query", `{"filters":{"event":"no.such"}}`); r.body != "[]" {
		t.Errorf("%s", r.body)
	}
}
