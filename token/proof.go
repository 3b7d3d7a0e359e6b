package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddyvault/caddyvault/token/strict"
)

// MaxProof is the longest DPoP proof that is looked at, in bytes: one with a
// key of 4096 bits fits.
const MaxProof = 4 << 10

// maxProofText bounds the texts of a proof, in bytes.
const maxProofText = 2 << 10

// ProofAlgorithms are those that a proof may be signed with: no symmetric one.
const ProofAlgorithms = "ES256 EdDSA RS256 PS256"

// Proof is a DPoP proof (RFC 9449, section 4.2) whose form is right and whose
// signature is that of the key in it. Whether it is for this request is for
// the caller to say.
type Proof struct {
	JKT      string // the key's thumbprint (RFC 7638)
	ID       string // "jti"
	Method   string // "htm"
	URL      string // "htu"
	IssuedAt time.Time
	Hash     string // "ath", empty if absent
	Nonce    string // empty if absent
}

// ParseProof reads a proof. The error says what is wrong with it and quotes
// nothing of it.
func ParseProof(raw string) (*Proof, error) {
	if len(raw) > MaxProof {
		return nil, errors.New("it is too long")
	}
	head, rest, ok := strings.Cut(raw, ".")
	body, sig, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || !strict.Alphabet(raw) || strings.Contains(sig, ".") {
		return nil, errors.New("it is not a signed JWT")
	}
	key, err := proofKey(head)
	if err != nil {
		return nil, err
	}
	signature, err := strict.Base64.DecodeString(sig)
	if err != nil || key.method.Verify(raw[:len(raw)-len(sig)-1], signature, key.public) != nil {
		return nil, errors.New("its signature is not that of its key")
	}
	p := &Proof{JKT: key.jkt}
	data, err := strict.Base64.DecodeString(body)
	if err != nil {
		return nil, errors.New("its claims cannot be read")
	}
	err = strict.Whole(data, func(d *jsontext.Decoder, name string) error {
		var ok bool
		switch name {
		case "jti":
			p.ID, ok = strict.Text(d)
		case "htm":
			p.Method, ok = strict.Text(d)
		case "htu":
			p.URL, ok = strict.Text(d)
		case "iat":
			p.IssuedAt, ok = strict.Seconds(d)
		case "ath":
			p.Hash, ok = strict.Text(d)
		case "nonce":
			p.Nonce, ok = strict.Text(d)
		default:
			ok = d.SkipValue() == nil
		}
		if !ok {
			return strict.ErrForm
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, errors.New("its claims cannot be read")
	case p.ID == "" || p.Method == "" || p.URL == "" || p.IssuedAt.IsZero():
		return nil, errors.New("it lacks one of jti, htm, htu and iat")
	case len(p.ID) > maxProofText/8 || len(p.URL) > maxProofText:
		return nil, errors.New("a claim is too long")
	}
	return p, nil
}

// publicKey is the key of a proof.
type publicKey struct {
	method jwt.SigningMethod
	public any
	jkt    string
}

// proofKey reads the header of a proof: what it is, an algorithm that is
// allowed, and a public key that fits it.
func proofKey(segment string) (*publicKey, error) {
	raw, err := strict.Base64.DecodeString(segment)
	if err != nil {
		return nil, errors.New("its header cannot be read")
	}
	var typ, alg string
	var members map[string]string
	err = strict.Whole(raw, func(d *jsontext.Decoder, name string) error {
		var ok bool
		switch name {
		case "typ":
			typ, ok = strict.Text(d)
		case "alg":
			alg, ok = strict.Text(d)
		case "kid":
			_, ok = strict.Text(d)
		case "jwk":
			members, ok = readJWK(d)
		}
		// Anything else asks for what is not done here (crit), or brings a
		// key from elsewhere.
		if !ok {
			return strict.ErrForm
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, errors.New("its header is not that of a proof, or its jwk is not a public key")
	case typ != "dpop+jwt":
		return nil, errors.New("its typ is not dpop+jwt")
	case members == nil:
		return nil, errors.New("it has no jwk")
	}
	return keyOf(alg, members)
}

// readJWK reads the texts of a JWK. Private members are an error: nobody is to
// learn a private key, and whoever sends one has none.
func readJWK(d *jsontext.Decoder) (map[string]string, bool) {
	members := map[string]string{}
	err := strict.Object(d, func(d *jsontext.Decoder, name string) error {
		switch name {
		case "kty", "crv", "x", "y", "n", "e", "kid", "alg", "use":
			s, ok := strict.Text(d)
			if !ok {
				return strict.ErrForm
			}
			members[name] = s
			return nil
		case "d", "p", "q", "dp", "dq", "qi", "oth", "k":
			return strict.ErrForm
		}
		return d.SkipValue()
	})
	return members, err == nil
}

// Bounds on RSA keys, in bits: below they are weak, above they are slow.
const (
	minRSA = 2048
	maxRSA = 4096
)

// keyOf returns the key of a JWK for an algorithm.
func keyOf(alg string, m map[string]string) (*publicKey, error) {
	if a, ok := m["alg"]; ok && a != alg || m["use"] != "" && m["use"] != "sig" {
		return nil, errors.New("its key is for something else")
	}
	number := func(name string, size int) []byte {
		b, err := strict.Base64.DecodeString(m[name])
		if err != nil || len(b) == 0 || size > 0 && len(b) != size {
			return nil
		}
		return b
	}
	bad := errors.New("its key does not fit its algorithm")
	var thumb string
	k := new(publicKey)
	switch alg {
	case "ES256":
		x, y := number("x", 32), number("y", 32)
		if m["kty"] != "EC" || m["crv"] != "P-256" || x == nil || y == nil {
			return nil, bad
		}
		// Checks that the point is on the curve.
		pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
		if err != nil {
			return nil, bad
		}
		k.method, k.public = jwt.SigningMethodES256, pub
		thumb = `{"crv":"P-256","kty":"EC","x":"` + encode(x) + `","y":"` + encode(y) + `"}`
	case "EdDSA", "Ed25519":
		x := number("x", ed25519.PublicKeySize)
		if m["kty"] != "OKP" || m["crv"] != "Ed25519" || x == nil {
			return nil, bad
		}
		k.method, k.public = jwt.SigningMethodEdDSA, ed25519.PublicKey(x)
		thumb = `{"crv":"Ed25519","kty":"OKP","x":"` + encode(x) + `"}`
	case "RS256", "PS256":
		n, e := number("n", 0), number("e", 0)
		if m["kty"] != "RSA" || n == nil || e == nil || len(e) > 4 || n[0] == 0 || e[0] == 0 {
			return nil, bad
		}
		pub := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
		if bits := pub.N.BitLen(); bits < minRSA || bits > maxRSA || pub.E < 3 || pub.E%2 == 0 {
			return nil, errors.New("its RSA key is not of 2048 to 4096 bits")
		}
		k.public = pub
		if k.method = jwt.SigningMethodRS256; alg == "PS256" {
			k.method = jwt.SigningMethodPS256
		}
		thumb = `{"e":"` + encode(e) + `","kty":"RSA","n":"` + encode(n) + `"}`
	default:
		return nil, errors.New("its algorithm is not one of " + ProofAlgorithms)
	}
	sum := sha256.Sum256([]byte(thumb))
	k.jkt = encode(sum[:])
	return k, nil
}

// HashOf is what a proof for a request with a token has as its ath (RFC 9449,
// section 4.2).
func HashOf(raw string) string {
	sum := sha256.Sum256([]byte(raw))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
