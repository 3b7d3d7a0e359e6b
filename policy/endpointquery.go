package policy

import (
	"maps"
	"slices"
	"strings"

	"github.com/caddyvault/caddyvault/refusal"
)

// maxEndpointQuery bounds the parameters that tell endpoints apart.
const maxEndpointQuery = 8

// compileQuery checks the parameters that an endpoint wants in the query, and
// returns what is wrong with them, if anything.
func (c *Compiled) compileQuery(ep Endpoint) string {
	if len(ep.Query) > maxEndpointQuery {
		return "query has too many parameters"
	}
	plain := func(s string) bool {
		return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7f || !unreserved[byte(r)] })
	}
	folded := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(ep.Query)) {
		switch {
		case !plain(name), !plain(ep.Query[name]):
			return "query has a name or a value that is not of A-Z, a-z, 0-9, '-', '.', '_' and '~'"
		case c.Reserved(name):
			return "query has the parameter that carries the credential"
		case folded[reservedKey(name)]:
			return "query has two names that some servers take for one"
		}
		folded[reservedKey(name)] = true
	}
	return ""
}

// tellApart gives every endpoint of one method and shape the names of the
// parameters that tell them apart, in the form that reservedKey makes, and
// with them those that are named otherwise.
func tellApart(same []*CompiledEndpoint) {
	told := map[string]string{}
	for _, e := range same {
		for name := range e.Query {
			told[reservedKey(name)] = name
		}
	}
	if len(told) == 0 {
		return
	}
	for _, e := range same {
		own := *e.EndpointDetails // no longer what it shares
		e.EndpointDetails = &own
		e.told = told
		for i, name := range slices.Sorted(maps.Keys(e.Query)) {
			if i > 0 {
				e.fixedQuery += "&"
			}
			e.fixedQuery += name + "=" + e.Query[name]
		}
	}
}

// AlternativesFor returns the alternatives of e that a request with this raw
// query can mean: those whose query parameters it has, the ones with most of
// them, else those that want none. There may be none. The parameters that
// tell them apart stand in the query at most once, and plainly, or
// PARAM_INVALID is returned: which of two counts is a matter of the server.
func (e *CompiledEndpoint) AlternativesFor(rawQuery string) ([]*CompiledEndpoint, *refusal.Refusal) {
	if len(e.told) == 0 {
		return e.Alternatives(), nil
	}
	have := map[string]string{}
	for piece := range strings.FieldsFuncSeq(rawQuery, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, _ := strings.Cut(piece, "=")
		is, ok := e.told[reservedKey(name)]
		if !ok {
			if is, ok = e.told[reservedKey(unescapeLenient(unescapeLenient(strings.ReplaceAll(name, "+", " "))))]; !ok {
				continue
			}
		}
		if _, twice := have[is]; twice {
			return nil, paramInvalid(is, "stands in the query twice")
		}
		if name != is || strings.ContainsAny(value, "%+") {
			return nil, paramInvalid(is, "is not written plainly in the query")
		}
		have[is] = value
	}
	var found []*CompiledEndpoint
	most := 0
	for _, o := range e.Alternatives() {
		if len(o.Query) < most || !has(have, o.Query) {
			continue
		}
		if len(o.Query) > most {
			found, most = nil, len(o.Query)
		}
		found = append(found, o)
	}
	return found, nil
}

// NoQuery says that the query of a request is that of no alternative of e.
func (e *CompiledEndpoint) NoQuery() *refusal.Refusal {
	var queries []string
	for _, o := range e.Alternatives() {
		queries = append(queries, "?"+o.fixedQuery+" ("+o.Name+")")
	}
	return refusal.New("NO_ENDPOINT", "the service %s has no endpoint for this query", e.svc.Name).
		WithHint("the path exists with %s", listed(queries))
}

// has says whether all of want is in have.
func has(have, want map[string]string) bool {
	for name, value := range want {
		if got, ok := have[name]; !ok || got != value {
			return false
		}
	}
	return true
}
