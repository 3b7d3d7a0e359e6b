package policy

import (
	"encoding/binary"
	"slices"
)

// indexed is an endpoint to be indexed.
type indexed struct {
	method  int
	pattern pattern
	number  int
}

// buildIndex indexes endpoints in the order given, which is the order of
// preference among those of one shape.
func buildIndex(endpoints []indexed) index {
	sorted := slices.Clone(endpoints)
	slices.SortStableFunc(sorted, func(a, b indexed) int {
		if a.method != b.method {
			return a.method - b.method
		}
		return a.pattern.compare(b.pattern)
	})
	var ix index
	text := []byte{0} // no root is at 0
	for len(sorted) > 0 {
		of := alike(sorted, func(a, b *indexed) bool { return a.method == b.method })
		ix.roots[of[0].method] = uint32(len(text))
		text = appendNode(text, of, 0)
		sorted = sorted[len(of):]
	}
	ix.text = string(text)
	return ix
}

// alike returns the first of a list with those after it that are like it.
func alike(list []indexed, like func(first, other *indexed) bool) []indexed {
	n := 1
	for n < len(list) && like(&list[0], &list[n]) {
		n++
	}
	return list[:n]
}

// appendNode appends the node of endpoints that have their first depth
// segments in common.
func appendNode(text []byte, list []indexed, depth int) []byte {
	at := len(text)
	text = append(text, 0)
	if len(list[0].pattern) == depth {
		text[at] |= partHere
		text = appendNumber(text, list[0].number)
		list = list[len(alike(list, func(_, b *indexed) bool { return len(b.pattern) == depth })):]
	}
	for len(list) > 0 {
		kind := list[0].pattern[depth].kind
		of := alike(list, func(_, b *indexed) bool { return b.pattern[depth].kind == kind })
		list = list[len(of):]
		more := len(list) > 0
		children := childrenOf(of, depth)
		switch kind {
		case literal:
			if len(children) > 1 {
				text[at] |= partLiterals
				text = appendSized(text, more, func(text []byte) []byte { return appendLiterals(text, children, depth) })
				continue
			}
			text[at] |= partLiteral
			text = appendText(text, of[0].pattern[depth].lits[0])
			text = appendSized(text, more, func(text []byte) []byte { return appendNode(text, of, depth+1) })
		case partial:
			text[at] |= partPartials
			text = appendNumber(text, len(children))
			for i, child := range children {
				text = appendSegment(text, child[0].pattern[depth])
				text = appendSized(text, more || i < len(children)-1, func(text []byte) []byte { return appendNode(text, child, depth+1) })
			}
		case single:
			text[at] |= partParam
			text = appendSized(text, more, func(text []byte) []byte { return appendNode(text, of, depth+1) })
		case multi:
			text[at] |= partMultis
			text = appendNumber(text, len(children))
			for _, child := range children {
				text = appendSized(text, true, func(text []byte) []byte { return appendTail(text, child[0], depth+1) })
			}
		case subtree:
			text[at] |= partStar
			text = appendNumber(text, of[0].number)
		}
	}
	return text
}

// childrenOf cuts endpoints with one kind of segment at a depth into those
// that go on to the same node.
func childrenOf(list []indexed, depth int) [][]indexed {
	var children [][]indexed
	for len(list) > 0 {
		child := alike(list, func(a, b *indexed) bool {
			if a.pattern[depth].kind == multi {
				return compareTails(a.pattern[depth+1:], b.pattern[depth+1:]) == 0
			}
			return a.pattern[depth].compare(b.pattern[depth]) == 0
		})
		children, list = append(children, child), list[len(child):]
	}
	return children
}

// appendLiterals appends children that are literals: a table of their hashes
// and where they stand behind it, and they themselves.
func appendLiterals(text []byte, children [][]indexed, depth int) []byte {
	longest := 0
	table := make([]tableEntry, 0, len(children))
	var nodes []byte
	for _, child := range children {
		lit := child[0].pattern[depth].lits[0]
		longest = max(longest, len(lit))
		table = append(table, tableEntry{hash(lit), uint32(len(nodes))})
		nodes = appendText(nodes, lit)
		nodes = appendNode(nodes, child, depth+1)
	}
	text = appendNumber(text, len(table))
	text = appendNumber(text, longest)
	text = appendTable(text, table)
	return append(text, nodes...)
}

// appendTail appends what stands behind a {name...}.
func appendTail(text []byte, e indexed, from int) []byte {
	tail := e.pattern[from:]
	text = appendNumber(text, len(tail))
	for _, seg := range slices.Backward(tail) {
		text = appendSegment(text, seg)
	}
	return appendNumber(text, e.number)
}

func appendSegment(text []byte, seg segment) []byte {
	if seg.kind == single {
		return appendNumber(text, 0)
	}
	text = appendNumber(text, len(seg.lits))
	for _, lit := range seg.lits {
		text = appendText(text, lit)
	}
	return text
}

func appendText(text []byte, s string) []byte {
	return append(appendNumber(text, len(s)), s...)
}

func appendNumber(text []byte, n int) []byte {
	return binary.AppendUvarint(text, uint64(n))
}

// appendSized appends what f appends, with its size before it if that is
// wanted.
func appendSized(text []byte, sized bool, f func([]byte) []byte) []byte {
	at := len(text)
	text = f(text)
	if !sized {
		return text
	}
	var size [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(size[:], uint64(len(text)-at))
	return slices.Insert(text, at, size[:n]...)
}
