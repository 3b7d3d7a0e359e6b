package token

import (
	"bytes"
	"compress/flate"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token/strict"
)

const (
	hsHeader = `{"alg":"HS256","typ":"JWT"}`
	edHeader = `{"alg":"EdDSA","typ":"JWT","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"}`

	goodPayload = `{"service":"github","scope":["github:repos:read"],` +
		`"ctx":{"agentId":"tony","sessionId":"s1","taskId":"t1","skillId":"k","tool":"x"},` +
		`"iat":1700000000,"exp":1700000600,"aud":"agentic-credential-vault-proxy","iss":"caddyvault",` +
		`"sub":"tony","jti":"id-1"}`
)

func codeOf(r *refusal.Refusal) string {
	if r == nil {
		return ""
	}
	return r.Code
}

// with returns goodPayload with one piece exchanged, which must be there.
func with(old, new string) string {
	if strings.Count(goodPayload, old) != 1 {
		panic("not once in the payload: " + old)
	}
	return strings.Replace(goodPayload, old, new, 1)
}

// sign signs payload with both keys that the vault of the test has.
func payloads(t *testing.T, payload string) []string {
	return []string{hs256(testSecret, hsHeader, payload), eddsa(edKey(t), edHeader, payload)}
}

// hostile is every way to be refused that the tests know. All of them are
// shown to one vault that has an HS256 signing key and the Ed25519 key.
func hostile(t *testing.T) map[string][]string {
	k := edKey(t)
	pub := k.m.verify.(ed25519.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	pubPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	good := hs256(testSecret, hsHeader, goodPayload)
	goodEd := eddsa(k, edHeader, goodPayload)
	parts := strings.Split(goodEd, ".")
	otherKid := otherEdKey(t, 9).Kid()
	head := func(h string) []string { // under both keys
		return []string{hs256(testSecret, h, goodPayload), eddsa(k, h, goodPayload)}
	}
	hsHead := func(more string) []string {
		return []string{hs256(testSecret, `{"alg":"HS256","typ":"JWT",`+more+`}`, goodPayload)}
	}
	edHead := func(more string) []string {
		return []string{eddsa(k, strings.TrimSuffix(edHeader, "}")+","+more+"}", goodPayload)}
	}
	pay := func(old, new string) []string { return payloads(t, with(old, new)) }
	hs512 := func() string {
		signed := encode([]byte(`{"alg":"HS512","typ":"JWT"}`)) + "." + encode([]byte(goodPayload))
		mac := hmac.New(sha512.New, []byte(testSecret))
		mac.Write([]byte(signed))
		return signed + "." + encode(mac.Sum(nil))
	}
	unsigned := func(alg string) []string {
		b := encode([]byte(`{"alg":"`+alg+`","typ":"JWT"}`)) + "." + encode([]byte(goodPayload)) + "."
		return []string{b, b + "AA", b + parts[2]}
	}
	deflated := func() string {
		var b bytes.Buffer
		w, _ := flate.NewWriter(&b, 9)
		_, _ = w.Write([]byte(goodPayload))
		_ = w.Close()
		return b.String()
	}
	// The same bytes of the signature, spelled with other trailing bits.
	respelled := func(raw string) string {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		i := strings.IndexByte(alphabet, raw[len(raw)-1])
		return raw[:len(raw)-1] + string(alphabet[i^1])
	}
	sub := with(`"sub":"tony",`, "")
	return map[string][]string{
		// The form.
		"a word":                         {"token", " ", "\x00", "."},
		"two parts":                      {parts[0] + "." + parts[1], ".."},
		"four parts":                     {goodEd + ".", goodEd + "." + parts[2], "." + goodEd},
		"a JWE":                          {parts[0] + ".." + parts[1] + "." + parts[2] + "." + parts[2]},
		"a megabyte of dots":             {strings.Repeat(".", 1<<20)},
		"four kilobytes of dots":         {strings.Repeat(".", MaxLength)},
		"a megabyte of one part":         {strings.Repeat("A", 1<<20) + ".A.A"},
		"over 4 KiB, well signed":        payloads(t, with(`"tool":"x"`, `"tool":"`+strings.Repeat("x", 4<<10)+`"`)),
		"spaces around":                  {" " + good, good + " ", good + "\n", "\t" + goodEd},
		"line breaks inside":             {good[:20] + "\n" + good[20:], goodEd[:len(goodEd)-5] + "\r\n" + goodEd[len(goodEd)-5:]},
		"a scheme before it":             {"Bearer " + good},
		"padding":                        {good + "=", parts[0] + "=." + parts[1] + "." + parts[2]},
		"standard base64":                {strings.ReplaceAll(strings.ReplaceAll(respelledStd(goodEd), "-", "+"), "_", "/")},
		"other trailing bits":            {respelled(good), respelled(goodEd)},
		"a percent escape":               {strings.Replace(good, ".", "%2E", 1)},
		"a NUL at the end":               {good + "\x00"},
		"a header that is not an object": {hs256(testSecret, `null`, goodPayload), hs256(testSecret, `[]`, goodPayload), hs256(testSecret, `"HS256"`, goodPayload), hs256(testSecret, ``, goodPayload)},
		"a payload that is not an object": append(append(payloads(t, `null`), payloads(t, `[`+goodPayload+`]`)...),
			append(payloads(t, `""`), payloads(t, ``)...)...),
		"data after the header":  head(hsHeader + `{}`),
		"data after the payload": append(payloads(t, goodPayload+`{}`), payloads(t, goodPayload+"\x00")...),
		"a cut payload":          payloads(t, goodPayload[:len(goodPayload)-1]),
		"not UTF-8":              append(pay(`"tool":"x"`, "\"tool\":\"\xff\""), pay(`"tool":"x"`, `"tool":"\ud800"`)...),
		"a nested payload":       payloads(t, strings.Repeat(`{"a":`, 400)+"1"+strings.Repeat("}", 400)),

		// The algorithm and the key.
		"alg none":                           append(unsigned("none"), unsigned("None")...),
		"alg NONE":                           append(unsigned("NONE"), unsigned("nOnE")...),
		"alg empty":                          unsigned(""),
		"no alg":                             head(`{"typ":"JWT"}`),
		"alg null":                           head(`{"alg":null,"typ":"JWT"}`),
		"alg a number":                       head(`{"alg":1,"typ":"JWT"}`),
		"alg an array":                       head(`{"alg":["HS256"],"typ":"JWT"}`),
		"alg in another case":                head(`{"alg":"hs256","typ":"JWT"}`),
		"Alg":                                head(`{"Alg":"HS256","typ":"JWT"}`),
		"alg HS512 of the right key":         {hs512()},
		"alg RS256":                          head(`{"alg":"RS256","typ":"JWT"}`),
		"EdDSA without a kid":                {eddsa(k, `{"alg":"EdDSA","typ":"JWT"}`, goodPayload)},
		"HS256 keyed with the public key":    {hs256(string(pub), hsHeader, goodPayload), hs256(pubPEM, hsHeader, goodPayload), hs256(encode(pub), hsHeader, goodPayload)},
		"HS256 keyed with it, under its kid": {hs256(string(pub), strings.Replace(edHeader, "EdDSA", "HS256", 1), goodPayload), hs256(pubPEM, strings.Replace(edHeader, "EdDSA", "HS256", 1), goodPayload)},
		"the right HS256 key under a kid":    {hs256(testSecret, strings.Replace(edHeader, "EdDSA", "HS256", 1), goodPayload)},
		"an empty HS256 key":                 {hs256("", hsHeader, goodPayload)},
		"another HS256 key":                  {hs256(testSecret+"x", hsHeader, goodPayload)},
		"another key under our kid":          {eddsa(otherEdKey(t, 9), edHeader, goodPayload)},
		"an unknown kid":                     {eddsa(otherEdKey(t, 9), `{"alg":"EdDSA","typ":"JWT","kid":"`+otherKid+`"}`, goodPayload)},
		"a kid that is a path":               {hs256("", `{"alg":"HS256","kid":"../../dev/null"}`, goodPayload)},
		"an empty kid":                       hsHead(`"kid":""`),
		"kid null":                           hsHead(`"kid":null`),
		"kid an array":                       edHeadKid(k, `["kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"]`),
		"two kids":                           edHead(`"kid":"x"`),
		"two algs":                           append(hsHead(`"alg":"none"`), edHead(`"alg":"HS256"`)...),
		"two algs, one escaped":              hsHead(`"\u0061lg":"none"`),
		"crit":                               append(hsHead(`"crit":["exp"]`), edHead(`"crit":["x"],"x":1`)...),
		"crit, empty":                        append(hsHead(`"crit":[]`), edHead(`"crit":null`)...),
		"b64 false":                          hsHead(`"b64":false,"crit":["b64"]`),
		"jwk":                                {eddsa(otherEdKey(t, 9), `{"alg":"EdDSA","typ":"JWT","jwk":{"kty":"OKP"}}`, goodPayload), edHead(`"jwk":{"kty":"OKP","crv":"Ed25519","x":"AA"}`)[0]},
		"jku":                                edHead(`"jku":"https://attacker.example/jwks.json"`),
		"x5u":                                edHead(`"x5u":"https://attacker.example/x.pem"`),
		"x5c":                                hsHead(`"x5c":["AA=="]`),
		"zip":                                {hs256(testSecret, `{"alg":"HS256","typ":"JWT","zip":"DEF"}`, deflated())},
		"cty, a token in a token":            {hs256(testSecret, `{"alg":"HS256","typ":"JWT","cty":"JWT"}`, good)},
		"enc":                                hsHead(`"enc":"A128GCM"`),
		"another typ":                        head(`{"alg":"HS256","typ":"dpop+jwt"}`),
		"typ null":                           head(`{"alg":"HS256","typ":null}`),
		"no signature":                       {parts[0] + "." + parts[1] + ".", strings.TrimRight(good, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")},
		"a signature of another token":       {parts[0] + "." + encode([]byte(with(`"github"`, `"stripe"`))) + "." + parts[2]},
		"a longer signature":                 {goodEd + "AAAA", good + "AAAA"},
		"a shorter signature":                {goodEd[:len(goodEd)-4], good[:len(good)-4]},
		"a signature plus the group's order": {malleable(goodEd)},
		"a header changed by a space":        {encode([]byte(hsHeader+" ")) + good[strings.IndexByte(good, '.'):]},

		// The times.
		"no exp":                 pay(`"exp":1700000600,`, ``),
		"exp null":               pay(`1700000600`, `null`),
		"exp 1e18":               pay(`1700000600`, `1e18`),
		"exp of 19 digits":       pay(`1700000600`, `1000000000000000000`),
		"exp beyond 64 bits":     pay(`1700000600`, `99999999999999999999999999`),
		"exp a fraction":         pay(`1700000600`, `1700000600.5`),
		"exp in a string":        pay(`1700000600`, `"1700000600"`),
		"exp with an exponent":   pay(`1700000600`, `17000006e2`),
		"exp negative":           pay(`1700000600`, `-1`),
		"exp true":               pay(`1700000600`, `true`),
		"exp an array":           pay(`1700000600`, `[1700000600]`),
		"exp in milliseconds":    pay(`1700000600`, `1700000600000`),
		"two exps":               pay(`"exp":1700000600`, `"exp":1,"exp":1700000600`),
		"two exps, one escaped":  pay(`"exp":1700000600`, `"exp":1700000600,"\u0065xp":1700000700`),
		"Exp":                    pay(`"exp"`, `"Exp"`),
		"a life of 901 seconds":  pay(`1700000600`, `1700000901`),
		"a life of no time":      pay(`1700000600`, `1700000000`),
		"exp before iat":         pay(`"exp":1700000600`, `"exp":1699999999`),
		"no iat":                 pay(`"iat":1700000000,`, ``),
		"iat null":               pay(`1700000000`, `null`),
		"iat in the future":      payloads(t, strings.NewReplacer("1700000000", "1700000200", "1700000600", "1700000700").Replace(goodPayload)),
		"iat a fraction":         pay(`1700000000`, `1700000000.0`),
		"iat in a string":        pay(`1700000000`, `"1700000000"`),
		"nbf in a minute":        pay(`"sub"`, `"nbf":1700000160,"sub"`),
		"nbf past the leeway":    pay(`"sub"`, `"nbf":1700000106,"sub"`),
		"nbf in a string":        pay(`"sub"`, `"nbf":"1700000000","sub"`),
		"nbf null":               pay(`"sub"`, `"nbf":null,"sub"`),
		"expired and for others": pay(`"exp":1700000600,"aud":"agentic-credential-vault-proxy"`, `"exp":1700000060,"aud":"x"`),

		// The claims.
		"an aud array with ours":       pay(`"agentic-credential-vault-proxy"`, `["other","agentic-credential-vault-proxy"]`),
		"an aud array of ours":         pay(`"agentic-credential-vault-proxy"`, `["agentic-credential-vault-proxy"]`),
		"another aud":                  pay(`agentic-credential-vault-proxy`, `other`),
		"aud in another case":          pay(`agentic-credential-vault-proxy`, `Agentic-credential-vault-proxy`),
		"aud null":                     pay(`"agentic-credential-vault-proxy"`, `null`),
		"no aud":                       pay(`"aud":"agentic-credential-vault-proxy",`, ``),
		"two auds":                     pay(`"sub"`, `"aud":"x","sub"`),
		"another issuer":               pay(`"caddyvault"`, `"other"`),
		"an empty issuer":              pay(`"caddyvault"`, `""`),
		"iss null":                     pay(`"caddyvault"`, `null`),
		"iss an array":                 pay(`"caddyvault"`, `["caddyvault"]`),
		"no issuer, under a kid":       {eddsa(k, edHeader, with(`"iss":"caddyvault",`, ``))},
		"no sub":                       payloads(t, sub),
		"an empty sub and agent":       payloads(t, strings.ReplaceAll(goodPayload, `"tony"`, `""`)),
		"another sub":                  pay(`"sub":"tony"`, `"sub":"steve"`),
		"sub a number":                 pay(`"sub":"tony"`, `"sub":1`),
		"no jti":                       pay(`,"jti":"id-1"`, ``),
		"an empty jti":                 pay(`"id-1"`, `""`),
		"jti a number":                 pay(`"id-1"`, `1`),
		"no service":                   pay(`"service":"github",`, ``),
		"an empty service":             pay(`"service":"github"`, `"service":""`),
		"service an array":             pay(`"service":"github"`, `"service":["github"]`),
		"two services":                 pay(`"service":"github"`, `"service":"github","service":"stripe"`),
		"no scope":                     pay(`"scope":["github:repos:read"],`, ``),
		"scope a string":               pay(`["github:repos:read"]`, `"github:repos:read"`),
		"scope null":                   pay(`["github:repos:read"]`, `null`),
		"scope an object":              pay(`["github:repos:read"]`, `{"github:repos:read":true}`),
		"scope with a number":          pay(`["github:repos:read"]`, `["github:repos:read",1]`),
		"scope with an array":          pay(`["github:repos:read"]`, `[["github:repos:read"]]`),
		"scope with an empty string":   pay(`["github:repos:read"]`, `[""]`),
		"no ctx":                       pay(`"ctx":{"agentId":"tony","sessionId":"s1","taskId":"t1","skillId":"k","tool":"x"},`, ``),
		"ctx null":                     pay(`{"agentId":"tony","sessionId":"s1","taskId":"t1","skillId":"k","tool":"x"}`, `null`),
		"ctx an array":                 pay(`{"agentId":"tony","sessionId":"s1","taskId":"t1","skillId":"k","tool":"x"}`, `[]`),
		"ctx without the agent":        pay(`"agentId":"tony",`, ``),
		"ctx with another agent":       pay(`"agentId":"tony"`, `"agentId":"steve"`),
		"ctx with two agents":          pay(`"agentId":"tony"`, `"agentId":"steve","agentId":"tony"`),
		"ctx in another case":          pay(`"agentId"`, `"agentID"`),
		"ctx with a null":              pay(`"sessionId":"s1"`, `"sessionId":null`),
		"ctx with a number":            pay(`"taskId":"t1"`, `"taskId":1`),
		"bound to a key":               pay(`"sub"`, `"cnf":{"jkt":"x"},"sub"`),
		"a duplicate in what is extra": pay(`"sub"`, `"extra":{"a":1,"a":2},"sub"`),
	}
}

// respelledStd makes sure that the text differs from base64url in something.
func respelledStd(raw string) string {
	if strings.ContainsAny(raw, "-_") {
		return raw
	}
	return raw + "-"
}

func edHeadKid(k Key, kid string) []string {
	return []string{eddsa(k, `{"alg":"EdDSA","typ":"JWT","kid":`+kid+`}`, goodPayload)}
}

// malleable adds the order of the group to the scalar of an Ed25519 signature
// (RFC 8032, section 5.1.7, requires it to be below).
func malleable(raw string) string {
	order := []byte{
		0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
	}
	dot := strings.LastIndexByte(raw, '.')
	sig, err := strict.Base64.DecodeString(raw[dot+1:])
	if err != nil {
		panic(err)
	}
	carry := 0
	for i, o := range order {
		n := int(sig[32+i]) + int(o) + carry
		sig[32+i], carry = byte(n), n>>8
	}
	return raw[:dot+1] + encode(sig)
}

func TestHostileTokens(t *testing.T) {
	a := newAuthority(t, hmacKey(t), []Key{edKey(t)}, testOptions(&testClock{testNow}))
	// The table is about what is changed: unchanged, both are good.
	for _, raw := range payloads(t, goodPayload) {
		if _, r := a.Verify(raw); r != nil {
			t.Fatal("the unchanged token:", r)
		}
	}
	for name, raws := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			for i, raw := range raws {
				for range 2 { // also not after it was seen once
					v, r := a.Verify(raw)
					if v != nil || codeOf(r) != "TOKEN_INVALID" || r.Status != 401 {
						t.Fatalf("%d: %+v, %v", i, v, r)
					}
				}
				_, r := a.Verify(raw)
				checkSilent(t, raw, r)
			}
		})
	}
	if _, r := a.Verify(""); codeOf(r) != "TOKEN_REQUIRED" {
		t.Errorf("no token: %v", r)
	}
}

