package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/token/strict"
)

// Bounds on a key set.
const (
	maxDocument = 256 << 10 // bytes of a key set or a discovery document
	maxKeys     = 256
	minRSA      = 2048 // bits: below they are weak,
	maxRSA      = 8192 // above they are slow
)

// Algorithms are those that a JWT may be signed with: no symmetric one, as what
// verifies it is public.
var Algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// key is one public key of an issuer.
type key struct {
	kid    string
	alg    string // "" for any that fits its type
	public crypto.PublicKey
}

// fits reports whether the key may verify an algorithm.
func (k *key) fits(alg string) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch pub := k.public.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case *ecdsa.PublicKey:
		return alg == "ES256" && pub.Curve == elliptic.P256() || alg == "ES384" && pub.Curve == elliptic.P384() || alg == "ES512" && pub.Curve == elliptic.P521()
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// keySet is the public keys of an issuer. It never changes.
type keySet struct {
	byKid map[string][]*key
	all   []*key

	// skipped are keys that are of no use here: of other kinds, for other
	// purposes, weak or broken.
	skipped int

	document []byte // what was read
}

// find returns the one key that a JWT names. known is false if the set has none
// of that id; with known and no key, none or more than one fits.
func (s *keySet) find(h header) (k *key, known bool) {
	list := s.all
	if h.hasKid {
		list = s.byKid[h.kid]
	}
	for _, one := range list {
		if !one.fits(h.alg) {
			continue
		}
		if k != nil && !k.equal(one) {
			return nil, true
		}
		k = one
	}
	return k, len(list) > 0
}

// jwk is what is read of a key; what else stands there, such as certificates,
// says nothing here.
type jwk struct {
	Type       string         `json:"kty"`
	Use        string         `json:"use"`
	Operations []string       `json:"key_ops"`
	Algorithm  string         `json:"alg"`
	ID         string         `json:"kid"`
	Curve      string         `json:"crv,omitzero"`
	X          string         `json:"x,omitzero"`
	Y          string         `json:"y,omitzero"`
	N          string         `json:"n,omitzero"`
	E          string         `json:"e,omitzero"`
	D          jsontext.Value `json:"d,omitzero"`
	K          jsontext.Value `json:"k,omitzero"`
}

// parseKeySet reads a JWK Set (RFC 7517). A key that is of no use is skipped,
// as an issuer may have others for other purposes.
func parseKeySet(data []byte) (*keySet, error) {
	if len(data) > maxDocument {
		return nil, fmt.Errorf("the key set is larger than %d bytes", maxDocument)
	}
	var list []jsontext.Value
	found := false
	err := strict.Whole(data, func(d *jsontext.Decoder, name string) error {
		if name != "keys" {
			return d.SkipValue()
		}
		found = true
		return json.UnmarshalDecode(d, &list)
	})
	if err != nil || !found || list == nil {
		return nil, errors.New("this is no JWK set")
	}
	if len(list) > maxKeys {
		return nil, fmt.Errorf("the key set has more than %d keys", maxKeys)
	}
	set := &keySet{byKid: make(map[string][]*key), document: data}
	for _, v := range list {
		k := parseKey(v)
		if k == nil {
			set.skipped++
			continue
		}
		set.all = append(set.all, k)
		set.byKid[k.kid] = append(set.byKid[k.kid], k)
	}
	return set, nil
}

// equal reports whether two keys are one.
func (k *key) equal(other *key) bool {
	pub, ok := k.public.(interface{ Equal(x crypto.PublicKey) bool })
	return ok && pub.Equal(other.public)
}

// parseKey reads a key, and returns nil if it is of no use.
func parseKey(v jsontext.Value) *key {
	var j jwk
	if json.Unmarshal(v, &j) != nil || len(j.ID) > maxKid {
		return nil
	}
	switch {
	case j.Use != "" && j.Use != "sig" && j.Use != "jwt-svid": // the last is of SPIFFE bundles
		return nil
	case j.Operations != nil && !slices.Contains(j.Operations, "verify"):
		return nil
	case j.D != nil || j.K != nil: // what signs is known to everybody
		return nil
	case j.Algorithm != "" && !slices.Contains(Algorithms, j.Algorithm):
		return nil
	case len(j.E) > 6: // more than 4 bytes, which the library would cut
		return nil
	}
	// Only what makes the key, so that nothing else of it can be in the way.
	plain, err := json.Marshal(jwk{Type: j.Type, Curve: j.Curve, X: j.X, Y: j.Y, N: j.N, E: j.E, Use: j.Use, ID: j.ID, Algorithm: j.Algorithm})
	if err != nil {
		return nil
	}
	var parsed jose.JSONWebKey
	if parsed.UnmarshalJSON(plain) != nil || !parsed.IsPublic() || !parsed.Valid() {
		return nil
	}
	if pub, ok := parsed.Key.(*rsa.PublicKey); ok {
		if bits := pub.N.BitLen(); bits < minRSA || bits > maxRSA || pub.E < 3 || pub.E%2 == 0 || pub.N.Bit(0) == 0 {
			return nil
		}
	}
	return &key{kid: j.ID, alg: j.Algorithm, public: parsed.Key}
}
