package integration

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/caddyvault/caddyvault/internal/need"
)

const oauthIssuer = "https://vault.test"

// TestStandardClients has clients that nobody here wrote get and use tokens.
func TestStandardClients(t *testing.T) {
	t.Parallel()
	needNode(t)
	for name, trust := range map[string]string{"none": "loopback", "secret": "none"} {
		t.Run(name, func(t *testing.T) { standardClient(t, name == "secret", trust) })
	}
}

func needNode(t *testing.T) {
	t.Helper()
	need.Programs(t, "node")
	if _, err := os.Stat("oauth/node_modules"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("NOT TESTED: run npm ci in integration/oauth")
	}
}

// node runs a program of the folder oauth against the server.
func (s *server) node(program string, env ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "node", program)
	cmd.Dir = "oauth"
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "ISSUER=" + oauthIssuer, "BASE=" + s.base}, env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%v\n%s\n%s", err, out, stderr.String())
	}
	return string(out)
}

func standardClient(t *testing.T, secret bool, trust string) {
	t.Parallel()
	s := start(t, config{vault: "issuer " + oauthIssuer + "\n dpop_nonce on\n agents {\n trust " + trust + "\n }"})
	key, methods := "", `"clientCredentials_none": ["bearer","github:repos:read",600],`
	if secret {
		key = s.addAgent("tony", "")
		methods = strings.Replace(methods, "none", "basic", 1) + strings.Replace(methods, "none", "post", 1)
	}
	compareResults(t, s.node("client.mjs", "AGENT=tony", "SECRET="+key), `{
		"discovered": ["https://vault.test/oauth/token","https://vault.test/oauth/introspect","https://vault.test/oauth/revoke","https://vault.test/.well-known/jwks.json"],
		"resource": ["https://vault.test"],
		`+methods+`
		"verified": ["EdDSA","tony","github",["github:repos:read"]],
		"called": [200,"o/r"],
		"introspected": [true,"tony","github:repos:read","Bearer",600],
		"exchanged": ["urn:ietf:params:oauth:token-type:access_token","bearer",true,"tony",true],
		"childCalled": [200,"o/r"],
		"errors": {"scope":["invalid_scope",400],"target":["invalid_target",400],"noTarget":["invalid_target",400],"grant":["unsupported_grant_type",400],
			"subject":["invalid_request",400],"subjectType":["invalid_request",400],"wider":["invalid_scope",400]},
		"nonceAsked": true,
		"bound": ["dpop","DPoP",true],
		"boundCalled": [200,"o/r"],
		"boundStolen": [["dpop","invalid_token"]],
		"revoked": [false,false]
	}`)

	// The same decisions leave the same records.
	records, _ := s.auditLog(0)
	count := map[string]int{}
	for _, r := range records {
		count[strings.TrimSpace(r.text("event")+" "+r.text("error"))]++
	}
	for _, event := range []string{
		"token.issued", "token.revoked", "proxy.call", "token.issue.denied INVALID_SCOPE:github:admin", "token.issue.denied UNKNOWN_SERVICE", "token.issue.denied SERVICE_REQUIRED",
		"token.issue.denied GRANT_TYPE_UNSUPPORTED", "token.delegate.denied TOKEN_INVALID", "token.delegate.denied DELEGATION_DENIED:scope", "token.issue.denied DPOP_NONCE_REQUIRED", "proxy.call.denied TOKEN_BINDING_REQUIRED",
	} {
		if count[event] == 0 {
			t.Errorf("no record of %s in %v", event, count)
		}
	}
}

// TestGoClient does the same with Go's own client.
func TestGoClient(t *testing.T) {
	t.Parallel()
	s := start(t, config{vault: "issuer " + oauthIssuer})
	conf := clientcredentials.Config{
		ClientID: "tony", TokenURL: s.base + "/oauth/token", Scopes: []string{"github:repos:read"},
		EndpointParams: url.Values{"audience": {"github"}}, AuthStyle: oauth2.AuthStyleInParams,
	}
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, s.client)
	res, err := conf.Client(ctx).Get(s.base + "/proxy/github/repos/o/r")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("status %d", res.StatusCode)
	}
	key := s.addAgent("tony", "")
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader} {
		known := conf
		known.ClientSecret, known.AuthStyle = key, style
		if _, err := known.Token(ctx); err != nil {
			t.Error(err)
		}
		for _, wrong := range []string{key[:len(key)-1] + "0", key + "0", "cva_x"} {
			known.ClientSecret = wrong
			if r, ok := errors.AsType[*oauth2.RetrieveError](func() error { _, err := known.Token(ctx); return err }()); wrong != key && (!ok || r.ErrorCode != "invalid_client") {
				t.Errorf("a wrong key: %v", r)
			}
		}
		known.ClientID, known.ClientSecret = "steve", key
		if _, err := known.Token(ctx); err == nil {
			t.Error("a key of another agent")
		}
	}
	// Being trusted does not do for a client that offers a secret.
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader} {
		wrong := conf
		wrong.ClientSecret, wrong.AuthStyle = "a-secret-of-nobody", style
		_, err := wrong.Token(ctx)
		r, ok := errors.AsType[*oauth2.RetrieveError](err)
		if !ok || r.ErrorCode != "invalid_client" || r.Response.StatusCode != http.StatusUnauthorized || r.Response.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("a wrong secret: %v", err)
		}
	}
}

