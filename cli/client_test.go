package cli

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

const (
	adminToken = "0123456789abcdef0123456789abcdef-admin"
	secret     = "sk-CANARYcanaryCANARYcanary"
)

var agentToken = "h." + base64.RawURLEncoding.EncodeToString([]byte(`{"jti":"id-1"}`)) + ".s"

// standIn answers like a vault and remembers what it was sent.
type standIn struct {
	path, body, auth, ctype, method string
	status                          int
	header                          map[string]string
	answer                          string
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	s.path, s.body, s.auth, s.ctype, s.method = r.URL.Path, string(b), r.Header.Get("Authorization"), r.Header.Get("Content-Type"), r.Method
	for k, v := range s.header {
		w.Header().Set(k, v)
	}
	w.WriteHeader(s.status)
	_, _ = io.WriteString(w, s.answer)
}

// sameJSON compares two texts as JSON.
func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	gb, _ := json.Marshal(g)
	wb, _ := json.Marshal(w)
	if string(gb) != string(wb) {
		t.Errorf("sent %s\nwant %s", gb, wb)
	}
}

func TestVerbs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "svc.json")
	write(t, file, `{"baseUrl":"https://x","n":12345678901234567890}`, 0o600)
	for name, tc := range map[string]struct {
		args   []string
		in     string
		typed  string
		env    []string
		answer string
		path   string
		body   string // "" for GET
		auth   string
		out    []string
		err    string // in it
	}{
		"health":           {args: []string{"health"}, answer: `{"ok":true}`, path: "/health", out: []string{`{"ok":true}` + "\n"}},
		"token, less":      {args: []string{"token", "github", "a", "--json", `{"maxCalls":5,"params":{"n":12345678901234567890}}`}, answer: `{"token":"x.y.z"}`, path: "/vault.issueToken", body: `{"service":"github","scope":["a"],"ttl":300,"agentId":"main","tool":"caddyvault vault","maxCalls":5,"params":{"n":12345678901234567890}}`, out: []string{"x.y.z\n"}},
		"delegate":         {args: []string{"delegate", "--token", "a.b.c", "--json", `{"maxCalls":5}`}, answer: `{"token":"x.y.z"}`, path: "/vault.delegateToken", body: `{"token":"a.b.c","maxCalls":5}`, out: []string{"x.y.z\n"}},
		"introspect":       {args: []string{"introspect", "--token", "a.b.c"}, answer: `{"active":true}`, path: "/vault.introspectToken", body: `{"token":"a.b.c"}`, out: []string{`{"active":true}`}},
		"keys list":        {args: []string{"keys", "list"}, env: []string{"VAULT_ADMIN_TOKEN=" + adminToken}, auth: adminToken, answer: `{"keys":[{"kid":"k1","algorithm":"EdDSA","state":"active"}]}`, path: "/vault.admin.listSigningKeys", body: `{}`, out: []string{"k1", "EdDSA", "active"}},
		"keys rotate":      {args: []string{"keys", "rotate", "--now"}, env: []string{"VAULT_ADMIN_TOKEN=" + adminToken}, auth: adminToken, answer: `{"ok":true,"kid":"k2","activeFrom":1}`, path: "/vault.admin.rotateSigningKey", body: `{"now":true}`, out: []string{"made key k2"}},
		"keys retire":      {args: []string{"keys", "retire", "k1"}, env: []string{"VAULT_ADMIN_TOKEN=" + adminToken}, auth: adminToken, answer: `{"ok":true,"kid":"k1","next":"k2"}`, path: "/vault.admin.retireSigningKey", body: `{"kid":"k1"}`, out: []string{"retired key k1; k2 signs in its place"}},
		"token":            {args: []string{"token", "github", "a", "b"}, answer: `{"token":"x.y.z"}`, path: "/vault.issueToken", body: `{"service":"github","scope":["a","b"],"ttl":300,"agentId":"main","tool":"caddyvault vault"}`, out: []string{"x.y.z\n"}},
		"token with a key": {args: []string{"token", "g", "a"}, env: []string{"AGENTVAULT_AGENT_KEY=cva_0123456789abcdef_0000000000000000000000000000000000000000000000000000000000000000"}, auth: "cva_0123456789abcdef_0000000000000000000000000000000000000000000000000000000000000000", answer: `{"token":"x.y.z"}`, path: "/vault.issueToken", body: `{"service":"g","scope":["a"],"ttl":300,"tool":"caddyvault vault"}`, out: []string{"x.y.z\n"}},
		"audit with a key": {args: []string{"audit"}, env: []string{"AGENTVAULT_AGENT_KEY=cva_0123456789abcdef_0000000000000000000000000000000000000000000000000000000000000000"}, auth: "cva_0123456789abcdef_0000000000000000000000000000000000000000000000000000000000000000", answer: `[]`, path: "/vault.audit.query", body: `{}`},
		"token variables":  {args: []string{"token", "g", "a"}, env: []string{"AGENTVAULT_AGENT_ID=tony", "AGENTVAULT_TTL=60", "AGENTVAULT_SESSION_ID=s", "AGENTVAULT_TASK_ID=t"}, answer: `{"token":"x.y.z"}`, path: "/vault.issueToken", body: `{"service":"g","scope":["a"],"ttl":60,"agentId":"tony","sessionId":"s","taskId":"t","tool":"caddyvault vault"}`},
		"call from a pipe": {
			args: []string{"call", "g", "act", "--json", `{"id":12345678901234567890}`}, in: agentToken + "\nrest", answer: "streamed",
			path: "/vault.call", body: `{"service":"g","action":"act","params":{"id":12345678901234567890}}`, auth: agentToken, out: []string{"streamed"},
		},
		"call from the environment":   {args: []string{"call", "g", "act"}, env: []string{"AGENTVAULT_TOKEN=" + agentToken}, path: "/vault.call", body: `{"service":"g","action":"act","params":{}}`, auth: agentToken},
		"call from a flag":            {args: []string{"call", "g", "act", "--token", agentToken}, path: "/vault.call", body: `{"service":"g","action":"act","params":{}}`, auth: agentToken},
		"revoke":                      {args: []string{"revoke", "--agent", "a", "--session", "s", "--task", "t", "--token", "id", "--reason", "why"}, answer: `{"ok":true}`, path: "/vault.revoke", body: `{"agentId":"a","sessionId":"s","taskId":"t","tokenId":"id","reason":"why"}`},
		"revoke a token sends its id": {args: []string{"revoke", "--token", "-"}, in: agentToken, answer: `{"ok":true}`, path: "/vault.revoke", body: `{"tokenId":"id-1"}`},
		"audit":                       {args: []string{"audit"}, answer: `[{"ts":1,"seq":7,"event":"proxy.call","service":"g","status":200,"context":{"agentId":"tony"}}]`, path: "/vault.audit.query", body: `{}`, out: []string{"proxy.call", "tony", "200"}},
		"audit with filters":          {args: []string{"audit", "--limit", "5", "--event", "e", "--agent", "a", "--before", "9", "--json"}, answer: `[]`, path: "/vault.audit.query", body: `{"limit":5,"before":9,"filters":{"event":"e","agentId":"a"}}`, out: []string{"[]\n"}},
		"services list":               {args: []string{"services", "list"}, answer: `{"services":[{"service":"g","baseUrl":"https://g","secretRef":null,"allowedAgents":["a","b"],"endpointNames":["x"],"error":"broken"}]}`, path: "/vault.admin.listServices", body: `{}`, auth: adminToken, out: []string{"https://g", "a,b", "broken"}},
		"services get":                {args: []string{"services", "get", "g"}, answer: `{"service":"g"}`, path: "/vault.admin.getService", body: `{"service":"g"}`, auth: adminToken},
		"services add":                {args: []string{"services", "add", file}, answer: `{"ok":true}`, path: "/vault.admin.addService", body: `{"service":"svc","baseUrl":"https://x","n":12345678901234567890}`, auth: adminToken, out: []string{"added service svc"}},
		"services add with a secret":  {args: []string{"services", "add", file, "--name", "other", "--secret"}, in: secret + "\n", answer: `{"ok":true}`, path: "/vault.admin.addService", body: `{"service":"other","baseUrl":"https://x","n":12345678901234567890,"masterSecret":"` + secret + `"}`, auth: adminToken},
		"services add from a pipe":    {args: []string{"services", "add", "-"}, in: `{"service":"p"}`, answer: `{"ok":true}`, path: "/vault.admin.addService", body: `{"service":"p"}`, auth: adminToken},
		"services update":             {args: []string{"services", "update", "g", "-"}, in: `{"headers":null}`, answer: `{"ok":true}`, path: "/vault.admin.updateService", body: `{"service":"g","headers":null}`, auth: adminToken},
		"services remove":             {args: []string{"services", "remove", "g"}, answer: `{"ok":true}`, path: "/vault.admin.removeService", body: `{"service":"g"}`, auth: adminToken},
		"templates list":              {args: []string{"templates", "list"}, answer: `{"templates":["a","b"]}`, path: "/vault.admin.listTemplates", body: `{}`, auth: adminToken, out: []string{"a\nb\n"}},
		"templates load":              {args: []string{"templates", "load", "shopify", "--agent", "a", "--agent", "b", "--var", "store=s=1"}, in: secret + "\r\n", answer: `{"ok":true,"service":"shopify","secretConfigured":true}`, path: "/vault.admin.loadTemplate", body: `{"template":"shopify","allowedAgents":["a","b"],"variables":{"store":"s=1"},"masterSecret":"` + secret + `"}`, auth: adminToken},
		"templates load, typed":       {args: []string{"templates", "load", "github"}, typed: secret, answer: `{"ok":true,"service":"github","secretConfigured":true}`, path: "/vault.admin.loadTemplate", body: `{"template":"github","masterSecret":"` + secret + `"}`, auth: adminToken},
		"templates load, no secret":   {args: []string{"templates", "load", "github", "--no-secret"}, answer: `{"ok":true,"service":"github","secretConfigured":false}`, path: "/vault.admin.loadTemplate", body: `{"template":"github"}`, auth: adminToken, out: []string{"no secret yet"}},
		"secrets list":                {args: []string{"secrets", "list"}, answer: `{"secrets":[{"secretRef":"r","updatedAt":1,"usedBy":["g"]}]}`, path: "/vault.admin.listSecrets", body: `{}`, auth: adminToken, out: []string{"r ", "g"}},
		"secrets set":                 {args: []string{"secrets", "set", "r"}, in: "two\nlines\n", answer: `{"ok":true}`, path: "/vault.admin.addSecret", body: `{"secretRef":"r","secret":"two\nlines"}`, auth: adminToken},
		"secrets set, a short one":    {args: []string{"secrets", "set", "r"}, in: "short\n", answer: `{"ok":true,"secretRef":"r","warning":"the secret is short"}`, path: "/vault.admin.addSecret", body: `{"secretRef":"r","secret":"short"}`, auth: adminToken, out: []string{"stored secret r"}, err: "warning: the secret is short\n"},
		"secrets remove":              {args: []string{"secrets", "remove", "r"}, answer: `{"ok":true}`, path: "/vault.admin.removeSecret", body: `{"secretRef":"r"}`, auth: adminToken},
		"agents list":                 {args: []string{"agents", "list"}, answer: `{"agents":[{"agentId":"to\u001bny","groups":["ci","b"],"disabled":false,"keys":[{"id":"k1"}],"binding":"dpop"},{"agentId":"old","groups":[],"expiresAt":1,"disabled":false,"keys":[]},{"agentId":"off","groups":[],"disabled":true,"keys":[],"error":"broken"}]}`, path: "/vault.admin.listAgents", body: `{}`, auth: adminToken, out: []string{"to ny ", "ci,b", "k1", "dpop", "expired", "disabled", "broken"}},
		"agents add":                  {args: []string{"agents", "add", "tony", "--group", "ci", "--group", "b", "--expires", "2030-12-31", "--binding", "mtls"}, answer: `{"ok":true,"agentId":"tony","agentKey":"cva_0123456789abcdef_0000000000000000000000000000000000000000000000000000000000000000"}`, path: "/vault.admin.addAgent", body: `{"agentId":"tony","groups":["ci","b"],"expiresAt":"2030-12-31T00:00:00Z","binding":"mtls"}`, auth: adminToken, out: []string{"cva_0123456789abcdef_0000000000000000000000000000000000000000000000000000000000000000\n"}},
		"agents add, nothing else":    {args: []string{"agents", "add", "tony", "--json"}, answer: `{"ok":true,"agentId":"tony","agentKey":"cva_0123456789abcdef_0000000000000000000000000000000000000000000000000000000000000000"}`, path: "/vault.admin.addAgent", body: `{"agentId":"tony"}`, auth: adminToken, out: []string{`{"ok":true,"agentId":"tony","agentKey":"cva_0123456789abcdef_0000000000000000000000000000000000000000000000000000000000000000"}` + "\n"}},
		"agents update":               {args: []string{"agents", "update", "tony", "--group", "", "--expires", "never"}, answer: `{"ok":true}`, path: "/vault.admin.updateAgent", body: `{"agentId":"tony","groups":[],"expiresAt":null}`, auth: adminToken, out: []string{"updated agent tony\n"}},
		"agents rotate-key":           {args: []string{"agents", "rotate-key", "tony", "--overlap", "1d"}, answer: `{"ok":true,"agentId":"tony","agentKey":"cva_0123456789abcdef_0000000000000000000000000000000000000000000000000000000000000000"}`, path: "/vault.admin.rotateAgentKey", body: `{"agentId":"tony","overlap":86400}`, auth: adminToken, out: []string{"cva_0123456789abcdef_0000000000000000000000000000000000000000000000000000000000000000\n"}},
		"agents disable":              {args: []string{"agents", "disable", "tony"}, answer: `{"ok":true}`, path: "/vault.admin.disableAgent", body: `{"agentId":"tony"}`, auth: adminToken, out: []string{"disabled agent tony\n"}},
		"agents enable":               {args: []string{"agents", "enable", "tony"}, answer: `{"ok":true}`, path: "/vault.admin.updateAgent", body: `{"agentId":"tony","disabled":false}`, auth: adminToken, out: []string{"enabled agent tony\n"}},
		"agents remove":               {args: []string{"agents", "remove", "tony"}, answer: `{"ok":true}`, path: "/vault.admin.removeAgent", body: `{"agentId":"tony"}`, auth: adminToken, out: []string{"removed agent tony\n"}},
		"revocations list":            {args: []string{"revocations", "list"}, answer: `{"revocations":[{"kind":"agent","id":"a","reason":"r\u001b[2J","since":1}]}`, path: "/vault.admin.listRevocations", body: `{}`, auth: adminToken, out: []string{"agent"}},
		"unrevoke":                    {args: []string{"unrevoke", "--agent", "a"}, answer: `{"ok":true}`, path: "/vault.admin.unrevoke", body: `{"agentId":"a"}`, auth: adminToken},
	} {
		t.Run(name, func(t *testing.T) {
			s := &standIn{status: 200, answer: tc.answer}
			srv := httptest.NewServer(s)
			defer srv.Close()
			env := append([]string{"VAULT_URL=" + srv.URL + "/", "VAULT_ADMIN_TOKEN=" + adminToken, "AGENTVAULT_DIR=" + t.TempDir()}, tc.env...)
			res := shell{environ: env, in: tc.in, typed: tc.typed}.ok(t, tc.args...)
			if s.path != tc.path {
				t.Errorf("path %q", s.path)
			}
			if tc.body == "" {
				if s.method != "GET" || s.body != "" {
					t.Errorf("%s %q", s.method, s.body)
				}
			} else {
				sameJSON(t, s.body, tc.body)
				if s.method != "POST" || s.ctype != "application/json" {
					t.Errorf("%s with %q", s.method, s.ctype)
				}
			}
			// A number keeps its digits; sameJSON would not see it.
			if strings.Contains(tc.body, "12345678901234567890") {
				mustContain(t, s.body, "12345678901234567890")
			}
			want := ""
			if tc.auth != "" {
				want = "Bearer " + tc.auth
			}
			if s.auth != want {
				t.Errorf("Authorization %q, want %q", s.auth, want)
			}
			mustContain(t, res.out, tc.out...)
			mustContain(t, res.err, tc.err)
			mustNotContain(t, res.out+res.err, "CANARY", adminToken, "\x1b")
		})
	}
}

