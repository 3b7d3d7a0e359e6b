package integration

import (
	"fmt"
	"strings"
	"testing"
)

// TestRefusedCall is about calls with a good token: the order of the checks,
// scopes, context and parameters.
func TestRefusedCall(t *testing.T) {
	t.Parallel()
	s := startHS256(t)
	s.addService("keyless", `{"baseUrl":"`+s.up.URL+`","secretRef":"nobody_set_it","allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["x"],"endpoints":{"a":{"method":"GET","path":"/"}}}`, "")
	read := s.issue("tony", "github", "github:repos:read")
	write := s.issue("main", "github", "github:repos:read", "github:issues:write")
	keyless := s.issue("tony", "keyless", "x")
	stranger := sign(t, hs256, goodClaims().with("sub", "stranger", "ctx", map[string]string{"agentId": "stranger", "sessionId": "s", "taskId": "t", "skillId": "k", "tool": "x"}), signingKey)
	removed := sign(t, hs256, goodClaims().with("service", "removed"), signingKey)
	s.hide(stranger, "a token")
	s.hide(removed, "a token")

	var rows []refusal
	bad := func(status int, code, token, members string) {
		rows = append(rows, refusal{
			name: tail(members, 80), path: "/vault.call", event: "proxy.call", status: status, code: code,
			body: `{"token":"` + token + `",` + members + "}",
		})
	}
	params := func(code, action, params string) {
		status := 400
		if code == "PATH_TOO_LONG" {
			status = 414
		}
		bad(status, code, write, `"service":"github","action":"`+action+`","params":`+params)
	}
	const repo = `"params":{"owner":"o","repo":"r"}`

	// Each of these breaks the rule named and every one after it.
	const nothing = `"context":{"agentId":"x"},"params":{"owner":".."}`
	bad(401, "TOKEN_INVALID", "x", `"service":"nothing","action":"nothing",`+nothing)
	bad(404, "UNKNOWN_SERVICE", read, `"service":"nothing","action":"nothing",`+nothing)
	bad(404, "UNKNOWN_SERVICE", removed, `"service":"removed","action":"nothing",`+nothing)
	bad(404, "UNKNOWN_SERVICE", read, `"action":"repo.get",`+nothing)
	bad(403, "SERVICE_MISMATCH", keyless, `"service":"github","action":"nothing",`+nothing)
	bad(400, "ACTION_REQUIRED", read, `"service":"github",`+nothing)
	bad(403, "POLICY_DENY", stranger, `"service":"github","action":"ghost",`+nothing)
	bad(403, "POLICY_DENY", read, `"service":"github","action":"hidden.get",`+nothing)
	bad(403, "POLICY_DENY", read, `"service":"github","action":"nothing",`+nothing)
	bad(403, "POLICY_DENY", read, `"service":"github","action":"Repo.get",`+nothing)
	bad(403, "POLICY_DENY", read, `"service":"github","action":"../repo.get",`+nothing)
	bad(404, "UNKNOWN_ACTION", read, `"service":"github","action":"ghost",`+nothing)
	bad(404, "UNKNOWN_ACTION", read, `"service":"github","action":"issue",`+nothing)
	bad(403, "INSUFFICIENT_SCOPE:github:issues:write", read, `"service":"github","action":"issues.create",`+nothing)
	bad(403, "INSUFFICIENT_SCOPE:github:issues:write", read, `"service":"github","action":"issue.close",`+nothing)
	bad(403, "CONTEXT_MISMATCH:agentId", read, `"service":"github","action":"repo.get",`+nothing)
	bad(400, "PARAM_INVALID:owner", read, `"service":"github","action":"repo.get","params":{"owner":".."}`)
	bad(503, "MISSING_MASTER_SECRET:nobody_set_it", keyless, `"service":"keyless","action":"a"`)

	for _, f := range []string{"agentId", "sessionId", "taskId", "skillId"} {
		for _, v := range []string{`"other"`, `""`, `"S1"`, `"auto-00000000"`} {
			bad(403, "CONTEXT_MISMATCH:"+f, read, fmt.Sprintf(`"service":"github","action":"repo.get",%s,"context":{%q:%s}`, repo, f, v))
		}
		bad(400, "CONTEXT_INVALID", read, fmt.Sprintf(`"service":"github","action":"repo.get",%s,"context":{%q:5}`, repo, f))
	}
	bad(400, "CONTEXT_INVALID", read, `"service":"github","action":"repo.get",`+repo+`,"context":[]`)
	bad(400, "ACTION_INVALID", read, `"service":"github","action":5`)
	bad(400, "SERVICE_INVALID", read, `"service":["github"],"action":"repo.get"`)

	for _, v := range []string{"[]", `"x"`, "5", "true"} {
		params("PARAMS_INVALID", "repo.get", v)
	}
	params("MISSING_PATH_PARAM:owner", "repo.get", `null`)
	params("MISSING_PATH_PARAM:owner", "repo.get", `{}`)
	params("MISSING_PATH_PARAM:repo", "repo.get", `{"owner":"o"}`)
	params("MISSING_PATH_PARAM:repo", "repo.get", `{"owner":"o","Repo":"r"}`)
	for _, v := range []string{
		"null", "true", "[]", `["r"]`, "{}", `""`, `"."`, `".."`, `"../x"`, `"a/.."`, `"a/../b"`, `"./"`, `"..\\x"`, `"a\\.."`, `"..;x"`, `"a;.."`, `"..\u0000"`,
		`"%2e%2e"`, `"%2E%2e/x"`, `".%2e"`, `"..%2fx"`, `"..%5cx"`, `"%252e%252e"`, `"a\u0000b"`, `"a\nb"`, `"a\r\nHost: x"`, `"\u007f"`, `"\u0085"`,
	} {
		params("PARAM_INVALID:repo", "repo.get", `{"owner":"o","repo":`+v+`}`)
	}
	for _, v := range []string{`""`, `"/"`, `"/a"`, `"a/"`, `"a//b"`, `"a/../b"`, `"a/./b"`, `".."`, `"a/%2e%2e/b"`, `"a\\..\\b"`, "[]", `"a/..;/b"`} {
		params("PARAM_INVALID:path", "contents.get", `{"owner":"o","repo":"r","path":`+v+`}`)
	}
	params("PATH_TOO_LONG", "repo.get", `{"owner":"o","repo":"`+strings.Repeat("x", 9000)+`"}`)
	params("PATH_TOO_LONG", "repo.get", `{"owner":"o","repo":"r","q":"`+strings.Repeat("x", 70000)+`"}`)
	params("PARAM_INVALID:q", "repo.get", `{"owner":"o","repo":"r","q":{"a":1}}`)
	params("PARAM_INVALID:q", "repo.get", `{"owner":"o","repo":"r","q":[[1]]}`)
	params("PARAM_INVALID:q", "repo.get", `{"owner":"o","repo":"r","q":[{"a":1}]}`)
	params("PARAM_INVALID:x", "none.get", `{"x":1}`)
	params("PARAM_INVALID:", "form.post", `{"":1}`)
	s.run(t, rows)
}

