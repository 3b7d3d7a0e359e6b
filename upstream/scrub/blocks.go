package scrub

import (
	"slices"
	"unicode/utf8"
)

// form is one way to write one or more elements: by place, either of two bytes
// that may stand there.
type form struct {
	chars [2 * longestEscape]element
	size  int
	elems int
}

// spelled returns the form that is an escape, given in lower case, of some
// elements. Its hexadecimal digits begin behind head bytes, as they do again in
// the second half of a surrogate pair, and may be in either case.
func spelled(escape []byte, head, elems int) form {
	f := form{size: len(escape), elems: elems}
	for i, c := range escape {
		f.chars[i] = element{c, c}
		if i%longestEscape >= head && c >= 'a' {
			f.chars[i][1] = c - 'a' + 'A'
		}
	}
	return f
}

// forms appends every way to write what begins with element at.
func (p *pattern) forms(all []form, at int) []form {
	var room [2 * longestEscape]byte
	choices := p.elems[at][:]
	all = append(all, form{chars: [2 * longestEscape]element{p.elems[at]}, size: 1, elems: 1})
	if choices[0] == choices[1] {
		choices = choices[:1]
	}
	for _, b := range choices {
		all = append(all, spelled(append(room[:0], '%', lowerHex[b>>4], lowerHex[b&15]), 1, 1))
		if b < utf8.RuneSelf {
			all = append(all, spelled(appendUnicode(room[:0], rune(b)), 2, 1))
		}
		if c := slices.Index(short[:], b); b != 0 && c >= 0 {
			all = append(all, spelled(append(room[:0], '\\', byte(c)), 2, 1))
		}
	}
	if p.text != nil && p.text[at] >= utf8.RuneSelf {
		if r, n := utf8.DecodeRune(p.text[at:]); n > 1 {
			all = append(all, spelled(appendUnicode(room[:0], r), 2, n))
		}
	}
	return all
}

// table makes the index know every block that the first bytes of a match can
// have.
type table struct {
	*index
	first bool           // the blocks that follow are the first of a match
	forms [window][]form // of the pattern at hand, by the element they begin with
}

func (t *table) add(p *pattern) {
	forms := t.forms[:t.size] // the first bytes have no more elements
	for at := range forms {
		forms[at] = p.forms(forms[at][:0], at)
	}
	for at := range forms {
		for i := range forms[at] {
			f := &forms[at][i]
			for c := range f.size {
				t.first = at == 0 && c == 0
				t.follow(0, 0, at, f, c)
			}
		}
	}
}

// follow adds the blocks that begin with the n bytes of v and go on with place
// c of a form of the elements from at on.
func (t *table) follow(v uint32, n, at int, f *form, c int) {
	switch {
	case n == block:
		h := hash(v)
		t.blocks[h/64] |= 1 << (h % 64)
		if h >>= tableBits - firstBits; t.first {
			t.firsts[h/64] |= 1 << (h % 64)
		}
	case c < f.size:
		e := f.chars[c]
		t.follow(v|uint32(e[0])<<(8*n), n+1, at, f, c+1)
		if e[0] != e[1] {
			t.follow(v|uint32(e[1])<<(8*n), n+1, at, f, c+1)
		}
	case at+f.elems < t.size:
		next := t.forms[at+f.elems]
		for i := range next {
			t.follow(v, n, at+f.elems, &next[i], 0)
		}
	}
}
