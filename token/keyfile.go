package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// The file of a Ring is a sequence of PEM blocks. A key that is one block
// "PRIVATE KEY" (PKCS #8) without headers is as older versions wrote it.
const (
	blockPrivate = "PRIVATE KEY"
	blockHMAC    = "HMAC KEY"    // the bytes
	blockRetired = "RETIRED KEY" // none; the headers say which
)

// The headers of a block.
const (
	headerKid        = "Kid"
	headerAlgorithm  = "Algorithm"
	headerCreated    = "Created"
	headerActiveFrom = "Active-From"
	headerRetired    = "Retired"
)

// newKey makes a key of an algorithm: EdDSA, ES256 or HS256.
func newKey(alg string) (Key, error) {
	switch alg {
	case "EdDSA":
		_, priv, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return Key{}, err
		}
		return Ed25519Key(priv)
	case "ES256":
		priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return Key{}, err
		}
		return ES256Key(priv)
	case "HS256":
		b := make([]byte, hmacSize+kidSize)
		_, _ = rand.Read(b) // never fails
		return namedHMACKey(b[:hmacSize], encode(b[hmacSize:]))
	}
	return Key{}, fmt.Errorf("no algorithm %q: there are EdDSA, ES256 and HS256", alg)
}

// parseKeys reads a file of keys. What x509 says of a damaged key is dropped,
// in case it quotes from it.
func parseKeys(data []byte) ([]RingKey, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("empty file")
	}
	var keys []RingKey
	seen := map[string]bool{}
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		if !bytes.HasPrefix(rest, []byte("-----BEGIN ")) {
			return nil, errors.New("not only private keys in PEM")
		}
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("not a PKCS #8 private key in PEM")
		}
		k, err := parseBlock(block)
		if err != nil {
			return nil, err
		}
		if seen[k.Kid()] {
			return nil, errors.New("a key is there twice")
		}
		seen[k.Kid()] = true
		keys = append(keys, k)
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (k RingKey, err error) {
	switch block.Type {
	case blockPrivate:
		k.Key, err = parsePrivate(block.Bytes)
	case blockHMAC:
		k.Key, err = namedHMACKey(block.Bytes, block.Headers[headerKid])
	case blockRetired:
		k.kid, k.alg = block.Headers[headerKid], block.Headers[headerAlgorithm]
		if k.kid == "" || block.Headers[headerRetired] == "" || len(block.Bytes) > 0 {
			err = errors.New("damaged retired key")
		}
	default:
		err = errors.New("not a PKCS #8 private key in PEM")
	}
	if err != nil {
		return k, err
	}
	for header, into := range map[string]*time.Time{headerCreated: &k.Created, headerActiveFrom: &k.ActiveFrom, headerRetired: &k.Retired} {
		text, ok := block.Headers[header]
		if !ok {
			continue
		}
		if *into, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return k, fmt.Errorf("damaged header %s", header)
		}
	}
	if k.m != nil && !k.Retired.IsZero() {
		return k, errors.New("a retired key that is whole")
	}
	return k, nil
}

func parsePrivate(der []byte) (Key, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return Key{}, errors.New("damaged PKCS #8 private key")
	}
	switch priv := key.(type) {
	case ed25519.PrivateKey:
		return Ed25519Key(priv)
	case *ecdsa.PrivateKey:
		return ES256Key(priv)
	}
	return Key{}, fmt.Errorf("a key of type %T, Ed25519 or P-256 is needed", key)
}

// formatKeys is the inverse of parseKeys.
func formatKeys(keys []RingKey) ([]byte, error) {
	var out []byte
	for _, k := range keys {
		block := &pem.Block{Type: blockRetired, Headers: map[string]string{}}
		for header, t := range map[string]time.Time{headerCreated: k.Created, headerActiveFrom: k.ActiveFrom, headerRetired: k.Retired} {
			if !t.IsZero() {
				block.Headers[header] = t.UTC().Format(time.RFC3339Nano)
			}
		}
		switch {
		case k.m == nil:
			block.Headers[headerKid], block.Headers[headerAlgorithm] = k.kid, k.alg
		case k.Algorithm() == "HS256":
			block.Type, block.Bytes = blockHMAC, k.m.sign.([]byte)
			block.Headers[headerKid] = k.m.kid
		default:
			der, err := x509.MarshalPKCS8PrivateKey(k.m.sign)
			if err != nil {
				return nil, errors.New("a key cannot be written")
			}
			block.Type, block.Bytes = blockPrivate, der
		}
		out = append(out, pem.EncodeToMemory(block)...)
	}
	return out, nil
}
