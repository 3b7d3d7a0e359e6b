package identity

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestAlgorithms takes a JWT of every algorithm, and none of them for another.
func TestAlgorithms(t *testing.T) {
	trusted := newTrusted(t, Rules{}, fixed(t, jwksOf("rsa", "p256", "p384", "p521", "ed")))
	for _, alg := range Algorithms {
		name := map[string]string{"ES256": "p256", "ES384": "p384", "ES512": "p521", "EdDSA": "ed"}[alg]
		if name == "" {
			name = "rsa"
		}
		raw := sign(alg, testKeys()[name], `{"alg":"`+alg+`","kid":"`+name+`","x5t":"abc"}`, goodClaims(nil))
		who, known, refused := NewIssuers([]*TrustedIssuer{trusted}).Agent(t.Context(), raw)
		if refused != nil || !known || who.ID != "tony" {
			t.Errorf("%s: %+v %v %v", alg, who, known, refused)
		}
		for _, other := range []string{"rsa", "p256", "p384", "p521", "ed"} {
			if other == name {
				continue
			}
			raw := sign(alg, testKeys()[name], `{"alg":"`+alg+`","kid":"`+other+`"}`, goodClaims(nil))
			if _, refused := trusted.agent(t.Context(), raw); refused == nil || refused.Code != "AGENT_TOKEN_INVALID" {
				t.Errorf("%s with the key %s: %v", alg, other, refused)
			}
		}
	}
	only := newTrusted(t, Rules{Algorithms: []string{"ES256"}}, fixed(t, jwksOf("ed", "p256")))
	if _, refused := only.agent(t.Context(), signed(goodClaims(nil))); refused == nil {
		t.Error("an algorithm that is not listed")
	}
}

// TestClaims takes what the standards let an issuer write.
func TestClaims(t *testing.T) {
	now := float64(time.Now().Unix())
	keys := fixed(t, jwksOf("ed"))
	for name, tt := range map[string]struct {
		rules   Rules
		payload string
		header  string
		want    Agent
	}{
		"plain":               {payload: goodClaims(nil), want: Agent{ID: "tony"}},
		"one of many for us":  {payload: with("aud", []string{"other", testAudience}), want: Agent{ID: "tony"}},
		"a second audience":   {rules: Rules{Audiences: []string{"other", testAudience}}, payload: goodClaims(nil), want: Agent{ID: "tony"}},
		"a fraction":          {payload: with("exp", now+60.75), want: Agent{ID: "tony"}},
		"no nbf, no iat":      {payload: goodClaims(map[string]any{"nbf": nil, "iat": nil}), want: Agent{ID: "tony"}},
		"clocks differ":       {payload: goodClaims(map[string]any{"iat": now + 20, "nbf": now + 20}), want: Agent{ID: "tony"}},
		"just expired":        {payload: goodClaims(map[string]any{"exp": now - 3, "iat": nil, "nbf": nil}), want: Agent{ID: "tony"}},
		"an access token":     {payload: goodClaims(nil), header: `{"alg":"EdDSA","typ":"application/at+jwt","kid":"ed"}`, want: Agent{ID: "tony"}},
		"no typ":              {payload: goodClaims(nil), header: `{"alg":"EdDSA","kid":"ed"}`, want: Agent{ID: "tony"}},
		"no kid, one key":     {payload: goodClaims(nil), header: `{"alg":"EdDSA"}`, want: Agent{ID: "tony"}},
		"another claim":       {rules: Rules{Claim: "client"}, payload: with("client", "ci"), want: Agent{ID: "ci"}},
		"a claim in a claim":  {rules: Rules{Claim: "/a~1b/name"}, payload: with("a/b", map[string]any{"name": "ci"}), want: Agent{ID: "ci"}},
		"groups":              {rules: Rules{GroupClaim: "groups"}, payload: with("groups", []string{"a", "b", "a", "*", "group:c", "", "d\n"}), want: Agent{"tony", []string{"a", "b"}}},
		"one group":           {rules: Rules{GroupClaim: "/realm/roles"}, payload: with("realm", map[string]any{"roles": "a"}), want: Agent{"tony", []string{"a"}}},
		"no groups":           {rules: Rules{GroupClaim: "groups"}, payload: goodClaims(nil), want: Agent{ID: "tony"}},
		"groups of no use":    {rules: Rules{GroupClaim: "groups"}, payload: with("groups", map[string]any{"a": true}), want: Agent{ID: "tony"}},
		"groups, not all":     {rules: Rules{GroupClaim: "groups"}, payload: with("groups", []any{"a", 1}), want: Agent{ID: "tony"}},
		"mapped":              {rules: Rules{Map: [][2]string{{"nobody", "x"}, {"to*", "agents/*"}}}, payload: goodClaims(nil), want: Agent{ID: "agents/ny"}},
		"required":            {rules: Rules{Require: []Requirement{{"env", []string{"test", "prod-*"}}, {"verified", []string{"true"}}, {"id", []string{"42"}}}}, payload: goodClaims(map[string]any{"env": "prod-1", "verified": true, "id": 42}), want: Agent{ID: "tony"}},
		"required, of a list": {rules: Rules{Require: []Requirement{{"groups", []string{"vault"}}}}, payload: with("groups", []string{"a", "vault"}), want: Agent{ID: "tony"}},
	} {
		if tt.header == "" {
			tt.header = edHeader("")
		}
		raw := sign("EdDSA", testKeys()["ed"], tt.header, tt.payload)
		who, refused := newTrusted(t, tt.rules, keys).agent(t.Context(), raw)
		if refused != nil || !reflect.DeepEqual(who, tt.want) {
			t.Errorf("%s: %+v, %v", name, who, refused)
		}
	}
}

