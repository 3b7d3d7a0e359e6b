package vault

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/token"
)

// shown is a HolderSource of fixed content.
type shown struct {
	Holder_ Holder
	scheme  bool
}

func (s shown) Holder() Holder { return s.Holder_ }
func (s shown) SaysDPoP() bool { return s.scheme }

type obj = map[string]any

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func segment(v any) string {
	if s, ok := v.(string); ok {
		return b64([]byte(s))
	}
	b, _ := json.Marshal(v) // of texts and numbers
	return b64(b)
}

// A prover makes proofs, good ones and others, with code of its own.
type prover struct {
	alg  string
	jwk  obj
	sign func(text string) []byte
}

func newProver(t testing.TB, alg string) prover {
	t.Helper()
	switch alg {
	case "ES256":
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, _ := k.PublicKey.Bytes()
		return prover{alg, obj{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}, func(text string) []byte {
			sum := sha256.Sum256([]byte(text))
			r, s, _ := ecdsa.Sign(rand.Reader, k, sum[:])
			return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}}
	case "EdDSA":
		pub, priv, _ := ed25519.GenerateKey(rand.Reader)
		return prover{alg, obj{"kty": "OKP", "crv": "Ed25519", "x": b64(pub)}, func(text string) []byte { return ed25519.Sign(priv, []byte(text)) }}
	}
	bits := 2048
	if alg == "RS256-1024" {
		bits, alg = 1024, "RS256"
	}
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Skip(err) // a key this short cannot be made here
	}
	return prover{alg, obj{"kty": "RSA", "n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())}, func(text string) []byte {
		sum := sha256.Sum256([]byte(text))
		if alg == "PS256" {
			sig, _ := rsa.SignPSS(rand.Reader, k, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: 32})
			return sig
		}
		sig, _ := rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
		return sig
	}}
}

func (p prover) header() obj { return obj{"typ": "dpop+jwt", "alg": p.alg, "jwk": p.jwk} }

func (p prover) raw(header, claims any) string {
	text := segment(header) + "." + segment(claims)
	return text + "." + b64(p.sign(text))
}

const callURL = "https://vault.example.com/vault.call"

// good are the claims of a proof for a call with a token.
func good(raw string) obj {
	c := obj{"jti": token.NewID(), "htm": "POST", "htu": callURL, "iat": time.Now().Unix()}
	if raw != "" {
		c["ath"] = token.HashOf(raw)
	}
	return c
}

func with(o obj, pairs ...any) obj {
	out := maps.Clone(o)
	for i := 0; i < len(pairs); i += 2 {
		if out[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
			delete(out, pairs[i].(string))
		}
	}
	return out
}

func holding(proofs ...string) shown {
	return shown{Holder_: Holder{Proofs: proofs, Method: "POST", URL: callURL}, scheme: true}
}

// boundToken issues a token that is bound to the prover's key.
func (p prover) boundToken(t testing.TB, v *Vault) string {
	t.Helper()
	res, refused := v.Issue(t.Context(), local, IssueRequest{Service: "api", Scope: []string{"s1"}, Context: token.Context{AgentID: "a"}, Holder: holding(p.raw(p.header(), good("")))}, new(audit.Record))
	if refused != nil {
		t.Fatal(refused)
	}
	if res.TokenType != "DPoP" {
		t.Errorf("the type is %q", res.TokenType)
	}
	return res.Token
}

func (v *Vault) heldCode(raw string, holder HolderSource) string {
	req := CallRequest{Token: raw, Service: "api", Action: "one", Params: []byte(`{"x":1}`), Holder: holder}
	rec := new(audit.Record)
	t, refused := v.Admit(req, rec)
	if refused == nil {
		refused = v.Call(httptest.NewRecorder(), httptest.NewRequest("POST", "/vault.call", nil), t, req, rec)
	}
	if refused != nil {
		return refused.Code
	}
	return ""
}

