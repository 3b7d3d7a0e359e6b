package caddyvault

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddyvault/caddyvault/identity"
)

// TestIssuerCaddyfile reads every setting, and JSON is the same.
func TestIssuerCaddyfile(t *testing.T) {
	cfg, err := adapt(`{
	vault {
		agents {
			issuer https://issuer.example.com {
				audience a b
				audience c
				claim /x/y
				map team/* team/*
				map other x
				require env prod stage-*
				group_claim groups
				keys https://issuer.example.com/keys
				algorithms RS256 ES256
				max_stale 2h
				tls_ca ./ca.pem
			}
			issuer kubernetes/serviceaccount {
				audience vault
				keys ./keys.json
			}
		}
	}
}`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(cfg["apps"].(map[string]any)["vault"])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"agents":{"issuers":[{"algorithms":["RS256","ES256"],"audience":["a","b","c"],"claim":"/x/y","group_claim":"groups","issuer":"https://issuer.example.com",` +
		`"keys":"https://issuer.example.com/keys","map":[{"agent_id":"team/*","pattern":"team/*"},{"agent_id":"x","pattern":"other"}],"max_stale":7200000000000,` +
		`"require":[{"claim":"env","patterns":["prod","stage-*"]}],"tls_ca":"./ca.pem"},{"audience":["vault"],"issuer":"kubernetes/serviceaccount","keys":"./keys.json"}]}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestIssuerErrors: what is wrong is said with file and line.
func TestIssuerErrors(t *testing.T) {
	for _, tt := range []struct{ settings, want string }{
		{"", "audience: name what"},
		{"audience", "wrong argument count"},
		{"audience a {\nb\n}", "unexpected block"},
		{"audience a\nclaim a\nclaim b", "claim is given twice"},
		{"audience a\nissuer x", `unknown setting "issuer" of issuer`},
		{"audience a\nmap x", "wrong argument count"},
		{"audience a\nmap x y z", "wrong argument count"},
		{"audience a\nmap x *", "the agent \"*\" has 1 *"},
		{"audience a\nmap */* *-*", "between two *"},
		{"audience a\nmap x group:y", "cannot be the id of an agent"},
		{"audience a\nrequire x", "name a claim and what it is like"},
		{"audience a\nalgorithms HS256", `"HS256" is none of`},
		{"audience a\nalgorithms none", `"none" is none of`},
		{"audience a\nmax_stale 5s", "less than a minute"},
		{"audience a\nmax_stale soon", "is not a duration"},
		{"audience a\nkeys http://issuer.example.com/keys", "does not begin with https://"},
		{"audience a\nkeys ./x\ntls_ca ./y", "the keys are in a file"},
	} {
		_, err := adapt("{\nvault {\nagents {\nissuer https://issuer.example.com {\n" + tt.settings + "\n}\n}\n}\n}")
		if err == nil || !strings.Contains(err.Error(), tt.want) || !regexp.MustCompile(`Caddyfile:\d+`).MatchString(err.Error()) {
			t.Errorf("%s: %v", tt.settings, err)
		}
	}
	for _, tt := range []struct{ issuers, want string }{
		{"issuer", "wrong argument count"},
		{"issuer a b", "wrong argument count"},
		{"issuer not-a-url {\naudience a\n}", "is not a URL"},
		{"issuer http://issuer.example.com {\naudience a\n}", "does not begin with https://"},
		{"issuer https://a.example {\naudience a\n}\nissuer https://a.example {\naudience b\n}", "given twice"},
	} {
		if _, err := adapt("{\nvault {\nagents {\n" + tt.issuers + "\n}\n}\n}"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.issuers, err)
		}
	}
}

// TestIssuerProvision is about what JSON can say and a Caddyfile cannot, about
// the order of the means, and about sources that configurations share.
func TestIssuerProvision(t *testing.T) {
	app := func(issuers ...Issuer) *App {
		return &App{Issuer: "https://vault.example", Agents: &Agents{Issuers: issuers, Identity: "{http.auth.user.id}"}}
	}
	good := Issuer{Issuer: "https://a.example", Audience: []string{"a"}}
	for name, a := range map[string]*App{
		"twice":             app(good, good),
		"the vault's own":   app(Issuer{Issuer: "https://vault.example", Audience: []string{"a"}}),
		"no audience":       app(Issuer{Issuer: "https://a.example"}),
		"no issuer":         app(Issuer{Audience: []string{"a"}}),
		"an unset variable": app(Issuer{Issuer: "x", Audience: []string{"a"}, Keys: "{env.NOT_SET_ANYWHERE}/x"}),
	} {
		if err := a.provisionIssuers(nil); err == nil {
			t.Errorf("%s is taken", name)
		}
		if err := a.dropIssuers(); err != nil {
			t.Error(err)
		}
	}
	one, other := app(good), app(good, Issuer{Issuer: "x", Audience: []string{"b"}, Keys: "./keys.json"})
	for _, a := range []*App{one, other} {
		var err error
		if a.identify, err = a.Agents.identifier(); err != nil {
			t.Fatal(err)
		}
		if err := a.provisionIssuers(nil); err != nil {
			t.Fatal(err)
		}
	}
	var order []string
	for _, m := range other.identify.Means {
		order = append(order, strings.TrimPrefix(fmt.Sprintf("%T", m), "handlers."))
	}
	if !slices.Equal(order, []string{"Keys", "Issuers", "caddyvault.placeholderIdentity", "ForeignJWT"}) {
		t.Errorf("the means are tried in the order %q", order)
	}
	if one.sources[0].Source != other.sources[0].Source {
		t.Error("a reload loses the keys")
	}
	for _, a := range []*App{one, other} {
		if err := a.dropIssuers(); err != nil {
			t.Error(err)
		}
	}
	left := 0
	issuerKeys.Range(func(any, any) bool { left++; return true })
	if left != 0 {
		t.Errorf("%d sources are left", left)
	}
}

// TestIssuerExamples shows each example JWTs as the platform makes them.
func TestIssuerExamples(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := base64.RawURLEncoding.EncodeToString(private.Public().(ed25519.PublicKey))
	keys := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(keys, []byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","use":"jwt-svid","x":"`+public+`"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	github := jwt.MapClaims{
		"iss": "https://token.actions.githubusercontent.com", "aud": "https://vault.example.com", "sub": "repo:octo-org/app:ref:refs/heads/main",
		"repository": "octo-org/app", "repository_owner": "octo-org", "repository_owner_id": "65", "ref": "refs/heads/main", "event_name": "push", "run_attempt": "1",
	}
	kubernetes := jwt.MapClaims{
		"iss": "https://kubernetes.default.svc.cluster.local", "aud": []string{"https://vault.example.com"}, "sub": "system:serviceaccount:research:reader",
		"kubernetes.io": map[string]any{"namespace": "research", "serviceaccount": map[string]any{"name": "reader", "uid": "1"}},
	}
	spiffe := jwt.MapClaims{"iss": "https://oidc.corp.example", "aud": []string{"spiffe://corp.example/vault"}, "sub": "spiffe://corp.example/agents/tony"}
	for _, tt := range []struct {
		example string
		claims  jwt.MapClaims
		changes jwt.MapClaims
		want    string
	}{
		{"github-actions", github, nil, "ci/app"},
		{"github-actions", github, jwt.MapClaims{"repository": "octo-org/app/x"}, ""},
		{"github-actions", github, jwt.MapClaims{"repository": "evil-org/app"}, ""},
		{"github-actions", github, jwt.MapClaims{"repository_owner_id": "650"}, ""},
		{"github-actions", github, jwt.MapClaims{"ref": "refs/pull/1/merge"}, ""},
		{"github-actions", github, jwt.MapClaims{"event_name": "pull_request_target"}, ""},
		{"github-actions", github, jwt.MapClaims{"aud": "https://github.com/octo-org"}, ""},
		{"kubernetes", kubernetes, nil, "k8s/research/reader"},
		{"kubernetes", kubernetes, jwt.MapClaims{"sub": "system:node:n1"}, ""},
		{"kubernetes", kubernetes, jwt.MapClaims{"aud": []string{"https://kubernetes.default.svc.cluster.local"}}, ""},
		{"spiffe", spiffe, nil, "tony"},
		{"spiffe", spiffe, jwt.MapClaims{"sub": "spiffe://corp.example/ns/research/sa/reader"}, "research/reader"},
		{"spiffe", spiffe, jwt.MapClaims{"sub": "spiffe://evil.example/agents/tony"}, ""},
	} {
		text, err := os.ReadFile("examples/" + tt.example + "/Caddyfile")
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := adapt(string(text))
		if err != nil {
			t.Fatal(err)
		}
		var app App
		b, err := json.Marshal(cfg["apps"].(map[string]any)["vault"])
		if err == nil {
			err = json.Unmarshal(b, &app)
		}
		if err != nil || len(app.Agents.Issuers) != 1 {
			t.Fatal(err, app.Agents)
		}
		conf := app.Agents.Issuers[0]
		source, err := identity.NewSource(identity.Place{Issuer: conf.Issuer, Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		trusted, err := identity.NewIssuer(conf.rules(), source)
		if err != nil {
			t.Fatal(err)
		}
		claims := maps.Clone(tt.claims)
		claims["exp"] = time.Now().Add(time.Minute).Unix()
		maps.Copy(claims, tt.changes)
		raw, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims).SignedString(private)
		if err != nil {
			t.Fatal(err)
		}
		who, known, refused := identity.NewIssuers([]*identity.TrustedIssuer{trusted}).Agent(t.Context(), raw)
		if !known || who.ID != tt.want || (refused == nil) != (tt.want != "") {
			t.Errorf("%s with %v: %q, %v", tt.example, tt.changes, who.ID, refused)
		}
		if err := source.Destruct(); err != nil {
			t.Error(err)
		}
	}
}
