package policy

import (
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/refusal"
)

// Limits are what a token may do less than its scopes allow. The zero value
// limits nothing.
type Limits struct {
	// Actions are the only actions that may be called; nil for all.
	Actions []string

	// Params lists the texts that a parameter may have, by its name. A
	// parameter that is listed has to be there, once, where it can be seen.
	Params map[string][]string
}

// maxLimited bounds how many actions, parameters and values limit one token.
// What counts in the end is how much a token can hold.
const maxLimited = 100

// CheckLimits refuses limits that no endpoint of the service could keep, which
// are surely a slip: ACTIONS_INVALID or PARAMS_INVALID.
func (c *Compiled) CheckLimits(l Limits) *refusal.Refusal {
	if len(l.Actions) > maxLimited || len(l.Params) > maxLimited {
		return refusal.New("ACTIONS_INVALID", "more than %d actions or parameters are named", maxLimited)
	}
	for _, a := range l.Actions {
		e := c.Endpoint(a)
		if e == nil || !e.allowed {
			return refusal.New("ACTIONS_INVALID:"+safeName(a), "the service %s has no action %s that is allowed", c.Name, shown(a)).
				WithHint("%s", c.nearestHint(a))
		}
	}
	for name, values := range l.Params {
		if name == "" || len(values) == 0 || len(values) > maxLimited {
			return refusal.New("PARAMS_INVALID:"+safeName(name), "a parameter is limited to 1 to %d values", maxLimited)
		}
	}
	return nil
}

// DecideActionLimit decides whether a token that is limited to actions may
// call the endpoint, or returns ACTION_NOT_GRANTED.
func (e *CompiledEndpoint) DecideActionLimit(actions []string) *refusal.Refusal {
	if actions == nil || slices.Contains(actions, e.Name) {
		return nil
	}
	return refusal.New("ACTION_NOT_GRANTED", "the token may not call the action %s", e.Name).
		WithHint("it may call: %s", listed(actions))
}

// DecideParams decides whether the parameters of a vault.call, a JSON object
// or nothing, keep to the limits, or returns PARAM_NOT_GRANTED. It looks at
// the parameters as they were sent: a limited one is a string, a number, true
// or false, and no other has a name that some server takes for the same.
func (e *CompiledEndpoint) DecideParams(limits map[string][]string, params []byte) *refusal.Refusal {
	if len(limits) == 0 {
		return nil
	}
	var members []member
	if len(params) > 0 {
		var err error
		if members, err = readObject(params); err != nil {
			return jsonRefusal("params", err)
		}
	}
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.name
	}
	return decideNames(limits, names, func(name string, i int) (string, bool) {
		switch raw := members[i].raw; raw.Kind() {
		case '"':
			return unquote(raw), true
		case '0', 't', 'f':
			return string(raw), true
		}
		return "", false
	})
}

// DecideProxyParams does the same for a request for /proxy/. A limited
// parameter is one of the endpoint's path, or stands in the query of an
// endpoint whose parameters belong there; what is in a body cannot be seen,
// and is refused.
func (e *CompiledEndpoint) DecideProxyParams(limits map[string][]string, escapedPath, rawQuery string, hasBody bool) *refusal.Refusal {
	if len(limits) == 0 {
		return nil
	}
	var names, values []string
	inPath := pathValues(e.Path, escapedPath, func(name, value string) {
		names, values = append(names, name), append(values, unescapeLenient(value))
	})
	if !inPath {
		return notGranted(firstName(limits), "cannot be read from the path")
	}
	path := len(names)
	if strings.IndexByte(rawQuery, ';') >= 0 {
		// Some servers cut the query there, others do not.
		return notGranted(firstName(limits), "cannot be read from a query with a semicolon")
	}
	for piece := range strings.SplitSeq(rawQuery, "&") {
		name, value, _ := strings.Cut(piece, "=")
		name, err := url.QueryUnescape(name)
		if err == nil {
			value, err = url.QueryUnescape(value)
		}
		if err != nil {
			return notGranted(firstName(limits), "cannot be read from a query that is not encoded correctly")
		}
		if piece != "" {
			names, values = append(names, name), append(values, value)
		}
	}
	visible := e.Body == BodyQuery && !hasBody
	return decideNames(limits, names, func(_ string, i int) (string, bool) {
		return values[i], i < path || visible
	})
}

// decideNames holds the parameters with these names to the limits. value
// returns the text of the i-th, and false if it has none that can be compared.
func decideNames(limits map[string][]string, names []string, value func(name string, i int) (string, bool)) *refusal.Refusal {
	for limited, allowed := range limits {
		found := -1
		for i, name := range names {
			switch {
			case name == limited && found < 0:
				found = i
			case reservedKey(name) == reservedKey(limited):
				return notGranted(limited, "is there more than once, or in another spelling beside it")
			}
		}
		if found < 0 {
			return notGranted(limited, "is limited by the token, and is not among those of the request that can be looked at")
		}
		text, ok := value(limited, found)
		if !ok {
			return notGranted(limited, "is limited by the token, and cannot be looked at here")
		}
		if !slices.Contains(allowed, text) {
			return notGranted(limited, "has a value that the token does not allow").
				WithHint("it may be: %s", shownList(allowed))
		}
	}
	return nil
}

func shownList(values []string) string {
	out := make([]string, 0, len(values))
	for _, v := range values {
		out = append(out, shown(v))
	}
	return listed(out)
}

func notGranted(name, detail string) *refusal.Refusal {
	return refusal.New("PARAM_NOT_GRANTED:"+safeName(name), "the parameter %s %s", shown(name), detail)
}

func firstName(limits map[string][]string) string {
	first := ""
	for name := range limits {
		if first == "" || name < first {
			first = name
		}
	}
	return first
}

// ParamTexts reads the limits of parameters as a request gives them: an object
// of strings, numbers, true and false, or lists of them. It returns their
// texts, or PARAMS_INVALID.
func ParamTexts(raw []byte) (map[string][]string, *refusal.Refusal) {
	members, err := readObject(raw)
	if err != nil {
		return nil, refusal.New("PARAMS_INVALID", "params is an object of values, or of lists of values")
	}
	out := make(map[string][]string, len(members))
	for _, m := range members {
		list := []jsontext.Value{m.raw}
		if m.raw.Kind() == '[' {
			if list, err = readArray(m.raw); err != nil {
				return nil, jsonRefusal("params", err)
			}
		}
		for _, v := range list {
			switch v.Kind() {
			case '"':
				out[m.name] = append(out[m.name], unquote(v))
			case '0', 't', 'f':
				out[m.name] = append(out[m.name], string(v))
			default:
				return nil, refusal.New("PARAMS_INVALID:"+safeName(m.name), "a value is a string, a number, true or false")
			}
		}
		if len(out[m.name]) == 0 {
			return nil, refusal.New("PARAMS_INVALID:"+safeName(m.name), "the parameter %s is limited to no value at all", shown(m.name))
		}
	}
	return out, nil
}

// readArray splits a JSON array that is known to be valid.
func readArray(data jsontext.Value) ([]jsontext.Value, error) {
	d := decoders.Get().(*decoder)
	defer d.release()
	dec := d.over(data)
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	var out []jsontext.Value
	for dec.PeekKind() != ']' {
		v, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		out = append(out, v.Clone())
	}
	return out, nil
}
