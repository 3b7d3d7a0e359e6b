// Package agents is what an administrator says of agents: records, the keys
// they prove themselves with, and the index that answers for both.
//
// Promises: a record is read strictly and written so that reading it gives the
// same; a key is 256 random bits that are kept as a digest only; an index never
// changes and is looked into without a lock. It may not know files, requests,
// services or tokens.
package agents

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/policy"
)

// Limits of a record.
const (
	MaxGroups = 64
	// MaxKeys is how many keys may work at the same time: the newest, and the
	// one before it through an overlap.
	MaxKeys = 2
)

// ErrInvalid: a record, an id or a file's name is not one. It is wrapped by
// what is wrong.
var ErrInvalid = errors.New("agent invalid")

// Binding says to what an agent's tokens must be bound, if to anything.
type Binding string

// The bindings.
const (
	NotBound Binding = ""
	DPoP     Binding = "dpop" // a proof of possession (RFC 9449)
	MTLS     Binding = "mtls" // a client certificate (RFC 8705)
	AnyProof Binding = "any"  // either of the two
)

// ParseBinding reads a binding. "none" and "" are NotBound.
func ParseBinding(s string) (Binding, error) {
	switch b := Binding(s); b {
	case "none":
		return NotBound, nil
	case NotBound, DPoP, MTLS, AnyProof:
		return b, nil
	}
	return "", fmt.Errorf("%w: binding is none of dpop, mtls, any and none", ErrInvalid)
}

// Record is one agent. In JSON a name that starts with an underscore is a
// comment; any other that is not below is an error.
type Record struct {
	ID string `json:"agentId"`

	// Groups the agent is in.
	Groups []string `json:"groups,omitempty"`

	// ExpiresAt ends the agent; zero means never.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`

	Binding  Binding `json:"binding,omitempty"`
	Disabled bool    `json:"disabled,omitzero"`

	// Keys that the agent may prove itself with, the newest first.
	Keys []Key `json:"keys,omitempty"`

	CreatedAt time.Time `json:"createdAt,omitzero"`
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
}

// Key is what is kept of a key.
type Key struct {
	// ID is the part of the key that finds it.
	ID string `json:"id"`

	// Digest is the SHA-256 of the whole key in hex.
	Digest string `json:"digest"`

	CreatedAt time.Time `json:"createdAt,omitzero"`

	// Until is when the key stops working; zero means when the agent does.
	Until time.Time `json:"until,omitzero"`
}

// Expired reports whether the agent has ended.
func (r *Record) Expired(now time.Time) bool {
	return !r.ExpiresAt.IsZero() && !now.Before(r.ExpiresAt)
}

// ValidID says whether s can be the id of an agent that has a record: that of
// any agent, if it makes a file's name that is not too long. It may not look
// like a group.
func ValidID(s string) bool {
	return policy.ValidAgent(s) && s != "*" && !strings.HasPrefix(s, "group:") && len(FileName(s)) <= 240
}

// Parse reads and checks the record in the file of a name (see FileName). The
// id in the file may be left out.
func Parse(name string, data []byte) (*Record, error) {
	id, ok := fileID(name)
	if !ok || !ValidID(id) {
		return nil, fmt.Errorf("%w: %q is not the name that an agent's file has", ErrInvalid, name)
	}
	data, err := withoutComments(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	r := new(Record)
	if err := json.Unmarshal(data, r, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if r.ID == "" {
		r.ID = id
	}
	if r.ID != id {
		return nil, fmt.Errorf("%w: agentId is %q, and the file is named for %q", ErrInvalid, r.ID, id)
	}
	if r.Binding, err = ParseBinding(string(r.Binding)); err != nil {
		return nil, err
	}
	return r, r.check()
}

// check is what the types do not say.
func (r *Record) check() error {
	if !ValidID(r.ID) {
		return fmt.Errorf("%w: the id of an agent is at most 256 bytes of printable text, not * and not group:…", ErrInvalid)
	}
	if len(r.Groups) > MaxGroups {
		return fmt.Errorf("%w: more than %d groups", ErrInvalid, MaxGroups)
	}
	for _, g := range r.Groups {
		if !policy.ValidGroup(g) || strings.HasPrefix(g, "group:") || g == "*" {
			return fmt.Errorf("%w: groups has an empty or illegal name", ErrInvalid)
		}
	}
	if len(r.Keys) > MaxKeys {
		return fmt.Errorf("%w: more than %d keys", ErrInvalid, MaxKeys)
	}
	for i, k := range r.Keys {
		if !validKeyID(k.ID) || !validDigest(k.Digest) {
			return fmt.Errorf("%w: key %d has no id or digest that rotateAgentKey would write", ErrInvalid, i)
		}
		if i > 0 && k.ID == r.Keys[0].ID {
			return fmt.Errorf("%w: two keys have one id", ErrInvalid)
		}
	}
	for name, t := range map[string]time.Time{"expiresAt": r.ExpiresAt, "createdAt": r.CreatedAt, "updatedAt": r.UpdatedAt} {
		if y := t.Year(); y > 9999 {
			return fmt.Errorf("%w: %s is beyond the year 9999", ErrInvalid, name)
		}
	}
	return nil
}

// Marshal writes a record as its file.
func (r *Record) Marshal() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(r, jsontext.WithIndent("  "))
	return append(b, '\n'), err
}

// withoutComments drops the members whose names begin with an underscore.
func withoutComments(data []byte) ([]byte, error) {
	var all map[string]jsontext.Value
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	if all == nil {
		return nil, errors.New("not a JSON object")
	}
	for name := range all {
		if strings.HasPrefix(name, "_") {
			delete(all, name)
		}
	}
	return json.Marshal(all, json.Deterministic(true))
}

const hexDigits = "0123456789ABCDEF"

// FileName is the name of an agent's file, less ".json": the id with every byte
// but a-z, 0-9 and . _ @ - percent-encoded, and an encoded one at the start.
func FileName(id string) string {
	var b strings.Builder
	for i := range len(id) {
		c := id[i]
		plain := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || i > 0 && strings.IndexByte("._@-", c) >= 0
		if plain {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}

// fileID is the inverse of FileName; a name that FileName does not give is
// refused, so that no agent has two files.
func fileID(name string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '%' {
			if i+2 >= len(name) {
				return "", false
			}
			hi, lo := strings.IndexByte(hexDigits, name[i+1]), strings.IndexByte(hexDigits, name[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			c = byte(hi<<4 | lo)
			i += 2
		}
		b.WriteByte(c)
	}
	id := b.String()
	return id, FileName(id) == name
}

// IDOf returns the id of the agent whose file has a name, the name itself if no
// agent's file has it.
func IDOf(name string) string {
	if id, ok := fileID(name); ok {
		return id
	}
	return name
}
