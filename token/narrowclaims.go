package token

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/token/strict"
)

// narrowClaims are the claims that only some tokens have: what they may do
// less than their scopes allow, what they were derived from, and whom they are
// bound to. A form of them that the vault does not write is refused, because
// ignoring it would widen the token.
type narrowClaims struct {
	actions            []string
	params             map[string][]string
	maxCalls, maxBytes int64
	oneTime            bool
	actors             []string // the user of the token first
	chain              []Ancestor
	bound              *Binding
}

// Bounds on what a token of MaxLength can hold are not needed; this is one on
// the numbers.
const maxBudget = 1 << 53

// readNarrow reads the claim name if it is one of these. known is false, and
// nothing is read, if it is not.
func (w *wireClaims) readNarrow(d *jsontext.Decoder, name string) (known, ok bool) {
	switch name {
	case "actions", "params", "maxCalls", "maxBytes", "oneTime", "act", "anc", "cnf":
	default:
		return false, true
	}
	if w.narrow == nil {
		w.narrow = new(narrowClaims)
	}
	n := w.narrow
	switch name {
	case "actions":
		n.actions, ok = strict.Texts(d)
		ok = ok && len(n.actions) > 0
	case "params":
		n.params, ok = readParams(d)
	case "maxCalls":
		n.maxCalls, ok = budget(d)
	case "maxBytes":
		n.maxBytes, ok = budget(d)
	case "oneTime":
		t, err := d.ReadToken()
		n.oneTime = true
		ok = err == nil && t.Kind() == 't'
	case "act":
		n.actors, ok = readActors(d, 0)
	case "anc":
		n.chain, ok = readChain(d)
	case "cnf":
		n.bound, ok = readBinding(d)
	}
	return true, ok
}

// check returns what is wrong with the claims together, or an empty string.
func (n *narrowClaims) check(subject string) (reason string) {
	const chain = "its chain of tokens does not fit together"
	switch {
	case n.oneTime && n.maxCalls != 1:
		return "its budget is not that of one use"
	case len(n.chain) == 0 && n.actors == nil:
		return ""
	case len(n.chain) == 0, len(n.actors) != len(n.chain)+1, n.actors[0] != subject:
		return chain
	}
	return ""
}

// fill puts the claims into what callers see.
func (n *narrowClaims) fill(c *Claims) {
	if n.actions != nil || n.params != nil || n.maxCalls > 0 || n.maxBytes > 0 {
		c.Limits = &Limits{n.actions, n.params, n.maxCalls, n.maxBytes, n.oneTime}
	}
	for i := range n.chain {
		n.chain[i].AgentID = n.actors[i+1]
	}
	c.Chain, c.Bound = n.chain, n.bound
}

// budget reads a number of calls or bytes in plain digits, at least 1.
func budget(d *jsontext.Decoder) (int64, bool) {
	t, err := d.ReadToken()
	if err != nil || t.Kind() != '0' {
		return 0, false
	}
	n, err := strconv.ParseUint(t.String(), 10, 64)
	return int64(n), err == nil && n >= 1 && n <= maxBudget
}

// readParams reads an object of lists of texts, none of them empty.
func readParams(d *jsontext.Decoder) (map[string][]string, bool) {
	params := make(map[string][]string)
	err := strict.Object(d, func(d *jsontext.Decoder, name string) error {
		values, ok := strict.AnyTexts(d)
		if !ok || len(values) == 0 || name == "" {
			return strict.ErrForm
		}
		params[name] = values
		return nil
	})
	return params, err == nil && len(params) > 0
}

// readActors reads the claim "act" into a list, the outermost first.
func readActors(d *jsontext.Decoder, depth int) ([]string, bool) {
	if depth > MaxDepth {
		return nil, false
	}
	var subject string
	var prior []string
	err := strict.Object(d, func(d *jsontext.Decoder, name string) error {
		var ok bool
		switch name {
		case "sub":
			subject, ok = strict.Text(d)
		case "act":
			prior, ok = readActors(d, depth+1)
		}
		if !ok {
			return strict.ErrForm
		}
		return nil
	})
	return append([]string{subject}, prior...), err == nil && subject != ""
}

// readChain reads the claim "anc".
func readChain(d *jsontext.Decoder) ([]Ancestor, bool) {
	if t, err := d.ReadToken(); err != nil || t.Kind() != '[' {
		return nil, false
	}
	var chain []Ancestor
	for d.PeekKind() != ']' {
		var a Ancestor
		err := strict.Object(d, func(d *jsontext.Decoder, name string) error {
			var ok bool
			switch name {
			case "jti":
				a.ID, ok = strict.Text(d)
			case "task":
				a.TaskID, ok = strict.Text(d)
			case "maxCalls":
				a.MaxCalls, ok = budget(d)
			case "maxBytes":
				a.MaxBytes, ok = budget(d)
			}
			if !ok {
				return strict.ErrForm
			}
			return nil
		})
		if err != nil || a.ID == "" || len(chain) == MaxDepth {
			return nil, false
		}
		chain = append(chain, a)
	}
	_, err := d.ReadToken()
	return chain, err == nil && len(chain) > 0
}

// readBinding reads the claim "cnf": one means, which the vault knows.
func readBinding(d *jsontext.Decoder) (*Binding, bool) {
	var b Binding
	err := strict.Object(d, func(d *jsontext.Decoder, name string) error {
		var ok bool
		switch name {
		case "jkt":
			b.JKT, ok = strict.Text(d)
		case "x5t#S256":
			b.X5T, ok = strict.Text(d)
		}
		if !ok {
			return strict.ErrForm
		}
		return nil
	})
	return &b, err == nil && isDigest(b.JKT+b.X5T)
}

// isDigest reports whether s is a SHA-256 digest in base64url.
func isDigest(s string) bool {
	b, err := strict.Base64.DecodeString(s)
	return err == nil && len(b) == 32 && len(s) == 43
}
