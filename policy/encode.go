package policy

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/refusal"
)

// Media types of the bodies that a plan makes.
const (
	typeJSON = "application/json"
	typeForm = "application/x-www-form-urlencoded"
)

// maxQuery is the longest query that is sent.
const maxQuery = 64 << 10

// encode puts the parameters that are left over where the endpoint wants
// them.
func (e *CompiledEndpoint) encode(p *Plan, rest []member) *refusal.Refusal {
	var r *refusal.Refusal
	writes := e.Method == "POST" || e.Method == "PUT" || e.Method == "PATCH"
	switch e.Body {
	case BodyNone:
		if len(rest) > 0 {
			return paramInvalid(rest[0].name, "is not taken by the action %s", e.Name).
				WithHint("parameters of the action: %s", listed(pathParams(e.Path)))
		}
	case BodyQuery:
		var q []byte
		if q, r = encodePairs(rest, false); r != nil {
			return r
		}
		p.RawQuery = string(q)
	case BodyForm:
		if p.Body, r = encodePairs(rest, true); r != nil {
			return r
		}
		if len(rest) > 0 || writes {
			p.ContentType = e.contentType(typeForm)
		}
	case BodyJSON:
		if len(rest) > 0 || writes {
			p.Body = writeObject(rest)
			p.ContentType = e.contentType(typeJSON)
		}
	}
	return nil
}

// contentType is the configured Content-Type, or else the encoding's own.
func (e *CompiledEndpoint) contentType(own string) string {
	if t := e.DefaultHeaders["Content-Type"]; t != "" {
		return t
	}
	return own
}

// encodePairs writes parameters as name=value pairs, in their order. A null
// is dropped and an array repeats its name. An object is refused in a query,
// and in a form its members are name[member]; an array of objects is
// name[0][member], because a repeated name could not say what belongs
// together.
func encodePairs(members []member, form bool) ([]byte, *refusal.Refusal) {
	pairs := pairs{form: form}
	for _, m := range members {
		if r := pairs.value(m.name, m.name, m.raw); r != nil {
			return nil, r
		}
	}
	return pairs.buf, nil
}

// pairs collects name=value pairs.
type pairs struct {
	buf  []byte
	form bool
}

// value appends a value under key; param is the parameter it came from.
func (p *pairs) value(param, key string, raw jsontext.Value) *refusal.Refusal {
	switch raw.Kind() {
	case 'n':
		return nil
	case '[':
		return p.array(param, key, raw)
	case '{':
		return p.object(param, key, raw)
	}
	p.scalar(key, raw)
	return nil
}

func (p *pairs) array(param, key string, raw jsontext.Value) *refusal.Refusal {
	for i, el := range elements(raw) {
		switch el.Kind() {
		case '[':
			return paramInvalid(param, "has an array in an array")
		case '{':
			if r := p.object(param, key+"["+strconv.Itoa(i)+"]", el); r != nil {
				return r
			}
		case 'n':
		default:
			p.scalar(key, el)
		}
	}
	return nil
}

func (p *pairs) object(param, key string, raw jsontext.Value) *refusal.Refusal {
	if !p.form {
		return paramInvalid(param, "is an object, which a query cannot carry")
	}
	members, err := readObject(raw)
	if err != nil {
		return paramInvalid(param, "is not valid JSON")
	}
	for _, m := range members {
		if r := p.value(param, key+"["+m.name+"]", m.raw); r != nil {
			return r
		}
	}
	return nil
}

// scalar appends a string, number or boolean. Numbers keep their digits.
func (p *pairs) scalar(key string, raw jsontext.Value) {
	text := string(raw)
	if raw.Kind() == '"' {
		text = unquote(raw)
	}
	if len(p.buf) > 0 {
		p.buf = append(p.buf, '&')
	}
	p.buf = appendEscaped(p.buf, key)
	p.buf = append(p.buf, '=')
	p.buf = appendEscaped(p.buf, text)
}

// elements splits a JSON array that is known to be valid.
func elements(raw jsontext.Value) []jsontext.Value {
	d := decoders.Get().(*decoder)
	defer d.release()
	dec := d.over(raw)
	if _, err := dec.ReadToken(); err != nil {
		return nil
	}
	var out []jsontext.Value
	for dec.PeekKind() != ']' {
		v, err := dec.ReadValue()
		if err != nil {
			return out
		}
		out = append(out, v.Clone())
	}
	return out
}
