package policy

import (
	"fmt"
	"slices"
	"strings"
)

// kind orders the segments of a pattern from most to least specific.
type kind uint8

const (
	literal kind = iota // text
	partial             // text around {name}
	single              // {name}
	multi               // {name...}
	subtree             // * at the end
)

// segment is a piece of a path pattern between two slashes.
type segment struct {
	kind kind

	// lits are the texts around the parameters: one more than names. For a
	// literal it is the one text.
	lits []string

	// names are the parameters, in order.
	names []string
}

// pattern is the path of an endpoint, cut at its slashes. It is there while a
// service is compiled; then the index has what is matched, and the rest is
// read from the path (pathtext.go).
type pattern []segment

// starParam is the parameter of vault.call that a subtree endpoint takes.
const starParam = "*"

// parsePattern reads an endpoint's path.
func parsePattern(path string) (pattern, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("the path does not begin with a slash")
	}
	if len(path) > maxPath {
		return nil, fmt.Errorf("the path is longer than %d bytes", maxPath)
	}
	pieces := strings.Split(path[1:], "/")
	p := make(pattern, 0, len(pieces))
	seen := map[string]bool{}
	multis := 0
	for i, piece := range pieces {
		last := i == len(pieces)-1
		if piece == "" && !last {
			return nil, fmt.Errorf("the path has an empty segment")
		}
		seg, err := parseSegment(piece)
		if err != nil {
			return nil, err
		}
		if seg.kind == subtree && !last {
			return nil, fmt.Errorf("* may only be the last segment of the path")
		}
		if seg.kind == multi || seg.kind == subtree {
			if multis++; multis > 1 {
				return nil, fmt.Errorf("the path has more than one of {name...} and *")
			}
		}
		for _, n := range seg.names {
			if seen[n] {
				return nil, fmt.Errorf("the path has the parameter %s twice", n)
			}
			seen[n] = true
		}
		p = append(p, seg)
	}
	return p, nil
}

func parseSegment(piece string) (segment, error) {
	if piece == "*" {
		return segment{kind: subtree, names: []string{starParam}}, nil
	}
	seg := segment{kind: literal}
	rest := piece
	for {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			break
		}
		closing := strings.IndexByte(rest, '}')
		if closing < open {
			return seg, fmt.Errorf("the braces in %q do not match", piece)
		}
		name := rest[open+1 : closing]
		lit := rest[:open]
		if len(seg.names) > 0 && lit == "" {
			return seg, fmt.Errorf("the parameters in %q need text between them", piece)
		}
		if base, ok := strings.CutSuffix(name, "..."); ok {
			if piece != "{"+name+"}" {
				return seg, fmt.Errorf("{%s} must be a whole segment", name)
			}
			name = base
			seg.kind = multi
		}
		if !validParamName(name) {
			return seg, fmt.Errorf("a parameter's name in %q is not letters, digits, _ and -", piece)
		}
		seg.lits = append(seg.lits, lit)
		seg.names = append(seg.names, name)
		rest = rest[closing+1:]
	}
	seg.lits = append(seg.lits, rest)
	if seg.kind != multi && len(seg.names) > 0 {
		seg.kind = partial
		if len(seg.names) == 1 && seg.lits[0] == "" && seg.lits[1] == "" {
			seg.kind = single
		}
	}
	for _, lit := range seg.lits {
		if err := checkLiteral(lit); err != nil {
			return seg, err
		}
	}
	// With the shortest parameter in place no dot piece may appear.
	if r := CheckProxyPath("/" + strings.Join(seg.lits, "x")); r != nil {
		return seg, fmt.Errorf("%s", r.Detail)
	}
	return seg, nil
}

// checkLiteral holds the text of a pattern to what is sent as it stands.
func checkLiteral(lit string) error {
	if i := strings.IndexFunc(lit, func(r rune) bool { return !pathRune(r) || r == '*' || r == ';' }); i >= 0 {
		if lit[i] == '*' {
			return fmt.Errorf("* must be a whole segment, the last one")
		}
		return fmt.Errorf("the path has a character that must be percent-encoded")
	}
	if up := strings.ToUpper(lit); strings.Contains(up, "%2F") || strings.Contains(up, "%5C") {
		return fmt.Errorf("the path has an encoded slash or backslash")
	}
	return nil
}

func validParamName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || i > 0 && (c >= '0' && c <= '9' || c == '-')) {
			return false
		}
	}
	return true
}

// key is the shape of a segment: equal for two segments that match the same.
func (s segment) key() string {
	switch s.kind {
	case multi:
		return "{...}"
	case subtree:
		return "*"
	}
	return strings.Join(s.lits, "{}")
}

// key is the shape of a pattern: equal for two that match the same.
func (p pattern) key() string {
	keys := make([]string, len(p))
	for i, s := range p {
		keys[i] = s.key()
	}
	return strings.Join(keys, "/")
}

// litLen is how much text a segment has; more text is more specific.
func (s segment) litLen() int {
	n := 0
	for _, l := range s.lits {
		n += len(l)
	}
	return n
}

// compare orders two segments at the same place, the more specific first.
func (s segment) compare(o segment) int {
	if s.kind != o.kind {
		return int(s.kind) - int(o.kind)
	}
	if d := o.litLen() - s.litLen(); d != 0 {
		return d
	}
	return strings.Compare(s.key(), o.key())
}

// compare orders two patterns, the more specific first.
func (p pattern) compare(o pattern) int {
	for i := range min(len(p), len(o)) {
		if p[i].kind == multi && o[i].kind == multi {
			return compareTails(p[i+1:], o[i+1:])
		}
		if d := p[i].compare(o[i]); d != 0 {
			return d
		}
	}
	return len(p) - len(o)
}

// compareTails orders what stands behind a {name...}: longer is more
// specific, then the segments decide.
func compareTails(a, b pattern) int {
	if len(a) != len(b) {
		return len(b) - len(a)
	}
	return slices.CompareFunc(a, b, segment.compare)
}

// decoded returns the pattern with its texts percent-decoded, to be matched
// against decoded readings of a path.
func (p pattern) decoded() pattern {
	out := make(pattern, len(p))
	for i, s := range p {
		lits := make([]string, len(s.lits))
		for j, l := range s.lits {
			lits[j] = unescapeLenient(l)
		}
		s.lits = lits
		out[i] = s
	}
	return out
}
