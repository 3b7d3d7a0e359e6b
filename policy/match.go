package policy

import (
	"net/http"
	"slices"
)

// Match finds the endpoint of a request for /proxy/. The path is the escaped
// one under the service's baseUrl, exactly as it will be sent; CheckProxyPath
// must have passed it. The most specific endpoint wins: text before text with
// parameters before {name} before {name...} before *, segment by segment. An
// endpoint that is not in allowedActions is found, too, so that DecideAction
// can name it.
//
// HEAD is GET where no endpoint of its own matches: it tells no more.
//
// There is no match if an upstream that reads the path more loosely (decodes
// more, drops empty segments or ";" parameters) would come to a stricter
// endpoint than the one found: /v1/%61dmin is not /v1/*, where there is a
// /v1/admin.
func (c *Compiled) Match(method, escapedPath string) (*CompiledEndpoint, bool) {
	if escapedPath == "" {
		escapedPath = "/"
	}
	m := methodNumber(method)
	e := c.find(m, escapedPath)
	if e == nil && method == http.MethodHead {
		m = methodNumber(http.MethodGet)
		e = c.find(m, escapedPath)
	}
	if e == nil || c.otherReading(e, m, escapedPath) != nil {
		return nil, false
	}
	return e, true
}

// find returns the endpoint that matches best, the preferred one of those that
// have the same shape, or nil.
func (c *Compiled) find(method int, path string) *CompiledEndpoint {
	if n := c.index.find(method, path); n >= 0 {
		return &c.endpoints[n]
	}
	return nil
}

// otherReading returns a stricter endpoint of the same method than e that a
// looser reader of the path would come to, if there is one.
func (c *Compiled) otherReading(e *CompiledEndpoint, method int, path string) *CompiledEndpoint {
	if !e.outdone || c.loose == nil && !hasOtherReading(path) {
		return nil
	}
	loose := c.loose
	if loose == nil {
		loose = &c.index
	}
	var room [256]byte
	for i := range 2 {
		switch next := appendLoose(room[:0], path); {
		case string(next) != path:
			path = string(next)
		case i > 0 || c.loose == nil:
			return nil
		}
		if n := loose.find(method, path); n >= 0 && c.endpoints[n].stricterThan(e) {
			return &c.endpoints[n]
		}
	}
	return nil
}

// hasOtherReading says quickly whether appendLoose would change a path.
func hasOtherReading(path string) bool {
	for i := range len(path) {
		switch path[i] {
		case '%', ';':
			return true
		case '/':
			if i > 0 && (path[i-1] == '/' || i == len(path)-1) {
				return true
			}
		}
	}
	return false
}

// appendLoose appends path as a lax server might take it: decoded once,
// without empty segments and without what follows a ";" in a segment.
func appendLoose(b []byte, path string) []byte {
	within, behind := false, false // a segment that has something; a ";" in it
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]) {
			c = unhex(path[i+1])<<4 | unhex(path[i+2])
			i += 2
		}
		switch {
		case c == '/':
			within, behind = false, false
		case c == ';':
			behind = true
		case behind:
		case !within:
			b, within = append(b, '/', c), true
		default:
			b = append(b, c)
		}
	}
	if len(b) == 0 {
		b = append(b, '/')
	}
	return b
}

// stricterThan says whether e guards something that o does not: it needs a
// scope that o does not need, or it is not allowed where o is.
func (e *CompiledEndpoint) stricterThan(o *CompiledEndpoint) bool {
	return e.first != o.first && e.guards(o)
}

func (e *CompiledEndpoint) guards(o *CompiledEndpoint) bool {
	if !e.allowed && o.allowed {
		return true
	}
	return slices.ContainsFunc(e.RequiredScope, func(s string) bool { return !slices.Contains(o.RequiredScope, s) })
}