func TestRefusals(t *testing.T) {
	problem := `{"title":"t","detail":"the agent \u001b[31mis not","error":"POLICY_DENY","hint":"ask"}`
	for name, tc := range map[string]struct {
		args   []string
		in     string
		status int
		header map[string]string
		answer string
		out    string
		errs   []string
	}{
		"problem":            {[]string{"token", "g", "s"}, "", 403, nil, problem, "", []string{"POLICY_DENY: the agent  [31mis not\nhint: ask\n"}},
		"admin":              {[]string{"services", "list"}, "", 401, map[string]string{"Vault-Error": "ADMIN_UNAUTHORIZED"}, ``, "", []string{"ADMIN_UNAUTHORIZED"}},
		"call refused":       {[]string{"call", "g", "a"}, agentToken, 403, map[string]string{"Vault-Error": "POLICY_DENY"}, problem, "", []string{"POLICY_DENY"}},
		"upstream error":     {[]string{"call", "g", "a"}, agentToken, 404, nil, `{"message":"Not Found"}`, `{"message":"Not Found"}`, []string{"UPSTREAM_STATUS", "404"}},
		"redirect":           {[]string{"token", "g", "s"}, "", 302, map[string]string{"Location": "http://127.0.0.1:1/"}, ``, "", []string{"HTTP_302"}},
		"not a vault":        {[]string{"token", "g", "s"}, "", 200, nil, `<html>`, "", []string{"ANSWER_INVALID"}},
		"unhealthy":          {[]string{"health"}, "", 503, nil, `{"ok":false,"error":"AUDIT_UNAVAILABLE"}`, "", []string{"AUDIT_UNAVAILABLE"}},
		"no secret":          {[]string{"secrets", "set", "r"}, "\n", 200, nil, `{}`, "", []string{"SECRET_REQUIRED"}},
		"no token":           {[]string{"call", "g", "a"}, "", 200, nil, `{}`, "", []string{"TOKEN_REQUIRED"}},
		"unreadable token":   {[]string{"revoke", "--token", "a.!.c"}, "", 200, nil, `{}`, "", []string{"TOKEN_INVALID"}},
		"token with a break": {[]string{"call", "g", "a", "--token", "a\r\nX: y"}, "", 200, nil, `{}`, "", []string{"TOKEN_INVALID"}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(&standIn{status: tc.status, header: tc.header, answer: tc.answer})
			defer srv.Close()
			res := shell{environ: []string{"VAULT_URL=" + srv.URL, "VAULT_ADMIN_TOKEN=" + adminToken, "AGENTVAULT_DIR=" + t.TempDir()}, in: tc.in}.run(t, tc.args...)
			if res.status != exitFailed || res.out != tc.out {
				t.Errorf("status %d, output %q", res.status, res.out)
			}
			mustContain(t, res.err, tc.errs...)
			mustNotContain(t, res.err, "\x1b", adminToken, agentToken)
		})
	}
}

