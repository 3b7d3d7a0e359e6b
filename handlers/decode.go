package handlers

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// Limits of a JSON body (wire.md, "Conventions").
const (
	maxBody  = 1 << 20 // bytes
	maxDepth = 64

	// maxBodyDrained is how much of a body that is too large is read and
	// thrown away.
	maxBodyDrained = 4 * maxBody
)

// checkMediaType refuses a request whose body is not plain JSON. It also keeps
// browsers out: a page of another site cannot send this type without asking
// first, and nobody answers.
func checkMediaType(h http.Header) *refusal.Refusal {
	types := h["Content-Type"]
	if len(types) == 1 && types[0] == "application/json" {
		// the usual case
	} else {
		ok := false
		if len(types) == 1 {
			mt, params, err := mime.ParseMediaType(types[0])
			charset, has := params["charset"]
			ok = err == nil && mt == "application/json" && (len(params) == 0 || has && len(params) == 1 && strings.EqualFold(charset, "utf-8"))
		}
		if !ok {
			return refusal.New("UNSUPPORTED_MEDIA_TYPE", "the body of this route is application/json").
				WithHint("send the header content-type: application/json")
		}
	}
	for _, enc := range h["Content-Encoding"] {
		if !strings.EqualFold(enc, "identity") {
			return refusal.New("UNSUPPORTED_MEDIA_TYPE", "the body of this route must not be compressed")
		}
	}
	return nil
}

// bodyTime is how long a client may take to send a body.
const bodyTime = time.Minute

// readBody reads a body of at most maxBody bytes, which is held until the
// request is done.
func (rq *request) readBody() ([]byte, *refusal.Refusal) {
	rq.held = rq.vault.HoldBody()
	if rq.known {
		_ = rq.held.Known() // it holds nothing yet
	}
	var conn *http.ResponseController
	hurry := func() {
		conn = http.NewResponseController(rq.w)
		_ = conn.SetReadDeadline(time.Now().Add(bodyTime))
	}
	body, err := rq.held.Read(rq.Body, rq.ContentLength, maxBody, hurry)
	if err == nil {
		if conn != nil {
			_ = conn.SetReadDeadline(time.Time{})
		}
		return body, nil
	}
	refused, full := errors.AsType[*refusal.Refusal](err)
	switch {
	case full || errors.Is(err, vault.ErrBodyTooLarge):
		// A client that is still sending when the connection is closed gets
		// a reset in place of the answer, so a little more is read.
		hurry()
		_, _ = io.CopyN(io.Discard, rq.Body, maxBodyDrained)
		rq.w.Header().Set("Connection", "close")
		if full {
			return nil, refused
		}
		return nil, refusal.New("BODY_TOO_LARGE", "the body is larger than %d bytes", maxBody)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, refusal.New("CLIENT_TIMEOUT:body", "the client did not send its request in time").WithCause(err)
	}
	return nil, refusal.New("JSON_INVALID", "the body could not be read to its end").WithCause(err)
}

// decode reads body, one JSON object, into the struct that into points to.
// Duplicate names, invalid UTF-8, trailing data and names of another case are
// refused; with strict, so are unknown names.
func decode(body []byte, into any, strict bool) *refusal.Refusal {
	if refused := checkObject(body); refused != nil {
		return refused
	}
	err := json.Unmarshal(body, into, json.RejectUnknownMembers(strict))
	if err == nil {
		return nil
	}
	return decodeRefusal(err)
}