func TestProofs(t *testing.T) {
	v := newTestVault(t)
	for _, alg := range []string{"ES256", "EdDSA", "RS256", "PS256"} {
		p := newProver(t, alg)
		raw := p.boundToken(t, v)
		for range 3 {
			if code := v.heldCode(raw, holding(p.raw(p.header(), good(raw)))); code != "" {
				t.Errorf("%s: %s", alg, code)
			}
		}
		if code := v.heldCode(raw, nil); code != "TOKEN_BINDING_REQUIRED" {
			t.Errorf("%s without a proof: %q", alg, code)
		}
	}
	// What a client may write differently.
	p := newProver(t, "ES256")
	raw := p.boundToken(t, v)
	for name, c := range map[string]obj{
		"a port":         with(good(raw), "htu", "https://vault.example.com:443/vault.call"),
		"capitals":       with(good(raw), "htu", "HTTPS://Vault.Example.COM/vault.call"),
		"a query":        with(good(raw), "htu", callURL+"?x=1"),
		"a fragment":     with(good(raw), "htu", callURL+"#x"),
		"an escape":      with(good(raw), "htu", "https://vault.example.com/vault%2ecall"),
		"a claim more":   with(good(raw), "exp", 5, "other", obj{"a": 1}),
		"half a minute":  with(good(raw), "iat", time.Now().Unix()-30),
		"a little ahead": with(good(raw), "iat", time.Now().Unix()+3),
		"with a nonce":   with(good(raw), "nonce", v.proofs.nonce()),
	} {
		if code := v.heldCode(raw, holding(p.raw(p.header(), c))); code != "" {
			t.Errorf("%s: %s", name, code)
		}
	}
}

