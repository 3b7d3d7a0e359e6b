package policy

import (
	"net/http"
	"slices"
	"strings"
)

// index finds the endpoint of a path. It is a trie of segments, one a method;
// building it sorts, so that looking up only walks. A node is visited at most
// once a look-up, so a look-up costs at most the number of the service's own
// segments, whatever was sent, and depends on no other service.
type index map[string]*node

// node is a place in the trie: what may stand in the next segment.
type node struct {
	lits     map[string]*node
	partials []edge
	param    *node
	multis   []tail
	star     []*CompiledEndpoint

	// here are the endpoints that end at this node: one, or several that
	// have the same method and shape, the preferred one first.
	here []*CompiledEndpoint
}

type edge struct {
	seg  segment
	next *node
}

// tail is a {name...} and the segments behind it, of which there may be none.
type tail struct {
	segs pattern
	ends []*CompiledEndpoint
}

// buildIndex indexes endpoints in the order given, which is the order of
// preference among those of one shape.
func buildIndex(endpoints []*CompiledEndpoint, of func(*CompiledEndpoint) pattern) index {
	ix := index{}
	for _, e := range endpoints {
		root := ix[e.Method]
		if root == nil {
			root = &node{}
			ix[e.Method] = root
		}
		root.insert(of(e), e)
	}
	return ix
}

func (n *node) insert(p pattern, e *CompiledEndpoint) {
	if len(p) == 0 {
		n.here = append(n.here, e)
		return
	}
	seg, rest := p[0], p[1:]
	switch seg.kind {
	case literal:
		if n.lits == nil {
			n.lits = map[string]*node{}
		}
		next := n.lits[seg.lits[0]]
		if next == nil {
			next = &node{}
			n.lits[seg.lits[0]] = next
		}
		next.insert(rest, e)
	case partial:
		i, found := slices.BinarySearchFunc(n.partials, seg, func(x edge, s segment) int { return x.seg.compare(s) })
		if !found {
			n.partials = slices.Insert(n.partials, i, edge{seg, &node{}})
		}
		n.partials[i].next.insert(rest, e)
	case single:
		if n.param == nil {
			n.param = &node{}
		}
		n.param.insert(rest, e)
	case multi:
		i, found := slices.BinarySearchFunc(n.multis, rest, func(x tail, p pattern) int { return compareTails(x.segs, p) })
		if !found {
			n.multis = slices.Insert(n.multis, i, tail{segs: rest})
		}
		n.multis[i].ends = append(n.multis[i].ends, e)
	case subtree:
		n.star = append(n.star, e)
	}
}

// compareTails orders what stands behind a {name...}: longer is more
// specific, then the segments decide.
func compareTails(a, b pattern) int {
	if len(a) != len(b) {
		return len(b) - len(a)
	}
	return slices.CompareFunc(a, b, segment.compare)
}

// find returns the endpoints that match best, the preferred one first. The
// path is escaped and begins with a slash.
func (ix index) find(method, path string) []*CompiledEndpoint {
	root := ix[method]
	if root == nil || path == "" || path[0] != '/' {
		return nil
	}
	return root.find(path, 1)
}

// find matches path[pos:], which begins with a segment unless the path has
// ended (pos is beyond its end).
func (n *node) find(path string, pos int) []*CompiledEndpoint {
	if pos > len(path) {
		return n.here
	}
	rest := path[pos:]
	end := strings.IndexByte(rest, '/')
	if end < 0 {
		end = len(rest)
	}
	seg, next := rest[:end], pos+end+1
	if child := n.lits[seg]; child != nil {
		if e := child.find(path, next); e != nil {
			return e
		}
	}
	for i := range n.partials {
		if n.partials[i].seg.match(seg) {
			if e := n.partials[i].next.find(path, next); e != nil {
				return e
			}
		}
	}
	if n.param != nil && seg != "" {
		if e := n.param.find(path, next); e != nil {
			return e
		}
	}
	for i := range n.multis {
		if n.multis[i].match(rest) {
			return n.multis[i].ends
		}
	}
	return n.star
}

// match says whether rest is one or more segments that are not empty,
// followed by the tail.
func (t *tail) match(rest string) bool {
	for _, seg := range slices.Backward(t.segs) {
		cut := strings.LastIndexByte(rest, '/')
		if cut < 0 || !seg.match(rest[cut+1:]) {
			return false
		}
		rest = rest[:cut]
	}
	return rest != "" && rest[0] != '/' && rest[len(rest)-1] != '/' && !strings.Contains(rest, "//")
}

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
	found := c.index.find(method, escapedPath)
	if found == nil {
		if method == http.MethodHead {
			return c.Match(http.MethodGet, escapedPath)
		}
		return nil, false
	}
	if c.otherReading(found[0], escapedPath) != nil {
		return nil, false
	}
	return found[0], true
}

// otherReading returns a stricter endpoint than e that a looser reader of the
// path would come to, if there is one.
func (c *Compiled) otherReading(e *CompiledEndpoint, path string) *CompiledEndpoint {
	if !hasOtherReading(path) {
		return nil
	}
	for range 2 {
		next := looseReading(path)
		if next == path {
			return nil
		}
		path = next
		if found := c.looseIndex.find(e.Method, path); found != nil && found[0].stricterThan(e) {
			return found[0]
		}
	}
	return nil
}

// hasOtherReading says quickly whether looseReading would change a path.
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

// looseReading returns path as a lax server might take it: decoded once,
// without empty segments and without what follows a ";" in a segment.
func looseReading(path string) string {
	if strings.IndexByte(path, ';') < 0 && strings.IndexByte(path, '%') < 0 && !strings.Contains(path, "//") {
		return "/" + strings.Trim(path, "/")
	}
	path = unescapeLenient(path)
	b := make([]byte, 0, len(path))
	for piece := range strings.SplitSeq(path, "/") {
		piece, _, _ = strings.Cut(piece, ";")
		if piece != "" {
			b = append(append(b, '/'), piece...)
		}
	}
	if len(b) == 0 {
		return "/"
	}
	return string(b)
}

// stricterThan says whether e guards something that o does not: it needs a
// scope that o does not need, or it is not allowed where o is.
func (e *CompiledEndpoint) stricterThan(o *CompiledEndpoint) bool {
	if e == o || e.shape == o.shape {
		return false
	}
	if !e.allowed && o.allowed {
		return true
	}
	return slices.ContainsFunc(e.RequiredScope, func(s string) bool { return !slices.Contains(o.RequiredScope, s) })
}