func TestMisuse(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"nonsense"},
		{"services"},
		{"services", "nonsense"},
		{"token", "g"},
		{"call", "g"},
		{"call", "g", "a", "--json", "[]"},
		{"agents"},
		{"agents", "add"},
		{"agents", "update", "tony"},
		{"agents", "add", "tony", "--expires", "soon"},
		{"agents", "add", "tony", "--expires", "-1h"},
		{"agents", "rotate-key", "tony", "--overlap", "-1h"},
		{"agents", "rotate-key", "tony", "--overlap", "1"},
		{"call", "g", "a", "--json", `{"a":1,"a":2}`},
		{"call", "g", "a", "--json", "{"},
		{"revoke"},
		{"revoke", "--agent", ""},
		{"health", "x"},
		{"audit", "--limit", "x"},
		{"audit", "--nonsense"},
		{"templates", "load", "x", "--var", "y"},
		{"services", "add", "-", "--secret"},
		{"secrets", "set", "r", "value-as-argument"},
		{"unrevoke"},
		{"init", "x"},
		{"import"},
		{"init", "--dir", "a{b}"},
	} {
		res := shell{environ: []string{"AGENTVAULT_DIR=" + t.TempDir(), "VAULT_URL=http://127.0.0.1:1", "AGENTVAULT_TOKEN=a.b.c"}}.run(t, args...)
		if res.status != exitUsage || res.out != "" || !strings.Contains(res.err, "hint: caddyvault vault") {
			t.Errorf("%q: status %d\n%s%s", args, res.status, res.out, res.err)
		}
		mustNotContain(t, res.err, "value-as-argument")
	}
	for _, url := range []string{"ftp://x", "x", "http://", "http://u:p@x", "http://x?q", "http://x#f", "unix://"} {
		res := shell{environ: []string{"VAULT_URL=" + url}}.run(t, "health")
		if res.status != exitUsage {
			t.Errorf("%s: status %d", url, res.status)
		}
		mustNotContain(t, res.err, "u:p")
	}
}

