package shell

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVerbs(t *testing.T) {
	services := "[\n  {\n    \"service\": \"github\"\n  },\n  {\n    \"service\": \"stripe\"\n  }\n]\n"
	tests := []struct {
		name   string
		args   []string
		stdin  string
		env    []string
		stdout string
		path   string
		body   string // "" for a GET
	}{
		{name: "health", args: []string{"health"}, stdout: `{"ok":true}` + "\n", path: "/health"},
		{
			name: "services", args: []string{"services"}, env: []string{"VAULT_ADMIN_TOKEN=" + adminToken},
			stdout: services, path: "/vault.admin.listServices", body: `{}`,
		},
		{
			name: "token", args: []string{"token", "github", "github:repos:read", "github:prs:read"},
			stdout: agentToken + "\n", path: "/vault.issueToken",
			body: `{"service":"github","scope":["github:repos:read","github:prs:read"],"ttl":300,"agentId":"main","tool":"agentvault"}` + "\n",
		},
		{
			name: "token with context", args: []string{"token", "github", "*"},
			env: []string{
				`AGENTVAULT_AGENT_ID=to"ny's $(id) ünï`, "AGENTVAULT_TTL=060",
				"AGENTVAULT_SESSION_ID=-s 1", "AGENTVAULT_TASK_ID=t\n1",
			},
			stdout: agentToken + "\n", path: "/vault.issueToken",
			body: `{"service":"github","scope":["*"],"ttl":60,"agentId":"to\"ny's $(id) ünï","tool":"agentvault","sessionId":"-s 1","taskId":"t\n1"}` + "\n",
		},
		{
			name: "call", args: []string{"call", "github", "repo.get", "--json", `{"owner":"o"}`},
			stdin: agentToken + "\n", stdout: `{"full_name":"o/r"}`, path: "/vault.call",
			body: `{"token":"` + agentToken + `","service":"github","action":"repo.get","params":{"owner":"o"}}`,
		},
		{
			name: "call without parameters, options first", args: []string{"call", "--token=" + agentToken, "github", "repo.get"},
			stdout: `{"full_name":"o/r"}`, path: "/vault.call",
			body: `{"token":"` + agentToken + `","service":"github","action":"repo.get","params":{}}`,
		},
		{
			name: "call, token from a pipe that ends a line as Windows does", args: []string{"call", "github", "x", "--token", "-"},
			stdin: " " + agentToken + "\r\nmore", stdout: `{"full_name":"o/r"}`, path: "/vault.call",
			body: `{"token":"` + agentToken + `","service":"github","action":"x","params":{}}`,
		},
		{
			name: "delegate", args: []string{"delegate"}, stdin: agentToken + "\n", stdout: agentToken + "\n",
			path: "/vault.delegateToken", body: `{"token":"` + agentToken + `"}` + "\n",
		},
		{
			name: "delegate less", args: []string{"delegate", "--json", `{"params":{"owner":"o\"'$(id)"},"maxCalls":5,"token":"x"}`, "--token=" + agentToken}, stdout: agentToken + "\n",
			path: "/vault.delegateToken", body: `{"params":{"owner":"o\"'$(id)"},"maxCalls":5,"token":"` + agentToken + `"}` + "\n",
		},
		{
			name: "introspect", args: []string{"introspect", "--token", "-"}, stdin: agentToken, stdout: "{\n  \"active\": true,\n  \"callsLeft\": 3\n}\n",
			path: "/vault.introspectToken", body: `{"token":"` + agentToken + `"}` + "\n",
		},
		{
			name: "revoke", args: []string{"revoke", "--agent", `a'"$(id)`, "--session=s=1", "--task", "-t", "--reason", "it \"leaked\"\nü `id`"},
			stdout: `{"ok":true,"revoked":{}}` + "\n", path: "/vault.revoke",
			body: `{"agentId":"a'\"$(id)","sessionId":"s=1","taskId":"-t","reason":"it \"leaked\"\nü ` + "`id`" + `"}` + "\n",
		},
		{
			name: "revoke by id", args: []string{"revoke", "--token", tokenID},
			stdout: `{"ok":true,"revoked":{}}` + "\n", path: "/vault.revoke", body: `{"tokenId":"` + tokenID + `"}` + "\n",
		},
		{
			name: "revoke the token itself", args: []string{"revoke", "--token", "-"}, stdin: agentToken,
			stdout: `{"ok":true,"revoked":{}}` + "\n", path: "/vault.revoke", body: `{"tokenId":"` + tokenID + `"}` + "\n",
		},
		{
			name: "audit", args: []string{"audit"}, path: "/vault.audit.query", body: "{}\n",
			stdout: `{"seq":1,"event":"token.issued"}` + "\n" + `{"seq":2,"event":"proxy.call"}` + "\n",
		},
		{
			name: "audit with filters", args: []string{"audit", "--limit", "5", "--event", "proxy.call", "--agent=t\"", "--before", "9"},
			path: "/vault.audit.query", body: `{"limit":5,"before":9,"filters":{"event":"proxy.call","agentId":"t\""}}` + "\n",
			stdout: `{"seq":1,"event":"token.issued"}` + "\n" + `{"seq":2,"event":"proxy.call"}` + "\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			b.env = append(b.env, tt.env...)
			b.want(b.run(tt.stdin, tt.args...), result{stdout: tt.stdout})
			r := b.vault.only(t)
			if r.path != tt.path || string(r.body) != tt.body {
				t.Errorf("asked %s %s\nwant  %s %s", r.path, r.body, tt.path, tt.body)
			}
		})
	}
}

