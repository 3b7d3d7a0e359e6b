package token

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	testSecret   = "0123456789abcdef0123456789abcdef-existing"
	testAudience = "agentic-credential-vault-proxy"
	testIssuer   = "caddyvault"
	testNow      = 1700000100

	// existingToken is what the npm package jsonwebtoken made of testSecret
	// with the options that the existing system gives it.
	existingToken = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." +
		"eyJzZXJ2aWNlIjoiZ2l0aHViIiwic2NvcGUiOlsiZ2l0aHViOnJlcG9zOnJlYWQiXSwiY3R4Ijp7ImFnZW50SWQiOiJ0b255Iiwic2Vzc2lvbklkIjoiczEiLCJ0YXNrSWQiOiJ0MSIsInNraWxsSWQiOiJrIiwidG9vbCI6InZhdWx0Lmlzc3VlVG9rZW4ifSwiaWF0IjoxNzAwMDAwMDAwLCJleHAiOjE3MDAwMDA2MDAsImF1ZCI6ImFnZW50aWMtY3JlZGVudGlhbC12YXVsdC1wcm94eSIsInN1YiI6InRvbnkiLCJqdGkiOiI2ZjFlN2MxYS0zZjVhLTRhNWUtOWE1Ny0wZDlkMGM2YTNmMTEifQ." +
		"uxTwB_KDiEK5JLzK9QBVhN2pQwXXYAAOwiemlkOjpK0"
)

// testClock is a clock that a test moves.
type testClock struct{ unix int64 }

func (c *testClock) now() time.Time { return time.Unix(c.unix, 0) }

func testOptions(c *testClock) Options {
	return Options{Audience: testAudience, Issuer: testIssuer, Now: c.now}
}

