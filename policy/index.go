package policy

import "strings"

// index finds the endpoint of a path. It is a trie of segments, one a method,
// written out as one text: among thousands of services the cost of a look-up
// is that of the memory it touches, and a node that is followed by its only
// child touches no more than a comparison of the path would. There is no
// pointer in it for the collector to follow.
//
// A node is visited at most once a look-up, so a look-up costs at most the
// number of the service's own segments, whatever was sent, and depends on no
// other service.
//
// A node is a byte that says which of these parts follow, in this order, the
// most specific first:
//
//	here      the endpoint that ends at this node
//	literal   a text, node: where there is only one
//	literals  how many, the length of the longest, their table, and each a text, node
//	partials  how many, and each a segment, node
//	param     node
//	multis    how many, and each a tail
//	star      the endpoint
//
// An endpoint is its number. Numbers are uvarints, texts have their length
// before them, and so have parts and nodes that others follow, to be passed
// over. A segment is how many texts it has, and the texts: one of a literal,
// those around the parameters of a partial, none of a single. A tail, what
// stands behind a {name...}, is how many segments it has, these from the last
// to the first, as they are matched, and the endpoint.
type index struct {
	text  string
	roots [len(methods)]uint32 // of each method; 0 for none
}

// Parts of a node.
const (
	partHere = 1 << iota
	partLiteral
	partLiterals
	partPartials
	partParam
	partMultis
	partStar
)

// methods are those that an endpoint may have.
var methods = [...]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// methodNumber returns the place of a method in methods, -1 if it has none.
func methodNumber(method string) int {
	for i, m := range methods {
		if m == method {
			return i
		}
	}
	return -1
}

// find returns the number of the endpoint that matches best, -1 if none does.
// The path is escaped and begins with a slash.
func (ix *index) find(method int, path string) int {
	if method < 0 || ix.roots[method] == 0 || path == "" || path[0] != '/' {
		return -1
	}
	w := walk{text: ix.text, path: path}
	return w.node(int(ix.roots[method]), 1)
}

// walk is one look-up.
type walk struct {
	text, path string

	// last is where the path's last segment begins, 0 until it is known: many
	// tails may ask.
	last int
}

// node matches path[pos:], which begins with a segment unless the path has
// ended (pos is beyond its end), against the node at a place of the text.
func (w *walk) node(at, pos int) int {
	for {
		parts := w.text[at]
		at++
		here := -1
		if parts&partHere != 0 {
			here, at = number(w.text, at)
		}
		if pos > len(w.path) {
			return here
		}
		seg := w.path[pos:]
		if end := strings.IndexByte(seg, '/'); end >= 0 {
			seg = seg[:end]
		}
		next := pos + len(seg) + 1

		child, end := -1, 0
		switch {
		case parts&partLiteral != 0:
			child, end = w.literal(at, seg, parts >= 2*partLiteral)
		case parts&partLiterals != 0:
			child, end = w.literals(at, seg, parts >= 2*partLiterals)
		}
		if parts < 2*partLiterals {
			// Nothing else may match, as is so for most nodes.
			if child < 0 {
				return -1
			}
			at, pos = child, next
			continue
		}
		if child >= 0 {
			if found := w.node(child, next); found >= 0 {
				return found
			}
		}
		at = max(at, end)

		if parts&partPartials != 0 {
			found, end := w.partials(at, seg, next, parts >= 2*partPartials)
			if found >= 0 || parts < 2*partPartials {
				return found
			}
			at = end
		}
		if parts&partParam != 0 {
			if parts < 2*partParam {
				if seg == "" {
					return -1
				}
				pos = next
				continue
			}
			size, node := number(w.text, at)
			if seg != "" {
				if found := w.node(node, next); found >= 0 {
					return found
				}
			}
			at = node + size
		}
		if parts&partMultis != 0 {
			var found int
			if found, at = w.multis(at, pos); found >= 0 {
				return found
			}
		}
		if parts&partStar != 0 {
			found, _ := number(w.text, at)
			return found
		}
		return -1
	}
}

