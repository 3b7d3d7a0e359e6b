package identity

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"
)

func hs256(key []byte, header, payload string) string {
	signed := encode(header) + "." + encode(payload)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// hostile is every JWT to be refused that the tests know. All are shown to one
// vault that trusts the keys rsa, p256 and ed, and maps agents/* to *.
func hostile() map[string]string {
	keys := testKeys()
	ed := keys["ed"]
	pub := ed.Public().(ed25519.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(keys["rsa"].Public())
	if err != nil {
		panic(err)
	}
	rsaPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	fine := with("sub", "agents/tony")
	good := signed(fine)
	parts := strings.Split(good, ".")
	head := func(header string) string { return sign("EdDSA", ed, header, fine) }
	more := func(member string) string { return head(edHeader("," + member)) }
	claim := func(name string, value any) string {
		return signed(goodClaims(map[string]any{"sub": "agents/tony", name: value}))
	}
	raw := func(old, changed string) string {
		if strings.Count(fine, old) != 1 {
			panic("not once: " + old)
		}
		return signed(strings.Replace(fine, old, changed, 1))
	}
	unsigned := func(alg string) string {
		return encode(`{"alg":"`+alg+`","typ":"JWT"}`) + "." + encode(fine) + "."
	}
	now := time.Now().Unix()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	respelled := good[:len(good)-1] + string(alphabet[strings.IndexByte(alphabet, good[len(good)-1])^1])
	return map[string]string{
		// The form.
		"four parts":                  good + ".x",
		"a JWE":                       parts[0] + ".." + parts[1] + "." + parts[2] + "." + parts[2],
		"a megabyte of dots":          strings.Repeat(".", 1<<20),
		"a megabyte of one part":      strings.Repeat("A", 1<<20) + ".A.A",
		"too long, well signed":       claim("x", strings.Repeat("x", MaxJWT)),
		"no signature":                parts[0] + "." + parts[1] + ".",
		"half a signature":            good[:len(good)-20],
		"a signature twice":           good + parts[2],
		"other trailing bits":         respelled,
		"a line break inside":         good[:30] + "\n" + good[30:],
		"padding":                     good + "=",
		"a NUL at the end":            good + "\x00",
		"another payload":             parts[0] + "." + encode(with("sub", "agents/steve")) + "." + parts[2],
		"a header that is null":       head(`null`),
		"a header that is an array":   head(`[]`),
		"data after the header":       head(edHeader("") + "{}"),
		"a header that is not UTF-8":  head(edHeader(",\"x\":\"\xff\"")),
		"a payload that is null":      signed(`null`),
		"a payload that is a string":  signed(`"sub"`),
		"a payload in an array":       signed(`[` + fine + `]`),
		"data after the payload":      signed(fine + `{}`),
		"a cut payload":               signed(fine[:len(fine)-1]),
		"a payload that is not UTF-8": raw(`"agents/tony"`, "\"agents/tony\xff\""),
		"a lone surrogate":            raw(`"agents/tony"`, `"agents/tony\ud800"`),
		"nested without end":          signed(strings.TrimSuffix(fine, "}") + `,"x":` + strings.Repeat("[", 10500) + `}`),

		// The algorithm and the key.
		"alg none":                     unsigned("none"),
		"alg None":                     unsigned("None"),
		"alg nOnE with a signature":    unsigned("nOnE") + parts[2],
		"alg empty":                    unsigned(""),
		"no alg":                       head(`{"typ":"JWT","kid":"ed"}`),
		"alg null":                     head(`{"alg":null,"kid":"ed"}`),
		"alg an array":                 head(`{"alg":["EdDSA"],"kid":"ed"}`),
		"alg in another case":          head(`{"alg":"eddsa","kid":"ed"}`),
		"Alg":                          head(`{"Alg":"EdDSA","kid":"ed"}`),
		"alg Ed448":                    head(`{"alg":"Ed448","kid":"ed"}`),
		"HS256 with the public PEM":    hs256(rsaPEM, `{"alg":"HS256","kid":"rsa"}`, fine),
		"HS256 with the modulus":       hs256(keys["rsa"].Public().(*rsa.PublicKey).N.Bytes(), `{"alg":"HS256","kid":"rsa"}`, fine),
		"HS256 with the Ed25519 key":   hs256(pub, `{"alg":"HS256","kid":"ed"}`, fine),
		"HS256 with an empty key":      hs256(nil, `{"alg":"HS256"}`, fine),
		"another key under a kid":      sign("RS256", keys["other"], `{"alg":"RS256","kid":"rsa"}`, fine),
		"a kid of another key":         sign("RS256", keys["rsa"], `{"alg":"RS256","kid":"ed"}`, fine),
		"an unknown kid":               head(`{"alg":"EdDSA","kid":"elsewhere"}`),
		"a kid that is a path":         head(`{"alg":"EdDSA","kid":"../../dev/null"}`),
		"an empty kid":                 head(`{"alg":"EdDSA","kid":""}`),
		"kid null":                     head(`{"alg":"EdDSA","kid":null}`),
		"a long kid":                   head(`{"alg":"EdDSA","kid":"` + strings.Repeat("k", maxKid+1) + `"}`),
		"two kids":                     more(`"kid":"rsa"`),
		"two algs":                     more(`"alg":"none"`),
		"two algs, one escaped":        more(`"\u0061lg":"none"`),
		"RS256 said, PS256 signed":     strings.Replace(sign("PS256", keys["rsa"], `{"alg":"PS256","kid":"rsa"}`, fine), encode(`{"alg":"PS256","kid":"rsa"}`), encode(`{"alg":"RS256","kid":"rsa"}`), 1),
		"ES384 with a P-256 key":       head(`{"alg":"ES384","kid":"p256"}`),
		"ES256, a signature of zeroes": encode(`{"alg":"ES256","kid":"p256"}`) + "." + encode(fine) + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
		"ES256, a DER signature":       encode(`{"alg":"ES256","kid":"p256"}`) + "." + encode(fine) + "." + base64.RawURLEncoding.EncodeToString(append([]byte{0x30, 0x44, 2, 0x20}, make([]byte, 66)...)),

		// What a header brings along.
		"crit":               more(`"crit":["exp"]`),
		"crit, empty":        more(`"crit":[]`),
		"b64 false":          more(`"b64":false,"crit":["b64"]`),
		"b64 without crit":   more(`"b64":true`),
		"its own key":        sign("RS256", keys["other"], `{"alg":"RS256","kid":"other","jwk":`+jwkOf("other")+`}`, fine),
		"our key as its own": more(`"jwk":` + jwkOf("ed")),
		"jku":                more(`"jku":"https://attacker.example/jwks.json"`),
		"x5u":                more(`"x5u":"https://attacker.example/x.pem"`),
		"zip":                more(`"zip":"DEF"`),
		"cty":                more(`"cty":"JWT"`),
		"enc":                more(`"enc":"A128GCM"`),
		"a proof":            head(`{"alg":"EdDSA","typ":"dpop+jwt","kid":"ed"}`),
		"an event":           head(`{"alg":"EdDSA","typ":"secevent+jwt","kid":"ed"}`),
		"a logout":           head(`{"alg":"EdDSA","typ":"logout+jwt","kid":"ed"}`),
		"typ null":           head(`{"alg":"EdDSA","typ":null,"kid":"ed"}`),

		// The claims.
		"expired":                   signed(goodClaims(map[string]any{"sub": "agents/tony", "exp": now - 31, "iat": now - 600, "nbf": nil})),
		"no exp":                    claim("exp", nil),
		"exp null":                  raw(`"exp":`, `"exp":null,"x":`),
		"exp a string":              claim("exp", fmt.Sprint(now+60)),
		"exp 0":                     claim("exp", 0),
		"exp below 0":               claim("exp", -1),
		"exp 1e18":                  raw(`"exp":`, `"exp":1e18,"x":`),
		"exp 1e400":                 raw(`"exp":`, `"exp":1e400,"x":`),
		"exp twice":                 raw(`"exp":`, fmt.Sprintf(`"exp":%d,"exp":`, now-600)),
		"Exp":                       raw(`"exp":`, `"Exp":`),
		"nbf in a minute":           claim("nbf", now+60),
		"iat in a minute":           claim("iat", now+60),
		"expires before it is made": signed(goodClaims(map[string]any{"sub": "agents/tony", "exp": now - 10, "iat": now + 10, "nbf": nil})),
		"nbf a string":              claim("nbf", "now"),
		"aud of another":            claim("aud", "https://other.example"),
		"aud with a slash":          claim("aud", testAudience+"/"),
		"aud that begins so":        claim("aud", testAudience+".attacker.example"),
		"aud in another case":       claim("aud", strings.ToUpper(testAudience)),
		"no aud":                    claim("aud", nil),
		"aud, empty":                claim("aud", ""),
		"aud, an empty list":        claim("aud", []string{}),
		"aud, an object":            claim("aud", map[string]any{testAudience: true}),
		"aud, a list in a list":     claim("aud", []any{[]string{testAudience}}),
		"aud, also a number":        claim("aud", []any{testAudience, 1}),
		"aud twice":                 raw(`"aud":`, `"aud":"https://other.example","aud":`),
		"iss with a slash":          claim("iss", testIssuer+"/"),
		"iss in another case":       claim("iss", "https://ISSUER.example"),
		"iss of another":            claim("iss", "https://attacker.example"),
		"no iss":                    claim("iss", nil),
		"iss, a list":               claim("iss", []string{testIssuer}),
		"iss twice":                 raw(`"iss":`, `"iss":"https://attacker.example","iss":`),
		"iss twice, one escaped":    raw(`"iss":`, `"\u0069ss":"https://attacker.example","iss":`),
		"bound to a key":            claim("cnf", map[string]any{"jkt": "x"}),
		"cnf null":                  claim("cnf", map[string]any(nil)),
		"no sub":                    claim("sub", nil),
		"sub, empty":                claim("sub", ""),
		"sub, a number":             claim("sub", 1),
		"sub, a list":               claim("sub", []string{"agents/tony"}),
		"sub twice":                 raw(`"sub":`, `"sub":"agents/steve","sub":`),
		"sub that is not mapped":    claim("sub", "tony"),
		"sub in another segment":    claim("sub", "agents/tony/x"),
		"sub of all":                claim("sub", "agents/*"),
		"sub with a line break":     claim("sub", "agents/to\nny"),
		"sub with a NUL":            claim("sub", "agents/\x00"),
		"sub that is too long":      claim("sub", "agents/"+strings.Repeat("x", 300)),
		"required, another":         signed(goodClaims(map[string]any{"sub": "agents/tony", "env": "test"})),
		"a duplicate deep inside":   raw(`"sub":`, `"x":{"a":1,"a":2},"sub":`),
	}
}

// TestHostile shows each of them, beside a good one that differs in nothing
// else.
func TestHostile(t *testing.T) {
	trusted := newTrusted(t, Rules{Map: [][2]string{{"agents/*", "*"}}, Require: []Requirement{{"sub", []string{"agents/**"}}}}, fixed(t, jwksOf("rsa", "p256", "ed")))
	requiring := newTrusted(t, Rules{Map: [][2]string{{"agents/*", "*"}}, Require: []Requirement{{"env", []string{"prod", "stage"}}}}, fixed(t, jwksOf("rsa", "p256", "ed")))
	if who, known, refused := NewIssuers([]*TrustedIssuer{trusted}).Agent(t.Context(), signed(with("sub", "agents/tony"))); !known || refused != nil || who.ID != "tony" {
		t.Fatalf("a good one: %+v %v", who, refused)
	}
	cases := hostile()
	if len(cases) < 100 {
		t.Fatalf("only %d", len(cases))
	}
	for name, raw := range cases {
		issuer := trusted
		if strings.HasPrefix(name, "required") {
			issuer = requiring
		}
		x := NewIssuers([]*TrustedIssuer{issuer})
		who, known, refused := x.Agent(t.Context(), raw)
		if !known {
			// Nobody else takes it either.
			refused = x.Foreign(raw)
		}
		switch {
		case refused == nil || who.ID != "":
			t.Errorf("%s: taken for %+v", name, who)
		case refused.Code != "AGENT_TOKEN_INVALID" || refused.Status != 401 || len(refused.Challenge) == 0:
			t.Errorf("%s: %+v", name, refused)
		default:
			for i, part := range strings.Split(raw, ".") {
				if len(part) > 12 && i < 5 && strings.Contains(refused.Detail+refused.Hint+fmt.Sprint(refused.Cause), part) {
					t.Errorf("%s: the refusal quotes the JWT: %s", name, refused.Detail)
				}
			}
		}
	}
}

// FuzzJWT looks for a JWT that is taken though nobody has signed it.
func FuzzJWT(f *testing.F) {
	trusted := newTrusted(f, Rules{}, fixed(f, jwksOf("rsa", "p256", "ed")))
	good := signed(goodClaims(nil))
	f.Add(good)
	known := map[string]bool{good: true} // some are good under these rules
	for _, raw := range hostile() {
		if known[raw] = true; len(raw) < 4096 {
			f.Add(raw)
		}
	}
	x := NewIssuers([]*TrustedIssuer{trusted})
	f.Fuzz(func(t *testing.T, raw string) {
		who, ours, refused := x.Agent(t.Context(), raw)
		if ours && refused == nil && !known[raw] {
			t.Fatalf("%q is %+v", raw, who)
		}
	})
}

// FuzzKeySet looks for a key set that is no key set, or has a key that is of no
// use.
func FuzzKeySet(f *testing.F) {
	f.Add([]byte(jwksOf("rsa", "p256", "p384", "p521", "ed")))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"},` + weakRSA() + `]}`))
	f.Add([]byte(`{"keys":[` + jwkOf("ed", `"use":"sig"`, `"key_ops":["verify"]`, `"alg":"EdDSA"`) + `]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := parseKeySet(data)
		if err != nil {
			return
		}
		for _, k := range set.all {
			fit := 0
			for _, alg := range Algorithms {
				if k.fits(alg) {
					fit++
				}
			}
			if pub, ok := k.public.(*rsa.PublicKey); fit == 0 && k.alg == "" || ok && pub.N.BitLen() < minRSA {
				t.Fatalf("%+v", k)
			}
		}
	})
}
