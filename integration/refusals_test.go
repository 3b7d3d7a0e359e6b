package integration

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"testing"
)

const mib = 1 << 20

// run does the refusals of a table, one after the other: what is looked for
// after each is what has changed since the one before.
func (s *server) run(t *testing.T, rows []refusal) {
	for _, r := range rows {
		name := r.name
		if name == "" {
			name = strings.TrimPrefix(r.path, "/") + " " + tail(r.body, 60)
		}
		t.Run(r.code+" "+name, func(t *testing.T) { s.refused(t, r) })
	}
}

// startHS256 starts a server whose signing key is known, so that a test can
// make tokens of its own.
func startHS256(t testing.TB) *server {
	return start(t, config{env: []string{"VAULT_SIGNING_KEY=" + signingKey}})
}

// TestRefusedForm is about what a request looks like, whatever it asks for.
func TestRefusedForm(t *testing.T) {
	t.Parallel()
	s := startHS256(t)
	const issue, admin = "/vault.issueToken", "/vault.admin.addService"
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte("{}"))
	_ = z.Close()

	var rows []refusal
	bad := func(path, event, code, body string, edits ...edit) {
		status := map[string]int{"BODY_TOO_LARGE": 413, "UNSUPPORTED_MEDIA_TYPE": 415}[code]
		if status == 0 {
			status = 400
		}
		rows = append(rows, refusal{path: path, event: event, status: status, code: code, body: body, edits: edits})
	}
	for _, target := range []struct{ path, event string }{
		{issue, "token.issue"},
		{"/vault.call", "proxy.call"},
		{"/vault.revoke", "token.revoke"},
		{"/vault.audit.query", "audit.query"},
		{"/vault.admin.unrevoke", "admin.unrevoke"},
		{admin, "admin.addService"}, // takes its body apart in its own way
	} {
		for _, body := range []string{
			"", " ", "null", "[]", `"x"`, "{", `{"agentId":"a"} x`, `{}{}`, "{},", `{"agentId":NaN}`, `{'agentId':"a"}`, `{"agentId":"a",}`, "{/**/}", "\ufeff{}",
			"{\"agentId\":\"\xff\"}", `{"agentId":"\ud800"}`, "{\"agentId\":\"a\nb\"}", `{"a":` + deep(64) + "}", `{"a":` + strings.Repeat("[", 200000) + "}",
		} {
			bad(target.path, target.event, "JSON_INVALID", body)
		}
		bad(target.path, target.event, "JSON_DUPLICATE_KEY:agentId", `{"agentId":"a","agentId":"a"}`)
		bad(target.path, target.event, "JSON_DUPLICATE_KEY:agentId", `{"agentId":"a","agent\u0049d":"a"}`)
		bad(target.path, target.event, "BODY_TOO_LARGE", "{"+strings.Repeat(" ", mib)+"}")
		bad(target.path, target.event, "BODY_TOO_LARGE", "{"+strings.Repeat(" ", mib)+"}", chunked)
		for _, e := range []edit{
			noHeader("Content-Type"), header("Content-Type", ""), header("Content-Type", "text/plain"),
			header("Content-Type", "application/x-www-form-urlencoded"), header("Content-Type", "application/json; charset=iso-8859-1"),
			header("Content-Type", "application/json; charset=utf-8; x=1"), header("Content-Type", "application/jsonx"),
			header("Content-Type", "application/json", "application/json"), header("Content-Type", "application/json, text/plain"),
		} {
			if target.path == issue {
				bad(target.path, "request", "UNSUPPORTED_MEDIA_TYPE", "{}", e)
			}
		}
	}
	bad("/vault.revoke", "request", "UNSUPPORTED_MEDIA_TYPE", zipped.String(), header("Content-Encoding", "gzip"))
	bad("/vault.revoke", "request", "UNSUPPORTED_MEDIA_TYPE", "{}", header("Content-Encoding", "identity, gzip"))
	bad(admin, "request", "UNSUPPORTED_MEDIA_TYPE", "{}", header("Content-Type", "text/plain"))
	bad("/vault.call", "proxy.call", "JSON_DUPLICATE_KEY:a", `{"params":{"a":1,"a":2}}`)

	for _, m := range []struct{ method, path string }{
		{"GET", issue},
		{"PUT", issue},
		{"DELETE", "/vault.revoke"},
		{"PATCH", "/vault.call"},
		{"OPTIONS", "/vault.call"},
		{"HEAD", "/vault.call"},
		{"GET", "/vault.audit.query"},
		{"GET", admin},
		{"POST", "/health"},
		{"DELETE", "/health"},
		{"POST", "/.well-known/jwks.json"},
		{"TRACE", "/vault.call"},
		{"post", issue},
	} {
		rows = append(rows, refusal{method: m.method, path: m.path, name: m.method, status: 405, code: "METHOD_NOT_ALLOWED", event: "request"})
	}
	for _, path := range []string{
		"/vault.", "/vault.nothing", "/vault.call/", "/vault.call/x", "/vault.calls", "/vault.admin.", "/vault.admin.nothing",
		"/vault.admin.listservices", "/vault.issuetoken", "/vault.call;x", "/vault.%2e%2e/vault.call", "/vault.call%00",
	} {
		rows = append(rows, refusal{path: path, body: "{}", status: 404, code: "NOT_FOUND", event: "request"})
	}
	s.run(t, rows)

	t.Run("accepted", func(t *testing.T) {
		ok := `"service":"github","scope":["github:repos:read"]`
		for name, r := range map[string]reply{
			"charset":        s.post(issue, "{"+ok+"}", header("Content-Type", "application/json;charset=UTF-8")),
			"media type":     s.post(issue, "{"+ok+"}", header("Content-Type", "Application/JSON")),
			"identity":       s.post(issue, "{"+ok+"}", header("Content-Encoding", "identity")),
			"a whole MiB":    s.post(issue, "{"+ok+strings.Repeat(" ", mib-len(ok)-2)+"}"),
			"a chunked MiB":  s.post(issue, "{"+ok+strings.Repeat(" ", mib-len(ok)-2)+"}", chunked),
			"64 deep":        s.post(issue, "{"+ok+`,"more":`+deep(63)+"}"),
			"unknown fields": s.post(issue, "{"+ok+`,"Service":5,"agentid":[]}`),
			"path escapes":   s.post("/vault%2EissueToken", "{"+ok+"}"),
			"a query":        s.post(issue+"?x=1", "{"+ok+"}"),
		} {
			if r.status != 200 {
				t.Errorf("%s: %d %s", name, r.status, tail(r.body, 300))
			}
		}
	})
}