// TestMisuse: status 2, nothing on standard output, nothing sent.
func TestMisuse(t *testing.T) {
	tests := []struct {
		name string
		args []string
		env  string
	}{
		{name: "no command"},
		{name: "unknown command", args: []string{"sevices"}},
		{name: "health with arguments", args: []string{"health", "x"}},
		{name: "services with arguments", args: []string{"services", "x"}},
		{name: "token without scopes", args: []string{"token", "github"}},
		{name: "scope with a newline", args: []string{"token", "github", "a\nb"}},
		{name: "lifetime in words", args: []string{"token", "github", "a"}, env: "AGENTVAULT_TTL=5m"},
		{name: "call without an action", args: []string{"call", "github"}},
		{name: "call with a third word", args: []string{"call", "github", "a", "{}"}},
		{name: "call with an unknown option", args: []string{"call", "github", "a", "--jsn", "{}"}},
		{name: "empty token", args: []string{"call", "github", "a", "--token", ""}},
		{name: "json is missing", args: []string{"call", "github", "a", "--json"}},
		{name: "json is an array", args: []string{"call", "github", "a", "--json", "[]"}},
		{name: "json is two values", args: []string{"call", "github", "a", "--json", `{} {}`}},
		{name: "json closes the body", args: []string{"call", "github", "a", "--json", `{},"token":"x"`}},
		{name: "json is broken", args: []string{"call", "github", "a", "--json", `{"a":`}},
		{name: "revoke nothing", args: []string{"revoke"}},
		{name: "revoke for a reason", args: []string{"revoke", "--reason", "x"}},
		{name: "revoke an empty id beside another", args: []string{"revoke", "--agent", "", "--task", "t"}},
		{name: "revoke with a word", args: []string{"revoke", "tony"}},
		{name: "limit in words", args: []string{"audit", "--limit", "ten"}},
		{name: "negative limit", args: []string{"audit", "--limit", "-1"}},
		{name: "filter is missing", args: []string{"audit", "--event"}},
		{name: "password in the address", args: []string{"health"}, env: "VAULT_URL=http://u:p@127.0.0.1:1"},
		{name: "address without a scheme", args: []string{"health"}, env: "VAULT_URL=127.0.0.1:8787"},
		{name: "address of a file", args: []string{"health"}, env: "VAULT_URL=file:///etc"},
		{name: "address with a query", args: []string{"health"}, env: "VAULT_URL=http://127.0.0.1/?x="},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			if tt.env != "" {
				b.env = append(b.env, tt.env)
			}
			got := b.run(agentToken, tt.args...)
			if got.code != 2 || got.stdout != "" || got.stderr == "" {
				t.Errorf("got %+v, want status 2 and a message on standard error alone", got)
			}
			if n := len(b.vault.seen()); n != 0 {
				t.Errorf("the vault was asked %d times", n)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	b := newBox(t)
	if got := b.run("", "help"); got.code != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, "usage: agentvault") {
		t.Errorf("got %+v", got)
	}
}

// TestRefusals: what the vault refuses goes to standard error with its code and
// hint; standard output stays empty.
func TestRefusals(t *testing.T) {
	verbs := map[string]struct {
		path string
		args []string
	}{
		"services": {"/vault.admin.listServices", []string{"services"}},
		"token":    {"/vault.issueToken", []string{"token", "github", "a"}},
		"call":     {"/vault.call", []string{"call", "github", "x"}},
		"revoke":   {"/vault.revoke", []string{"revoke", "--agent", "a"}},
		"audit":    {"/vault.audit.query", []string{"audit"}},
	}
	for name, verb := range verbs {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			write(t, filepath.Join(b.dir, "data", "admin.token"), adminToken+"\n", 0o600)
			b.vault.answer(verb.path, refusing(403, "INSUFFICIENT_SCOPE:github:repos:write",
				"the token lacks\x1b[2J a scope", "ask for github:repos:write"))
			b.want(b.run(agentToken, verb.args...), result{code: 1, stderr: "agentvault: INSUFFICIENT_SCOPE:github:repos:write: the token lacks [2J a scope\n" +
				"hint: ask for github:repos:write\n"})

			b.vault.answer(verb.path, refusing(503, "AUDIT_UNAVAILABLE", "the audit log cannot be written", ""))
			b.want(b.run(agentToken, verb.args...), result{code: 1, stderr: "agentvault: AUDIT_UNAVAILABLE: the audit log cannot be written\n"})
		})
	}
}