// TestRefusedForms is about what a form looks like, and about endpoints that
// are not there.
func TestRefusedForms(t *testing.T) {
	t.Parallel()
	s := start(t, config{vault: "issuer " + oauthIssuer})
	form := header("Content-Type", "application/x-www-form-urlencoded")
	const good = "grant_type=client_credentials&client_id=tony&audience=github&scope=github:repos:read"
	if r := s.post("/oauth/token", good, form); r.status != 200 || r.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", r.status, r.body)
	}
	for name, tt := range map[string]struct {
		path, body, code, error string
		status                  int
		edits                   []edit
	}{
		"a field twice":           {"/oauth/token", good + "&scope=x", "FORM_INVALID:scope", "invalid_request", 400, nil},
		"grant twice":             {"/oauth/token", good + "&grant_type=client_credentials", "FORM_INVALID:grant_type", "invalid_request", 400, nil},
		"a semicolon":             {"/oauth/token", good + ";scope=x", "FORM_INVALID", "invalid_request", 400, nil},
		"badly encoded":           {"/oauth/token", good + "&a=%zz", "FORM_INVALID", "invalid_request", 400, nil},
		"not UTF-8":               {"/oauth/token", good + "&a=%ff", "FORM_INVALID", "invalid_request", 400, nil},
		"NUL":                     {"/oauth/token", good + "&a=%00", "FORM_INVALID", "invalid_request", 400, nil},
		"too large":               {"/oauth/token", good + "&a=" + strings.Repeat("x", 70<<10), "FORM_INVALID", "invalid_request", 400, nil},
		"too many fields":         {"/oauth/token", good + strings.Repeat("&", 1) + manyFields(70), "FORM_INVALID", "invalid_request", 400, nil},
		"JSON":                    {"/oauth/token", `{"grant_type":"client_credentials"}`, "UNSUPPORTED_MEDIA_TYPE", "invalid_request", 415, []edit{header("Content-Type", "application/json")}},
		"no grant":                {"/oauth/token", "client_id=tony", "GRANT_TYPE_REQUIRED", "invalid_request", 400, nil},
		"two authentications":     {"/oauth/token", good + "&client_secret=x", "AGENT_UNAUTHENTICATED", "invalid_client", 401, []edit{header("Authorization", "Basic dG9ueTp4")}},
		"basic of another":        {"/oauth/token", good, "AGENT_UNAUTHENTICATED", "invalid_client", 401, []edit{header("Authorization", "Basic bWFpbjp4")}},
		"basic without a secret":  {"/oauth/token", good, "AGENT_UNAUTHENTICATED", "invalid_client", 401, []edit{header("Authorization", "Basic dG9ueTo=")}},
		"basic that is no base64": {"/oauth/token", good, "AGENT_UNAUTHENTICATED", "invalid_client", 401, []edit{header("Authorization", "Basic !")}},
		"from elsewhere":          {"/oauth/token", good, "AGENT_UNAUTHENTICATED", "invalid_client", 401, []edit{header("X-Forwarded-For", "192.0.2.1")}},
		"an agent not allowed":    {"/oauth/token", strings.Replace(good, "tony", "stranger", 1), "POLICY_DENY", "unauthorized_client", 400, nil},
		"two targets":             {"/oauth/token", good + "&resource=stripe", "UNKNOWN_SERVICE", "invalid_target", 400, nil},
		"an actor":                {"/oauth/token", "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=x&actor_token=y", "ACTOR_TOKEN_INVALID", "invalid_request", 400, nil},
		"a JWT of nobody":         {"/oauth/token", "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=x.y.z&subject_token_type=urn:ietf:params:oauth:token-type:jwt&audience=github&scope=github:repos:read", "SUBJECT_TOKEN_INVALID", "invalid_request", 400, nil},
		"introspect nothing":      {"/oauth/introspect", "client_id=tony", "TOKEN_FIELD_REQUIRED", "invalid_request", 400, nil},
		"introspect, elsewhere":   {"/oauth/introspect", "token=x", "AGENT_UNAUTHENTICATED", "invalid_client", 401, []edit{header("X-Forwarded-For", "192.0.2.1")}},
		"revoke, elsewhere":       {"/oauth/revoke", "token=x", "AGENT_UNAUTHENTICATED", "invalid_client", 401, []edit{header("X-Forwarded-For", "192.0.2.1")}},
	} {
		_, end := s.auditLog(0)
		r := s.post(tt.path, tt.body, append([]edit{form}, tt.edits...)...)
		var doc map[string]string
		decode(t, r.body, &doc)
		if r.status != tt.status || doc["error"] != tt.error || r.header.Get("Vault-Error") != tt.code || r.header.Get("Content-Type") != "application/json" || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s %s", name, r.status, r.header.Get("Vault-Error"), r.body)
		}
		if (r.header.Get("WWW-Authenticate") != "") != (r.status == 401) {
			t.Errorf("%s: %q", name, r.header.Get("WWW-Authenticate"))
		}
		eventually(t, name+" is recorded", func() bool {
			records, _ := s.auditLog(end)
			return len(records) > 0 && records[len(records)-1].text("error") == tt.code && strings.HasSuffix(records[len(records)-1].text("event"), ".denied")
		})
	}
	s.refused(t, refusal{method: "GET", path: "/oauth/token", event: "request", status: 405, code: "METHOD_NOT_ALLOWED"})

	// Without a URL for an issuer there is none of it.
	plain := start(t, config{})
	for _, path := range []string{"/oauth/token", "/oauth/introspect", "/oauth/revoke"} {
		plain.refused(t, refusal{path: path, event: "request", status: 404, code: "NOT_FOUND", body: good, edits: []edit{form}})
	}
	for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource"} {
		plain.refused(t, refusal{method: "GET", path: path, event: "request", status: 404, code: "NOT_FOUND"})
	}
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("&f" + strings.Repeat("x", i) + "=1")
	}
	return b.String()[1:]
}
