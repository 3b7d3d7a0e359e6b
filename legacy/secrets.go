package legacy

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Errors of OpenSecrets. None says anything of the content.
var (
	// ErrNotV1: the file is not one of version 1.
	ErrNotV1 = errors.New("not a version 1 file of encrypted secrets")
	// ErrWrongKey: the key does not open the file, or the file was damaged;
	// the cipher cannot tell one from the other.
	ErrWrongKey = errors.New("the key does not open it, or it is damaged")
	// ErrNoKey: there is neither a key file nor a key given.
	ErrNoKey = errors.New("there is no key: no .vault-key beside it and no VAULT_ENCRYPTION_KEY")
	// ErrContent: what was decrypted is not an object of strings.
	ErrContent = errors.New("the decrypted content is not a JSON object of strings")
)

const (
	keySize = 32 // AES-256
	tagSize = 16
)

// Secrets maps names to secrets. It prints as their number.
type Secrets map[string]string

// String says how many there are.
func (s Secrets) String() string { return fmt.Sprintf("%d secrets [REDACTED]", len(s)) }

// GoString is String.
func (s Secrets) GoString() string { return s.String() }

// Format prints String for every verb.
func (s Secrets) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalJSON returns String as a JSON string.
func (s Secrets) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", s.String()), nil }

// ParseKey returns the 32 bytes of a key as the older system read its
// environment variable: 64 hex digits, or 32 bytes in base64, or else the
// SHA-256 of the string. Space around it is ignored.
func ParseKey(s string) [keySize]byte {
	s = strings.TrimSpace(s)
	if len(s) == hex.EncodedLen(keySize) {
		if b, err := hex.DecodeString(s); err == nil {
			return [keySize]byte(b)
		}
	}
	if b, err := decodeBase64(s); err == nil && len(b) == keySize {
		return [keySize]byte(b)
	}
	return sha256.Sum256([]byte(s))
}

// envelope is the file: the fields of Node's createCipheriv and getAuthTag in
// base64.
type envelope struct {
	V    int    `json:"v"`
	Alg  string `json:"alg"`
	IV   string `json:"iv"`
	Tag  string `json:"tag"`
	Data string `json:"data"`
}

// parseEnvelope reads the file: the envelope's JSON, plain or in base64.
func parseEnvelope(file []byte) (*envelope, error) {
	file = bytes.TrimSpace(file)
	if len(file) > 0 && file[0] != '{' {
		decoded, err := decodeBase64(string(file))
		if err != nil {
			return nil, ErrNotV1
		}
		file = decoded
	}
	var e envelope
	if err := json.Unmarshal(file, &e); err != nil {
		return nil, ErrNotV1
	}
	if e.V != 1 {
		return nil, ErrNotV1
	}
	if !strings.EqualFold(e.Alg, "aes-256-gcm") {
		return nil, fmt.Errorf("its algorithm is not aes-256-gcm: %w", ErrNotV1)
	}
	return &e, nil
}

// isV1 reports whether file is one of version 1, without opening it.
func isV1(file []byte) bool {
	_, err := parseEnvelope(file)
	return err == nil
}

// OpenSecrets decrypts the content of secrets.enc with a key in any form of
// ParseKey.
func OpenSecrets(file []byte, key string) (Secrets, error) {
	e, err := parseEnvelope(file)
	if err != nil {
		return nil, err
	}
	var iv, tag, data []byte
	for _, f := range []struct {
		name string
		text string
		into *[]byte
	}{{"iv", e.IV, &iv}, {"tag", e.Tag, &tag}, {"data", e.Data, &data}} {
		if *f.into, err = decodeBase64(f.text); err != nil {
			return nil, fmt.Errorf("its %s is not base64: %w", f.name, ErrNotV1)
		}
	}
	// Node takes any length of iv, and would take a tag cut short.
	if len(iv) < 12 || len(iv) > 16 || len(tag) != tagSize {
		return nil, fmt.Errorf("its iv or tag has the wrong length: %w", ErrNotV1)
	}
	k := ParseKey(key)
	block, err := aes.NewCipher(k[:])
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(iv))
	if err != nil {
		return nil, err
	}
	plain, err := gcm.Open(nil, iv, append(data, tag...), nil)
	if err != nil {
		return nil, ErrWrongKey
	}
	return parseSecrets(plain)
}

// parseSecrets reads the decrypted object. The decoder's own errors may quote
// from it and are dropped.
func parseSecrets(plain []byte) (Secrets, error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(plain, &members); err != nil || members == nil {
		return nil, ErrContent
	}
	secrets := make(Secrets, len(members))
	for name, raw := range members {
		if raw.Kind() != '"' {
			return nil, fmt.Errorf("one of its values is no string: %w", ErrContent)
		}
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, ErrContent
		}
		secrets[name] = s
	}
	return secrets, nil
}

// decodeBase64 reads what Node's Buffer.from(s, "base64") would have written:
// the standard or the URL alphabet, padded or not.
func decodeBase64(s string) ([]byte, error) {
	s = strings.NewReplacer("-", "+", "_", "/", "\n", "", "\r", "").Replace(s)
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return nil, errors.New("not base64") // the decoder's error quotes
	}
	return b, nil
}