// TestOrder sees that nothing is told of the rules to who has no signature.
func TestOrder(t *testing.T) {
	trusted := newTrusted(t, Rules{Map: [][2]string{{"secret-project/*", "*"}}}, fixed(t, jwksOf("ed")))
	raw := signed(goodClaims(map[string]any{"sub": "unknown", "aud": "elsewhere"}))
	forged := raw[:len(raw)-8] + "AAAAAAAA"
	_, refused := trusted.agent(t.Context(), forged)
	if refused == nil || !strings.Contains(refused.Detail, "signature") || strings.Contains(refused.Detail+refused.Hint, testAudience) {
		t.Errorf("%v %s", refused, refused.Hint)
	}
	_, refused = trusted.agent(t.Context(), raw)
	if refused == nil || !strings.Contains(refused.Hint, testAudience) {
		t.Errorf("%v", refused)
	}
	_, refused = trusted.agent(t.Context(), signed(with("sub", "team/unknown")))
	if refused == nil || !strings.Contains(refused.Detail, `sub "team/unknown"`) || !strings.Contains(refused.Hint, "map team/unknown ") {
		t.Errorf("%v %s", refused, refused.Hint)
	}
}

func TestRulesRefused(t *testing.T) {
	for name, r := range map[string]Rules{
		"no audience":        {Audiences: []string{}},
		"an empty audience":  {Audiences: []string{""}},
		"alg none":           {Algorithms: []string{"none"}},
		"alg HS256":          {Algorithms: []string{"RS256", "HS256"}},
		"alg of no case":     {Algorithms: []string{"rs256"}},
		"max_stale":          {MaxStale: time.Second},
		"no agent":           {Map: [][2]string{{"a", ""}}},
		"an agent of all":    {Map: [][2]string{{"a", "*"}}},
		"an agent, a group":  {Map: [][2]string{{"a", "group:x"}}},
		"more stars":         {Map: [][2]string{{"a/*", "*/*"}}},
		"fewer stars":        {Map: [][2]string{{"a/*/*", "x-*"}}},
		"stars run together": {Map: [][2]string{{"*/*", "**"}}},
		"stars with a dash":  {Map: [][2]string{{"*/*", "*-*"}}},
		"three stars":        {Map: [][2]string{{"a***", "x"}}},
		"no pattern":         {Map: [][2]string{{"", "x"}}},
		"require nothing":    {Require: []Requirement{{"", []string{"x"}}}},
		"require no values":  {Require: []Requirement{{"a", nil}}},
		"require no pattern": {Require: []Requirement{{"a", []string{"x", ""}}}},
	} {
		r.Issuer = testIssuer
		if r.Audiences == nil {
			r.Audiences = []string{testAudience}
		}
		if _, err := NewIssuer(r, nil); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestMapping(t *testing.T) {
	for _, tt := range []struct {
		pattern, agent, value, want string
	}{
		{"repo:octo/app:ref:refs/heads/main", "ci", "repo:octo/app:ref:refs/heads/main", "ci"},
		{"repo:octo/*:ref:refs/heads/main", "ci-*", "repo:octo/app:ref:refs/heads/main", "ci-app"},
		{"repo:octo/*:**", "ci-*", "repo:octo/app:environment:prod", "ci-app"},
		{"repo:octo/*:**", "ci-*", "repo:octo/app:", ""},
		{"repo:octo/*:ref:refs/heads/main", "ci-*", "repo:octo/a/b:ref:refs/heads/main", ""},
		{"repo:octo/*:ref:refs/heads/main", "ci-*", "repo:octo/app:x:ref:refs/heads/main", ""},
		{"repo:octo/*:ref:refs/heads/main", "ci-*", "repo:octo/:ref:refs/heads/main", ""},
		{"repo:octo/*:ref:refs/heads/main", "ci-*", "repo:octo/app:ref:refs/heads/main2", ""},
		{"repo:octo/*:ref:refs/heads/main", "ci-*", "xrepo:octo/app:ref:refs/heads/main", ""},
		{"repo:octo/*:ref:refs/heads/main", "ci-*", "repo:octo/app:ref:refs/heads/main\n", ""},
		{"system:serviceaccount:*:*", "*/*", "system:serviceaccount:prod:agent", "prod/agent"},
		{"spiffe://corp/agents/*", "*", "spiffe://corp/agents/tony", "tony"},
		{"spiffe://corp/agents/*", "*", "spiffe://corp/agents/tony/x", ""},
		{"a.c", "x", "abc", ""},
		{"a+(b)*", "*", "a+(b)x", "x"},
		{"*", "*", "a b", "a b"},
		{"*", "*", "a:b", ""},
		{"**", "x", "a:b/c\nd", "x"},
		{"pre*post", "*", "prepost", ""},
		{"A*", "*", "ab", ""},
	} {
		m, err := newMapping(tt.pattern, tt.agent)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		if got, ok := m.apply(tt.value); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s of %q: %q", tt.pattern, tt.value, got)
		}
	}
}
