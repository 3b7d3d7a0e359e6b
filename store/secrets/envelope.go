package secrets

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Errors of an entry or keyset. They are wrapped by an error that names it.
var (
	// ErrDamaged: it cannot be decrypted as what it claims to be: changed,
	// swapped with another, renamed, or encrypted under another key.
	ErrDamaged = errors.New("damaged, or not the one stored under this name and version")
	// ErrOlder: it is a version that a later one has replaced.
	ErrOlder = errors.New("older than a version already known")
	// ErrMissing: it is not there although it must be.
	ErrMissing = errors.New("missing")
	// ErrWrongKey: the encryption key is not the one in use here.
	ErrWrongKey = errors.New("the encryption key is not the one these secrets were encrypted with")
)

const envelopeVersion = 1

// b64 is strict, so that every bit of a ciphertext's text counts.
var b64 = base64.StdEncoding.Strict()

// envelope is a secret as the store holds it. Everything in it but the
// ciphertext is also the ciphertext's associated data.
type envelope struct {
	V       int    `json:"v"`
	Version uint64 `json:"version"`
	Updated int64  `json:"updated"` // Unix milliseconds
	Data    string `json:"data"`    // base64 of the ciphertext
}

// plaintext is what is encrypted: with the origins inside, a file edit
// cannot send a secret somewhere new.
type plaintext struct {
	Value   []byte   `json:"value"`
	Origins []string `json:"origins"`
}

// associated binds a ciphertext to its name, version and time.
func associated(ref string, version uint64, updated int64) []byte {
	b := append([]byte("caddyvault/secret/1\x00"), ref...)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint64(b, version)
	return binary.BigEndian.AppendUint64(b, uint64(updated))
}

// seal encrypts s.
func seal(a tink.AEAD, s *Secret) ([]byte, error) {
	pt, err := json.Marshal(plaintext{Value: []byte(s.Value), Origins: s.Origins})
	if err != nil {
		return nil, fmt.Errorf("secret %s: encode: %w", s.Ref, errors.New("not possible"))
	}
	updated := s.UpdatedAt.UnixMilli()
	ct, err := a.Encrypt(pt, associated(s.Ref, s.Version, updated))
	if err != nil {
		return nil, fmt.Errorf("secret %s: encrypt: %w", s.Ref, err)
	}
	return json.Marshal(envelope{envelopeVersion, s.Version, updated, b64.EncodeToString(ct)})
}

// open decrypts the envelope data stored under ref.
func open(a tink.AEAD, ref string, data []byte) (*Secret, error) {
	var e envelope
	if err := json.Unmarshal(data, &e, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("secret %s: %w", ref, ErrDamaged)
	}
	ct, err := b64.DecodeString(e.Data)
	if err != nil || e.V != envelopeVersion || e.Version == 0 || bytes.ContainsAny([]byte(e.Data), "\r\n") {
		return nil, fmt.Errorf("secret %s: %w", ref, ErrDamaged)
	}
	pt, err := a.Decrypt(ct, associated(ref, e.Version, e.Updated))
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", ref, ErrDamaged)
	}
	var p plaintext
	if err := json.Unmarshal(pt, &p, json.RejectUnknownMembers(true)); err != nil {
		// The parser's error could quote the plaintext.
		return nil, fmt.Errorf("secret %s: %w", ref, ErrDamaged)
	}
	return &Secret{
		Ref: ref, Value: string(p.Value), Version: e.Version,
		UpdatedAt: time.UnixMilli(e.Updated), Origins: p.Origins,
	}, nil
}

// wrapped is the keyset as the store holds it.
type wrapped struct {
	V      int    `json:"v"`
	KEK    string `json:"kek"`    // KEK.id of the key that wraps it
	Keyset string `json:"keyset"` // base64 of Tink's encrypted keyset
}

func keysetAssociated(name string) []byte { return []byte("caddyvault/keyset/1\x00" + name) }

// newKeyset makes a keyset with one AES-256-GCM key.
func newKeyset() (*keyset.Handle, error) {
	return keyset.NewHandle(aead.AES256GCMKeyTemplate())
}

func wrapKeyset(h *keyset.Handle, name string, kek KEK) ([]byte, error) {
	w, err := kek.aead()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if err := h.WriteWithAssociatedData(keyset.NewBinaryWriter(&buf), w, keysetAssociated(name)); err != nil {
		return nil, fmt.Errorf("keyset %s: encrypt: %w", name, err)
	}
	return json.Marshal(wrapped{envelopeVersion, kek.id(), b64.EncodeToString(buf.Bytes())})
}

func unwrapKeyset(data []byte, name string, kek KEK) (*keyset.Handle, error) {
	var k wrapped
	if err := json.Unmarshal(data, &k, json.RejectUnknownMembers(true)); err != nil || k.V != envelopeVersion {
		return nil, fmt.Errorf("keyset %s: %w", name, ErrDamaged)
	}
	if k.KEK != kek.id() {
		return nil, fmt.Errorf("keyset %s: %w", name, ErrWrongKey)
	}
	raw, err := b64.DecodeString(k.Keyset)
	if err != nil || bytes.ContainsAny([]byte(k.Keyset), "\r\n") {
		return nil, fmt.Errorf("keyset %s: %w", name, ErrDamaged)
	}
	w, err := kek.aead()
	if err != nil {
		return nil, err
	}
	h, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(raw)), w, keysetAssociated(name))
	if err != nil {
		return nil, fmt.Errorf("keyset %s: %w", name, ErrDamaged)
	}
	return h, nil
}
