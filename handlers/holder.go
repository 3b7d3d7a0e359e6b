package handlers

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/caddyvault/caddyvault/vault"
)

// proofHeader carries a DPoP proof (RFC 9449, section 4.1), in Go's spelling.
const proofHeader = "Dpop"

// Holder implements vault.HolderSource. The URL is the one that the client has
// sent the request to, as far as this server can know it.
func (rq *request) Holder() vault.Holder {
	h := vault.Holder{Proofs: rq.Header[proofHeader], Method: rq.Method}
	scheme := "http://"
	if rq.TLS != nil {
		scheme = "https://"
		if cert, err := clientCertificate(rq.TLS, rq.vault.Now()); cert != nil && err == nil {
			sum := sha256.Sum256(cert.Raw)
			h.Certificate = base64.RawURLEncoding.EncodeToString(sum[:])
		}
	}
	target := rq.URL.EscapedPath()
	if path, _, _ := strings.Cut(rq.RequestURI, "?"); strings.HasPrefix(path, "/") {
		target = path
	}
	h.URL = scheme + rq.Host + target
	return h
}

// SaysDPoP implements vault.HolderSource.
func (rq *request) SaysDPoP() bool {
	for _, value := range rq.Header["Authorization"] {
		if scheme, _, _ := strings.Cut(value, " "); strings.EqualFold(scheme, "DPoP") {
			return true
		}
	}
	return false
}

// offerNonce gives the client of a request with a proof the nonce for its next
// one, where nonces are asked for or one was refused.
func (rq *request) offerNonce(code string) {
	if rq.vault == nil || rq.Header[proofHeader] == nil {
		return
	}
	if nonce := rq.vault.DPoPNonceNow(code == "DPOP_NONCE_REQUIRED"); nonce != "" {
		rq.w.Header().Set("DPoP-Nonce", nonce)
	}
}
