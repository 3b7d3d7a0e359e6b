package integration

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

const forTony = `"agentId":"tony","sessionId":"s1","taskId":"t1","service":"github","scope":["github:repos:read"],`

// TestNarrow is about tokens that may do less than their scopes allow.
func TestNarrow(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	actions := s.issueWith(forTony + `"actions":["repo.get"]`).Token
	params := s.issueWith(forTony + `"params":{"owner":"o","repo":["r",42]}`).Token
	for _, r := range []reply{
		s.call(actions, "github", "repo.get", `{"owner":"a","repo":"b"}`),
		s.call(params, "github", "repo.get", `{"owner":"o","repo":"r"}`),
		s.call(params, "github", "repo.get", `{"owner":"o","repo":42}`),
		s.do("GET", "/proxy/github/repos/a/b", "", bearer(actions)),
		s.do("GET", "/proxy/github/repos/o/r?page=2", "", bearer(params)),
		s.do("GET", "/proxy/github/repos/o/42/contents/x/y", "", bearer(params)),
	} {
		if r.status != 200 {
			t.Errorf("%d %s", r.status, r.body)
		}
	}

	var rows []refusal
	call := func(code, token, action, params string) {
		rows = append(rows, refusal{
			name: action + params, path: "/vault.call", event: "proxy.call", status: 403, code: code,
			body: `{"token":"` + token + `","service":"github","action":"` + action + `","params":` + params + "}",
		})
	}
	path := func(code, token, path string) {
		rows = append(rows, refusal{name: path, method: "GET", path: "/proxy/github" + path, event: "proxy.call", status: 403, code: code, edits: []edit{bearer(token)}})
	}
	issue := func(code, members string) {
		rows = append(rows, refusal{name: members, path: "/vault.issueToken", event: "token.issue", status: 400, code: code, body: "{" + forTony + members + "}"})
	}
	call("ACTION_NOT_GRANTED", actions, "contents.get", `{"owner":"a","repo":"b","path":"c"}`)
	call("ACTION_NOT_GRANTED", actions, "public.get", `null`)
	path("ACTION_NOT_GRANTED", actions, "/public")
	path("ACTION_NOT_GRANTED", actions, "/repos/a/b/contents/c")
	call("PARAM_NOT_GRANTED:owner", params, "repo.get", `{"owner":"x","repo":"r"}`)
	call("PARAM_NOT_GRANTED:repo", params, "repo.get", `{"owner":"o","repo":"R"}`)
	call("PARAM_NOT_GRANTED:owner", params, "repo.get", `{"owner":"o","OWNER":"x","repo":"r"}`)
	call("PARAM_NOT_GRANTED:owner", params, "repo.get", `{"owner":"o","owner[]":"x","repo":"r"}`)
	call("PARAM_NOT_GRANTED:repo", params, "repo.get", `{"owner":"o","repo":["r"]}`)
	path("PARAM_NOT_GRANTED:owner", params, "/repos/x/r")
	path("PARAM_NOT_GRANTED:owner", params, "/repos/x/r?owner=o")
	path("PARAM_NOT_GRANTED:owner", params, "/repos/%256f/r")
	path("PARAM_NOT_GRANTED:owner", params, "/repos/o/r?Owner=x")
	for _, f := range []string{
		`ACTIONS_INVALID|"actions":[]`, `ACTIONS_INVALID|"actions":"repo.get"`, `ACTIONS_INVALID|"actions":[5]`, `ACTIONS_INVALID:|"actions":[""]`,
		`ACTIONS_INVALID:hidden.get|"actions":["repo.get","hidden.get"]`, `ACTIONS_INVALID:issue|"actions":["issue"]`, `ACTIONS_INVALID:ghost|"actions":["ghost"]`,
		`PARAMS_INVALID|"params":{}`, `PARAMS_INVALID|"params":[]`, `PARAMS_INVALID:a|"params":{"a":null}`, `PARAMS_INVALID:a|"params":{"a":[]}`, `PARAMS_INVALID:a|"params":{"a":[{}]}`,
		`MAXCALLS_INVALID|"maxCalls":0`, `MAXCALLS_INVALID|"maxCalls":-1`, `MAXCALLS_INVALID|"maxCalls":1.5`, `MAXCALLS_INVALID|"maxCalls":"1"`, `MAXCALLS_INVALID|"maxCalls":1e2`,
		`MAXBYTES_INVALID|"maxBytes":0`, `MAXBYTES_INVALID|"maxBytes":[]`, `ONETIME_INVALID|"oneTime":1`, `ONETIME_INVALID|"oneTime":true,"maxCalls":2`,
		`TOKEN_TOO_LONG|"params":{"a":"` + strings.Repeat("x", 3500) + `"}`,
	} {
		code, members, _ := strings.Cut(f, "|")
		issue(code, members)
	}
	s.run(t, rows)

	// An ordinary token has no new claims.
	plain := s.issue("tony", "github", "github:repos:read")
	for name := range payload(t, plain) {
		if !strings.Contains(" service scope ctx iat exp aud iss sub jti ", " "+name+" ") {
			t.Errorf("an ordinary token has the claim %s", name)
		}
	}
}

