package policy

import (
	"errors"
	"slices"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/refusal"
)

// Where parameters go that are not in the path (Endpoint.Body).
const (
	BodyJSON  = "json"
	BodyForm  = "form"
	BodyQuery = "query"
	BodyNone  = "none"
)

// Plan is the request that an action makes. It holds no credential.
type Plan struct {
	// Method is the request's method.
	Method string

	// EscapedPath is the whole path as it goes over the wire, that of the
	// baseUrl included.
	EscapedPath string

	// RawQuery is the encoded query without "?", or empty.
	RawQuery string

	// Body is the request's body, or nil for none.
	Body []byte

	// ContentType is the body's media type, or empty.
	ContentType string

	// Upstream is scheme://host/path, for the record: no query.
	Upstream string
}

// Plan makes the request of an action from its parameters, a JSON object or
// nothing. It returns PARAMS_INVALID, JSON_INVALID, JSON_DUPLICATE_KEY,
// MISSING_PATH_PARAM, PARAM_INVALID or PATH_TOO_LONG; a parameter's value is
// in none of them.
func (e *CompiledEndpoint) Plan(params []byte) (Plan, *refusal.Refusal) {
	var members []member
	if len(params) > 0 {
		var err error
		if members, err = readObject(params); errors.Is(err, errNotObject) {
			return Plan{}, refusal.New("PARAMS_INVALID", "params is not an object")
		} else if err != nil {
			return Plan{}, jsonRefusal("params", err)
		}
	}
	path, rest, r := e.path(members)
	if r != nil {
		return Plan{}, r
	}
	p := Plan{Method: e.Method, EscapedPath: e.svc.FullPath(path)}
	p.Upstream = e.svc.Origin + p.EscapedPath
	for _, m := range rest {
		if r := e.checkName(m.name); r != nil {
			return Plan{}, r
		}
	}
	if r := e.encode(&p, rest); r != nil {
		return Plan{}, r
	}
	if e.fixedQuery != "" {
		if p.RawQuery != "" {
			p.RawQuery += "&"
		}
		p.RawQuery += e.fixedQuery
	}
	if len(p.RawQuery) > maxQuery {
		return Plan{}, refusal.New("PATH_TOO_LONG", "the query is longer than %d bytes", maxQuery)
	}
	return p, nil
}

// path fills the endpoint's path and returns it, escaped and without that of
// the baseUrl, and the parameters left over.
func (e *CompiledEndpoint) path(members []member) (string, []member, *refusal.Refusal) {
	b := make([]byte, 0, 2*len(e.Path)+32)
	for seg := range strings.SplitSeq(e.Path[1:], "/") {
		b = append(b, '/')
		if name, k, ok := several(seg); ok {
			value, r := e.take(members, name)
			if r != nil {
				return "", nil, r
			}
			if b, r = appendPieces(b, name, k, value); r != nil {
				return "", nil, r
			}
			continue
		}
		for {
			lit, name, rest, ok := cutParam(seg)
			b = append(b, lit...)
			if !ok {
				break
			}
			value, r := e.take(members, name)
			if r != nil {
				return "", nil, r
			}
			if value == "" {
				return "", nil, paramInvalid(name, "is empty")
			}
			b, seg = appendEscaped(b, value), rest
		}
	}
	if len(b) > maxPath {
		return "", nil, refusal.New("PATH_TOO_LONG", "the path is longer than %d bytes", maxPath)
	}
	path := string(b)
	if r := e.checkPath(path); r != nil {
		return "", nil, r
	}
	return path, slices.DeleteFunc(members, func(m member) bool { return m.raw == nil }), nil
}

// appendPieces appends the value of a {name...} or *, each piece between
// slashes escaped. Only a subtree may be empty.
func appendPieces(b []byte, name string, k kind, value string) ([]byte, *refusal.Refusal) {
	if value == "" && k == subtree {
		return b, nil
	}
	for i, piece := range strings.Split(value, "/") {
		if piece == "" {
			return nil, paramInvalid(name, "is empty or has an empty piece between slashes")
		}
		if i > 0 {
			b = append(b, '/')
		}
		b = appendEscaped(b, piece)
	}
	return b, nil
}

