package caddyvault

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddyvault/caddyvault/vault"
)

// Bounds of the settings of signing keys.
const (
	defaultPublishFor = 10 * time.Minute
	minPublishFor     = vault.JWKSMaxAge * time.Second
	minRotateEvery    = time.Hour
)

// Signing says how the keys that the vault makes for itself sign tokens. It has
// no place beside a `signing_key`.
type Signing struct {
	// The algorithm: `EdDSA`, `ES256`, or `HS256`, with which nobody else can
	// verify tokens. Default: `EdDSA`.
	Algorithm string `json:"algorithm,omitempty"`

	// How long a key signs before another takes over; at least an hour.
	// Default: until `vault.admin.rotateSigningKey` is called.
	RotateEvery caddy.Duration `json:"rotate_every,omitempty"`

	// How long a key is published before it signs, at least the 5 minutes
	// that the key set may be kept. Default: `10m`.
	PublishFor caddy.Duration `json:"publish_for,omitempty"`
}

// config checks the settings and fills in the defaults.
func (s *Signing) config() (vault.SigningConfig, error) {
	if s == nil {
		s = new(Signing)
	}
	c := vault.SigningConfig{Algorithm: s.Algorithm, RotateEvery: time.Duration(s.RotateEvery), PublishFor: time.Duration(s.PublishFor)}
	if c.Algorithm == "" {
		c.Algorithm = "EdDSA"
	}
	if c.PublishFor == 0 {
		c.PublishFor = defaultPublishFor
	}
	switch {
	case !slices.Contains([]string{"EdDSA", "ES256", "HS256"}, c.Algorithm):
		return c, fmt.Errorf("signing: algorithm is EdDSA, ES256 or HS256, not %q", c.Algorithm)
	case c.PublishFor < minPublishFor:
		return c, fmt.Errorf("signing: publish_for: %s is shorter than %s, for which the key set may be kept", c.PublishFor, minPublishFor)
	case c.RotateEvery != 0 && c.RotateEvery < minRotateEvery:
		return c, fmt.Errorf("signing: rotate_every: %s is shorter than %s", c.RotateEvery, minRotateEvery)
	case c.RotateEvery != 0 && c.RotateEvery <= c.PublishFor:
		return c, errors.New("signing: rotate_every is not longer than publish_for")
	}
	return c, nil
}

func (s *Signing) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	err := eachSetting(d, func(setting string) (err error) {
		switch setting {
		case "algorithm":
			err = oneArg(d, &s.Algorithm)
		case "rotate_every":
			err = durationArg(d, &s.RotateEvery)
		case "publish_for":
			err = durationArg(d, &s.PublishFor)
		default:
			err = d.Errf("unknown setting %q of signing", setting)
		}
		return err
	})
	if err != nil {
		return err
	}
	if _, err := s.config(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}
