package vault

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"hash/maphash"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token"
)

// Holder is what a request shows of who holds the token in it.
type Holder struct {
	// Proofs are the values of the DPoP header (RFC 9449).
	Proofs []string

	// Method and URL are the request's, the URL as the client sees it.
	Method string
	URL    string

	// Certificate is the SHA-256 in base64url of the client certificate that
	// TLS has verified, "" for none.
	Certificate string
}

// HolderSource gives the holder of a request, when it is asked for.
type HolderSource interface {
	Holder() Holder

	// SaysDPoP reports whether the token came as Authorization: DPoP. It is
	// asked on every call.
	SaysDPoP() bool
}

// Bounds on proofs.
const (
	proofAge    = 60 * time.Second // how old one may be
	proofAhead  = 5 * time.Second  // how far ahead the client's clock may be
	nonceLife   = 5 * time.Minute
	proofShards = 32
	proofsKept  = 64 << 10 // of a shard and period: over 900 a second for one key
)

// proofs remembers which proofs were used, and makes nonces. It outlives
// configurations.
type proofs struct {
	now    func() time.Time
	since  time.Time // what was used before is not known
	key    []byte    // of nonces
	seed   maphash.Seed
	shards [proofShards]struct {
		mu        sync.Mutex
		turned    time.Time
		used, old map[[2]uint64]struct{}
	}
}

func newProofs(now func() time.Time) *proofs {
	return &proofs{now: now, since: now().Truncate(time.Second), key: randomBytes(32), seed: maphash.MakeSeed()}
}

// nonce returns the nonce of now: a time and its MAC.
func (p *proofs) nonce() string {
	b := binary.BigEndian.AppendUint64(nil, uint64(p.now().Unix()))
	return base64.RawURLEncoding.EncodeToString(p.sealed(b))
}

func (p *proofs) sealed(b []byte) []byte {
	mac := hmac.New(sha256.New, p.key)
	mac.Write(b)
	return mac.Sum(b)[:8+16]
}

func (p *proofs) goodNonce(s string) bool {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != 8+16 || subtle.ConstantTimeCompare(p.sealed(b[:8:8]), b) != 1 {
		return false
	}
	age := p.now().Sub(time.Unix(int64(binary.BigEndian.Uint64(b)), 0))
	return age >= -time.Second && age <= nonceLife
}

