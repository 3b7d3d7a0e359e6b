package policy

import (
	"bytes"
	"mime"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/refusal"
)

// Insert says where in a body a credential is put. Everything else stays as
// the client sent it, byte for byte.
type Insert struct {
	// At is the place in the body, in bytes.
	At int

	// Before and After stand around the value.
	Before, After string

	// Value is what is put there; in a JSON body it is written as a string,
	// in a form it is percent-encoded.
	Value Text

	// JSON says which of the two the body is.
	JSON bool
}

// BodyPlan is a body and where the credential goes into it.
type BodyPlan struct {
	Body    []byte
	Inserts []Insert

	// ContentType is that of a body which the client left out, else empty.
	ContentType string
}

// PlanBody reads the body of a request of a service whose credential goes
// into it, and finds the places. A body that has something there already, in
// whatever spelling some reader takes for the same, is refused, and so is one
// that cannot be understood: UNSUPPORTED_MEDIA_TYPE, JSON_INVALID,
// JSON_DUPLICATE_KEY, PARAM_INVALID:name.
//
// For other services it returns the body as it is.
func (c *Compiled) PlanBody(contentType, contentEncoding []string, body []byte) (BodyPlan, *refusal.Refusal) {
	plan := BodyPlan{Body: body}
	if !c.bodyForm && !c.bodyJSON {
		return plan, nil
	}
	if enc := strings.Join(contentEncoding, ","); enc != "" && !strings.EqualFold(enc, "identity") {
		return plan, refusal.New("UNSUPPORTED_MEDIA_TYPE", "the vault adds the secret to this body, and it is compressed").
			WithHint("send it without Content-Encoding")
	}
	want := typeJSON
	if c.bodyForm {
		want = typeForm
	}
	switch {
	case len(body) > 0 && !isMedia(contentType, want):
		return plan, refusal.New("UNSUPPORTED_MEDIA_TYPE", "the vault adds the secret to this body, which must be %s in UTF-8", want)
	case len(body) == 0:
		plan.ContentType = want
		if c.bodyJSON {
			plan.Body = []byte("{}")
		}
	}
	var r *refusal.Refusal
	if c.bodyForm {
		plan.Inserts, r = c.formInserts(plan.Body)
	} else {
		plan.Inserts, r = c.jsonInserts(plan.Body)
	}
	return plan, r
}

// isMedia says whether the header Content-Type has one value, of this type,
// in UTF-8.
func isMedia(values []string, want string) bool {
	if len(values) != 1 {
		return false
	}
	media, params, err := mime.ParseMediaType(values[0])
	if err != nil || media != want && !(want == typeJSON && strings.HasSuffix(media, "+json")) {
		return false
	}
	charset, ok := params["charset"]
	return !ok || strings.EqualFold(charset, "utf-8")
}

// formInserts puts the fields at the end.
func (c *Compiled) formInserts(body []byte) ([]Insert, *refusal.Refusal) {
	for pair := range bytes.FieldsFuncSeq(body, func(r rune) bool { return r == '&' || r == ';' }) {
		name, _, _ := strings.Cut(string(pair), "=")
		if shown, reserved := c.reservedName(name); reserved {
			return nil, paramInvalid(shown, "is where the vault puts the credential; leave it out")
		}
	}
	var inserts []Insert
	sep := ""
	if len(body) > 0 && body[len(body)-1] != '&' {
		sep = "&"
	}
	for _, p := range c.Places {
		if p.In != InBody {
			continue
		}
		inserts = append(inserts, Insert{At: len(body), Before: sep + p.Name + "=", Value: p.Value})
		sep = "&"
	}
	return inserts, nil
}

// reservedName decodes a name of a query or form, once and twice, and says
// whether it is the credential's.
func (c *Compiled) reservedName(escaped string) (name string, reserved bool) {
	name = strings.ReplaceAll(escaped, "+", " ")
	for range 3 {
		if c.Reserved(name) {
			return name, true
		}
		if strings.IndexByte(name, '%') < 0 {
			break
		}
		name = unescapeLenient(name)
	}
	return name, false
}

// jsonInserts puts each member at the beginning of its object.
func (c *Compiled) jsonInserts(body []byte) ([]Insert, *refusal.Refusal) {
	if _, err := readObject(body); err != nil {
		return nil, jsonRefusal("the body", err)
	}
	var inserts []Insert
	for _, p := range c.Places {
		if p.In != InBody {
			continue
		}
		d := decoders.Get().(*decoder)
		in, r := findInsert(d.over(body), p.Pointer)
		d.release()
		if r != nil {
			return nil, r
		}
		in.Value = p.Value
		inserts = append(inserts, in)
	}
	slices.SortStableFunc(inserts, func(a, b Insert) int { return a.At - b.At })
	for i := range inserts {
		// Of several in an empty object all but the last need a comma.
		if in := &inserts[i]; !strings.HasSuffix(in.After, ",") && i+1 < len(inserts) && inserts[i+1].At == in.At {
			in.After += ","
		}
	}
	return inserts, nil
}

// findInsert walks down a JSON object that is known to be valid and finds the
// place of a member that may not be there. On the way a name that a lax
// reader takes for the pointer's is refused: Go's encoding/json, for one,
// ignores case.
func findInsert(dec *jsontext.Decoder, pointer []string) (Insert, *refusal.Refusal) {
	in := Insert{At: -1, JSON: true}
	r := in.object(dec, pointer)
	return in, r
}

// object looks at the object that dec is before.
func (in *Insert) object(dec *jsontext.Decoder, pointer []string) *refusal.Refusal {
	_, _ = dec.ReadToken() // "{": the body is valid
	at := int(dec.InputOffset())
	empty := dec.PeekKind() == '}'
	down := false
	for dec.PeekKind() != '}' {
		tok, err := dec.ReadToken()
		if err != nil {
			return jsonRefusal("the body", err)
		}
		name := tok.String()
		switch {
		case reservedKey(name) != reservedKey(pointer[0]):
			err = dec.SkipValue()
		case len(pointer) == 1:
			return paramInvalid(name, "is where the vault puts the credential; leave it out")
		case name != pointer[0]:
			return paramInvalid(name, "is another spelling of %s, where the vault puts the credential", pointer[0])
		case dec.PeekKind() != '{':
			return paramInvalid(name, "is not an object, and the vault puts the credential into it")
		default:
			down = true
			if r := in.object(dec, pointer[1:]); r != nil {
				return r
			}
		}
		if err != nil {
			return jsonRefusal("the body", err)
		}
	}
	_, _ = dec.ReadToken() // "}"
	if down {
		return nil
	}
	in.At = at
	before := []byte{}
	for i, name := range pointer {
		if i > 0 {
			before = append(before, '{')
			in.After += "}"
		}
		before = append(appendName(before, name), ':')
	}
	in.Before = string(before)
	if !empty {
		in.After += ","
	}
	return nil
}
