package identity

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddyvault/caddyvault/token/strict"
)

// MaxJWT is the longest JWT that is looked at, in bytes: one with a few hundred
// groups fits.
const MaxJWT = 16 << 10

// maxKid is the longest key id, in bytes.
const maxKid = 512

// LooksLikeJWT reports whether a credential means to be a JWT, signed or
// encrypted. Whoever sends one is told if it is not good, and not taken for
// somebody else.
func LooksLikeJWT(raw string) bool {
	dots := strings.Count(raw, ".")
	return dots == 2 || dots == 4
}

// Issuer returns the iss of a JWT that nobody has verified, "" if it has none.
// It reports false if the JWT cannot be read.
func Issuer(raw string) (iss string, ok bool) {
	c, err := peek(raw)
	if err != nil {
		return "", false
	}
	return c.iss, true
}

// peek reads the claims of a JWT that nobody has verified.
func peek(raw string) (*claims, error) {
	if len(raw) > MaxJWT {
		return nil, errors.New("it is longer than " + strconv.Itoa(MaxJWT) + " bytes")
	}
	_, rest, _ := strings.Cut(raw, ".")
	body, signature, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(signature, ".") || !strict.Alphabet(raw) {
		return nil, errors.New("it is not a signed JWT of three parts")
	}
	data, err := strict.Base64.DecodeString(body)
	c := new(claims)
	if err != nil || c.UnmarshalJSON(data) != nil {
		return nil, errors.New("its claims cannot be read, or stand there twice")
	}
	return c, nil
}

// header is what is read of a JWT's header.
type header struct {
	alg, kid string
	hasKid   bool
}

// parseHeader reads the header of a JWT. What would bring a key or say where
// there is one, asks for an extension, or makes the payload something else than
// claims is an error; what else is unknown is ignored (RFC 7515, section 4).
func parseHeader(segment string) (h header, err error) {
	raw, err := strict.Base64.DecodeString(segment)
	if err != nil {
		return h, errors.New("its header cannot be read")
	}
	var bad string
	err = strict.Whole(raw, func(d *jsontext.Decoder, name string) error {
		var s string
		var ok bool
		switch name {
		case "alg", "kid", "typ":
			s, ok = strict.Text(d)
		case "crit", "jwk", "jku", "x5u", "b64", "zip", "enc", "cty", "epk":
			bad, ok = name, false
		default:
			return d.SkipValue()
		}
		switch name {
		case "alg":
			h.alg = s
		case "kid":
			h.kid, h.hasKid = s, true
			ok = ok && len(s) <= maxKid
		case "typ":
			if !goodType(s) {
				bad, ok = name, false
			}
		}
		if !ok {
			return strict.ErrForm
		}
		return nil
	})
	switch {
	case bad == "typ":
		return h, errors.New("its typ is that of something else than an identity")
	case bad != "":
		return h, errors.New("its header has " + bad + ", which is not taken")
	case err != nil || h.alg == "":
		return h, errors.New("its header cannot be read, or has no alg")
	}
	return h, nil
}

// goodType reports whether a typ is one of an identity or an access token: not
// one of a proof, an event or a logout, which the same issuer may sign.
func goodType(typ string) bool {
	typ = strings.ToLower(typ)
	switch strings.TrimPrefix(typ, "application/") {
	case "jwt", "jose", "at+jwt", "id+jwt":
		return true
	}
	return typ == ""
}

// claims is the payload of a JWT. It is the jwt.Claims that the library
// validates.
type claims struct {
	iss           string
	aud           []string
	exp, nbf, iat time.Time // zero if absent
	bound         bool      // it is good together with a proof only (RFC 7800)
	all           map[string]jsontext.Value
}

// UnmarshalJSON reads the payload. A registered claim of the wrong type is an
// error, null too.
func (c *claims) UnmarshalJSON(data []byte) error {
	c.all = make(map[string]jsontext.Value)
	return strict.Whole(data, func(d *jsontext.Decoder, name string) error {
		v, err := d.ReadValue()
		if err != nil {
			return strict.ErrForm
		}
		v = v.Clone() // the decoder reuses its buffer
		c.all[name] = v
		ok := true
		switch name {
		case "iss":
			c.iss, ok = text(v)
		case "sub", "jti":
			_, ok = text(v)
		case "aud":
			c.aud, ok = texts(v)
		case "exp":
			c.exp, ok = numericDate(v)
		case "nbf":
			c.nbf, ok = numericDate(v)
		case "iat":
			c.iat, ok = numericDate(v)
		case "cnf":
			c.bound = true
		}
		if !ok {
			return strict.ErrForm
		}
		return nil
	})
}

// text returns the string that a value is.
func text(v jsontext.Value) (string, bool) {
	if v.Kind() != '"' {
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err == nil
}

// texts returns the strings of a value: one, or an array.
func texts(v jsontext.Value) ([]string, bool) {
	if s, ok := text(v); ok {
		return []string{s}, true
	}
	return strict.AnyTexts(jsontext.NewDecoder(bytes.NewReader(v)))
}

// scalar returns the text of a string, a number or a boolean.
func scalar(v jsontext.Value) (string, bool) {
	switch v.Kind() {
	case '"':
		return text(v)
	case '0', 't', 'f':
		return string(v), true
	}
	return "", false
}

// numericDate reads a NumericDate (RFC 7519, section 2): seconds, which others
// than the vault may write with a fraction.
func numericDate(v jsontext.Value) (time.Time, bool) {
	if v.Kind() != '0' {
		return time.Time{}, false
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || !(f >= 0 && f <= strict.MaxTime) {
		return time.Time{}, false
	}
	return time.Unix(int64(f), 0), true
}

// at returns the claim of a name: a member of the payload, or with a slash at
// the start what a JSON Pointer (RFC 6901) leads to.
func (c *claims) at(name string) (jsontext.Value, bool) {
	if !strings.HasPrefix(name, "/") {
		v, ok := c.all[name]
		return v, ok
	}
	members, v, ok := c.all, jsontext.Value(nil), true
	for step := range strings.SplitSeq(name[1:], "/") {
		if v, ok = members[unescapePointer.Replace(step)]; !ok {
			return nil, false
		}
		members = nil
		if v.Kind() == '{' {
			members = make(map[string]jsontext.Value)
			err := strict.Whole(v, func(d *jsontext.Decoder, name string) error {
				member, err := d.ReadValue()
				members[name] = member.Clone()
				return err
			})
			if err != nil {
				return nil, false
			}
		}
	}
	return v, ok
}

var unescapePointer = strings.NewReplacer("~1", "/", "~0", "~")

// The methods below are jwt.Claims.

func date(t time.Time) (*jwt.NumericDate, error) {
	if t.IsZero() {
		return nil, nil
	}
	return jwt.NewNumericDate(t), nil
}

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return date(c.exp) }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return date(c.iat) }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return date(c.nbf) }
func (c *claims) GetIssuer() (string, error)                   { return c.iss, nil }
func (c *claims) GetSubject() (string, error)                  { return "", nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error)       { return c.aud, nil }

var _ jwt.Claims = (*claims)(nil)