// TestHostileProofs is every way of a proof to be refused that the tests know.
func TestHostileProofs(t *testing.T) {
	v := newTestVault(t)
	p, other := newProver(t, "ES256"), newProver(t, "ES256")
	ed := newProver(t, "EdDSA")
	raw, unbound := p.boundToken(t, v), ""
	if res, refused := v.Issue(t.Context(), local, IssueRequest{Service: "api", Scope: []string{"s1"}, Context: token.Context{AgentID: "a"}}, new(audit.Record)); refused == nil {
		unbound = res.Token
	}
	c := func(pairs ...any) string { return p.raw(p.header(), with(good(raw), pairs...)) }
	h := func(pairs ...any) string { return p.raw(with(p.header(), pairs...), good(raw)) }
	key := func(pairs ...any) string { return p.raw(with(p.header(), "jwk", with(p.jwk, pairs...)), good(raw)) }
	fine := c()
	parts := strings.Split(fine, ".")
	used := c()
	if code := v.heldCode(raw, holding(used)); code != "" {
		t.Fatal(code)
	}
	hs := func(secret string) string {
		text := segment(obj{"typ": "dpop+jwt", "alg": "HS256", "jwk": obj{"kty": "oct", "k": b64([]byte(secret))}}) + "." + segment(good(raw))
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(text))
		return text + "." + b64(mac.Sum(nil))
	}
	now := time.Now().Unix()
	dup := func(claims string) string { return p.raw(p.header(), claims) }
	json1 := func(extra string) string {
		return fmt.Sprintf(`{"jti":"j","htm":"POST","htu":%q,"iat":%d,"ath":%q%s}`, callURL, now, token.HashOf(raw), extra)
	}
	tests := map[string]string{
		"empty": "", "dots": "..", "a megabyte of dots": strings.Repeat(".", 1<<20), "too long": fine + strings.Repeat("A", token.MaxProof),
		"no signature": parts[0] + "." + parts[1] + ".", "two parts": parts[0] + "." + parts[1], "four parts": fine + ".x",
		"a line break": fine + "\n", "padding": fine + "=", "two in one": fine + ", " + c(), "another's signature": parts[0] + "." + parts[1] + "." + strings.Split(c(), ".")[2],
		"claims changed":  parts[0] + "." + segment(good(raw)) + "." + parts[2],
		"a bit of it":     fine[:len(fine)-1],
		"used before":     used,
		"another key":     other.raw(other.header(), good(raw)),
		"key of another":  p.raw(other.header(), good(raw)),
		"other algorithm": ed.raw(ed.header(), good(raw)),
		"alg none":        segment(obj{"typ": "dpop+jwt", "alg": "none", "jwk": p.jwk}) + "." + segment(good(raw)) + ".",
		"alg None":        h("alg", "None"), "alg HS256": hs(strings.Repeat("k", 32)), "HS256 with the public key": h("alg", "HS256"),
		"alg ES384": h("alg", "ES384"), "alg EdDSA with a P-256 key": h("alg", "EdDSA"), "alg RS256 with a P-256 key": h("alg", "RS256"),
		"alg a number": h("alg", 5), "no alg": h("alg", nil), "no typ": h("typ", nil), "typ JWT": h("typ", "JWT"), "typ in capitals": h("typ", "DPOP+JWT"),
		"the media type": h("typ", "application/dpop+jwt"), "no jwk": h("jwk", nil), "jwk a text": h("jwk", "x"), "jwk null": h("jwk", nil, "jwk", json.RawMessage("null")),
		"crit": h("crit", []string{"exp"}), "jku": h("jku", "https://evil.example/"), "x5c": h("x5c", []string{"x"}), "b64": h("b64", false), "zip": h("zip", "DEF"),
		"a private key": key("d", b64(make([]byte, 32))), "a symmetric key": key("k", "AAAA"), "kty oct": key("kty", "oct"), "kty OKP": key("kty", "OKP"),
		"crv P-384": key("crv", "P-384"), "x of zeros": key("x", b64(make([]byte, 32))), "x short": key("x", b64(make([]byte, 31))), "y missing": key("y", nil), "x padded": key("x", p.jwk["x"].(string)+"="),
		"key for encryption": key("use", "enc"), "key of another alg": key("alg", "EdDSA"),
		"no jti": c("jti", nil), "jti empty": c("jti", ""), "jti a number": c("jti", 1), "jti of a kilobyte": c("jti", strings.Repeat("j", 1<<10)),
		"no htm": c("htm", nil), "htm GET": c("htm", "GET"), "htm in lower case": c("htm", "post"),
		"no htu": c("htu", nil), "htu of another host": c("htu", "https://evil.example/vault.call"), "htu http": c("htu", "http://vault.example.com/vault.call"),
		"htu of another route": c("htu", "https://vault.example.com/vault.issueToken"), "htu with a slash": c("htu", callURL+"/"), "htu in capitals": c("htu", "https://vault.example.com/VAULT.call"),
		"htu another port": c("htu", "https://vault.example.com:444/vault.call"), "htu with a user": c("htu", "https://vault.example.com@evil.example/vault.call"),
		"htu relative": c("htu", "/vault.call"), "htu a prefix": c("htu", "https://vault.example.com/"), "htu an encoded slash": c("htu", "https://vault.example.com%2fvault.call"),
		"no iat": c("iat", nil), "iat a text": c("iat", fmt.Sprint(now)), "iat of 1e18": c("iat", 1e18), "iat negative": c("iat", -1), "iat a fraction": c("iat", float64(now)+0.5),
		"two minutes old": c("iat", now-120), "a minute ahead": c("iat", now+60), "iat milliseconds": c("iat", now*1000),
		"no ath": c("ath", nil), "ath of another token": c("ath", token.HashOf(unbound)), "ath in hex": c("ath", fmt.Sprintf("%x", sha256.Sum256([]byte(raw)))), "ath empty": c("ath", ""),
		"a claim twice":  dup(json1(`,"jti":"k"`)),
		"htu twice":      dup(json1(`,"htu":"` + callURL + `"`)),
		"data behind":    dup(json1("") + "{}"),
		"an array":       dup("[]"),
		"invalid UTF-8":  dup(strings.Replace(json1(""), `"j"`, "\"\xff\"", 1)),
		"null in claims": dup(strings.Replace(json1(""), `"j"`, "null", 1)),
	}
	if len(tests) < 70 {
		t.Fatalf("%d proofs", len(tests))
	}
	for name, proof := range tests {
		if code := v.heldCode(raw, holding(proof)); code != "DPOP_PROOF_INVALID" {
			t.Errorf("%s: %q", name, code)
		}
	}
	for name, tt := range map[string]struct {
		raw    string
		holder HolderSource
		code   string
	}{
		"two headers":                      {raw, holding(c(), c()), "DPOP_PROOF_INVALID"},
		"no header":                        {raw, holding(), "TOKEN_BINDING_REQUIRED"},
		"a nonce of nobody":                {raw, holding(c("nonce", "x")), "DPOP_NONCE_REQUIRED"},
		"a nonce of another vault":         {raw, holding(c("nonce", newProofs(time.Now).nonce())), "DPOP_NONCE_REQUIRED"},
		"an old nonce":                     {raw, holding(c("nonce", (&proofs{now: func() time.Time { return time.Now().Add(-time.Hour) }, key: v.proofs.key}).nonce())), "DPOP_NONCE_REQUIRED"},
		"the scheme with an unbound token": {unbound, holding(c()), "TOKEN_INVALID"},
		"a certificate in place of a key":  {raw, shown{Holder_: Holder{Certificate: strings.Repeat("A", 43)}}, "TOKEN_BINDING_REQUIRED"},
	} {
		if code := v.heldCode(tt.raw, tt.holder); code != tt.code {
			t.Errorf("%s: %q, want %q", name, code, tt.code)
		}
	}
	// The one that all were made from is good.
	if code := v.heldCode(raw, holding(fine)); code != "" {
		t.Error(code)
	}
	if weak := newProver(t, "RS256-1024"); v.heldCode(raw, holding(weak.raw(weak.header(), good(raw)))) != "DPOP_PROOF_INVALID" {
		t.Error("a key of 1024 bits")
	}
}