// take returns the text of a path parameter and marks its member as used by
// taking its value out.
func (e *CompiledEndpoint) take(members []member, name string) (string, *refusal.Refusal) {
	for i, m := range members {
		if m.name != name || m.raw == nil {
			continue
		}
		var value string
		switch m.raw.Kind() {
		case '"':
			value = unquote(m.raw)
		case '0':
			value = string(m.raw)
		default:
			return "", paramInvalid(name, "is neither a string nor a number")
		}
		members[i].raw = nil
		return value, checkPathValue(name, value)
	}
	return "", refusal.New("MISSING_PATH_PARAM:"+safeName(name), "the action %s needs the parameter %s", e.Name, name).
		WithHint("the path is %s; its parameters are: %s", e.Path, listed(pathParams(e.Path)))
}

// checkPathValue refuses a value that could change the shape of the path it
// is put into (security.md, "Parameters and paths").
func checkPathValue(name, value string) *refusal.Refusal {
	if strings.ContainsFunc(value, unicode.IsControl) {
		return paramInvalid(name, "has a control character")
	}
	// A value with dots in percent-encoding is escaped once more; a server
	// that decodes twice would still come to the dots.
	for level, rounds := value, 0; rounds < 3; rounds++ {
		if hasDotPiece(level) {
			return paramInvalid(name, `has a piece "." or ".."`)
		}
		if strings.IndexByte(level, '%') < 0 {
			break
		}
		level = unescapeLenient(level)
	}
	return nil
}

// checkPath looks at a filled path as a whole. The values are fine one by
// one; what is left is a text around them that makes a dot piece of one, and
// a value that turns the path into that of a stricter action.
func (e *CompiledEndpoint) checkPath(path string) *refusal.Refusal {
	if strings.IndexByte(e.Path, '{') < 0 && !strings.HasSuffix(e.Path, "/*") {
		return nil // it has no parameter
	}
	if hasDotPiece(unescapeLenient(path)) {
		return paramInvalid(pathParams(e.Path)[0], `makes a piece "." or ".." of the path`)
	}
	if !e.outdone {
		return nil
	}
	method := methodNumber(e.Method)
	other := e.svc.otherReading(e, method, path)
	if found := e.svc.find(method, path); found != nil && found.stricterThan(e) {
		other = found
	}
	if other != nil {
		names := pathParams(e.Path)
		return paramInvalid(names[len(names)-1], "makes the path of the action %s", other.Name).
			WithHint("call the action %s, which needs the scope %s", other.Name, listed(other.RequiredScope))
	}
	return nil
}

// checkName refuses a parameter that may not be sent under its name.
func (e *CompiledEndpoint) checkName(name string) *refusal.Refusal {
	if name == "" || strings.ContainsFunc(name, unicode.IsControl) {
		return paramInvalid(name, "has an empty name or one with control characters")
	}
	if _, ok := e.told[reservedKey(name)]; ok {
		return paramInvalid(name, "tells actions apart, and is the action's own; leave it out")
	}
	if e.svc.Reserved(name) {
		return paramInvalid(name, "is where the vault puts the credential; leave it out")
	}
	return nil
}

func paramInvalid(name, detail string, args ...any) *refusal.Refusal {
	return refusal.New("PARAM_INVALID:"+safeName(name), "the parameter "+shownPlain(name)+" "+detail, args...)
}

// shownPlain is shown for a text that goes into a format.
func shownPlain(name string) string { return strings.ReplaceAll(shown(name), "%", "%%") }

// unquote returns the text of a JSON string that is known to be valid.
func unquote(raw jsontext.Value) string {
	b, _ := jsontext.AppendUnquote(nil, raw)
	return string(b)
}

// appendEscaped appends s with everything percent-encoded but RFC 3986's
// unreserved characters, so that no reader can take a part of it for syntax.
func appendEscaped(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; unreserved[c] {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b
}

var unreserved = func() (t [256]bool) {
	for c := range 128 {
		t[c] = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", byte(c)) >= 0
	}
	return t
}()
