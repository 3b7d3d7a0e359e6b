package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// credential is what one request is made with.
type credential struct{ Token, Proof string }

// issued asks for a token, bound to the key of a proof if there is one.
func issued(url, service, proof string) (string, error) {
	r := issueFor(url, service)
	r.Proof = proof
	out, err := send(r)
	if err != nil {
		return "", err
	}
	var answer struct{ Token string }
	err = json.Unmarshal(out, &answer)
	return answer.Token, err
}

// freshTokens gets tokens that nobody has used yet.
func freshTokens(_ *stage, url string, n int) ([]credential, error) {
	all := make([]credential, n)
	return all, parallel(n, 32, func(i int) (err error) {
		all[i].Token, err = issued(url, "svc", "")
		return err
	})
}

// holders is how many keys the proofs are of: the vault remembers some
// thousand proofs of each.
const holders = 64

// freshProofs makes DPoP proofs (RFC 9449) of some holders of bound tokens, by
// turns. They are good for a minute.
func freshProofs(_ *stage, url string, n int) ([]credential, error) {
	all := make([]credential, n)
	return all, parallel(min(holders, n), 32, func(h int) error {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		proof, err := proofFor(key, url+"/vault.issueToken", "")
		if err != nil {
			return err
		}
		token, err := issued(url, "svc", proof)
		if err != nil {
			return err
		}
		for i := h; i < n; i += holders {
			proof, err := proofFor(key, url+"/vault.call", token)
			if err != nil {
				return err
			}
			all[i] = credential{token, proof}
		}
		return nil
	})
}

// parallel runs f for 0 to n-1, so many at once, until one fails.
func parallel(n, workers int, f func(i int) error) error {
	var next, failed atomic.Int64
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == 0; i = int(next.Add(1)) - 1 {
				if errs[w] = f(i); errs[w] != nil {
					failed.Store(1)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// proofFor makes a proof for a POST, with a token or to get one.
func proofFor(key *ecdsa.PrivateKey, url, token string) (string, error) {
	encode := base64.RawURLEncoding.EncodeToString
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return "", err
	}
	claims := jwt.MapClaims{"jti": rand.Text(), "htm": "POST", "htu": url, "iat": time.Now().Unix()}
	if token != "" {
		hash := sha256.Sum256([]byte(token))
		claims["ath"] = encode(hash[:])
	}
	t := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	t.Header["typ"] = "dpop+jwt"
	t.Header["jwk"] = map[string]string{"kty": "EC", "crv": "P-256", "x": encode(point[1:33]), "y": encode(point[33:])}
	signed, err := t.SignedString(key)
	if err != nil {
		return "", fmt.Errorf("proof: %w", err)
	}
	return signed, nil
}