// checkSilent makes sure that a refusal shows nothing of the token.
func checkSilent(t *testing.T, raw string, r *refusal.Refusal) {
	t.Helper()
	shown := fmt.Sprintf("%+v %v %s", *r, r, r.Challenge)
	for piece := range strings.SplitSeq(strings.TrimPrefix(raw, "Bearer "), ".") {
		if len(piece) > 8 && strings.Contains(shown, piece[:8]) {
			t.Errorf("the refusal shows the token: %s", shown)
		}
	}
	if r.Cause != nil {
		t.Errorf("a cause may quote the token: %v", r.Cause)
	}
}

// What must not be refused: variations that the rules allow.
func TestTolerated(t *testing.T) {
	a := newAuthority(t, hmacKey(t), []Key{edKey(t)}, testOptions(&testClock{testNow}))
	k := edKey(t)
	tests := map[string]string{
		"no typ":                     hs256(testSecret, `{"alg":"HS256"}`, goodPayload),
		"typ in another case":        hs256(testSecret, `{"typ":"jwt","alg":"HS256"}`, goodPayload),
		"spaces in the JSON":         hs256(testSecret, " {\n\"alg\" : \"HS256\"}\t", " "+goodPayload+"\n"),
		"no issuer, without a kid":   hs256(testSecret, hsHeader, with(`"iss":"caddyvault",`, ``)),
		"an unknown claim":           eddsa(k, edHeader, with(`"sub"`, `"role":{"a":[1,null]},"sub"`)),
		"an unknown field of ctx":    eddsa(k, edHeader, with(`"tool":"x"`, `"tool":"x","depth":1`)),
		"nbf, past":                  eddsa(k, edHeader, with(`"sub"`, `"nbf":1700000105,"sub"`)),
		"no scope at all":            eddsa(k, edHeader, with(`["github:repos:read"]`, `[]`)),
		"a life of fifteen minutes":  eddsa(k, edHeader, with(`1700000600`, `1700000900`)),
		"escapes in names and texts": eddsa(k, edHeader, with(`"sub":"tony"`, `"\u0073ub":"\u0074ony"`)),
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			v, r := a.Verify(raw)
			if r != nil || v.Subject != "tony" || v.Service != "github" {
				t.Errorf("%+v, %v", v, r)
			}
		})
	}
}