// TestRefusedIssue is about who may have which token.
func TestRefusedIssue(t *testing.T) {
	t.Parallel()
	s := startHS256(t)
	minimal := func(rest string) string {
		return `{"baseUrl":"https://api.example.com","allowedAgents":["*"],"endpoints":{"a":{"method":"GET","path":"/"}},` + rest
	}
	s.addService("noissue", minimal(`"allowedActions":["a"],"allowedScopes":["x"]}`), "")
	s.writeService("noscopes", minimal(`"allowedActions":["*"]}`))
	eventually(t, "the dropped file is served", func() bool {
		return strings.Contains(s.post("/vault.admin.listServices", "{}").body, "noscopes")
	})
	s.ok("/vault.revoke", `{"agentId":"victim"}`, nil)
	s.ok("/vault.revoke", `{"sessionId":"gone-session"}`, nil)
	s.ok("/vault.revoke", `{"taskId":"gone-task"}`, nil)

	var rows []refusal
	bad := func(status int, code, members string) {
		rows = append(rows, refusal{path: "/vault.issueToken", event: "token.issue", status: status, code: code, body: "{" + members + "}"})
	}
	const github, read = `"service":"github",`, `"scope":["github:repos:read"]`
	for _, ttl := range []string{"0", "-1", "-0", "1.5", `"600"`, "1e3", "6e2", "true", "[]", "{}", "600.0", "-99999999999999999999"} {
		bad(400, "TTL_INVALID", github+read+`,"ttl":`+ttl)
	}
	bad(400, "SERVICE_REQUIRED", read)
	bad(400, "SERVICE_REQUIRED", `"service":"",`+read)
	bad(400, "SERVICE_REQUIRED", `"service":null,`+read)
	bad(400, "SERVICE_REQUIRED", `"Service":"github",`+read)
	bad(400, "SERVICE_INVALID", `"service":5,`+read)
	for _, name := range []string{"nothing", "GitHub", "github ", "../services/github", "github.json", "{env.HOME}", "{http.request.host}", strings.Repeat("x", 5000)} {
		bad(404, "UNKNOWN_SERVICE", `"service":`+quote(name)+`,`+read)
	}
	bad(400, "SCOPE_REQUIRED", github+`"x":1`)
	bad(400, "SCOPE_REQUIRED", github+`"scope":[]`)
	bad(400, "SCOPE_REQUIRED", github+`"scope":null`)
	bad(400, "SCOPE_INVALID", github+`"scope":"github:repos:read"`)
	bad(400, "SCOPE_INVALID", github+`"scope":[1]`)
	bad(400, "SCOPE_INVALID", github+`"scope":[""]`)
	bad(400, "SCOPE_INVALID", github+`"scope":["github:repos:read github:issues:write"]`)
	bad(400, "SCOPE_INVALID", github+`"scope":["github:repos:read\r\nX: y"]`)
	bad(400, "SCOPE_INVALID", github+`"scope":["`+strings.Repeat(`x","`, 101)+`x"]`)
	bad(403, "INVALID_SCOPE:github:repos:write", github+`"scope":["github:repos:read","github:repos:write"]`)
	bad(403, "INVALID_SCOPE:*", github+`"scope":["*"]`)
	bad(403, "INVALID_SCOPE:GITHUB:repos:read", github+`"scope":["GITHUB:repos:read"]`)
	bad(403, "INSUFFICIENT_SCOPE:github:issues:write", `"agentId":"steve",`+github+`"scope":["github:repos:read","github:issues:write"]`)
	for _, agent := range []string{"stranger", "Tony", "*", " tony", "tony "} {
		bad(403, "POLICY_DENY", `"agentId":`+quote(agent)+`,`+github+read)
	}
	bad(403, "POLICY_DENY", `"service":"noissue","scope":["x"]`)
	bad(403, "SERVICE_ALLOWED_SCOPES_NOT_CONFIGURED", `"service":"noscopes","scope":["x"]`)
	for name, code := range map[string]string{"agentId": "AGENTID_INVALID", "sessionId": "SESSIONID_INVALID", "taskId": "TASKID_INVALID", "skillId": "SKILLID_INVALID", "tool": "TOOL_INVALID"} {
		bad(400, code, fmt.Sprintf(`%s%s,%q:5`, github, read, name))
		bad(400, code, fmt.Sprintf(`%s%s,%q:"a\u0000b"`, github, read, name))
		bad(400, code, fmt.Sprintf(`%s%s,%q:"\u202e\u2028"`, github, read, name))
		bad(400, code, fmt.Sprintf(`%s%s,%q:%q`, github, read, name, strings.Repeat("x", 257)))
	}
	bad(401, "AGENT_REVOKED", `"agentId":"victim",`+github+read)
	bad(401, "SESSION_REVOKED", `"sessionId":"gone-session",`+github+read)
	bad(401, "TASK_REVOKED", `"taskId":"gone-task",`+github+read)
	s.run(t, rows)
}

