package token

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddyvault/caddyvault/token/strict"
)

// wireClaims is the payload of a token as it is read: every claim has exactly
// the type that the vault writes, and a claim that is null is an error. It is
// the jwt.Claims that the library validates.
type wireClaims struct {
	aud, iss, sub, jti, service string
	hasIss, hasScope, hasCtx    bool
	iat, exp, nbf               time.Time // zero if absent
	scope                       []string
	ctx                         Context
	groups                      []string
	narrow                      *narrowClaims // nil if it has none of them
}

// read reads the payload. Claims that it does not know are ignored
// (RFC 7519, section 4). What narrows a token is in narrowclaims.go.
func (w *wireClaims) read(data []byte) error {
	return strict.Whole(data, func(d *jsontext.Decoder, name string) error {
		var ok bool
		switch name {
		case "aud":
			w.aud, ok = strict.Text(d)
		case "iss":
			w.iss, ok = strict.Text(d)
			w.hasIss = true
		case "sub":
			w.sub, ok = strict.Text(d)
		case "jti":
			w.jti, ok = strict.Text(d)
		case "service":
			w.service, ok = strict.Text(d)
		case "iat":
			w.iat, ok = strict.Seconds(d)
		case "exp":
			w.exp, ok = strict.Seconds(d)
		case "nbf":
			w.nbf, ok = strict.Seconds(d)
		case "scope":
			w.scope, ok = strict.Texts(d)
			w.hasScope = true
		case "ctx":
			w.ctx, ok = readContext(d)
			w.hasCtx = true
		case "groups":
			w.groups, ok = strict.Texts(d)
		default:
			known, good := w.readNarrow(d, name)
			ok = good
			if !known {
				ok = d.SkipValue() == nil
			}
		}
		if !ok {
			return strict.ErrForm
		}
		return nil
	})
}

// readContext reads the claim "ctx".
func readContext(d *jsontext.Decoder) (c Context, ok bool) {
	err := strict.Object(d, func(d *jsontext.Decoder, name string) error {
		var to *string
		switch name {
		case "agentId":
			to = &c.AgentID
		case "sessionId":
			to = &c.SessionID
		case "taskId":
			to = &c.TaskID
		case "skillId":
			to = &c.SkillID
		case "tool":
			to = &c.Tool
		default:
			return d.SkipValue()
		}
		var ok bool
		if *to, ok = strict.Text(d); !ok {
			return strict.ErrForm
		}
		return nil
	})
	return c, err == nil
}

// check returns what is wrong with the claims, apart from the clock, or an
// empty string. issued says that the issuer must be there: only tokens
// without a key id, which the existing system writes too, may lack it.
func (w *wireClaims) check(o *Options, issued bool) (reason string) {
	switch {
	case w.aud != o.Audience:
		return "it is for another audience"
	case w.iss != o.Issuer && (issued || w.hasIss):
		return "it is from another issuer"
	case w.jti == "" || w.sub == "" || w.service == "" || !w.hasScope || !w.hasCtx:
		return "it lacks a claim that every token has"
	case w.sub != w.ctx.AgentID:
		return "its subject is not its agent"
	case w.iat.IsZero() || w.exp.IsZero():
		return "it does not say when it was issued and expires"
	case !w.exp.After(w.iat):
		return "it expires before it was issued"
	case w.exp.Sub(w.iat) > o.MaxTTL:
		return "it lives longer than is allowed"
	}
	if w.narrow != nil {
		return w.narrow.check(w.sub)
	}
	return ""
}

// life returns when the token is good: from the later of iat and nbf to exp,
// both with the leeway.
func (w *wireClaims) life(leeway time.Duration) life {
	from := w.iat
	if w.nbf.After(from) {
		from = w.nbf
	}
	// Whole seconds: a fraction of a leeway is dropped on the strict side.
	s := int64(leeway / time.Second)
	return life{from: from.Unix() - s, until: w.exp.Unix() + s}
}

// claims returns what callers see.
func (w *wireClaims) claims() Claims {
	c := Claims{
		Subject:   w.sub,
		Audience:  w.aud,
		Issuer:    w.iss,
		ID:        w.jti,
		IssuedAt:  w.iat,
		ExpiresAt: w.exp,
		Service:   w.service,
		Scope:     w.scope,
		Context:   w.ctx,
		Groups:    w.groups,
	}
	if w.narrow != nil {
		w.narrow.fill(&c)
	}
	return c
}

// The methods below are jwt.Claims.

func date(t time.Time) *jwt.NumericDate {
	if t.IsZero() {
		return nil
	}
	return &jwt.NumericDate{Time: t}
}

func (w *wireClaims) GetExpirationTime() (*jwt.NumericDate, error) { return date(w.exp), nil }
func (w *wireClaims) GetIssuedAt() (*jwt.NumericDate, error)       { return date(w.iat), nil }
func (w *wireClaims) GetNotBefore() (*jwt.NumericDate, error)      { return date(w.nbf), nil }
func (w *wireClaims) GetIssuer() (string, error)                   { return w.iss, nil }
func (w *wireClaims) GetSubject() (string, error)                  { return w.sub, nil }
func (w *wireClaims) GetAudience() (jwt.ClaimStrings, error)       { return jwt.ClaimStrings{w.aud}, nil }

var _ jwt.Claims = (*wireClaims)(nil)
