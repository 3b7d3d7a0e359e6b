package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddyvault/caddyvault/token/strict"
)

// MinHMACLength is the least number of characters of an HS256 key. RFC 7518,
// section 3.2, asks for as many bits as the hash has.
const MinHMACLength = 32

// Key signs or verifies tokens with one fixed algorithm. The zero Key is not
// usable. Printing one shows its algorithm and key id, never its bytes.
type Key struct{ m *material }

// material is what a Key is made of.
type material struct {
	method jwt.SigningMethod
	kid    string // empty for the configured HS256 key
	sign   any    // []byte, ed25519.PrivateKey, *ecdsa.PrivateKey, or nil: verifies only
	verify any    // []byte, ed25519.PublicKey or *ecdsa.PublicKey
	header string // the encoded header of a token that this key signs

	dead atomic.Bool // its tokens are good no more
}

// HMACKey returns the HS256 key that is the characters of secret, as the
// existing system uses them; it has no key id. A secret of fewer than
// MinHMACLength characters is refused.
func HMACKey(secret string) (Key, error) {
	if n := utf8.RuneCountInString(secret); n < MinHMACLength {
		return Key{}, fmt.Errorf("signing key: %d characters, at least %d are needed", n, MinHMACLength)
	}
	raw := []byte(secret)
	return Key{&material{
		method: jwt.SigningMethodHS256,
		sign:   raw,
		verify: raw,
		// The bytes that the existing system writes.
		header: encode([]byte(`{"alg":"HS256","typ":"JWT"}`)),
	}}, nil
}

// Ed25519Key returns the EdDSA key (RFC 8037) of priv.
func Ed25519Key(priv ed25519.PrivateKey) (Key, error) {
	if len(priv) != ed25519.PrivateKeySize {
		return Key{}, errors.New("signing key: not an Ed25519 private key")
	}
	k, err := Ed25519PublicKey(priv.Public().(ed25519.PublicKey))
	if err != nil {
		return Key{}, err
	}
	k.m.sign = priv
	return k, nil
}

// Ed25519PublicKey returns a key that verifies and cannot sign.
func Ed25519PublicKey(pub ed25519.PublicKey) (Key, error) {
	if len(pub) != ed25519.PublicKeySize {
		return Key{}, errors.New("verification key: not an Ed25519 public key")
	}
	kid := thumbprint(pub)
	return Key{&material{
		method: jwt.SigningMethodEdDSA,
		kid:    kid,
		verify: pub,
		header: encode([]byte(`{"alg":"EdDSA","typ":"JWT","kid":"` + kid + `"}`)),
	}}, nil
}

// ES256Key returns the ES256 key (RFC 7518, section 3.4) of priv, which must be
// on the curve P-256.
func ES256Key(priv *ecdsa.PrivateKey) (Key, error) {
	if priv == nil || priv.Curve != elliptic.P256() {
		return Key{}, errors.New("signing key: not a P-256 private key")
	}
	x, y, err := coordinates(&priv.PublicKey)
	if err != nil {
		return Key{}, errors.New("signing key: not a P-256 private key")
	}
	kid := thumbprintEC(x, y)
	return Key{&material{
		method: jwt.SigningMethodES256,
		kid:    kid,
		sign:   priv,
		verify: &priv.PublicKey,
		header: encode([]byte(`{"alg":"ES256","typ":"JWT","kid":"` + kid + `"}`)),
	}}, nil
}

// coordinates returns the two numbers of a P-256 key, encoded.
func coordinates(pub *ecdsa.PublicKey) (x, y string, err error) {
	point, err := pub.Bytes() // 4, X, Y (SEC 1, section 2.3.3)
	if err != nil || len(point) != 65 {
		return "", "", errors.New("not a P-256 public key")
	}
	return encode(point[1:33]), encode(point[33:]), nil
}

// Sizes of an HS256 key that the vault makes, and of its id, in bytes.
const (
	hmacSize = 32
	kidSize  = 16
)

// namedHMACKey returns an HS256 key that has a key id, which says nothing of
// it.
func namedHMACKey(secret []byte, kid string) (Key, error) {
	if len(secret) < hmacSize || len(kid) != len(encode(make([]byte, kidSize))) || !strict.Alphabet(kid) {
		return Key{}, errors.New("signing key: not an HS256 key of the vault")
	}
	return Key{&material{
		method: jwt.SigningMethodHS256,
		kid:    kid,
		sign:   secret,
		verify: secret,
		header: encode([]byte(`{"alg":"HS256","typ":"JWT","kid":"` + kid + `"}`)),
	}}, nil
}

// Kid returns the key id, which for the configured HS256 key is empty.
func (k Key) Kid() string {
	if k.m == nil {
		return ""
	}
	return k.m.kid
}

// String returns the algorithm and the key id.
func (k Key) String() string {
	switch {
	case k.m == nil:
		return "no key"
	case k.m.kid == "":
		return k.m.method.Alg()
	default:
		return k.m.method.Alg() + " " + k.m.kid
	}
}

// Format writes the same as String for every verb: a String method alone
// leaves verbs such as %d and %t, which would print what is inside.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// jwk is a public key as in RFC 8037, section 2, or RFC 7518, section 6.2.
type jwk struct {
	Kty string `json:"kty"`
	Crv string `json:"crv"`
	X   string `json:"x"`
	Y   string `json:"y,omitempty"`
	Kid string `json:"kid"`
	Alg string `json:"alg"`
	Use string `json:"use"`
}

// jwk returns the public half, and false for a key that has none.
func (m *material) jwk() (jwk, bool) {
	switch pub := m.verify.(type) {
	case ed25519.PublicKey:
		return jwk{Kty: "OKP", Crv: "Ed25519", X: encode(pub), Kid: m.kid, Alg: m.method.Alg(), Use: "sig"}, true
	case *ecdsa.PublicKey:
		x, y, err := coordinates(pub)
		return jwk{Kty: "EC", Crv: "P-256", X: x, Y: y, Kid: m.kid, Alg: m.method.Alg(), Use: "sig"}, err == nil
	}
	return jwk{}, false
}

// thumbprintEC is thumbprint for a P-256 key.
func thumbprintEC(x, y string) string {
	sum := sha256.Sum256([]byte(`{"crv":"P-256","kty":"EC","x":"` + x + `","y":"` + y + `"}`))
	return encode(sum[:])
}

// thumbprint is the key id of pub: its JWK thumbprint (RFC 7638, with the
// members that RFC 8037, appendix A.3, names), so that the same key has the
// same id on every node and after every restart.
func thumbprint(pub ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + encode(pub) + `"}`))
	return encode(sum[:])
}

// encode is base64url without padding (RFC 7515, section 2).
func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