// TestRefusedToken is about tokens that are not good for the call.
func TestRefusedToken(t *testing.T) {
	t.Parallel()
	s := startHS256(t)
	good := goodClaims()
	key := signingKey
	parts := strings.Split(sign(t, hs256, good, key), ".")
	head := func(pairs ...any) map[string]any { return claims(hs256).with(pairs...) }
	now := good["iat"].(int64)

	revokedToken := s.issueWith(`"agentId":"tony","service":"github","scope":["github:repos:read"]`)
	s.ok("/vault.revoke", `{"tokenId":"`+revokedToken.TokenID+`"}`, nil)
	session := s.issueWith(`"agentId":"tony","sessionId":"gone","service":"github","scope":["github:repos:read"]`).Token
	task := s.issueWith(`"agentId":"tony","taskId":"gone","service":"github","scope":["github:repos:read"]`).Token
	agent := s.issueWith(`"agentId":"victim","service":"github","scope":["github:repos:read"]`).Token
	both := s.issueWith(`"agentId":"victim","sessionId":"gone","service":"github","scope":["github:repos:read"]`).Token
	s.ok("/vault.revoke", `{"sessionId":"gone"}`, nil)
	s.ok("/vault.revoke", `{"taskId":"gone"}`, nil)
	s.ok("/vault.revoke", `{"agentId":"victim"}`, nil)

	ours := s.issue("tony", "github", "github:repos:read")
	other := s.issue("tony", "github", "github:repos:read")

	var rows []refusal
	bad := func(name, code, token string) {
		status := 401
		if len(token) > 40 && len(token) < 8192 {
			s.hide(token, "a token that is refused")
		}
		rows = append(rows, refusal{
			name: name, path: "/vault.call", event: "proxy.call", status: status, code: code,
			body: `{"token":` + quote(token) + `,"service":"github","action":"repo.get","params":{"owner":"o","repo":"r"}}`,
		})
	}
	invalid := func(name, token string) { bad(name, "TOKEN_INVALID", token) }
	bad("none", "TOKEN_REQUIRED", "")
	invalid("a word", "x")
	invalid("dots", strings.Repeat(".", 900_000))
	invalid("two parts", parts[0]+"."+parts[1])
	invalid("four parts", strings.Join(parts, ".")+".x")
	invalid("five parts, as a JWE", strings.Join(parts, ".")+".x.y")
	invalid("no signature", parts[0]+"."+parts[1]+".")
	invalid("a signature cut", strings.Join(parts, ".")[:len(strings.Join(parts, "."))-1])
	invalid("another key", sign(t, hs256, good, key+"x"))
	invalid("an empty key", sign(t, hs256, good, ""))
	invalid("another payload", parts[0]+"."+strings.Split(sign(t, hs256, good.with("sub", "main"), key), ".")[1]+"."+parts[2])
	for _, alg := range []any{"none", "None", "NONE", "", "HS512", "HS384", "RS256", "EdDSA", nil, 5} {
		invalid(fmt.Sprintf("alg %v", alg), sign(t, head("alg", alg), good, key))
	}
	invalid("a kid", sign(t, head("kid", "x"), good, key))
	invalid("a kid that is a path", sign(t, head("kid", "../../../dev/null"), good, key))
	invalid("crit", sign(t, head("crit", []string{"exp"}), good, key))
	invalid("jwk", sign(t, head("jwk", map[string]string{"kty": "oct", "k": "eA"}), good, key))
	invalid("jku", sign(t, head("jku", s.up.URL), good, key))
	invalid("x5u", sign(t, head("x5u", s.up.URL), good, key))
	invalid("another type", sign(t, head("typ", "at+jwt"), good, key))
	invalid("more than 4 KiB", sign(t, hs256, good.with("x", strings.Repeat("x", 4096)), key))
	invalid("another audience", sign(t, hs256, good.with("aud", "another"), key))
	invalid("an array of audiences", sign(t, hs256, good.with("aud", []string{"agentic-credential-vault-proxy"}), key))
	invalid("no audience", sign(t, hs256, good.with("aud", nil), key))
	invalid("another issuer", sign(t, hs256, good.with("iss", "another"), key))
	invalid("no expiry", sign(t, hs256, good.with("exp", nil), key))
	invalid("no issue", sign(t, hs256, good.with("iat", nil), key))
	invalid("a huge expiry", sign(t, hs256, good.with("exp", 1e18), key))
	invalid("a long life", sign(t, hs256, good.with("exp", now+901), key))
	invalid("from the future", sign(t, hs256, good.with("iat", now+120, "exp", now+300), key))
	invalid("not before", sign(t, hs256, good.with("nbf", now+60), key))
	invalid("a text for expiry", sign(t, hs256, good.with("exp", "9999999999"), key))
	invalid("another subject", sign(t, hs256, good.with("sub", "main"), key))
	invalid("no id", sign(t, hs256, good.with("jti", nil), key))
	invalid("no service", sign(t, hs256, good.with("service", nil), key))
	invalid("no scope", sign(t, hs256, good.with("scope", nil), key))
	invalid("a text for scope", sign(t, hs256, good.with("scope", "github:repos:read"), key))
	invalid("bound to a key", sign(t, hs256, good.with("cnf", map[string]string{"jkt": "x"}), key))
	invalid("the admin token", adminToken)
	bad("expired", "TOKEN_EXPIRED", sign(t, hs256, good.with("iat", now-700, "exp", now-100), key))
	bad("just expired", "TOKEN_EXPIRED", sign(t, hs256, good.with("iat", now-300, "exp", now-6), key))
	bad("token", "TOKEN_REVOKED", revokedToken.Token)
	bad("session", "SESSION_REVOKED", session)
	bad("task", "TASK_REVOKED", task)
	bad("agent", "AGENT_REVOKED", agent)
	bad("agent and session", "SESSION_REVOKED", both)
	s.run(t, rows)

	t.Run("accepted", func(t *testing.T) {
		for name, token := range map[string]string{
			"no issuer":     sign(t, hs256, good.with("iss", nil), key),
			"unknown claim": sign(t, hs256, good.with("more", 1), key),
			"within leeway": sign(t, hs256, good.with("iat", now-300, "exp", now+60), key),
		} {
			if r := s.call(token, "github", "public.get", "null"); r.status != 200 {
				t.Errorf("%s: %d %s", name, r.status, r.body)
			}
		}
	})

	t.Run("a configured key", func(t *testing.T) {
		if r := s.do("GET", "/.well-known/jwks.json", ""); r.status != 200 || r.body != `{"keys":[]}` {
			t.Errorf("%d %s", r.status, r.body)
		}
		if head, want := strings.Split(ours, ".")[0], strings.Split(sign(t, hs256, good, key), ".")[0]; head != want {
			t.Errorf("the header is %s, that of the existing system %s", head, want)
		}
	})

	// Where the token stands. A fresh server: refusals of one code are
	// aggregated past a number.
	s2 := startHS256(t)
	at := func(name, code string, edits ...edit) refusal {
		return refusal{
			name: name, path: "/vault.call", event: "proxy.call", status: 401, code: code, edits: edits,
			body: `{"token":"` + ours + `","service":"github","action":"public.get"}`,
		}
	}
	s2.hide(ours, "a token")
	s2.hide(other, "a token")
	s2.run(t, []refusal{
		at("both, different", "TOKEN_INVALID", bearer(other)),
		at("both, one empty", "TOKEN_INVALID", header("Authorization", "Bearer")),
		at("two headers", "TOKEN_INVALID", header("Authorization", "Bearer "+ours, "Bearer "+ours)),
		at("another scheme", "TOKEN_INVALID", header("Authorization", "Basic "+ours)),
		at("no scheme", "TOKEN_INVALID", header("Authorization", ours)),
		at("the admin token", "TOKEN_INVALID", bearer(adminToken)),
	})
	if r := s2.post("/vault.call", `{"token":"`+ours+`","service":"github","action":"public.get"}`, header("Authorization", "bearer "+ours)); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}