// TestRefusedAgents is about who may revoke and ask the log, on a server that
// believes processes on the machine.
func TestRefusedAgents(t *testing.T) {
	t.Parallel()
	s := startHS256(t)
	var rows []refusal
	bad := func(status int, code, path, body string, edits ...edit) {
		event := map[string]string{"/vault.issueToken": "token.issue", "/vault.revoke": "token.revoke", "/vault.audit.query": "audit.query"}[path]
		rows = append(rows, refusal{path: path, event: event, status: status, code: code, body: body, edits: edits})
	}
	const revoke, query, issue = "/vault.revoke", "/vault.audit.query", "/vault.issueToken"
	for _, body := range []string{`{}`, `{"reason":"x"}`, `{"tokenId":""}`, `{"tokenId":null}`, `{"TokenId":"x","tokenid":"x"}`} {
		bad(400, "REVOKE_TARGET_REQUIRED", revoke, body)
	}
	bad(400, "TOKENID_INVALID", revoke, `{"tokenId":5}`)
	bad(400, "AGENTID_INVALID", revoke, `{"agentId":["x"]}`)
	bad(400, "SESSIONID_INVALID", revoke, `{"sessionId":"a\u0000"}`)
	bad(400, "TASKID_INVALID", revoke, `{"taskId":"`+strings.Repeat("x", 257)+`"}`)
	bad(400, "REASON_INVALID", revoke, `{"taskId":"x","reason":5}`)

	for _, limit := range []string{"0", "-1", "1.5", `"10"`, "1e2", "[]", "true"} {
		bad(400, "LIMIT_INVALID", query, `{"limit":`+limit+`}`)
	}
	bad(400, "SINCE_INVALID", query, `{"since":"yesterday"}`)
	bad(400, "UNTIL_INVALID", query, `{"until":-5}`)
	bad(400, "BEFORE_INVALID", query, `{"before":0}`)
	bad(400, "FILTERS_INVALID", query, `{"filters":[]}`)
	bad(400, "FILTERS_INVALID", query, `{"filters":"event"}`)
	bad(400, "FILTERS_INVALID:event", query, `{"filters":{"event":{}}}`)
	bad(400, "FILTERS_INVALID:event", query, `{"filters":{"event":["proxy.call"]}}`)
	bad(400, "FILTERS_INVALID:event", query, `{"filters":{"event":null}}`)
	bad(400, "FILTERS_INVALID", query, `{"filters":{"no.such.field":"x"}}`)

	// Somebody in front has forwarded it: it may come from anywhere.
	for _, e := range []edit{
		header("X-Forwarded-For", "127.0.0.1"), header("X-Forwarded-For", ""), header("X-Forwarded-Host", "x"), header("X-Forwarded-Whatever", "x"),
		header("Forwarded", "for=127.0.0.1"), header("Via", "1.1 tunnel"),
	} {
		bad(401, "AGENT_UNAUTHENTICATED", issue, `{"service":"github","scope":["github:repos:read"]}`, e)
		bad(401, "AGENT_UNAUTHENTICATED", revoke, `{"agentId":"tony"}`, e)
		bad(401, "AGENT_UNAUTHENTICATED", query, `{}`, e)
	}
	s.run(t, rows)

	// A call needs no more than its token.
	token := s.issue("tony", "github", "github:repos:read")
	if r := s.call(token, "github", "public.get", "null", header("X-Forwarded-For", "203.0.113.5")); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// TestRefusedBrowser is about requests that only a browser makes, steered by
// some page.
func TestRefusedBrowser(t *testing.T) {
	t.Parallel()
	s := start(t, config{vault: "allowed_hosts vault.internal"})
	own := "http://127.0.0.1:" + s.port
	var rows []refusal
	for _, origin := range []string{
		"https://evil.example", "null", "", "http://127.0.0.1", "https://127.0.0.1:" + s.port, "http://localhost:" + s.port, "http://127.0.0.1:1",
		own + "/", own + "@evil.example", own + ".evil.example", "file://", "chrome-extension://abc",
	} {
		rows = append(rows, refusal{name: origin, path: "/vault.issueToken", body: "{}", edits: []edit{header("Origin", origin)}, status: 403, code: "ORIGIN_DENIED", event: "request"})
	}
	rows = append(rows,
		refusal{name: "two", path: "/vault.revoke", body: "{}", edits: []edit{header("Origin", own, own)}, status: 403, code: "ORIGIN_DENIED", event: "request"},
		refusal{name: "preflight", method: "OPTIONS", path: "/vault.call", edits: []edit{header("Origin", "https://evil.example"), header("Access-Control-Request-Method", "POST")}, status: 403, code: "ORIGIN_DENIED", event: "request"},
		refusal{name: "admin", path: "/vault.admin.listServices", body: "{}", edits: []edit{header("Origin", "https://evil.example")}, status: 403, code: "ORIGIN_DENIED", event: "request"},
		refusal{name: "health", method: "GET", path: "/health", edits: []edit{header("Origin", "https://evil.example")}, status: 403, code: "ORIGIN_DENIED", event: "request"},
	)
	for _, site := range []string{"cross-site", "same-site", "", "Same-Origin", "anything"} {
		rows = append(rows, refusal{name: "site " + site, path: "/vault.call", body: "{}", edits: []edit{header("Sec-Fetch-Site", site)}, status: 403, code: "ORIGIN_DENIED", event: "request"})
	}
	for _, h := range []string{
		"evil.example", "evil.example:" + s.port, "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost", "169.254.169.254", "[::2]", "10.0.0.1", "vault.internal.evil.example", "x.vault.internal", "2130706433", "127.1",
	} {
		rows = append(rows, refusal{name: h, path: "/vault.issueToken", body: "{}", edits: []edit{host(h)}, status: 421, code: "HOST_DENIED", event: "request"})
	}
	rows = append(rows, refusal{name: "origin of the same name", path: "/vault.call", body: "{}", edits: []edit{host("evil.example"), header("Origin", "http://evil.example")}, status: 421, code: "HOST_DENIED", event: "request"})
	s.run(t, rows)

	body := `{"service":"github","scope":["github:repos:read"]}`
	for name, edits := range map[string][]edit{
		"own origin":   {header("Origin", own), header("Sec-Fetch-Site", "same-origin")},
		"no site":      {header("Sec-Fetch-Site", "none")},
		"localhost":    {host("localhost:" + s.port)},
		"below it":     {host("vault.localhost:" + s.port)},
		"upper case":   {host("LOCALHOST")},
		"IPv6":         {host("[::1]:" + s.port)},
		"another loop": {host("127.9.9.9")},
		"allowed":      {host("vault.internal:" + s.port)},
		"allowed, too": {host("Vault.Internal")},
	} {
		r := s.post("/vault.issueToken", body, edits...)
		if r.status != 200 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
		for h := range r.header {
			if strings.HasPrefix(h, "Access-Control-") {
				t.Errorf("%s: the answer has %s", name, h)
			}
		}
	}
}
