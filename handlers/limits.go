package handlers

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token"
)

// limits are the fields of a request that narrow the token it asks for.
type limits struct {
	Actions  []string       `json:"actions"`
	Params   jsontext.Value `json:"params"`
	MaxCalls jsontext.Value `json:"maxCalls"`
	MaxBytes jsontext.Value `json:"maxBytes"`
	OneTime  bool           `json:"oneTime"`
}

// read returns the limits, nil if there are none. A limit that is there and
// empty is refused: it would look like one and be none.
func (in *limits) read() (*token.Limits, *refusal.Refusal) {
	l := &token.Limits{Actions: in.Actions, OneTime: in.OneTime}
	if in.Actions != nil && len(in.Actions) == 0 {
		return nil, fieldInvalid("actions", "actions names at least one action, or is left out")
	}
	var refused *refusal.Refusal
	if given(in.Params) {
		if l.Params, refused = policy.ParamTexts(in.Params); refused != nil {
			return nil, refused
		}
		if len(l.Params) == 0 {
			return nil, fieldInvalid("params", "params names at least one parameter, or is left out")
		}
	}
	for _, f := range [...]struct {
		name  string
		value jsontext.Value
		into  *int64
	}{
		{"maxCalls", in.MaxCalls, &l.MaxCalls},
		{"maxBytes", in.MaxBytes, &l.MaxBytes},
	} {
		if !given(f.value) {
			continue
		}
		n, ok := integer(f.value, maxInteger)
		if !ok || n < 1 {
			return nil, fieldInvalid(f.name, "%s is a whole number, at least 1", f.name)
		}
		*f.into = n
	}
	if l.Actions == nil && l.Params == nil && l.MaxCalls == 0 && l.MaxBytes == 0 && !l.OneTime {
		return nil, nil
	}
	return l, nil
}

// given reports whether a member is there and not null.
func given(v jsontext.Value) bool { return v != nil && v.Kind() != 'n' }

// seconds reads a ttl, 0 if there is none.
func seconds(v jsontext.Value) (int64, *refusal.Refusal) {
	if !given(v) {
		return 0, nil
	}
	ttl, ok := integer(v, 1<<31)
	if !ok || ttl < 1 {
		return 0, refusal.New("TTL_INVALID", "ttl is a whole number of seconds, at least 1")
	}
	return ttl, nil
}
