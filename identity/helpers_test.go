package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

const (
	testIssuer   = "https://issuer.example"
	testAudience = "https://vault.example"
)

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// sign makes a JWT of a header and a payload, whatever they are.
func sign(alg string, private any, header, payload string) string {
	signed := encode(header) + "." + encode(payload)
	sig, err := jwt.GetSigningMethod(alg).Sign(signed, private)
	if err != nil {
		panic(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// testKeys are made once: RSA keys take long.
var testKeys = sync.OnceValue(func() map[string]crypto.Signer {
	keys := map[string]crypto.Signer{}
	for _, name := range []string{"rsa", "other"} {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[name] = k
	}
	for name, curve := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			panic(err)
		}
		keys[name] = k
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	keys["ed"] = ed
	return keys
})

// jwkOf writes the public key of a test key as a JWK with more members.
func jwkOf(name string, more ...string) string {
	b, err := jose.JSONWebKey{Key: testKeys()[name].Public(), KeyID: name}.MarshalJSON()
	if err != nil {
		panic(err)
	}
	return strings.TrimSuffix(string(b), "}") + strings.Join(append([]string{""}, more...), ",") + "}"
}

func jwksOf(names ...string) string {
	var list []string
	for _, name := range names {
		list = append(list, jwkOf(name))
	}
	return `{"keys":[` + strings.Join(list, ",") + `]}`
}

func mustSet(t testing.TB, data string) *keySet {
	t.Helper()
	set, err := parseKeySet([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// fixed is a source that has keys and gets no others.
func fixed(t testing.TB, jwks string) *Source {
	set := mustSet(t, jwks)
	s := newSource(testIssuer, func(context.Context) (*keySet, time.Duration, error) { return set, time.Hour, nil })
	s.held.Store(&held{set, time.Now(), time.Hour})
	s.begun = [attempts]time.Time{time.Now(), time.Now()} // it has just asked
	t.Cleanup(func() { _ = s.Destruct() })
	return s
}

func newTrusted(t testing.TB, r Rules, keys *Source) *TrustedIssuer {
	t.Helper()
	if r.Issuer == "" {
		r.Issuer = testIssuer
	}
	if r.Audiences == nil {
		r.Audiences = []string{testAudience}
	}
	trusted, err := NewIssuer(r, keys)
	if err != nil {
		t.Fatal(err)
	}
	return trusted
}

// goodClaims are claims that are taken, with changes; nil takes one away.
func goodClaims(changes map[string]any) string {
	now := time.Now().Unix()
	c := map[string]any{"iss": testIssuer, "aud": testAudience, "sub": "tony", "iat": now, "nbf": now, "exp": now + 600}
	for name, v := range changes {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func with(name string, value any) string { return goodClaims(map[string]any{name: value}) }

func edHeader(more string) string {
	return `{"alg":"EdDSA","typ":"JWT","kid":"ed"` + more + `}`
}

// signed is a JWT of the Ed25519 key.
func signed(payload string) string { return sign("EdDSA", testKeys()["ed"], edHeader(""), payload) }

func weakRSA() string {
	n, _ := new(big.Int).SetString(strings.Repeat("f", 256), 16) // 1024 bits
	return fmt.Sprintf(`{"kty":"RSA","kid":"weak","e":"AQAB","n":"%s"}`, base64.RawURLEncoding.EncodeToString(n.Bytes()))
}
