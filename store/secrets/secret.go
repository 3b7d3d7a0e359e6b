package secrets

import (
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"
)

const redacted = "[REDACTED]"

// MaxValue is the longest secret, in bytes.
const MaxValue = 64 << 10

// Secret is one secret, decrypted. It is immutable and shared: do not change
// Origins. However it is printed, the value is not shown.
type Secret struct {
	// Ref is its name, as services refer to it.
	Ref string

	// Value is the secret itself.
	Value string

	// Version grows with every change of this ref and is never used again,
	// not even after the secret was removed and added anew.
	Version uint64

	// UpdatedAt is when this version was stored.
	UpdatedAt time.Time

	// Origins are the origins (scheme://host[:port]) the secret may be sent
	// to, as an administrator bound them.
	Origins []string
}

// AllowsOrigin reports whether the secret is bound to origin, compared byte
// by byte: both sides are in canonical form.
func (s *Secret) AllowsOrigin(origin string) bool {
	return slices.Contains(s.Origins, origin)
}

// String describes the secret without its value.
func (s Secret) String() string {
	return fmt.Sprintf("secret %s version %d %s", s.Ref, s.Version, redacted)
}

// GoString is String.
func (s Secret) GoString() string { return s.String() }

// Format prints String for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalJSON returns String as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(fmt.Sprintf("%q", s.String())), nil }

// LogValue returns String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Info is what may be shown of a secret.
type Info struct {
	Ref       string
	Version   uint64
	UpdatedAt time.Time
	Origins   []string
}

var refPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// ValidRef reports whether ref can name a secret (config.md, "A service").
func ValidRef(ref string) bool { return refPattern.MatchString(ref) }

// checkOrigins refuses what cannot be an origin. Whether it is one in
// canonical form is the caller's to know; here it must only stay one string.
func checkOrigins(origins []string) error {
	for _, o := range origins {
		if o == "" || len(o) > 512 || strings.ContainsFunc(o, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return fmt.Errorf("%q is not an origin", o)
		}
	}
	return nil
}