// TestBinding is about what a new token is bound to, and its children.
func TestBinding(t *testing.T) {
	v := newTestVault(t)
	p := newProver(t, "EdDSA")
	cert := strings.Repeat("A", 43)
	tls := shown{Holder_: Holder{Method: "POST", URL: callURL, Certificate: cert}}
	proof := func() shown { return holding(p.raw(p.header(), good(""))) }
	for name, tt := range map[string]struct {
		asked, demanded string
		holder          HolderSource
		code, bound     string
	}{
		"nothing":                        {"", "", nil, "", ""},
		"a proof":                        {"", "", proof(), "", "dpop"},
		"a certificate, not asked for":   {"", "", tls, "", ""},
		"a certificate":                  {BindMTLS, "", tls, "", "mtls"},
		"no certificate":                 {BindMTLS, "", proof(), "TOKEN_BINDING_REQUIRED", ""},
		"no proof":                       {BindDPoP, "", tls, "TOKEN_BINDING_REQUIRED", ""},
		"something":                      {"x", "", tls, "BIND_INVALID", ""},
		"demanded: a proof":              {"", BindDPoP, proof(), "", "dpop"},
		"demanded: no proof":             {"", BindDPoP, tls, "TOKEN_BINDING_REQUIRED", ""},
		"demanded: nothing at all":       {"", BindAny, nil, "TOKEN_BINDING_REQUIRED", ""},
		"demanded: any, a certificate":   {"", BindAny, tls, "", "mtls"},
		"demanded: any, a proof":         {"", BindAny, proof(), "", "dpop"},
		"demanded: the other":            {BindMTLS, BindDPoP, tls, "TOKEN_BINDING_REQUIRED", ""},
		"demanded: mtls":                 {"", BindMTLS, tls, "", "mtls"},
		"demanded: mtls, with a proof":   {"", BindMTLS, proof(), "TOKEN_BINDING_REQUIRED", ""},
		"demanded: mtls, asked for dpop": {BindDPoP, BindMTLS, proof(), "TOKEN_BINDING_REQUIRED", ""},
	} {
		caller := local
		caller.Binding = tt.demanded
		res, refused := v.Issue(t.Context(), caller, IssueRequest{Service: "api", Scope: []string{"s1"}, Context: token.Context{AgentID: "a"}, Holder: tt.holder, Bind: tt.asked}, new(audit.Record))
		code := ""
		if refused != nil {
			code = refused.Code
		}
		if code != tt.code {
			t.Errorf("%s: %q, want %q", name, code, tt.code)
			continue
		}
		if refused == nil {
			if info, _ := v.Introspect(local, true, res.Token); info.Bound != tt.bound {
				t.Errorf("%s: bound %q, want %q", name, info.Bound, tt.bound)
			}
		}
	}

	held, refused := v.Issue(t.Context(), local, IssueRequest{Service: "api", Scope: []string{"s1"}, Context: token.Context{AgentID: "a"}, Holder: tls, Bind: BindMTLS}, new(audit.Record))
	if refused != nil {
		t.Fatal(refused)
	}
	if code := v.heldCode(held.Token, tls); code != "" {
		t.Error(code)
	}
	other := tls
	other.Holder_.Certificate = strings.Repeat("B", 43)
	for _, h := range []HolderSource{nil, other, proof()} {
		if code := v.heldCode(held.Token, h); code != "TOKEN_BINDING_REQUIRED" {
			t.Errorf("%+v: %q", h, code)
		}
	}

	// A child is bound as its parent, or to a key that proves itself.
	parent, child := newProver(t, "ES256"), newProver(t, "ES256")
	raw := parent.boundToken(t, v)
	if _, refused := v.Delegate(t.Context(), local, DelegateRequest{Token: raw}, new(audit.Record)); refused == nil || refused.Code != "TOKEN_BINDING_REQUIRED" {
		t.Errorf("delegated without a proof: %v", refused)
	}
	same, refused := v.Delegate(t.Context(), local, DelegateRequest{Token: raw, Holder: holding(parent.raw(parent.header(), good(raw)))}, new(audit.Record))
	if refused != nil || same.TokenType != "DPoP" {
		t.Fatal(refused)
	}
	if code := v.heldCode(same.Token, holding(parent.raw(parent.header(), good(same.Token)))); code != "" {
		t.Error(code)
	}
	own, refused := v.Delegate(t.Context(), local, DelegateRequest{Token: raw, AgentID: "b", Holder: holding(parent.raw(parent.header(), good(raw))), NewHolder: child.raw(child.header(), good(""))}, new(audit.Record))
	if refused != nil {
		t.Fatal(refused)
	}
	if code := v.heldCode(own.Token, holding(parent.raw(parent.header(), good(own.Token)))); code != "DPOP_PROOF_INVALID" {
		t.Errorf("the parent's key with the child's token: %q", code)
	}
	if code := v.heldCode(own.Token, holding(child.raw(child.header(), good(own.Token)))); code != "" {
		t.Error(code)
	}
}

