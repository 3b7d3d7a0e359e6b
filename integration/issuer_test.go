package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddyvault/caddyvault/internal/need"
)

// A foreign is an issuer of JWTs that does as it is told.
type foreign struct {
	*httptest.Server
	t     testing.TB
	asked atomic.Int64

	mu   sync.Mutex
	keys map[string]*ecdsa.PrivateKey
	does http.HandlerFunc // instead of answering
}

func newForeign(t testing.TB) *foreign {
	f := &foreign{t: t, keys: map[string]*ecdsa.PrivateKey{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	f.rotate("k1")
	return f
}

// rotate makes the keys of these ids the only ones.
func (f *foreign) rotate(kids ...string) {
	f.t.Helper()
	keys := map[string]*ecdsa.PrivateKey{}
	for _, kid := range kids {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			f.t.Fatal(err)
		}
		keys[kid] = k
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys = keys
}

// instead has it do something else than answer; nil for answering.
func (f *foreign) instead(does http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.does = does
}

func (f *foreign) serve(w http.ResponseWriter, r *http.Request) {
	f.asked.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.does != nil:
		f.does(w, r)
	case r.URL.Path == "/.well-known/openid-configuration":
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"%s/keys"}`, f.URL, f.URL)
	case r.URL.Path == "/keys":
		w.Write(f.set())
	default:
		http.NotFound(w, r)
	}
}

// jwks are the public keys.
func (f *foreign) jwks() []map[string]string {
	list := []map[string]string{}
	for kid, k := range f.keys {
		point, err := k.PublicKey.Bytes()
		if err != nil {
			f.t.Error(err)
		}
		text := base64.RawURLEncoding.EncodeToString
		list = append(list, map[string]string{"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256", "x": text(point[1:33]), "y": text(point[33:])})
	}
	return list
}

// set is the key set.
func (f *foreign) set() []byte {
	b, err := json.Marshal(map[string]any{"keys": f.jwks()})
	if err != nil {
		f.t.Error(err)
	}
	return b
}

// jwt makes a JWT for the audience caddyvault. nil takes a claim away.
func (f *foreign) jwt(s *server, kid, sub string, changes map[string]any) string {
	f.t.Helper()
	claims := jwt.MapClaims{"iss": f.URL, "aud": "caddyvault", "sub": sub, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	for name, v := range changes {
		if claims[name] = v; v == nil {
			delete(claims, name)
		}
	}
	unsigned := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	unsigned.Header["kid"] = kid
	f.mu.Lock()
	key := f.keys[kid]
	f.mu.Unlock()
	raw, err := unsigned.SignedString(key)
	if err != nil {
		f.t.Fatal(err)
	}
	// The signature is what makes it worth anything.
	s.hide(raw[strings.LastIndex(raw, ".")+1:], "a JWT of an issuer")
	return raw
}

// issuerVault is a vault that trusts an issuer, and nobody without proof.
func issuerVault(t testing.TB, f *foreign, more string) *server {
	s := start(t, config{vault: "issuer " + oauthIssuer + "\n agents {\n issuer " + f.URL + ` {
				audience caddyvault
				map agents/* *
				group_claim groups
			}
			` + more + "\n}"})
	s.addService("crew", fmt.Sprintf(`{"baseUrl":%q,"allowedAgents":["group:crew"],"allowedActions":["*"],"allowedScopes":["a"],"endpoints":{"a":{"method":"GET","path":"/a","requiredScope":["a"]}}}`, s.up.URL), secret)
	return s
}

const forCrew = `"service":"crew","scope":["a"]`

// TestIssuer is what an agent with a JWT of an issuer can do, and what others
// cannot.
func TestIssuer(t *testing.T) {
	t.Parallel()
	f := newForeign(t)
	s := issuerVault(t, f, "trust none")
	tony := f.jwt(s, "k1", "agents/tony", map[string]any{"groups": []string{"crew", "other"}})
	steve := f.jwt(s, "k1", "agents/steve", map[string]any{"groups": "crew"})
	alone := f.jwt(s, "k1", "agents/main", nil)
	as := bearer(tony)

	got := s.issueWith(forCrew, as)
	c := payload(t, got.Token)
	if c["sub"] != "tony" || fmt.Sprint(c["groups"]) != "[crew]" {
		t.Errorf("the token is for %v of %v", c["sub"], c["groups"])
	}
	s.issueWith(forCrew+`,"agentId":"tony"`, as)
	s.issueWith(`"service":"github","scope":["github:repos:read"]`, bearer(alone))
	if r := s.call(got.Token, "crew", "a", "{}"); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	child := s.delegate(got.Token, ``, as)
	if c := payload(t, child.Token); fmt.Sprint(c["groups"]) != "[crew]" {
		t.Errorf("the child has the groups %v", c["groups"])
	}
	if r := s.call(child.Token, "crew", "a", "{}"); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	var mine []record
	if r := s.post("/vault.audit.query", `{"limit":1000}`, as); r.status != 200 || !strings.Contains(r.body, got.TokenID) {
		t.Errorf("%d %s", r.status, r.body)
	} else if decode(t, r.body, &mine); len(mine) < 4 {
		t.Errorf("%d records", len(mine))
	}
	if r := s.post("/vault.audit.query", `{"limit":1000}`, bearer(steve)); r.status != 200 || strings.Contains(r.body, got.TokenID) {
		t.Errorf("%d %s", r.status, r.body)
	}
	// The tokens of another are not revoked, one's own are.
	for _, who := range []struct {
		jwt    string
		status int
	}{{steve, 200}, {tony, 401}} {
		s.ok("/vault.revoke", `{"tokenId":`+quote(got.TokenID)+`}`, nil, bearer(who.jwt))
		if r := s.call(got.Token, "crew", "a", "{}"); r.status != who.status {
			t.Errorf("%d %s", r.status, r.body)
		}
	}

	// What is refused, on every route that takes it.
	fresh := s.issueWith(forCrew, as)
	forged := tony[:len(tony)-10] + "AAAAAAAAAA"
	stranger := newForeign(t)
	now := time.Now().Unix()
	body := "{" + forCrew + "}"
	rows := []refusal{}
	bad := func(name, raw, code string) {
		status := 401
		if code == "AGENT_MISMATCH" || code == "POLICY_DENY" {
			status = 403
		}
		rows = append(rows, refusal{name: name, path: "/vault.issueToken", body: body, edits: []edit{bearer(raw)}, status: status, code: code, event: "token.issue"})
	}
	bad("forged", forged, "AGENT_TOKEN_INVALID")
	bad("expired", f.jwt(s, "k1", "agents/tony", map[string]any{"exp": now - 3600}), "AGENT_TOKEN_INVALID")
	bad("without exp", f.jwt(s, "k1", "agents/tony", map[string]any{"exp": nil}), "AGENT_TOKEN_INVALID")
	bad("not yet", f.jwt(s, "k1", "agents/tony", map[string]any{"nbf": now + 3600}), "AGENT_TOKEN_INVALID")
	bad("another audience", f.jwt(s, "k1", "agents/tony", map[string]any{"aud": []string{"x", "y"}}), "AGENT_TOKEN_INVALID")
	bad("another issuer", stranger.jwt(s, "k1", "agents/tony", nil), "AGENT_TOKEN_INVALID")
	bad("another that says it is ours", stranger.jwt(s, "k1", "agents/tony", map[string]any{"iss": f.URL}), "AGENT_TOKEN_INVALID")
	bad("not mapped", f.jwt(s, "k1", "people/tony", nil), "AGENT_TOKEN_INVALID")
	bad("no agent", f.jwt(s, "k1", "agents/group:x", nil), "AGENT_TOKEN_INVALID")
	bad("not in the group", alone, "POLICY_DENY")
	bad("no JWT", "a.b.c", "AGENT_TOKEN_INVALID")
	bad("a JWE", "a.b.c.d.e", "AGENT_TOKEN_INVALID")
	bad("a token of the vault", fresh.Token, "AGENT_UNAUTHENTICATED")
	bad("nothing", "", "AGENT_UNAUTHENTICATED")
	rows = append(rows,
		refusal{name: "two headers", path: "/vault.issueToken", body: body, edits: []edit{header("Authorization", "Bearer "+tony, "Bearer "+tony)}, status: 401, code: "AGENT_UNAUTHENTICATED", event: "token.issue"},
		refusal{name: "another's name", path: "/vault.issueToken", body: "{" + forCrew + `,"agentId":"steve"}`, edits: []edit{as}, status: 403, code: "AGENT_MISMATCH", event: "token.issue"},
		refusal{name: "another's token", path: "/vault.delegateToken", body: `{"token":"` + fresh.Token + `"}`, edits: []edit{bearer(steve)}, status: 403, code: "AGENT_MISMATCH", event: "token.delegate"},
	)
	for _, r := range []refusal{
		{path: "/vault.revoke", body: `{"sessionId":"s"}`, event: "token.revoke"},
		{path: "/vault.audit.query", body: `{}`, event: "audit.query"},
		{path: "/vault.delegateToken", body: `{"token":"` + fresh.Token + `"}`, event: "token.delegate"},
		{path: "/vault.introspectToken", body: `{"token":"` + fresh.Token + `"}`, event: "token.introspect"},
	} {
		r.name, r.edits, r.status, r.code = "forged: "+r.path, []edit{bearer(forged)}, 401, "AGENT_TOKEN_INVALID"
		rows = append(rows, r)
	}
	s.run(t, rows)
	if r := s.post("/vault.issueToken", body, bearer(f.jwt(s, "k1", "people/tony", nil))); !strings.Contains(r.body, "people/tony") || !strings.Contains(r.body, "map people/tony") {
		t.Errorf("the hint does not teach: %s", r.body)
	}

	// A record of the agent holds, too.
	s.addAgent("tony", `,"binding":"dpop"`)
	s.run(t, []refusal{{name: "not bound", path: "/vault.issueToken", body: body, edits: []edit{as}, status: 401, code: "TOKEN_BINDING_REQUIRED", event: "token.issue"}})
	s.admin("updateAgent", `{"agentId":"tony","binding":"none","disabled":true}`)
	s.run(t, []refusal{{name: "disabled", path: "/vault.issueToken", body: body, edits: []edit{as}, status: 401, code: "AGENT_DISABLED", event: "token.issue"}})
	s.admin("updateAgent", `{"agentId":"tony","disabled":false,"expiresAt":1000}`)
	s.run(t, []refusal{{name: "ended", path: "/vault.issueToken", body: body, edits: []edit{as}, status: 401, code: "AGENT_EXPIRED", event: "token.issue"}})
	s.admin("removeAgent", `{"agentId":"tony"}`)
	s.run(t, []refusal{{name: "removed", path: "/vault.issueToken", body: body, edits: []edit{as}, status: 401, code: "AGENT_REVOKED", event: "token.issue"}})
	// The record's groups are beside the JWT's.
	s.addAgent("main", `,"groups":["crew"]`)
	s.issueWith(forCrew, bearer(alone))
}

// TestIssuerExchange is the same at the standard endpoint.
func TestIssuerExchange(t *testing.T) {
	t.Parallel()
	f := newForeign(t)
	s := issuerVault(t, f, "trust loopback")
	crew := map[string]any{"groups": []string{"crew"}}
	tony := f.jwt(s, "k1", "agents/tony", crew)
	form := func(subject, kind, more string) string {
		return "grant_type=" + url.QueryEscape("urn:ietf:params:oauth:grant-type:token-exchange") + "&audience=crew&scope=a&subject_token=" + subject + "&subject_token_type=" + url.QueryEscape("urn:ietf:params:oauth:token-type:"+kind) + more
	}
	typed := header("Content-Type", "application/x-www-form-urlencoded")
	for _, kind := range []string{"jwt", "id_token"} {
		r := s.post("/oauth/token", form(tony, kind, ""), typed)
		var out struct {
			Token  string `json:"access_token"`
			Issued string `json:"issued_token_type"`
		}
		if decode(t, r.body, &out); r.status != 200 || out.Issued != "urn:ietf:params:oauth:token-type:access_token" {
			t.Fatalf("%d %s", r.status, r.body)
		}
		s.hide(out.Token, "a token")
		if got := s.call(out.Token, "crew", "a", "{}"); got.status != 200 {
			t.Errorf("%d %s", got.status, got.body)
		}
		if c := payload(t, out.Token); c["sub"] != "tony" {
			t.Errorf("the token is for %v", c["sub"])
		}
	}
	// As a client that has no secret but its JWT, it does the rest.
	if r := s.post("/oauth/token", "grant_type=client_credentials&audience=crew&scope=a&client_id=tony", typed, bearer(tony)); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	assertion := "&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion="
	if r := s.post("/oauth/token", "grant_type=client_credentials&audience=crew&scope=a"+assertion+tony, typed); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	key := s.addAgent("steve", "")
	own := s.issueWith(`"service":"github","scope":["github:repos:read"],"agentId":"main"`)
	for name, tt := range map[string]struct {
		body, code, error string
		status            int
		edits             []edit
	}{
		"forged":              {form(tony[:len(tony)-10]+"AAAAAAAAAA", "jwt", ""), "SUBJECT_TOKEN_INVALID", "invalid_request", 400, nil},
		"not mapped":          {form(f.jwt(s, "k1", "x", crew), "id_token", ""), "SUBJECT_TOKEN_INVALID", "invalid_request", 400, nil},
		"of a stranger":       {form(newForeign(t).jwt(s, "k1", "agents/tony", crew), "jwt", ""), "SUBJECT_TOKEN_INVALID", "invalid_request", 400, nil},
		"a key":               {form(key, "jwt", ""), "SUBJECT_TOKEN_INVALID", "invalid_request", 400, nil},
		"a token":             {form(own.Token, "jwt", ""), "SUBJECT_TOKEN_INVALID", "invalid_request", 400, nil},
		"a JWT as a token":    {form(tony, "access_token", ""), "TOKEN_INVALID", "invalid_request", 400, nil},
		"another client":      {form(tony, "jwt", "&client_id=main"), "SUBJECT_TOKEN_INVALID", "invalid_request", 400, nil},
		"another's secret":    {form(tony, "jwt", "&client_secret="+key), "SUBJECT_TOKEN_INVALID", "invalid_request", 400, nil},
		"a wrong secret":      {form(tony, "jwt", "&client_secret=cva_x"), "AGENT_KEY_INVALID", "invalid_client", 401, nil},
		"no group":            {form(f.jwt(s, "k1", "agents/tony", nil), "jwt", ""), "POLICY_DENY", "unauthorized_client", 400, nil},
		"a forged bearer":     {"grant_type=client_credentials&audience=github&scope=github:repos:read&client_id=main", "AGENT_TOKEN_INVALID", "invalid_client", 401, []edit{bearer(tony[:len(tony)-10] + "AAAAAAAAAA")}},
		"a forged assertion":  {"grant_type=client_credentials&audience=github&scope=github:repos:read&client_id=main" + assertion + tony[:len(tony)-10] + "AAAAAAAAAA", "AGENT_TOKEN_INVALID", "invalid_client", 401, nil},
		"no assertion":        {"grant_type=client_credentials&audience=github&scope=github:repos:read&client_id=main" + assertion, "AGENT_UNAUTHENTICATED", "invalid_client", 401, nil},
		"of another kind":     {"grant_type=client_credentials&audience=github&scope=github:repos:read&client_id=main&client_assertion=" + tony, "AGENT_UNAUTHENTICATED", "invalid_client", 401, nil},
		"also a secret":       {"grant_type=client_credentials&audience=github&scope=github:repos:read" + assertion + tony + "&client_secret=" + tony, "AGENT_UNAUTHENTICATED", "invalid_client", 401, nil},
		"another's assertion": {"grant_type=client_credentials&audience=crew&scope=a&client_id=steve" + assertion + tony, "AGENT_UNAUTHENTICATED", "invalid_client", 401, nil},
		"a stranger's bearer": {"grant_type=client_credentials&audience=github&scope=github:repos:read&client_id=main", "AGENT_TOKEN_INVALID", "invalid_client", 401, []edit{bearer(newForeign(t).jwt(s, "k1", "agents/main", nil))}},
	} {
		_, end := s.auditLog(0)
		before := s.up.count()
		r := s.post("/oauth/token", tt.body, append([]edit{typed}, tt.edits...)...)
		var doc map[string]string
		if decode(t, r.body, &doc); r.status != tt.status || doc["error"] != tt.error || r.header.Get("Vault-Error") != tt.code {
			t.Errorf("%s: %d %s %s", name, r.status, r.header.Get("Vault-Error"), r.body)
		}
		s.noSecrets(t, name, r.body+headerText(r))
		eventually(t, name+" is recorded", func() bool {
			records, _ := s.auditLog(end)
			return len(records) == 1 && records[0].text("error") == tt.code && strings.HasSuffix(records[0].text("event"), ".denied")
		})
		if s.up.count() != before {
			t.Errorf("%s: the upstream was asked", name)
		}
	}
	// Trust is for who offers nothing.
	s.issueWith(`"service":"github","scope":["github:repos:read"]`)
}

// TestIssuerStandardClient exchanges a JWT that a library has made by another.
func TestIssuerStandardClient(t *testing.T) {
	t.Parallel()
	needNode(t)
	f := newForeign(t)
	s := issuerVault(t, f, "trust none")
	private, err := f.keys["k1"].Bytes()
	if err != nil {
		t.Fatal(err)
	}
	jwk := f.jwks()[0]
	jwk["d"] = base64.RawURLEncoding.EncodeToString(private)
	text, err := json.Marshal(jwk)
	if err != nil {
		t.Fatal(err)
	}
	access := "urn:ietf:params:oauth:token-type:access_token"
	compareResults(t, s.node("exchange.mjs", "PLATFORM="+f.URL, "JWK="+string(text)), `{
		"jwt": ["bearer","`+access+`",200], "id_token": ["bearer","`+access+`",200], "bound": ["dpop",200],
		"audience": ["invalid_request",400], "subject": ["invalid_request",400], "group": ["unauthorized_client",400]
	}`)
}

// TestIssuerCommands uses a JWT with the command lines.
func TestIssuerCommands(t *testing.T) {
	t.Parallel()
	need.Programs(t, "bash", "curl", "jq")
	f := newForeign(t)
	s := issuerVault(t, f, "trust none")
	jwt := f.jwt(s, "k1", "agents/tony", nil)
	env := "AGENTVAULT_AGENT_KEY=" + jwt
	out, _ := s.vaultCommand(0, []string{env}, "token", "github", "github:repos:read")
	s.hide(strings.TrimSpace(out), "a token")
	cmd := exec.Command("bash", "../agentvault", "token", "github", "github:repos:read")
	cmd.Env = append(s.environment(), "VAULT_URL="+s.base, env)
	shell, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, shell)
	}
	for _, token := range []string{out, string(shell)} {
		s.hide(strings.TrimSpace(token), "a token")
		if c := payload(t, strings.TrimSpace(token)); c["sub"] != "tony" {
			t.Errorf("the token is for %v", c["sub"])
		}
	}
}

// TestIssuerAway starts a vault whose issuer is away, and has it come, rotate,
// go, lie and hang.
func TestIssuerAway(t *testing.T) {
	t.Parallel()
	f := newForeign(t)
	gone := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	f.instead(gone)
	s := issuerVault(t, f, "trust none")
	body := "{" + forCrew + "}"
	crew := map[string]any{"groups": []string{"crew"}}
	old := f.jwt(s, "k1", "agents/tony", crew)

	r := s.refused(t, refusal{path: "/vault.issueToken", body: body, edits: []edit{bearer(old)}, status: 503, code: "ISSUER_UNAVAILABLE", event: "token.issue"})
	if r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	typed := header("Content-Type", "application/x-www-form-urlencoded")
	if r := s.post("/oauth/token", "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&audience=crew&scope=a&subject_token_type=urn:ietf:params:oauth:token-type:jwt&subject_token="+old, typed); r.status != 503 || r.header.Get("Vault-Error") != "ISSUER_UNAVAILABLE" || !strings.Contains(r.body, "temporarily_unavailable") {
		t.Errorf("%d %s", r.status, r.body)
	}
	works := func(raw string) bool { return s.post("/vault.issueToken", body, bearer(raw)).status == 200 }
	up := `caddyvault_issuer_up{issuer="` + f.URL + `"}`
	if v, there := s.scrape()[up]; !there || v != 0 {
		t.Errorf("%s is %v, %v", up, v, there)
	}
	f.instead(nil)
	eventually(t, "the vault recovers by itself", func() bool { return works(old) })

	if v := s.scrape()[up]; v != 1 {
		t.Errorf("%s is %v", up, v)
	}

	// Another key is known at its first JWT, or when the issuer may be asked
	// again.
	f.rotate("k2")
	second := f.jwt(s, "k2", "agents/tony", crew)
	eventually(t, "a new key is known", func() bool { return works(second) })
	if r := s.post("/vault.issueToken", body, bearer(old)); r.status != 401 || r.header.Get("Vault-Error") != "AGENT_TOKEN_INVALID" {
		t.Errorf("%d %s", r.status, r.body)
	}

	// Whatever the issuer does now, what is known is good; over a reload, too.
	done := make(chan struct{})
	defer close(done)
	for name, does := range map[string]http.HandlerFunc{
		"gone": gone,
		"of another": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"issuer":"https://attacker.example","jwks_uri":"https://attacker.example/keys"}`)
		},
		"a megabyte": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) },
		"redirects":  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/keys", http.StatusFound) },
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-done:
			}
		},
	} {
		f.instead(does)
		before := f.asked.Load()
		if !works(second) {
			t.Errorf("%s: what is known is not good", name)
		}
		s.reload(t)
		if !works(second) {
			t.Errorf("%s: what is known is not good after a reload", name)
		}
		if n := f.asked.Load() - before; n > 20 {
			t.Errorf("%s: asked %d times", name, n)
		}
	}

	// Over a restart, too; and a key that nobody has seen is still no key.
	f.instead(gone)
	s.stop()
	s.start()
	if !works(second) {
		t.Error("what is known is not good after a restart")
	}
	f.rotate("k3")
	s.refused(t, refusal{
		path: "/vault.issueToken", body: body, edits: []edit{bearer(f.jwt(s, "k3", "agents/tony", crew))},
		status: 503, code: "ISSUER_UNAVAILABLE", event: "token.issue",
	})
	kept, err := filepath.Glob(filepath.Join(s.data, "issuers", "*"))
	if err != nil || len(kept) != 1 {
		t.Errorf("%v, %v", kept, err)
	}
}

// TestIssuerFile has the keys in a file, and a name that is no URL; and a JWT
// that something in front of the vault judges.
func TestIssuerFile(t *testing.T) {
	t.Parallel()
	f := newForeign(t)
	const settings = "issuer " + oauthIssuer + `
		agents {
			issuer kubernetes/serviceaccount {
				audience caddyvault
				map system:serviceaccount:*:* */*
				keys $DIR/keys.json
			}
			identity {http.request.header.X-Verified}
			trust loopback
		}`
	s := prepare(t, config{vault: settings})
	s.conf.vault = strings.ReplaceAll(settings, "$DIR", s.dir)
	s.configure()
	s.write(filepath.Join(s.dir, "keys.json"), string(f.set()))
	s.start()
	s.addService("any", fmt.Sprintf(`{"baseUrl":%q,"allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["a"],"endpoints":{"a":{"method":"GET","path":"/a"}}}`, s.up.URL), secret)
	const forAny = `"service":"any","scope":["a"]`
	raw := f.jwt(s, "k1", "system:serviceaccount:prod:agent", map[string]any{"iss": "kubernetes/serviceaccount"})
	if c := payload(t, s.issueWith(forAny, bearer(raw)).Token); c["sub"] != "prod/agent" {
		t.Errorf("the token is for %v", c["sub"])
	}
	// A JWT of another issuer is for who stands in front to judge; nobody takes
	// who sends it for somebody else.
	other := f.jwt(s, "k1", "somebody", nil)
	if c := payload(t, s.issueWith(forAny, bearer(other), header("X-Verified", "inside")).Token); c["sub"] != "inside" {
		t.Errorf("the token is for %v", c["sub"])
	}
	// One of the issuer is judged, whoever is in front.
	s.run(t, []refusal{
		{name: "not judged", path: "/vault.issueToken", body: "{" + forAny + "}", edits: []edit{bearer(other)}, status: 401, code: "AGENT_TOKEN_INVALID", event: "token.issue"},
		{name: "not good", path: "/vault.issueToken", body: "{" + forAny + "}", edits: []edit{bearer(raw[:len(raw)-10] + "AAAAAAAAAA"), header("X-Verified", "inside")}, status: 401, code: "AGENT_TOKEN_INVALID", event: "token.issue"},
	})
	s.issueWith(forAny)
	// Who is in front says nothing of a JWT that is offered as somebody's own.
	form := "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&audience=any&scope=a&subject_token_type=urn:ietf:params:oauth:token-type:jwt&subject_token="
	for _, wrong := range []string{other, raw[:len(raw)-10] + "AAAAAAAAAA", "e30.e30.AAAA"} {
		r := s.post("/oauth/token", form+wrong, header("Content-Type", "application/x-www-form-urlencoded"), header("X-Verified", "inside"))
		if r.status != 400 || r.header.Get("Vault-Error") != "SUBJECT_TOKEN_INVALID" {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
}
