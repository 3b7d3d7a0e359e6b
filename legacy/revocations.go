package legacy

import (
	"bytes"
	"errors"
	"slices"

	"github.com/go-json-experiment/json"
)

// ErrRevocations: revocations.json is not what the older system writes.
var ErrRevocations = errors.New("not an object of arrays of ids")

// Revocations are ids that were revoked, without a time or a reason, each
// once.
type Revocations struct {
	Tokens   []string `json:"jti"`
	Sessions []string `json:"sessions"`
	Tasks    []string `json:"tasks"`
	Agents   []string `json:"agents"`
}

// Len returns how many there are.
func (r Revocations) Len() int {
	return len(r.Tokens) + len(r.Sessions) + len(r.Tasks) + len(r.Agents)
}

// ParseRevocations reads revocations.json. An empty file, as the older system
// left when it was stopped at the wrong moment, is an error: what was revoked
// is then not known.
func ParseRevocations(file []byte) (Revocations, error) {
	var r *Revocations
	if err := json.Unmarshal(bytes.TrimSpace(file), &r, json.RejectUnknownMembers(true)); err != nil || r == nil {
		return Revocations{}, ErrRevocations
	}
	for _, ids := range []*[]string{&r.Tokens, &r.Sessions, &r.Tasks, &r.Agents} {
		*ids = slices.Compact(slices.Sorted(slices.Values(*ids)))
		if slices.Contains(*ids, "") {
			*ids = (*ids)[1:]
		}
	}
	return *r, nil
}