// TestProofsOfBefore is about proofs that may have been used before a restart.
func TestProofsOfBefore(t *testing.T) {
	v := newTestVault(t)
	p := newProver(t, "EdDSA")
	raw := p.boundToken(t, v)
	old := p.raw(p.header(), with(good(raw), "iat", time.Now().Unix()-10))
	v.proofs = newProofs(time.Now)
	if code := v.heldCode(raw, holding(old)); code != "DPOP_PROOF_INVALID" {
		t.Errorf("%q", code)
	}
	if code := v.heldCode(raw, holding(p.raw(p.header(), good(raw)))); code != "" {
		t.Errorf("%q", code)
	}
}

// TestNonces asks for the vault's nonce in every proof.
func TestNonces(t *testing.T) {
	v := newTestVault(t)
	v.DPoPNonce = true
	p := newProver(t, "EdDSA")
	issue := func(claims obj) string {
		_, refused := v.Issue(t.Context(), local, IssueRequest{Service: "api", Scope: []string{"s1"}, Context: token.Context{AgentID: "a"}, Holder: holding(p.raw(p.header(), claims))}, new(audit.Record))
		if refused != nil {
			return refused.Code + " " + strings.Join(refused.Challenge, "")
		}
		return ""
	}
	if got := issue(good("")); !strings.HasPrefix(got, `DPOP_NONCE_REQUIRED DPoP error="use_dpop_nonce"`) {
		t.Error(got)
	}
	if got := issue(with(good(""), "nonce", v.DPoPNonceNow(false))); got != "" {
		t.Error(got)
	}
}