// payload returns the claims of a token.
func payload(t testing.TB, token string) map[string]any {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	decode(t, string(b), &out)
	return out
}

func (s *server) reload(t testing.TB) {
	t.Helper()
	if out, err := s.command("reload", "--config", s.file, "--adapter", "caddyfile", "--force").CombinedOutput(); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
	s.client.CloseIdleConnections() // as adminAPI does
}

// TestBudgets is about tokens that are good for so many calls or bytes.
func TestBudgets(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	repo := func(token string) string {
		return `{"token":"` + token + `","service":"github","action":"repo.get","params":{"owner":"o","repo":"r"}}`
	}
	spent := func(token, code string, status int) {
		t.Helper()
		s.refused(t, refusal{path: "/vault.call", event: "proxy.call", status: status, code: code, body: repo(token)})
		s.refused(t, refusal{method: "GET", path: "/proxy/github/repos/o/r", event: "proxy.call", status: status, code: code, edits: []edit{bearer(token)}})
	}
	calls := func(token string, n int) {
		t.Helper()
		for range n {
			if r := s.post("/vault.call", repo(token)); r.status != 200 {
				t.Fatalf("%d %s", r.status, r.body)
			}
		}
	}
	once := s.issueWith(forTony + `"oneTime":true`).Token
	calls(once, 1)
	spent(once, "TOKEN_REPLAYED", 401)

	// What is refused is not spent.
	three := s.issueWith(forTony + `"maxCalls":3`)
	s.refused(t, refusal{path: "/vault.call", event: "proxy.call", status: 403, code: "POLICY_DENY", body: strings.Replace(repo(three.Token), "repo.get", "hidden.get", 1)})
	calls(three.Token, 2)

	// Neither a reload nor a restart gives anything back.
	s.reload(t)
	long := s.issueWith(forTony + `"maxBytes":40`).Token // two answers are 38
	calls(long, 2)
	s.stop()
	s.start()
	calls(three.Token, 1)
	spent(three.Token, "BUDGET_EXHAUSTED", 429)
	spent(once, "TOKEN_REPLAYED", 401)
	if r := s.post("/vault.call", repo(long)); r.status != 429 || r.header.Get("Vault-Error") != "BUDGET_EXHAUSTED" {
		t.Errorf("the third answer: %d %s", r.status, r.body)
	}
	spent(long, "BUDGET_EXHAUSTED", 429)

	s.barrier()
	records, _ := s.auditLog(0)
	started := 0
	for _, r := range records {
		if r.text("tokenId") == three.TokenID && r.text("event") == "proxy.call.started" {
			started++
			if fmt.Sprint(r["spends"]) != "["+three.TokenID+"]" {
				t.Errorf("%v", r)
			}
		}
	}
	if started != 3 {
		t.Errorf("%d calls were started", started)
	}

	// 64 callers at once get exactly what there is.
	many := s.issueWith(forTony + `"maxCalls":50`).Token
	var good, refused atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 2 {
				switch r, err := s.try("POST", "/vault.call", repo(many)); {
				case err == nil && r.status == 200:
					good.Add(1)
				case err == nil && r.header.Get("Vault-Error") == "BUDGET_EXHAUSTED":
					refused.Add(1)
				default:
					t.Errorf("%v %d %s", err, r.status, r.body)
				}
			}
		})
	}
	wg.Wait()
	if good.Load() != 50 || refused.Load() != 78 {
		t.Errorf("%d calls of a budget of 50, %d refused", good.Load(), refused.Load())
	}
}

// TestByteBudget cuts a stream when its bytes are spent.
func TestByteBudget(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	const piece, most = 1000, 100_000
	s.up.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 10_000 {
			if _, err := io.WriteString(w, strings.Repeat("x", piece)); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
	token := s.issueWith(forTony + fmt.Sprintf(`"maxBytes":%d`, most))
	req, err := http.NewRequest("GET", s.base+"/proxy/github/public", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Token)
	_, from := s.auditLog(0)
	res, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	const buffer = 64 << 10
	if err == nil || n < most/2 || n > most+buffer {
		t.Errorf("%d bytes, %v", n, err)
	}
	if end := s.endOfCall(t, from); end.text("error") != "BUDGET_EXHAUSTED" {
		t.Errorf("the end of the call does not say why: %v", end)
	}
	s.refused(t, refusal{method: "GET", path: "/proxy/github/public", event: "proxy.call", status: 429, code: "BUDGET_EXHAUSTED", edits: []edit{bearer(token.Token)}})
}
