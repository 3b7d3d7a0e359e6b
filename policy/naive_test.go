package policy

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// naive is the specification of Match, without an index: it looks at every
// endpoint, and tries every length of every parameter.
type naive struct {
	endpoints []naiveEndpoint
}

type naiveEndpoint struct {
	*CompiledEndpoint
	pattern, decoded pattern
}

func newNaive(c *Compiled) *naive {
	n := &naive{}
	for _, name := range c.Actions() {
		e := c.Endpoint(name)
		n.endpoints = append(n.endpoints, naiveEndpoint{e, patternOf(e), patternOf(e).decoded()})
	}
	return n
}

// patternOf returns the path of an endpoint, cut at its slashes.
func patternOf(e *CompiledEndpoint) pattern {
	p, err := parsePattern(e.Path)
	if err != nil {
		panic(err)
	}
	return p
}

// find returns, of the endpoints that match, the first by comparing segments
// from the left; then one that is allowed, then by name.
func (n *naive) find(method, path string, loose bool) *CompiledEndpoint {
	if path == "" || path[0] != '/' {
		return nil
	}
	pieces := strings.Split(path[1:], "/")
	var best *naiveEndpoint
	of := func(e *naiveEndpoint) pattern {
		if loose {
			return e.decoded
		}
		return e.pattern
	}
	for i := range n.endpoints {
		e := &n.endpoints[i]
		if e.Method != method || !naiveSegments(of(e), pieces) {
			continue
		}
		if best != nil {
			d := naiveCompare(of(e), of(best))
			if d > 0 || d == 0 && (e.allowed == best.allowed || best.allowed) {
				continue
			}
		}
		best = e
	}
	if best == nil {
		return nil
	}
	return best.CompiledEndpoint
}

func (n *naive) match(method, path string) *CompiledEndpoint {
	e := n.find(method, path, false)
	if e == nil && method == http.MethodHead {
		e = n.find(http.MethodGet, path, false)
	}
	if e == nil {
		return nil
	}
	for range 2 {
		path = naiveLoose(path)
		o := n.find(e.Method, path, true)
		if o == nil || naiveKey(o) == naiveKey(e) {
			continue
		}
		for _, s := range o.RequiredScope {
			if !slices.Contains(e.RequiredScope, s) {
				return nil
			}
		}
		if !o.allowed && e.allowed {
			return nil
		}
	}
	return e
}

func naiveKey(e *CompiledEndpoint) string { return e.Method + " " + patternOf(e).key() }

// naiveLoose decodes a path and leaves out what a lax server does not look at.
func naiveLoose(path string) string {
	out := ""
	for piece := range strings.SplitSeq(unescapeLenient(path), "/") {
		if piece, _, _ = strings.Cut(piece, ";"); piece != "" {
			out += "/" + piece
		}
	}
	return cmp.Or(out, "/")
}

func naiveSegments(p pattern, pieces []string) bool {
	if len(p) == 0 || len(pieces) == 0 {
		return len(p) == 0 && len(pieces) == 0
	}
	switch p[0].kind {
	case subtree:
		return true
	case multi:
		for n := 1; n <= len(pieces); n++ {
			if !slices.Contains(pieces[:n], "") && naiveSegments(p[1:], pieces[n:]) {
				return true
			}
		}
		return false
	}
	return naiveSegment(p[0].lits, pieces[0]) && naiveSegments(p[1:], pieces[1:])
}

// naiveSegment tries every length of every parameter.
func naiveSegment(lits []string, piece string) bool {
	rest, ok := strings.CutPrefix(piece, lits[0])
	if !ok {
		return false
	}
	if len(lits) == 1 {
		return rest == ""
	}
	for n := 1; n <= len(rest); n++ {
		if naiveSegment(lits[1:], rest[n:]) {
			return true
		}
	}
	return false
}

func naiveCompare(a, b pattern) int {
	for i := range min(len(a), len(b)) {
		if a[i].kind == multi && b[i].kind == multi {
			a, b := a[i+1:], b[i+1:]
			if len(a) != len(b) {
				return len(b) - len(a)
			}
			return naiveCompare(a, b)
		}
		if d := a[i].compare(b[i]); d != 0 {
			return d
		}
	}
	return len(a) - len(b)
}

func name(e *CompiledEndpoint) string {
	if e == nil {
		return "none"
	}
	return e.Name
}

func (n *naive) check(t *testing.T, c *Compiled, method, path string) {
	t.Helper()
	if got, want := c.find(methodNumber(method), path), n.find(method, path, false); got != want {
		t.Fatalf("%s %q: found %s, want %s of %v", method, path, name(got), name(want), c.listed())
	}
	want := n.match(method, cmp.Or(path, "/"))
	if got, _ := c.Match(method, path); got != want {
		t.Fatalf("%s %q: matched %s, want %s of %v", method, path, name(got), name(want), c.listed())
	}
}