// TestProofMemory fills a shard: then proofs are refused, and forgotten in
// time.
func TestProofMemory(t *testing.T) {
	clock := time.Now()
	p := newProofs(func() time.Time { return clock })
	for i := range proofsKept {
		if fresh, room := p.use("key", fmt.Sprint(i)); !fresh || !room {
			t.Fatal(i, fresh, room)
		}
	}
	if _, room := p.use("key", "one more"); room {
		t.Error("more than there is room for")
	}
	if fresh, _ := p.use("key", "0"); fresh {
		t.Error("forgotten while full")
	}
	clock = clock.Add(proofAge + proofAhead + 6*time.Second)
	if _, room := p.use("key", "one more"); !room {
		t.Error("no room in the next period")
	}
	if fresh, _ := p.use("key", "0"); fresh {
		t.Error("forgotten too early")
	}
	clock = clock.Add(3 * proofAge)
	if fresh, room := p.use("key", "0"); !fresh || !room {
		t.Error("remembered for ever")
	}
}

// TestBindingDemanded has an agent's record demand another binding than the
// agent's tokens have.
func TestBindingDemanded(t *testing.T) {
	v := newTestVault(t)
	tls := shown{Holder_: Holder{Method: "POST", URL: callURL, Certificate: strings.Repeat("A", 43)}}
	p := newProver(t, "EdDSA")
	tokens := map[string]string{}
	for name, c := range map[string]struct {
		bind string
		h    HolderSource
	}{"none": {}, "mtls": {BindMTLS, tls}, "dpop": {BindDPoP, holding(p.raw(p.header(), good("")))}} {
		res, refused := v.Issue(t.Context(), local, IssueRequest{Service: "api", Scope: []string{"s1"}, Context: token.Context{AgentID: "a"}, Holder: c.h, Bind: c.bind}, new(audit.Record))
		if refused != nil {
			t.Fatal(refused)
		}
		tokens[name] = res.Token
	}
	if _, refused := v.AddAgent(t.Context(), "a", AgentChange{}, new(audit.Record)); refused != nil {
		t.Fatal(refused)
	}
	for demanded, good := range map[string][]string{"": {"none", "mtls", "dpop"}, "any": {"mtls", "dpop"}, "mtls": {"mtls"}, "dpop": {"dpop"}} {
		if refused := v.UpdateAgent(t.Context(), "a", AgentChange{Binding: &demanded}, new(audit.Record)); refused != nil {
			t.Fatal(refused)
		}
		for name, raw := range tokens {
			parsed, refused := v.tokens.Verify(raw)
			if refused != nil {
				t.Fatal(refused)
			}
			want := "TOKEN_BINDING_REQUIRED"
			if slices.Contains(good, name) {
				want = ""
			}
			// This is what cuts calls and guards records.
			if code := v.revoked(parsed.Ext.(*tokenKeys)); code != want {
				t.Errorf("%s is demanded, bound %s: %q, want %q", demanded, name, code, want)
			}
			if info, _ := v.Introspect(local, true, raw); info.Active != (want == "") {
				t.Errorf("%s is demanded, bound %s: active %t", demanded, name, info.Active)
			}
		}
	}
}