// Whatever Verify accepts is signed by a key of the vault, over exactly the
// text that was given, and every spelling but that one is refused.
func FuzzVerify(f *testing.F) {
	k := edKey(f)
	a := newAuthority(f, hmacKey(f), []Key{k}, testOptions(&testClock{testNow}))
	f.Add(existingToken)
	f.Add(hs256(testSecret, hsHeader, goodPayload))
	f.Add(eddsa(k, edHeader, goodPayload))
	f.Add("..")
	f.Add(strings.Repeat(".", 100))
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, raw string) {
		v, r := a.Verify(raw)
		if (v == nil) == (r == nil) {
			t.Fatalf("%v and %v", v, r)
		}
		if v == nil {
			return
		}
		dot := strings.LastIndexByte(raw, '.')
		mac := hmac.New(sha256.New, []byte(testSecret))
		mac.Write([]byte(raw[:dot]))
		sig, err := strict.Base64.DecodeString(raw[dot+1:])
		if err != nil || encode(sig) != raw[dot+1:] {
			t.Fatal("accepted a signature that is not canonical")
		}
		if !hmac.Equal(sig, mac.Sum(nil)) && !ed25519.Verify(k.m.verify.(ed25519.PublicKey), []byte(raw[:dot]), sig) {
			t.Fatal("accepted without a signature")
		}
	})
}

// The parsers behind the signature see what only a key holder could send, so
// a mutated token never reaches them: they get a fuzz target of their own.
func FuzzPayload(f *testing.F) {
	a := newAuthority(f, hmacKey(f), nil, testOptions(&testClock{testNow}))
	f.Add(hsHeader, goodPayload)
	f.Add(`{"alg":"HS256"}`, `{}`)
	f.Add(`{"alg":"HS256"}`, with(`1700000600`, `1e18`))
	f.Add(`{"alg":"HS256","kid":"x"}`, with(`"id-1"`, `null`))
	f.Fuzz(func(t *testing.T, header, payload string) {
		v, r := a.Verify(hs256(testSecret, header, payload))
		if r != nil {
			return
		}
		life := v.ExpiresAt.Sub(v.IssuedAt)
		if v.ID == "" || v.Subject == "" || v.Service == "" || v.Subject != v.Context.AgentID ||
			v.Audience != testAudience || life <= 0 || life > MaxTTL || v.Scope == nil {
			t.Fatalf("accepted %q %q as %+v", header, payload, v)
		}
	})
}