// TestAnswers: the several ways in which an answer is not a plain success.
func TestAnswers(t *testing.T) {
	plain := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { reply(w, status, body) }
	}
	tests := []struct {
		name   string
		path   string
		answer http.HandlerFunc
		args   []string
		want   result
	}{
		{
			"an upstream's own error", "/vault.call", plain(404, `{"message":"Not Found","error":"x"}`),
			[]string{"call", "github", "x"},
			result{`{"message":"Not Found","error":"x"}`, "agentvault: UPSTREAM_STATUS: the service answered with status 404\n", 1},
		},
		{
			"an upstream's redirect", "/vault.call", plain(302, ``),
			[]string{"call", "github", "x"},
			result{``, "agentvault: UPSTREAM_STATUS: the service answered with status 302\n", 1},
		},
		{
			"no content", "/vault.call", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
			[]string{"call", "github", "x"},
			result{},
		},
		{
			"early hints and trailers", "/vault.call", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Link", "</x>; rel=preload")
				w.WriteHeader(103)
				w.Header().Set("Trailer", "Vault-Error")
				w.WriteHeader(201)
				_, _ = io.WriteString(w, "made")
				w.Header().Set("Vault-Error", "NOT_ONE") // a trailer, and no refusal
			}, []string{"call", "github", "x"}, result{stdout: "made"},
		},
		{
			"bytes, not text", "/vault.call", plain(200, "a\x00b\xff\r\n\r\n"),
			[]string{"call", "github", "x"},
			result{stdout: "a\x00b\xff\r\n\r\n"},
		},
		{
			"health while the log cannot be written", "/health", plain(503, `{"ok":false,"error":"AUDIT_UNAVAILABLE"}`),
			[]string{"health"},
			result{stderr: "agentvault: AUDIT_UNAVAILABLE: URL answered 503\n", code: 1},
		},
		{
			"a refusal without a document", "/vault.call", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("vault-error", "RATE_LIMITED")
				w.WriteHeader(429)
			},
			[]string{"call", "github", "x"},
			result{stderr: "agentvault: RATE_LIMITED: the vault answered 429\n", code: 1},
		},
		{
			"something else in front of the vault", "/vault.issueToken", plain(502, "<html>"),
			[]string{"token", "github", "a"},
			result{stderr: "agentvault: HTTP_502: URL answered 502\n", code: 1},
		},
		{
			"something else in place of the vault", "/vault.issueToken", plain(200, "<html>"),
			[]string{"token", "github", "a"},
			result{stderr: "agentvault: ANSWER_INVALID: the answer is not the one of a vault\nhint: does VAULT_URL lead to the vault?\n", code: 1},
		},
		{
			"no records", "/vault.audit.query", plain(200, "[]"), []string{"audit"}, result{},
		},
		{
			"a search that stopped early", "/vault.audit.query", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Vault-Audit-Next", "417")
				reply(w, 200, `[{"seq":500}]`)
			},
			[]string{"audit"},
			result{stdout: "{\"seq\":500}\n", stderr: "hint: the search stopped at a bound; for what is older add --before 417\n"},
		},
		{
			"the token's pipe was empty", "/none", nil,
			[]string{"call", "github", "x", "--token", "-"},
			result{stderr: "agentvault: TOKEN_REQUIRED: there is no token on standard input\n" +
				"hint: pipe one from \"agentvault token <service> <scope>...\", or give --token\n", code: 1},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			b.vault.answer(tt.path, tt.answer)
			stdin := agentToken
			if tt.path == "/none" {
				stdin = ""
			}
			got := b.run(stdin, tt.args...)
			got.stderr = strings.ReplaceAll(got.stderr, b.vault.URL, "URL")
			b.want(got, tt.want)
		})
	}
}