func (c *Compiled) listed() (all []string) {
	for _, n := range c.Actions() {
		e := c.Endpoint(n)
		all = append(all, fmt.Sprintf("%s: %s %s %v %v", n, e.Method, e.Path, e.RequiredScope, e.allowed))
	}
	return all
}

func FuzzMatch(f *testing.F) {
	c := service(f, "https://api.example.com", matchService)
	n := newNaive(c)
	for _, e := range n.endpoints {
		f.Add(e.Method, e.Path)
	}
	for _, p := range proxyPaths {
		f.Add("GET", p.path)
	}
	f.Fuzz(func(t *testing.T, method, path string) { n.check(t, c, method, path) })
}

// FuzzMatchServices makes the service, too: what is in its paths is chosen by
// the bytes of shapes, as is what is asked for by those of asked.
func FuzzMatchServices(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef"), []byte("0123456789"))
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		shapes, asked := make([]byte, 100), make([]byte, 60)
		for i := range shapes {
			shapes[i] = byte(rng.Uint32())
		}
		for i := range asked {
			asked[i] = byte(rng.Uint32())
		}
		f.Add(shapes, asked)
	}
	f.Fuzz(func(t *testing.T, shapes, asked []byte) {
		if len(shapes) > 400 || len(asked) > 400 {
			return
		}
		choose := func(from *[]byte) func(n int) int {
			return func(n int) int {
				if len(*from) == 0 {
					return 0
				}
				b := (*from)[0]
				*from = (*from)[1:]
				return int(b) % n
			}
		}
		c := randomService(t, choose(&shapes), func() bool { return len(shapes) > 0 })
		n := newNaive(c)
		for ask := choose(&asked); len(asked) > 0; {
			n.check(t, c, randomMethods[ask(len(randomMethods))], randomPath(ask))
		}
	})
}

// The same over random services and paths from a small alphabet, where the
// patterns overlap in every way.
func TestMatchAgainstNaive(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		size := 1 + rng.IntN(40)
		c := randomService(t, rng.IntN, func() bool { size--; return size >= 0 })
		n := newNaive(c)
		for range 200 {
			n.check(t, c, randomMethods[rng.IntN(len(randomMethods))], randomPath(rng.IntN))
		}
		for _, e := range n.endpoints {
			n.check(t, c, e.Method, e.Path)
		}
	}
}

var (
	randomMethods  = []string{"GET", "GET", "GET", "POST", "HEAD", "get", ""}
	randomSegments = []string{"a", "b", "ab", "%61", "a%20", "%2561", "{p}", "a{p}", "{p}b", "a{p}b", "{p}a{q}", "%61{p}", "{m...}", "*", "a:b", ""}
	randomPieces   = []string{"a", "b", "ab", "aab", "abb", "c", "bab", "", "%61", "a%2Fb", "a%252Fb", "%2561", "a;x", ";", "%3B", "a%20", "a ", "%", "%zz", "{p}", "*", "a:b", "//"}
)

// randomService makes a service of what choose says.
func randomService(t testing.TB, choose func(n int) int, more func() bool) *Compiled {
	eps := map[string]string{}
	for i := 0; i == 0 || more() && i < 60; i++ {
		var path strings.Builder
		multis := 0
		for j, length := 0, 1+choose(4); j < length; j++ {
			s := randomSegments[choose(len(randomSegments))]
			if s == "" && j < length-1 {
				s = "a"
			}
			if s == "*" || s == "{m...}" {
				if multis++; multis > 1 {
					s = "a"
				}
			}
			s = strings.NewReplacer("{p}", fmt.Sprintf("{p%d}", j), "{q}", fmt.Sprintf("{q%d}", j)).Replace(s)
			path.WriteString("/" + s)
			if s == "*" {
				break
			}
		}
		eps[fmt.Sprintf("e%02d", i)] = randomMethods[choose(5)] + " " + path.String() + []string{"", " r", " w", " r w"}[choose(4)]
	}
	allowed := []string{`"issue"`}
	for name := range eps {
		if name[2]%4 != 0 {
			allowed = append(allowed, fmt.Sprintf("%q", name))
		}
	}
	return service(t, "https://api.example.com", eps, `"allowedActions":[`+strings.Join(allowed, ",")+`]`)
}

// randomPath makes a path of what choose says.
func randomPath(choose func(n int) int) string {
	var path strings.Builder
	for range 1 + choose(5) {
		path.WriteString("/" + randomPieces[choose(len(randomPieces))])
	}
	return path.String()
}