// use takes note of a proof and reports whether it is new, or false for full
// if there is no room to remember it: then it is not taken. The keys of a
// shard share its room, so that one holder cannot fill that of all.
func (p *proofs) use(jkt, id string) (fresh, room bool) {
	const period = proofAge + proofAhead + 5*time.Second
	var h maphash.Hash
	h.SetSeed(p.seed)
	h.WriteString(jkt)
	at := h.Sum64()
	h.WriteString(id)
	key := [2]uint64{at, h.Sum64()}

	s := &p.shards[at%proofShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := p.now(); now.Sub(s.turned) >= period || now.Before(s.turned) {
		// What is two periods old could not be used any more.
		if s.old = s.used; now.Sub(s.turned) >= 2*period {
			s.old = nil
		}
		s.used, s.turned = make(map[[2]uint64]struct{}), now
	}
	if _, ok := s.used[key]; ok {
		return false, true
	}
	if _, ok := s.old[key]; ok {
		return false, true
	}
	if len(s.used) >= proofsKept {
		return true, false
	}
	s.used[key] = struct{}{}
	return true, true
}

// checkProof checks that a request has one proof, for itself and for the
// token if there is one, and returns the thumbprint of its key.
func (v *Vault) checkProof(h Holder, raw, jkt string) (string, *refusal.Refusal) {
	if len(h.Proofs) != 1 {
		return "", proofInvalid("there must be one DPoP header, and it must be one proof")
	}
	p, err := token.ParseProof(h.Proofs[0])
	if err != nil {
		return "", proofInvalid("%s", err)
	}
	switch now := v.now(); {
	case jkt != "" && p.JKT != jkt:
		return "", proofInvalid("its key is not the one that the token is bound to")
	case p.Method != h.Method:
		return "", proofInvalid("its htm is not the method of the request")
	case !v.sameURL(p.URL, h.URL):
		return "", proofInvalid("its htu is not the URL of the request")
	case p.IssuedAt.Before(v.proofs.since):
		return "", proofInvalid("it is older than the vault's memory of used ones, which begins with its start")
	case p.IssuedAt.Before(now.Add(-proofAge)) || p.IssuedAt.After(now.Add(proofAhead)):
		return "", proofInvalid("its iat is not about now").WithHint("set the clock; the vault's is at %d", now.Unix())
	case raw != "" && p.Hash != token.HashOf(raw):
		return "", proofInvalid("its ath is not the hash of the token")
	case p.Nonce != "" && !v.proofs.goodNonce(p.Nonce), p.Nonce == "" && v.DPoPNonce:
		return "", refusal.New("DPOP_NONCE_REQUIRED", "the proof needs the vault's nonce, a new one").
			WithHint("make the proof again with the nonce in the header DPoP-Nonce").
			WithChallenge(`DPoP error="use_dpop_nonce", algs="` + token.ProofAlgorithms + `"`)
	}
	switch fresh, room := v.proofs.use(p.JKT, p.ID); {
	case !room:
		r := refusal.New("RATE_LIMITED", "more proofs are used than can be remembered").WithHint("try again in a minute")
		r.RetryAfter = time.Minute
		return "", r
	case !fresh:
		return "", proofInvalid("it has been used before")
	}
	return p.JKT, nil
}

func proofInvalid(detail string, args ...any) *refusal.Refusal {
	return refusal.New("DPOP_PROOF_INVALID", "the DPoP proof is not valid: "+detail, args...).
		WithChallenge(`DPoP error="invalid_dpop_proof", algs="` + token.ProofAlgorithms + `"`)
}

// checkHolder checks that a request shows what its token is bound to.
func (v *Vault) checkHolder(t *token.Verified, raw string, src HolderSource) *refusal.Refusal {
	if t.Bound == nil {
		if src != nil && src.SaysDPoP() {
			return refusal.New("TOKEN_INVALID", "the token is not bound to a DPoP key").
				WithHint("send it as Authorization: Bearer").WithChallenge(`Bearer error="invalid_token"`)
		}
		return nil
	}
	var h Holder
	if src != nil {
		h = src.Holder()
	}
	switch {
	case t.Bound.X5T != "":
		if subtle.ConstantTimeCompare([]byte(t.Bound.X5T), []byte(h.Certificate)) != 1 {
			return bindingRequired("the token is bound to a client certificate, which the connection does not show").
				WithChallenge(`Bearer error="invalid_token"`)
		}
		return nil
	case len(h.Proofs) == 0:
		return bindingRequired("the token is bound to a key, and the request has no proof of it in the header DPoP").
			WithChallenge(`DPoP error="invalid_token", algs="` + token.ProofAlgorithms + `"`)
	}
	_, refused := v.checkProof(h, raw, t.Bound.JKT)
	return refused
}

// unbound is the code where a token has no holder, or another one than shows.
const unbound = "TOKEN_BINDING_REQUIRED"

// boundOtherwise refuses a token of an agent whose tokens have to be bound in
// another way since.
func boundOtherwise() *refusal.Refusal {
	return bindingRequired("the token is not bound as its agent's tokens have to be now").
		WithHint("ask for a new token, and show a DPoP proof or the client certificate with it, as the agent's record demands").
		WithChallenge(`Bearer error="invalid_token"`)
}

func bindingRequired(detail string) *refusal.Refusal {
	return refusal.New(unbound, "%s", detail).WithHint("only the holder of what it is bound to can use it")
}

// Kinds of binding that a request asks for or an agent's record demands.
const (
	BindDPoP = "dpop"
	BindMTLS = "mtls"
	BindAny  = "any"
)

// bind returns what a new token is bound to: what is asked for, which has to
// satisfy what is demanded. raw is a token that came with the proof, if any.
func (v *Vault) bind(src HolderSource, asked, demanded, raw string) (*token.Binding, *refusal.Refusal) {
	var h Holder
	if src != nil {
		h = src.Holder()
	}
	switch asked {
	case "", BindDPoP, BindMTLS:
	default:
		return nil, refusal.New("BIND_INVALID", "bind is dpop or mtls")
	}
	if demanded == BindDPoP && asked == BindMTLS || demanded == BindMTLS && asked == BindDPoP {
		return nil, bindingRequired("this agent's tokens have to be bound by " + demanded)
	}
	if asked == "" {
		switch {
		case demanded == BindDPoP || demanded == BindMTLS:
			asked = demanded
		case len(h.Proofs) > 0:
			asked = BindDPoP
		case demanded == BindAny && h.Certificate != "":
			asked = BindMTLS
		case demanded != "":
			return nil, bindingRequired("this agent's tokens have to be bound to a DPoP key or a client certificate").
				WithChallenge(`DPoP error="invalid_dpop_proof", algs="` + token.ProofAlgorithms + `"`)
		default:
			return nil, nil
		}
	}
	if asked == BindMTLS {
		if h.Certificate == "" {
			return nil, bindingRequired("the connection shows no client certificate to bind the token to").WithChallenge(`Bearer realm="caddyvault"`)
		}
		return &token.Binding{X5T: h.Certificate}, nil
	}
	if len(h.Proofs) == 0 {
		return nil, bindingRequired("the request has no proof in the header DPoP of a key to bind the token to").
			WithChallenge(`DPoP error="invalid_dpop_proof", algs="` + token.ProofAlgorithms + `"`)
	}
	jkt, refused := v.checkProof(h, raw, "")
	if refused != nil {
		return nil, refused
	}
	return &token.Binding{JKT: jkt}, nil
}

// sameURL compares the htu of a proof with the URL of a request, without
// query and fragment (RFC 9449, section 4.3). Behind something that ends TLS,
// the client's URL begins with the configured issuer, if that is a URL.
func (v *Vault) sameURL(claimed, actual string) bool {
	c, ok := canonicalURL(claimed)
	if !ok {
		return false
	}
	a, ok := canonicalURL(actual)
	if !ok {
		return false
	}
	if c == a {
		return true
	}
	issuer, ok := canonicalURL(v.Issuer)
	u, err := url.Parse(actual)
	if !ok || err != nil || !strings.HasPrefix(issuer, "https://") {
		return false
	}
	i, _ := url.Parse(issuer)
	own, ok := canonicalURL("https://" + i.Host + u.EscapedPath())
	return ok && c == own
}

// canonicalURL is a URL in the normal form of RFC 3986, section 6.2.2 and
// 6.2.3, as far as that changes nothing that a server may tell apart.
func canonicalURL(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Opaque != "" {
		return "", false
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	switch scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	default:
		return "", false
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return scheme + "://" + strings.TrimSuffix(host, ":") + canonicalPath(path), true
}

// canonicalPath writes percent-encodings one way, and none of a character that
// needs none.
func canonicalPath(p string) string {
	if !strings.Contains(p, "%") {
		return p
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(p))
	for i := 0; i < len(p); i++ {
		if p[i] != '%' || i+2 >= len(p) {
			b = append(b, p[i])
			continue
		}
		c := unhex(p[i+1])<<4 | unhex(p[i+2])
		i += 2
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

// DPoPNonceNow returns the nonce that answers to requests with a proof carry:
// "" if none is asked for, unless one that was sent is refused.
func (v *Vault) DPoPNonceNow(refused bool) string {
	if !v.DPoPNonce && !refused {
		return ""
	}
	return v.proofs.nonce()
}