// checkObject refuses a body that is not an object or is nested too deeply for
// what reads it later.
func checkObject(body []byte) *refusal.Refusal {
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return refusal.New("JSON_INVALID", "the body must be a JSON object")
	}
	depth, inString := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case inString:
			if c == '\\' {
				i++
			} else if c == '"' {
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return refusal.New("JSON_INVALID", "the body is nested more than %d deep", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// decodeRefusal says what of a body could not be read, by the name of the
// field.
func decodeRefusal(err error) *refusal.Refusal {
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		field := topField(semantic.JSONPointer)
		if errors.Is(err, json.ErrUnknownName) {
			return refusal.New("FIELD_UNKNOWN:"+field, "this route has no field %q", field)
		}
		if field != "" {
			return fieldInvalid(field, "the field %q has the wrong type", field)
		}
	}
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok && errors.Is(err, jsontext.ErrDuplicateName) {
		name := syntactic.JSONPointer.LastToken()
		return refusal.New("JSON_DUPLICATE_KEY:"+name, "the name %q stands more than once", name)
	}
	return refusal.New("JSON_INVALID", "the body is not valid JSON").WithCause(err)
}

func topField(p jsontext.Pointer) string {
	for token := range p.Tokens() {
		return token
	}
	return ""
}

// fieldInvalid returns the refusal of a field's value; the code has the
// field's name in capitals.
func fieldInvalid(field, detail string, args ...any) *refusal.Refusal {
	return refusal.New(strings.ToUpper(field)+"_INVALID", detail, args...)
}

// take splits the members named off an object and returns them and the rest,
// in the order they stood.
func take(body []byte, names ...string) (taken map[string]jsontext.Value, rest jsontext.Value, _ *refusal.Refusal) {
	if refused := checkObject(body); refused != nil {
		return nil, nil, refused
	}
	taken = make(map[string]jsontext.Value, len(names))
	for _, name := range names {
		taken[name] = nil
	}
	dec := jsontext.NewDecoder(bytes.NewReader(body))
	var out bytes.Buffer
	enc := jsontext.NewEncoder(&out)
	fail := func(err error) (map[string]jsontext.Value, jsontext.Value, *refusal.Refusal) {
		return nil, nil, decodeRefusal(err)
	}
	if _, err := dec.ReadToken(); err != nil {
		return fail(err)
	}
	_ = enc.WriteToken(jsontext.BeginObject)
	for dec.PeekKind() == '"' {
		tok, err := dec.ReadToken()
		if err != nil {
			return fail(err)
		}
		name := tok.String()
		value, err := dec.ReadValue()
		if err != nil {
			return fail(err)
		}
		if _, wanted := taken[name]; wanted {
			taken[name] = value.Clone()
			continue
		}
		if err := errors.Join(enc.WriteToken(jsontext.String(name)), enc.WriteValue(value)); err != nil {
			return fail(err)
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return fail(err)
	}
	_ = enc.WriteToken(jsontext.EndObject)
	if _, err := dec.ReadToken(); err != io.EOF {
		return nil, nil, refusal.New("JSON_INVALID", "there is data after the object")
	}
	return taken, jsontext.Value(bytes.TrimSpace(out.Bytes())), nil
}

// stringField returns a member that must be a string; nil if it is absent or
// null.
func stringField(taken map[string]jsontext.Value, name string) (*string, *refusal.Refusal) {
	v := taken[name]
	if v == nil || v.Kind() == 'n' {
		return nil, nil
	}
	var s string
	if err := json.Unmarshal(v, &s); err != nil {
		return nil, fieldInvalid(name, "the field %q is a string", name)
	}
	return &s, nil
}

// requiredField is stringField for one that must be there and not be empty.
func requiredField(taken map[string]jsontext.Value, name string) (string, *refusal.Refusal) {
	s, refused := stringField(taken, name)
	if refused != nil {
		return "", refused
	}
	if s == nil || strings.TrimSpace(*s) == "" {
		return "", refusal.New(strings.ToUpper(name)+"_REQUIRED", "the field %q is missing", name)
	}
	return *s, nil
}

// integer reads a field that must be a whole number in decimal digits, as
// large as it likes: what is over most is returned as most.
func integer(v jsontext.Value, most int64) (n int64, ok bool) {
	if len(v) == 0 || v.Kind() != '0' {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + int64(c-'0'); n > most {
			n = most
		}
	}
	return n, true
}
