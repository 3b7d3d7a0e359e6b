package agents

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"strings"
	"time"
)

// KeyPrefix begins every agent key, so that one that leaks is known for what it
// is.
const KeyPrefix = "cva_"

const (
	keyIDLength  = 16 // hex digits: 64 bits
	secretLength = 64 // hex digits: 256 bits
)

// NewKey makes a key. The text is shown once; what is kept is the Key.
func NewKey(now time.Time) (text string, k Key) {
	var id [keyIDLength / 2]byte
	var secret [secretLength / 2]byte
	_, _ = rand.Read(id[:])     // never fails
	_, _ = rand.Read(secret[:]) // never fails
	k = Key{ID: hex.EncodeToString(id[:]), CreatedAt: now.UTC().Truncate(time.Second)}
	text = KeyPrefix + k.ID + "_" + hex.EncodeToString(secret[:])
	k.Digest = digest(text)
	return text, k
}

// LooksLikeKey reports whether a credential means to be an agent key. Whoever
// sends one is told if it is none, and not taken for somebody else.
func LooksLikeKey(text string) bool {
	return len(text) >= len(KeyPrefix) && strings.EqualFold(text[:len(KeyPrefix)], KeyPrefix)
}

// parseKey returns the part of a key that finds it. Only what NewKey writes is
// a key: lower case, full length.
func parseKey(text string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(text, KeyPrefix)
	if !ok || len(rest) != keyIDLength+1+secretLength || rest[keyIDLength] != '_' {
		return "", false
	}
	id = rest[:keyIDLength]
	return id, validKeyID(id) && isHex(rest[keyIDLength+1:])
}

func validKeyID(s string) bool  { return len(s) == keyIDLength && isHex(s) }
func validDigest(s string) bool { return len(s) == 2*sha256.Size && isHex(s) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// matches compares digests, so that how long it takes says nothing of the key.
func (k *Key) matches(text string) bool {
	return subtle.ConstantTimeCompare([]byte(digest(text)), []byte(k.Digest)) == 1
}

// works reports whether the key is good at a time.
func (k *Key) works(now time.Time) bool { return k.Until.IsZero() || now.Before(k.Until) }