// literal returns the node behind a literal if it is seg, else -1, and where
// the part ends if more follow.
func (w *walk) literal(at int, seg string, more bool) (node, end int) {
	n, from := number(w.text, at)
	node = from + n
	if more {
		var size int
		size, node = number(w.text, node)
		end = node + size
	}
	if len(seg) != n || w.text[from:from+n] != seg {
		node = -1
	}
	return node, end
}

// literals is the same for a part with several.
func (w *walk) literals(at int, seg string, more bool) (node, end int) {
	if more {
		var size int
		size, at = number(w.text, at)
		end = at + size
	}
	n, at := number(w.text, at)
	longest, at := number(w.text, at)
	if len(seg) > longest {
		return -1, end
	}
	h, nodes := hash(seg), at+n*tableEntrySize
	for i := tableSeek(w.text, at, n, h); i < n; i++ {
		e := tableAt(w.text, at, i)
		if e.hash != h {
			break
		}
		size, from := number(w.text, nodes+int(e.value))
		if len(seg) == size && w.text[from:from+size] == seg {
			return from + size, end
		}
	}
	return -1, end
}

// partials returns the endpoint found behind a partial, else -1, and where the
// part ends.
func (w *walk) partials(at int, seg string, next int, more bool) (found, end int) {
	n, at := number(w.text, at)
	for i := range n {
		ok, node := matchSegment(w.text, at, seg)
		size := 0
		if more || i < n-1 {
			size, node = number(w.text, node)
		}
		if ok {
			if found := w.node(node, next); found >= 0 {
				return found, 0
			}
		}
		at = node + size
	}
	return -1, at
}

// multis returns the endpoint of a tail that matches, else -1, and where the
// part ends.
func (w *walk) multis(at, pos int) (found, end int) {
	n, at := number(w.text, at)
	for range n {
		size, tail := number(w.text, at)
		if found := w.tail(tail, pos); found >= 0 {
			return found, 0
		}
		at = tail + size
	}
	return -1, at
}

// tail returns the endpoint if path[pos:] is one or more segments that are not
// empty, followed by the tail.
func (w *walk) tail(at, pos int) int {
	n, at := number(w.text, at)
	end := len(w.path)
	for i := range n {
		begin := w.last
		if i > 0 || begin == 0 {
			begin = strings.LastIndexByte(w.path[:end], '/') + 1
		}
		if i == 0 {
			w.last = begin
		}
		if begin <= pos {
			return -1
		}
		var ok bool
		if ok, at = matchSegment(w.text, at, w.path[begin:end]); !ok {
			return -1
		}
		end = begin - 1
	}
	rest := w.path[pos:end]
	if rest == "" || rest[0] == '/' || rest[len(rest)-1] == '/' || strings.Contains(rest, "//") {
		return -1
	}
	found, _ := number(w.text, at)
	return found
}

// matchSegment says whether one piece of a path matches the segment at a place
// of the text, and where that ends. A parameter takes at least one byte.
func matchSegment(text string, at int, piece string) (ok bool, end int) {
	n, at := number(text, at)
	if n == 0 {
		return piece != "", at
	}
	var first, last string
	middle := 0
	for i := range n {
		size, from := number(text, at)
		last, at = text[from:from+size], from+size
		if i == 0 {
			first, middle = last, at
		}
	}
	if n == 1 {
		return piece == first, at
	}
	if len(piece) < len(first)+len(last)+1 || !strings.HasPrefix(piece, first) || !strings.HasSuffix(piece, last) {
		return false, at
	}
	piece = piece[len(first) : len(piece)-len(last)]
	// Taking each text between parameters at its first place leaves the
	// most for the rest, so it finds a match if there is one.
	for range n - 2 {
		size, from := number(text, middle)
		middle = from + size
		i := strings.Index(piece[1:], text[from:middle])
		if i < 0 {
			return false, at
		}
		if piece = piece[1+i+size:]; piece == "" {
			return false, at
		}
	}
	return true, at
}

// number reads a uvarint and returns it and where it ends.
func number(text string, at int) (n, end int) {
	b := text[at]
	if b < 0x80 {
		return int(b), at + 1
	}
	n = int(b & 0x7f)
	for shift := 7; ; shift += 7 {
		at++
		b = text[at]
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			return n, at + 1
		}
	}
}
