package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/internal/plainjson"
	"github.com/caddyvault/caddyvault/refusal"
)

// maxDepth is how deep JSON may be nested (wire.md, "Conventions").
const maxDepth = 64

// member is a name of a JSON object and its value, byte for byte.
type member struct {
	name string
	raw  jsontext.Value
}

// errTooDeep says that JSON is nested beyond maxDepth.
var errTooDeep = fmt.Errorf("nested deeper than %d", maxDepth)

// errNotObject says that a JSON value is valid but is not an object.
var errNotObject = errors.New("not a JSON object")

// decoder is a JSON decoder that is used again: parameters are decoded on
// every call.
type decoder struct {
	json *jsontext.Decoder
	buf  bytes.Buffer
}

var decoders = sync.Pool{New: func() any { return &decoder{json: new(jsontext.Decoder)} }}

// over makes d read data, which must not change until release.
func (d *decoder) over(data []byte) *jsontext.Decoder {
	d.buf = *bytes.NewBuffer(data)
	d.json.Reset(&d.buf)
	return d.json
}

// release gives d back without the data, so that the pool keeps none alive.
func (d *decoder) release() {
	d.over(nil)
	decoders.Put(d)
}

// readObject splits a JSON object into its members, in the order they stand.
// Duplicate names at any depth, invalid UTF-8, trailing data and nesting
// beyond maxDepth are errors. The values are slices of data.
func readObject(data []byte) ([]member, error) {
	var o plainjson.Object
	if o.Read(data) {
		var members []member
		if plain := o.Members(); len(plain) > 0 {
			members = make([]member, len(plain))
			for i, m := range plain {
				members[i] = member{string(m.Name), m.Value}
			}
		}
		return members, nil
	}
	if tooDeep(data) {
		return nil, errTooDeep
	}
	d := decoders.Get().(*decoder)
	defer d.release()
	dec := d.over(data)
	if k := dec.PeekKind(); k != '{' {
		// A value of another kind must still be valid to be called one.
		if _, err := dec.ReadValue(); err != nil {
			return nil, err
		}
		return nil, errNotObject
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	var members []member
	for dec.PeekKind() != '}' {
		tok, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		name := tok.String()
		raw, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		// The decoder's own slice is only good until its next call; the
		// input is ours and stays.
		end := dec.InputOffset()
		raw = data[end-int64(len(raw)) : end : end]
		members = append(members, member{name, raw})
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		if err == nil {
			err = errors.New("data after the JSON value")
		}
		return nil, err
	}
	return members, nil
}

// tooDeep says whether JSON is nested beyond maxDepth. The decoder itself
// would go on to 10,000.
func tooDeep(data []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// writeObject is the inverse of readObject.
func writeObject(members []member) jsontext.Value {
	n := 2
	for _, m := range members {
		n += len(m.name) + len(m.raw) + 4
	}
	b := make([]byte, 0, n)
	b = append(b, '{')
	for i, m := range members {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendName(b, m.name)
		b = append(b, ':')
		b = append(b, m.raw...)
	}
	return append(b, '}')
}

// appendName appends s as a JSON string. It cannot fail: names come out of a
// decoder that has checked their UTF-8.
func appendName(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}

// jsonRefusal turns an error of readObject into a refusal about what.
func jsonRefusal(what string, err error) *refusal.Refusal {
	switch {
	case errors.Is(err, errNotObject):
		return refusal.New("JSON_INVALID", "%s is not a JSON object", what)
	case errors.Is(err, jsontext.ErrDuplicateName):
		return refusal.New("JSON_DUPLICATE_KEY", "%s has a key twice%s", what, at(err))
	case errors.Is(err, errTooDeep):
		return refusal.New("JSON_INVALID", "%s is nested deeper than %d", what, maxDepth)
	}
	return refusal.New("JSON_INVALID", "%s is not valid JSON%s", what, at(err)).WithCause(err)
}

// at says where in a JSON text a syntax error is, without quoting the text.
func at(err error) string {
	var syn *jsontext.SyntacticError
	if errors.As(err, &syn) && syn.JSONPointer != "" {
		return " at " + shown(string(syn.JSONPointer))
	}
	return ""
}

// dropComments removes the members whose name begins with an underscore.
func dropComments(members []member) []member {
	kept := members[:0]
	for _, m := range members {
		if !strings.HasPrefix(m.name, "_") {
			kept = append(kept, m)
		}
	}
	return kept
}

// cleanObject drops the comments of an object, and lets child replace the
// values that have comments of their own. What is not an object is returned
// as it is, for the typed decoder to refuse.
func cleanObject(raw jsontext.Value, child func(name string, raw jsontext.Value) jsontext.Value) jsontext.Value {
	members, err := readObject(raw)
	if err != nil {
		return raw
	}
	members = dropComments(members)
	if child != nil {
		for i, m := range members {
			members[i].raw = child(m.name, m.raw)
		}
	}
	return writeObject(members)
}

// cleanArray drops the comments of the objects in an array.
func cleanArray(raw jsontext.Value) jsontext.Value {
	if raw.Kind() != '[' {
		return raw
	}
	out := []byte{'['}
	for i, el := range elements(raw) {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, cleanObject(el, nil)...)
	}
	return append(out, ']')
}

// cleanService drops the comments at every level that is the vault's own.
// agentScopes (and secretByAgent) is left alone: an agent's name may begin with an underscore,
// and an entry ignored there would widen what the agent may have.
func cleanService(members []member) jsontext.Value {
	if !slices.ContainsFunc(members, func(m member) bool { return mayHaveComment(m.name, m.raw) }) {
		return writeObject(members) // as most are
	}
	members = dropComments(members)
	for i, m := range members {
		switch m.name {
		case "headers", "timeouts", "reverseProxy":
			members[i].raw = cleanObject(m.raw, nil)
		case "auth":
			members[i].raw = cleanArray(m.raw)
		case "endpoints":
			members[i].raw = cleanObject(m.raw, func(_ string, ep jsontext.Value) jsontext.Value {
				return cleanObject(ep, func(name string, raw jsontext.Value) jsontext.Value {
					if name == "headers" {
						return cleanObject(raw, nil)
					}
					return raw
				})
			})
		}
	}
	return writeObject(members)
}

// mayHaveComment says quickly whether a member may be a comment or have one
// within: a name that begins with an underscore, or one that is written with
// escapes.
func mayHaveComment(name string, raw jsontext.Value) bool {
	return strings.HasPrefix(name, "_") || bytes.Contains(raw, []byte(`"_`)) || bytes.Contains(raw, []byte(`"\u`))
}

// decodeService reads a service file into its fields, strictly.
func decodeService(name string, data []byte) (*Service, *refusal.Refusal) {
	members, err := readObject(data)
	if err != nil {
		return nil, jsonRefusal("the service", err)
	}
	// What the API answers has the name beside the fields; a file that was
	// saved from it is fine as long as it agrees with where it lies.
	for i, m := range members {
		if m.name == "service" {
			var s string
			if json.Unmarshal(m.raw, &s) != nil || s != name {
				return nil, refusal.New("SERVICE_INVALID", "the field service is not %q, the name of the service", name)
			}
			members = append(members[:i:i], members[i+1:]...)
			break
		}
	}
	svc := &Service{}
	if err := json.Unmarshal(cleanService(members), svc, json.RejectUnknownMembers(true)); err != nil {
		return nil, fieldRefusal(err)
	}
	svc.Name = name
	return svc, nil
}

// fieldRefusal turns an error of the typed decoder into a refusal that names
// the field.
func fieldRefusal(err error) *refusal.Refusal {
	var sem *json.SemanticError
	if !errors.As(err, &sem) {
		return refusal.New("JSON_INVALID", "not valid JSON").WithCause(err)
	}
	var path []string
	for tok := range sem.JSONPointer.Tokens() {
		path = append(path, tok)
	}
	if len(path) == 0 {
		return refusal.New("JSON_INVALID", "not a JSON object").WithCause(err)
	}
	where := shown(strings.Join(path, "."))
	if errors.Is(err, json.ErrUnknownName) {
		return refusal.New("FIELD_UNKNOWN:"+safeName(path[len(path)-1]), "there is no field %s", where).
			WithHint("field names are exact, case included; a comment's name begins with an underscore")
	}
	detail := "the value has the wrong type"
	if sem.Err != nil {
		detail = sem.Err.Error()
	}
	if path[0] == "endpoints" && len(path) > 1 {
		return endpointInvalid(path[1], "%s: %s", where, detail)
	}
	return refusal.New(fieldCode(path[0], "INVALID"), "%s: %s", where, detail)
}

// fieldCode returns the code of a field, such as ALLOWEDAGENTS_REQUIRED.
func fieldCode(field, suffix string) string {
	return strings.ToUpper(safeName(field)) + "_" + suffix
}

func invalid(field, detail string, args ...any) *refusal.Refusal {
	return refusal.New(fieldCode(field, "INVALID"), detail, args...)
}

func endpointInvalid(name, detail string, args ...any) *refusal.Refusal {
	return refusal.New("ENDPOINT_INVALID:"+safeName(name), detail, args...)
}