func TestAnswerBreaksOff(t *testing.T) {
	b := newBox(t)
	b.vault.answer("/vault.call", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	got := b.run(agentToken, "call", "github", "x")
	if got.code != 1 || got.stdout != "half" || !strings.HasPrefix(got.stderr, "agentvault: ANSWER_INCOMPLETE: ") {
		t.Errorf("got %+v", got)
	}
}

func TestNoVault(t *testing.T) {
	b := newBox(t)
	b.vault.Close()
	for _, args := range [][]string{{"health"}, {"token", "github", "a"}, {"call", "github", "x"}, {"revoke", "--task", "t"}, {"audit"}} {
		got := b.run(agentToken, args...)
		if got.code != 1 || got.stdout != "" || !strings.HasPrefix(got.stderr, "agentvault: VAULT_UNREACHABLE: ") ||
			!strings.Contains(got.stderr, "\nhint: ") {
			t.Errorf("%s: got %+v", args[0], got)
		}
	}
}

// TestCallStreams holds the second half of an answer back until the first has
// come out.
func TestCallStreams(t *testing.T) {
	b := newBox(t)
	firstRead := make(chan struct{})
	b.vault.answer("/vault.call", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "data: 1\n")
		w.(http.Flusher).Flush()
		select {
		case <-firstRead:
			_, _ = io.WriteString(w, "data: 2\n")
		case <-r.Context().Done():
		}
	})
	cmd := b.command(filepath.Join(b.dir, "agentvault"), "call", "github", "x")
	cmd.Stdin = strings.NewReader(agentToken)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for i := 1; i <= 2; i++ {
		line, err := lines.ReadString('\n')
		if want := fmt.Sprintf("data: %d\n", i); line != want || err != nil {
			t.Fatalf("read %q, %v; want %q", line, err, want)
		}
		if i == 1 {
			close(firstRead)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestReaderLeaves: when what reads the answer has had enough, the request ends.
func TestReaderLeaves(t *testing.T) {
	b := newBox(t)
	ended := make(chan struct{})
	b.vault.answer("/vault.call", func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 1023)+"\n"); err != nil {
				return
			}
		}
	})
	got := b.script(fmt.Sprintf(`. "$LIB"; agentvault_call %s github x | { read -r line; echo "${#line}"; }`, agentToken))
	b.want(got, result{stdout: "1023\n"})
	<-ended
}

func TestProgramMissing(t *testing.T) {
	b := newBox(t)
	bash := find(t, "bash")
	for _, missing := range []string{"jq", "curl"} {
		bin := filepath.Join(b.home, "without-"+missing)
		for _, name := range []string{"readlink", "curl", "jq"} {
			if name == missing {
				continue
			}
			if err := os.MkdirAll(bin, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(find(t, name), filepath.Join(bin, name)); err != nil {
				t.Fatal(err)
			}
		}
		cmd := b.command(bash, filepath.Join(b.dir, "agentvault"), "health")
		cmd.Env = []string{"PATH=" + bin}
		b.want(b.result(cmd), result{code: 1, stderr: fmt.Sprintf(
			"agentvault: PROGRAM_MISSING: %[1]s is not installed\nhint: install %[1]s and put it in PATH\n", missing)})
	}
}