func hmacKey(t testing.TB) Key {
	t.Helper()
	k, err := HMACKey(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// edKey is the private key of RFC 8037, appendix A.
func edKey(t testing.TB) Key {
	t.Helper()
	seed, err := base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
	if err != nil {
		t.Fatal(err)
	}
	k, err := Ed25519Key(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// otherEdKey is a key that differs with n.
func otherEdKey(t testing.TB, n byte) Key {
	t.Helper()
	k, err := Ed25519Key(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newAuthority(t testing.TB, signing Key, verify []Key, o Options) *Authority {
	t.Helper()
	a, err := New(signing, verify, o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func testClaims() Claims {
	return Claims{
		ID:        "6f1e7c1a-3f5a-4a5e-9a57-0d9d0c6a3f11",
		IssuedAt:  time.Unix(testNow-100, 0),
		ExpiresAt: time.Unix(testNow+500, 0),
		Service:   "github",
		Scope:     []string{"github:repos:read"},
		Context:   Context{AgentID: "tony", SessionID: "s1", TaskID: "t1", SkillID: "k", Tool: "vault.issueToken"},
	}
}

// hs256 signs header and payload as they are, without this package.
func hs256(secret, header, payload string) string {
	signed := encode([]byte(header)) + "." + encode([]byte(payload))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

// eddsa does the same with an Ed25519 key.
func eddsa(k Key, header, payload string) string {
	signed := encode([]byte(header)) + "." + encode([]byte(payload))
	return signed + "." + encode(ed25519.Sign(k.m.sign.(ed25519.PrivateKey), []byte(signed)))
}

func TestIssueVerify(t *testing.T) {
	for name, key := range map[string]Key{"HS256": hmacKey(t), "EdDSA": edKey(t)} {
		t.Run(name, func(t *testing.T) {
			clock := &testClock{testNow}
			a := newAuthority(t, key, nil, testOptions(clock))
			raw, err := a.Issue(testClaims())
			if err != nil {
				t.Fatal(err)
			}
			v, r := a.Verify(raw)
			if r != nil {
				t.Fatal(r)
			}
			want := testClaims()
			want.Subject, want.Audience, want.Issuer, want.Key = "tony", testAudience, testIssuer, key
			if got, want := fmt.Sprint(v.Claims), fmt.Sprint(want); got != want {
				t.Errorf("claims:\n got %s\nwant %s", got, want)
			}
			// One that has not signed it verifies the signature.
			other, r := newAuthority(t, key, nil, testOptions(clock)).Verify(raw)
			if r != nil {
				t.Fatal(r)
			}
			if got, want := fmt.Sprint(other.Claims), fmt.Sprint(v.Claims); got != want {
				t.Errorf("elsewhere: claims:\n got %s\nwant %s", got, want)
			}
			again, _ := a.Verify(strings.Clone(raw))
			if again != v {
				t.Error("the second look was not answered from memory")
			}
			if a.Kid() != key.Kid() {
				t.Errorf("Kid %q, want %q", a.Kid(), key.Kid())
			}
		})
	}
}

// The bytes of a token, for systems that compare them or parse them by hand.
func TestIssuedBytes(t *testing.T) {
	tests := map[string]struct {
		key    Key
		header string
	}{
		"HS256": {hmacKey(t), `{"alg":"HS256","typ":"JWT"}`},
		"EdDSA": {edKey(t), `{"alg":"EdDSA","typ":"JWT","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"}`},
	}
	const payload = `{"service":"github","scope":["github:repos:read"],` +
		`"ctx":{"agentId":"tony","sessionId":"s1","taskId":"t1","skillId":"k","tool":"<&>\u2028"},` +
		`"iat":1700000000,"exp":1700000600,"aud":"agentic-credential-vault-proxy","iss":"caddyvault",` +
		`"sub":"tony","jti":"6f1e7c1a-3f5a-4a5e-9a57-0d9d0c6a3f11"}`
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := testClaims()
			c.Context.Tool = "<&>\u2028"
			raw, err := newAuthority(t, tt.key, nil, testOptions(&testClock{testNow})).Issue(c)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(raw, ".")
			for i, want := range []string{tt.header, strings.ReplaceAll(payload, `\u2028`, "\u2028")} {
				got, err := base64.RawURLEncoding.DecodeString(parts[i])
				if err != nil || string(got) != want {
					t.Errorf("part %d:\n got %s\nwant %s", i, got, want)
				}
			}
			if tt.key.Kid() == "" && raw != hs256(testSecret, tt.header, strings.ReplaceAll(payload, `\u2028`, "\u2028")) {
				t.Error("not HS256 over the characters of the key")
			}
		})
	}
}

func TestExistingSystemsToken(t *testing.T) {
	clock := &testClock{testNow}
	a := newAuthority(t, hmacKey(t), []Key{edKey(t)}, testOptions(clock))
	v, r := a.Verify(existingToken)
	if r != nil {
		t.Fatal(r)
	}
	if v.Issuer != "" || v.Subject != "tony" || v.Service != "github" || !slices.Equal(v.Scope, []string{"github:repos:read"}) {
		t.Errorf("claims %+v", v.Claims)
	}
	// Without a signing key of characters there is no key that it could have.
	if _, r := newAuthority(t, edKey(t), nil, testOptions(clock)).Verify(existingToken); r == nil || r.Code != "TOKEN_INVALID" {
		t.Errorf("verified without the signing key: %v", r)
	}
}

func TestTimes(t *testing.T) {
	const iat, exp = testNow - 100, testNow + 500
	tests := []struct {
		name string
		now  int64
		code string
	}{
		{"long before it was issued", iat - 100, "TOKEN_INVALID"},
		{"before it was issued, past the leeway", iat - 6, "TOKEN_INVALID"},
		{"before it was issued, in the leeway", iat - 5, ""},
		{"at once", iat, ""},
		{"in its last second", exp - 1, ""},
		{"in the leeway", exp + 4, ""},
		{"past the leeway", exp + 5, "TOKEN_EXPIRED"},
		{"long past", exp + 1e6, "TOKEN_EXPIRED"},
	}
	for _, tt := range tests {
		for _, how := range []string{"signed elsewhere", "signed here", "remembered"} {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				clock := &testClock{testNow}
				a := newAuthority(t, edKey(t), nil, testOptions(clock))
				raw, err := a.Issue(testClaims())
				if err != nil {
					t.Fatal(err)
				}
				switch how {
				case "signed elsewhere":
					a = newAuthority(t, edKey(t), nil, testOptions(clock))
				case "remembered":
					if _, r := a.Verify(raw); r != nil {
						t.Fatal(r)
					}
				}
				clock.unix = tt.now
				_, r := a.Verify(raw)
				if code := codeOf(r); code != tt.code {
					t.Errorf("%q, want %q", code, tt.code)
				}
			})
		}
	}
}

func TestRotatedKeys(t *testing.T) {
	clock := &testClock{testNow}
	before := newAuthority(t, otherEdKey(t, 1), nil, testOptions(clock))
	old, err := before.Issue(testClaims())
	if err != nil {
		t.Fatal(err)
	}
	after := newAuthority(t, edKey(t), []Key{otherEdKey(t, 1), otherEdKey(t, 2), edKey(t)}, testOptions(clock))
	if _, r := after.Verify(old); r != nil {
		t.Error("a token of the key before:", r)
	}
	if _, r := newAuthority(t, edKey(t), nil, testOptions(clock)).Verify(old); codeOf(r) != "TOKEN_INVALID" {
		t.Error("a token of a key that was dropped:", r)
	}

	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(after.JWKS(), &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 3 {
		t.Fatalf("%d keys are published, want 3: %s", len(set.Keys), after.JWKS())
	}
	// RFC 8037, appendices A.2 and A.3.
	want := map[string]string{
		"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
		"kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "alg": "EdDSA", "use": "sig",
	}
	if fmt.Sprint(set.Keys[0]) != fmt.Sprint(want) {
		t.Errorf("first key %v, want %v", set.Keys[0], want)
	}
	if got := string(newAuthority(t, hmacKey(t), nil, testOptions(clock)).JWKS()); got != `{"keys":[]}` {
		t.Errorf("with HS256 %s is published", got)
	}
}

func TestNewRefuses(t *testing.T) {
	good := testOptions(&testClock{testNow})
	pub, err := Ed25519PublicKey(edKey(t).m.verify.(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		signing Key
		verify  []Key
		change  func(*Options)
	}{
		{"no signing key", Key{}, nil, nil},
		{"a signing key that cannot sign", pub, nil, nil},
		{"an empty verification key", edKey(t), []Key{{}}, nil},
		{"an HS256 key beside another", edKey(t), []Key{hmacKey(t)}, nil},
		{"two HS256 keys", hmacKey(t), []Key{hmacKey(t)}, nil},
		{"no audience", edKey(t), nil, func(o *Options) { o.Audience = "" }},
		{"no issuer", edKey(t), nil, func(o *Options) { o.Issuer = "" }},
		{"too long a life", edKey(t), nil, func(o *Options) { o.MaxTTL = 15*time.Minute + 1 }},
		{"a negative life", edKey(t), nil, func(o *Options) { o.MaxTTL = -1 }},
		{"a negative leeway", edKey(t), nil, func(o *Options) { o.Leeway = -1 }},
		{"too much leeway", edKey(t), nil, func(o *Options) { o.Leeway = time.Hour }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := good
			if tt.change != nil {
				tt.change(&o)
			}
			if _, err := New(tt.signing, tt.verify, o); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestIssueRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Claims)
		is     error
	}{
		{"no id", func(c *Claims) { c.ID = "" }, nil},
		{"no service", func(c *Claims) { c.Service = "" }, nil},
		{"no agent", func(c *Claims) { c.Context.AgentID = "" }, nil},
		{"another subject", func(c *Claims) { c.Subject = "steve" }, nil},
		{"too long a life", func(c *Claims) { c.ExpiresAt = c.IssuedAt.Add(15*time.Minute + time.Second) }, nil},
		{"no life", func(c *Claims) { c.ExpiresAt = c.IssuedAt }, nil},
		{"no expiry", func(c *Claims) { c.ExpiresAt = time.Time{} }, nil},
		{"not UTF-8", func(c *Claims) { c.Context.TaskID = "secret\xff" }, nil},
		{"an empty scope", func(c *Claims) { c.Scope = []string{""} }, nil},
		{"too long", func(c *Claims) { c.Context.TaskID = strings.Repeat("x", 3000) }, ErrTooLong},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAuthority(t, edKey(t), nil, testOptions(&testClock{testNow}))
			c := testClaims()
			tt.change(&c)
			raw, err := a.Issue(c)
			if err == nil {
				_, r := a.Verify(raw)
				t.Fatalf("issued; Verify says %v", r)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v, want %v", err, tt.is)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error quotes a claim: %v", err)
			}
		})
	}
}

// The caller's clock is the default for iat, to the second.
func TestIssueNow(t *testing.T) {
	o := testOptions(&testClock{})
	o.Now = func() time.Time { return time.Unix(testNow, 999999999) }
	a := newAuthority(t, edKey(t), nil, o)
	c := testClaims()
	c.IssuedAt = time.Time{}
	c.ExpiresAt = o.Now().Add(MaxTTL)
	raw, err := a.Issue(c)
	if err != nil {
		t.Fatal(err)
	}
	v, r := a.Verify(raw)
	if r != nil || v.IssuedAt.Unix() != testNow || v.ExpiresAt.Unix() != testNow+900 {
		t.Errorf("%+v, %v", v, r)
	}
}

func TestDerive(t *testing.T) {
	calls := 0
	o := testOptions(&testClock{testNow})
	o.Derive = func(c *Claims) any { calls++; return c.ID + "!" }
	a := newAuthority(t, edKey(t), nil, o)
	raw, err := a.Issue(testClaims())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		v, r := a.Verify(raw)
		if r != nil || v.Ext != testClaims().ID+"!" {
			t.Fatalf("Ext %v, %v", v, r)
		}
	}
	if calls != 1 {
		t.Errorf("derived %d times, want once", calls)
	}
}

// No verb of fmt and no error shows a key.
func TestKeysAreNotShown(t *testing.T) {
	short := "shorter than it has to be"
	if _, err := HMACKey(short); err == nil || strings.Contains(err.Error(), short) {
		t.Errorf("a short key: %v", err)
	}
	if _, err := HMACKey(strings.Repeat("é", 31)); err == nil {
		t.Error("31 characters in 62 bytes are enough")
	}
	if _, err := HMACKey(strings.Repeat("é", 32)); err != nil {
		t.Errorf("32 characters are not enough: %v", err)
	}
	for _, k := range []Key{hmacKey(t), edKey(t), {}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%t"} {
			shown := fmt.Sprintf(verb, k) + fmt.Sprintf(verb, &k) + fmt.Sprintf(verb, []Key{k})
			if k.m == nil {
				continue
			}
			raw, ok := k.m.sign.([]byte)
			if !ok {
				raw = k.m.sign.(ed25519.PrivateKey)
			}
			for _, form := range []string{string(raw), hex.EncodeToString(raw), fmt.Sprintf("%X", raw), fmt.Sprint(raw)[1:40]} {
				if strings.Contains(shown, form) {
					t.Errorf("%s shows the key: %s", verb, shown)
				}
			}
		}
		//lint:ignore SA9005 that nothing comes out is what is tested
		if out, err := json.Marshal(k); err != nil || string(out) != "{}" {
			t.Errorf("as JSON it is %s, %v", out, err)
		}
	}
	if got := edKey(t).String(); got != "EdDSA kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Errorf("String is %q", got)
	}
}
