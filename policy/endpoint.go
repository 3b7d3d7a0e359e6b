package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// CompiledEndpoint is an endpoint ready to decide with; read-only. There may be
// a million: what many have in common they share.
type CompiledEndpoint struct {
	*EndpointDetails

	// Name is the action.
	Name string

	// Path is the configured one.
	Path string

	svc *Compiled

	// first and last are where in byShape those endpoints begin and end that
	// have this one's method and shape of path.
	first, last uint32

	allowed bool

	// outdone is whether some endpoint of the method may be stricter.
	outdone bool
}

// EndpointDetails are what an endpoint has besides its name and path, with
// their defaults filled in; read-only.
type EndpointDetails struct {
	// Those of Endpoint.
	Method        string
	Query         map[string]string
	RequiredScope []string
	Body          string
	Range         bool
	Upgrade       string
	Subprotocols  []string
	PassRedirects bool

	// DefaultHeaders are the service's and the endpoint's default headers
	// together, by canonical name.
	DefaultHeaders map[string]string

	told       map[string]string // see tellApart
	fixedQuery string            // Query, encoded
}

// key is equal for details that are equal.
func (d *EndpointDetails) key() string {
	if len(d.Query)+len(d.Subprotocols)+len(d.DefaultHeaders) == 0 {
		flags := ""
		if d.Range {
			flags = " range"
		}
		if d.PassRedirects {
			flags += " redirects"
		}
		return d.Method + " " + d.Body + " " + d.Upgrade + flags + "\x00" + strings.Join(d.RequiredScope, " ")
	}
	return fmt.Sprintf("%q", []any{
		d.Method, d.Query, d.RequiredScope, d.Body, d.Range, d.Upgrade, d.Subprotocols, d.PassRedirects, d.DefaultHeaders,
	})
}

// Service returns the service of the endpoint.
func (e *CompiledEndpoint) Service() *Compiled { return e.svc }

// Alternatives returns all endpoints with the same method and shape of path
// as e, e itself among them, by name. An older name of an action is one. The
// caller must not change it.
func (e *CompiledEndpoint) Alternatives() []*CompiledEndpoint {
	return e.svc.byShape[e.first:e.last:e.last]
}

// endpointCompiler compiles the endpoints of a service.
type endpointCompiler struct {
	svc      *Compiled
	details  map[string]*EndpointDetails
	scopes   map[string]string
	patterns []pattern
	shapes   []string
}

// share returns the details as they are shared by all endpoints that have
// the same.
func (x *endpointCompiler) share(d *EndpointDetails) *EndpointDetails {
	key := d.key()
	if known := x.details[key]; known != nil {
		return known
	}
	for i, s := range d.RequiredScope {
		if known, ok := x.scopes[s]; ok {
			d.RequiredScope[i] = known
		} else {
			x.scopes[s] = s
		}
	}
	x.details[key] = d
	return d
}

// finish puts the compiled endpoints in their place, by name.
func (x *endpointCompiler) finish() {
	c := x.svc
	x.keepTexts()
	c.actions = x.tableOfActions()
	for i, a := range c.AllowedActions {
		if e := c.Endpoint(a); e != nil {
			c.AllowedActions[i] = e.Name
		}
	}
	x.groupShapes()
	x.markOutdone()

	// Among endpoints of one shape an allowed one is preferred, then the
	// first by name; the others are its alternatives.
	all := make([]indexed, 0, len(c.endpoints))
	encoded := false
	for _, allowed := range [...]bool{true, false} {
		for i := range c.endpoints {
			if e := &c.endpoints[i]; e.allowed == allowed {
				all = append(all, indexed{methodNumber(e.Method), x.patterns[i], i})
				encoded = encoded || strings.Contains(e.Path, "%")
			}
		}
	}
	c.index = buildIndex(all)
	if !encoded {
		return
	}
	for i := range all {
		all[i].pattern = all[i].pattern.decoded()
	}
	loose := buildIndex(all)
	c.loose = &loose
}

// keepTexts moves the names and paths into one text, beside each other: what
// was decoded lies anywhere.
func (x *endpointCompiler) keepTexts() {
	var b strings.Builder
	n := 0
	for i := range x.svc.endpoints {
		n += len(x.svc.endpoints[i].Name) + len(x.svc.endpoints[i].Path)
	}
	b.Grow(n)
	for i := range x.svc.endpoints {
		b.WriteString(x.svc.endpoints[i].Name)
		b.WriteString(x.svc.endpoints[i].Path)
	}
	text := b.String()
	for i := range x.svc.endpoints {
		e := &x.svc.endpoints[i]
		n, p := len(e.Name), len(e.Path)
		e.Name, e.Path, text = text[:n], text[n:n+p], text[n+p:]
	}
}

// tableOfActions makes the table of the endpoints by their names.
func (x *endpointCompiler) tableOfActions() string {
	entries := make([]tableEntry, len(x.svc.endpoints))
	for i := range entries {
		entries[i] = tableEntry{hash(x.svc.endpoints[i].Name), uint32(i)}
	}
	return string(appendTable(nil, entries))
}

// groupShapes finds the endpoints that have one method and shape of path.
func (x *endpointCompiler) groupShapes() {
	c := x.svc
	order := make([]int, len(c.endpoints))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(x.shapes[a], x.shapes[b]) })
	c.byShape = make([]*CompiledEndpoint, len(order))
	for i, n := range order {
		c.byShape[i] = &c.endpoints[n]
	}
	for first := 0; first < len(order); {
		last := first + 1
		for last < len(order) && x.shapes[order[last]] == x.shapes[order[first]] {
			last++
		}
		for _, e := range c.byShape[first:last] {
			e.first, e.last = uint32(first), uint32(last)
		}
		tellApart(c.byShape[first:last])
		first = last
	}
}

// markOutdone marks the endpoints beside which there may be a stricter one, so
// that no other reading of a path needs to be looked for beside the rest.
func (x *endpointCompiler) markOutdone() {
	type class struct {
		details *EndpointDetails
		allowed bool
	}
	classes := map[class]*CompiledEndpoint{}
	for i := range x.svc.endpoints {
		e := &x.svc.endpoints[i]
		classes[class{e.EndpointDetails, e.allowed}] = e
	}
	outdone := make(map[class]bool, len(classes))
	for k, e := range classes {
		outdone[k] = len(classes) > 256 // of which to compare each with each would take long
		for _, o := range classes {
			if outdone[k] {
				break
			}
			outdone[k] = o.Method == e.Method && o.guards(e)
		}
	}
	for i := range x.svc.endpoints {
		e := &x.svc.endpoints[i]
		e.outdone = outdone[class{e.EndpointDetails, e.allowed}]
	}
}

// detailsOf are the details of an endpoint whose defaults are filled in.
func (c *Compiled) detailsOf(ep *Endpoint) *EndpointDetails {
	headers := c.Headers
	if len(ep.Headers) > 0 {
		headers = maps.Clone(c.Headers)
		if headers == nil {
			headers = map[string]string{}
		}
		maps.Copy(headers, ep.Headers)
	}
	return &EndpointDetails{
		Method:         methods[methodNumber(ep.Method)],
		Query:          ep.Query,
		RequiredScope:  ep.RequiredScope,
		Body:           ep.Body,
		Range:          ep.Range,
		Upgrade:        ep.Upgrade,
		Subprotocols:   ep.Subprotocols,
		PassRedirects:  ep.PassRedirects,
		DefaultHeaders: headers,
	}
}
