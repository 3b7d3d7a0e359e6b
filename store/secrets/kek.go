package secrets

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/caddyvault/caddyvault/store/fsx"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// ErrKEK: a key-encryption key is malformed. The message never shows it.
var ErrKEK = errors.New("the encryption key must be 64 hex digits or 32 bytes in base64")

// kekSize is the size of a KEK in bytes: AES-256.
const kekSize = 32

// KEK is the key-encryption key: it wraps the keyset that encrypts the
// secrets, and nothing else. It prints as [REDACTED].
type KEK struct{ b *[kekSize]byte }

// KEKFromString parses 64 hex digits, or 32 bytes in base64 (standard or URL
// alphabet, padded or not). Space around it is ignored.
func KEKFromString(s string) (KEK, error) {
	s = strings.TrimSpace(s)
	if len(s) == hex.EncodedLen(kekSize) {
		if b, err := hex.DecodeString(s); err == nil {
			return KEKFromBytes(b)
		}
		return KEK{}, ErrKEK
	}
	raw := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "="))
	if pad := len(s) - len(raw); pad > 1 || len(raw) != base64.RawStdEncoding.EncodedLen(kekSize) {
		return KEK{}, ErrKEK
	}
	b, err := base64.RawStdEncoding.Strict().DecodeString(raw)
	if err != nil {
		return KEK{}, ErrKEK // the decoder's error would quote a byte of it
	}
	return KEKFromBytes(b)
}

// KEKFromBytes takes the 32 bytes of a key.
func KEKFromBytes(b []byte) (KEK, error) {
	if len(b) != kekSize {
		return KEK{}, ErrKEK
	}
	k := KEK{new([kekSize]byte)}
	copy(k.b[:], b)
	return k, nil
}

// LoadKEKFile reads the key in the file at path, which must be private to
// its owner. The error wraps fs.ErrNotExist if there is none.
func LoadKEKFile(path string) (KEK, error) {
	b, err := fsx.ReadPrivate(path)
	if err != nil {
		return KEK{}, err
	}
	k, err := KEKFromString(string(b))
	if err != nil {
		return KEK{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// GenerateKEKFile makes a new key and writes it to path, mode 0600, in hex.
// The error wraps fs.ErrExist if there is a file already.
func GenerateKEKFile(path string) (KEK, error) {
	k := KEK{new([kekSize]byte)}
	_, _ = rand.Read(k.b[:]) // never fails, by its documentation
	d, err := fsx.OpenDir(filepath.Dir(path))
	if err != nil {
		return KEK{}, err
	}
	defer d.Close()
	if err := d.WriteNew(filepath.Base(path), []byte(hex.EncodeToString(k.b[:])+"\n"), 0o600); err != nil {
		return KEK{}, err
	}
	return k, nil
}

// IsZero reports whether k holds no key.
func (k KEK) IsZero() bool { return k.b == nil }

// String returns [REDACTED].
func (KEK) String() string { return redacted }

// GoString returns [REDACTED].
func (KEK) GoString() string { return redacted }

// Format prints [REDACTED] for every verb.
func (KEK) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalJSON returns "[REDACTED]".
func (KEK) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// aead returns the cipher that wraps keysets.
func (k KEK) aead() (tink.AEAD, error) {
	if k.b == nil {
		return nil, ErrKEK
	}
	return subtle.NewAESGCM(k.b[:])
}

// id names the key without showing it, so that a wrong key can be told from
// a damaged keyset.
func (k KEK) id() string {
	m := hmac.New(sha256.New, k.b[:])
	m.Write([]byte("caddyvault key-encryption key id"))
	return hex.EncodeToString(m.Sum(nil)[:8])
}
