package token

import (
	"errors"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token/strict"
)

// life is when a verified token is good, in Unix seconds with the leeway in
// it: from <= now < until.
type life struct{ from, until int64 }

// in reports whether now lies in the life.
func (l life) in(now int64) bool { return l.from <= now && now < l.until }

// verify does the whole of Verify but for the cache. Form comes first, because
// it is cheap; then the signature; and only then what the claims say.
func (a *Authority) verify(raw string) (*Verified, life, *refusal.Refusal) {
	head, rest, ok := strings.Cut(raw, ".")
	if !ok || strings.Count(rest, ".") != 1 {
		return nil, life{}, invalid("it is not a signed token of three parts")
	}
	if !strict.Alphabet(raw) {
		return nil, life{}, invalid("it has characters that no token has")
	}
	h, reason := parseHeader(head)
	if reason != "" {
		return nil, life{}, invalid(reason)
	}
	keys := a.current()
	v := keys.noKid
	if h.hasKid {
		v = keys.byKid[h.kid]
	}
	if h.hasKid && keys.gone[h.kid] || v != nil && v.key.dead.Load() {
		return nil, life{}, retired()
	}
	if v == nil {
		return nil, life{}, invalid("its key is not one of this vault")
	}
	if h.alg != v.key.method.Alg() {
		return nil, life{}, invalid("its algorithm is not that of its key")
	}

	var w wireClaims
	if reason := v.read(raw, &w, a.signed.has(raw)); reason != "" {
		return nil, life{}, invalid(reason)
	}
	err := v.claims.Validate(&w) // which may quote the token
	if reason := w.check(&a.opts, v.issued); reason != "" {
		return nil, life{}, invalid(reason)
	}
	l := w.life(a.opts.Leeway)
	switch now := a.opts.Now().Unix(); {
	case now >= l.until:
		return nil, life{}, expired()
	case now < l.from:
		return nil, life{}, invalid("it is not valid yet")
	case err != nil && errors.Is(err, jwt.ErrTokenExpired):
		return nil, life{}, expired() // the clock was set back between two looks
	case err != nil:
		return nil, life{}, invalid("its claims are not those of a token")
	}

	out := &Verified{Claims: w.claims()}
	out.Key = Key{v.key}
	if a.opts.Derive != nil {
		out.Ext = a.opts.Derive(&out.Claims)
	}
	return out, l, nil
}

// read verifies the signature, unless it is of this very process, and then reads
// the claims. raw is three parts in the alphabet of tokens.
func (v *verifier) read(raw string, w *wireClaims, signed bool) (reason string) {
	const malformed = "its form or its claims are not those of a token"
	dot := strings.LastIndexByte(raw, '.')
	text := raw[:dot]
	if !signed {
		signature, err := strict.Base64.DecodeString(raw[dot+1:])
		if err != nil {
			return malformed
		}
		if err := v.key.method.Verify(text, signature, v.key.verify); err != nil {
			return "its signature does not match"
		}
	}
	claims, err := strict.Base64.DecodeString(text[strings.IndexByte(text, '.')+1:])
	if err != nil || w.read(claims) != nil {
		return malformed
	}
	return ""
}

// header is the part of a token that is read before its signature is checked.
type header struct {
	alg, kid string
	hasKid   bool
}

// parseHeader reads alg, kid and typ, and refuses any other parameter: crit
// asks for an extension (RFC 7515, section 4.1.11), jwk, jku, x5c and x5u
// bring a key, cty and zip change what the payload is. No token of the vault
// or of the existing system has one.
func parseHeader(segment string) (h header, reason string) {
	const malformed = "its header is not that of a token"
	raw, err := strict.Base64.DecodeString(segment)
	if err != nil {
		return header{}, malformed
	}
	err = strict.Whole(raw, func(d *jsontext.Decoder, name string) error {
		s, ok := strict.Text(d)
		if !ok {
			return strict.ErrForm
		}
		switch name {
		case "alg":
			h.alg = s
		case "kid":
			h.kid, h.hasKid = s, true
		case "typ":
			// RFC 7515, section 4.1.9: compared without regard to case.
			if !strings.EqualFold(s, "JWT") {
				return strict.ErrForm
			}
		default:
			return strict.ErrForm
		}
		return nil
	})
	if err != nil || h.alg == "" {
		return header{}, malformed
	}
	return h, ""
}

// Remaining returns how long after now a token with these claims is accepted.
func (a *Authority) Remaining(c *Claims, now time.Time) time.Duration {
	return c.ExpiresAt.Add(a.opts.Leeway).Sub(now)
}