func TestUnreachable(t *testing.T) {
	res := shell{environ: []string{"VAULT_URL=unix://" + filepath.Join(t.TempDir(), "none")}}.run(t, "health")
	if res.status != exitFailed {
		t.Errorf("status %d", res.status)
	}
	mustContain(t, res.err, "VAULT_UNREACHABLE: ", "hint: ")
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &standIn{status: 200, answer: `{"ok":true}`}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: s}}
	srv.Start()
	defer srv.Close()
	shell{environ: []string{"VAULT_URL=unix://" + path}}.ok(t, "health")
	if s.path != "/health" {
		t.Errorf("path %q", s.path)
	}
}

func TestLoopbackIgnoresProxies(t *testing.T) {
	for url, proxied := range map[string]bool{
		"http://127.0.0.1:1": false, "http://localhost": false, "http://[::1]:1": false, "http://x.localhost": false,
		"http://vault.example.com": true, "http://127.0.0.1.example.com": true,
	} {
		c, err := (&terminal{environ: []string{"VAULT_URL=" + url}}).client()
		if err != nil {
			t.Fatal(err)
		}
		if got := c.http.Transport.(*http.Transport).Proxy != nil; got != proxied {
			t.Errorf("%s: proxied %t", url, got)
		}
	}
}

func TestAdminTokenIsFound(t *testing.T) {
	dir := t.TempDir()
	term := func(env ...string) *terminal { return &terminal{environ: append(env, "AGENTVAULT_DIR="+dir)} }
	if _, err := term().adminToken(); err == nil {
		t.Error("a token was found nowhere")
	}
	write(t, filepath.Join(dir, "data", "admin.token"), "from-file\n", 0o600)
	write(t, filepath.Join(dir, "other", "admin.token"), "from-other\n", 0o600)
	for _, tc := range []struct {
		dotenv string
		env    []string
		want   string
	}{
		{"", nil, "from-file"},
		{"", []string{"VAULT_DATA_DIR=" + filepath.Join(dir, "other")}, "from-other"},
		{"VAULT_DATA_DIR=other\n", nil, "from-other"},
		{"VAULT_ADMIN_TOKEN=dotenv\n", nil, "dotenv"},
		{"VAULT_ADMIN_TOKEN=dotenv\n", []string{"VAULT_ADMIN_TOKEN=env"}, "env"},
	} {
		write(t, filepath.Join(dir, ".env"), tc.dotenv, 0o600)
		if got, err := term(tc.env...).adminToken(); got != tc.want || err != nil {
			t.Errorf("%+v: %q, %v", tc, got, err)
		}
	}
	write(t, filepath.Join(dir, ".env"), "", 0o600)
	write(t, filepath.Join(dir, "data", "admin.token"), "from-file\n", 0o644)
	if _, err := term().adminToken(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a token that others can read: %v", err)
	}
}

func TestEnvFileValue(t *testing.T) {
	for text, want := range map[string]string{
		"A=1": "1", "export A = 1 # c\n": "1", "A='x # y'": "x # y", "A=\"a\nb\"\nB=2": "a\nb", `A="a\"b"`: `a"b`,
		"#A=1": "", "A=1\nA=2": "2", "AA=1": "", "A": "", "B=\"\nA=no\n\"\n": "", "A=\"open": "open", "": "",
	} {
		if got := envFileValue(text, "A"); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzEnvFileValue(f *testing.F) {
	f.Add("export A='b\n\\'c' # d\nE=\"")
	f.Fuzz(func(_ *testing.T, text string) { envFileValue(text, "A") })
}

func FuzzTokenID(f *testing.F) {
	f.Add(agentToken)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := tokenID(s); err == nil && id == "" && s != "" {
			t.Error("an empty id")
		}
	})
}
