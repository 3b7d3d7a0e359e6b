package scrub

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"unicode/utf8"
)

// element is one character of a pattern: either of two bytes, as such or
// escaped. Where there is no choice both are the same.
type element [2]byte

func (e element) has(b byte) bool { return b == e[0] || b == e[1] }

// longestEscape is how many bytes an element takes at most. (A surrogate pair
// takes twelve, for a character that is four elements.)
const longestEscape = len(`\u0000`)

// pattern is a secret in one encoding.
type pattern struct {
	ref   string
	elems []element
	first []byte // of each element the first choice
	text  []byte // the secret itself, if that is what the elements spell

	// ambiguous patterns have % or \ for a character, so that what looks like
	// an escape may be none.
	ambiguous bool
	masks     *[256][]uint64 // of those only, see matchAmbiguous
}

// patterns returns all that is looked for because of one secret.
func patterns(ref, secret string) []*pattern {
	text := &pattern{ref: ref, elems: elements(secret), text: []byte(secret)}
	for i, e := range text.elems {
		if e[0] == ' ' {
			text.elems[i][1] = '+' // application/x-www-form-urlencoded
		}
		text.ambiguous = text.ambiguous || e[0] == '%' || e[0] == '\\'
	}

	digits := &pattern{ref: ref, elems: elements(hex.EncodeToString([]byte(secret)))}
	for i, e := range digits.elems {
		if e[0] >= 'a' {
			digits.elems[i][1] = e[0] - 'a' + 'A'
		}
	}

	all := []*pattern{text, digits}
	for offset := range 3 {
		all = append(all, &pattern{ref: ref, elems: base64Core(secret, offset)})
	}
	for _, p := range all {
		for _, e := range p.elems {
			p.first = append(p.first, e[0])
		}
		if p.ambiguous {
			p.masks = newMasks(p.elems)
		}
	}
	return all
}

// elements returns the elements that are the bytes of s.
func elements(s string) []element {
	list := make([]element, len(s))
	for i := range len(s) {
		list[i] = element{s[i], s[i]}
	}
	return list
}

// base64Core returns the characters that secret always has in the base64 of a
// text in which offset bytes (modulo 3) stand before it: those whose six bits
// are all its own.
func base64Core(secret string, offset int) []element {
	padded := make([]byte, offset, offset+len(secret)+2)
	padded = append(padded, secret...)
	padded = append(padded, 0, 0)
	first := (offset*8 + 5) / 6
	end := (offset + len(secret)) * 8 / 6
	core := elements(base64.RawStdEncoding.EncodeToString(padded)[first:end])
	for i, e := range core {
		switch e[0] {
		case '+':
			core[i][1] = '-'
		case '/':
			core[i][1] = '_'
		}
	}
	return core
}

// match reports whether the pattern stands in d at i, and where it ends.
func (p *pattern) match(d []byte, i int) (end int, o outcome) {
	if p.ambiguous {
		return p.matchAmbiguous(d, i)
	}
	for at := 0; at < len(p.elems); {
		if i == len(d) {
			return 0, partial
		}
		b := d[i]
		switch {
		case b != '%' && b != '\\':
			if !p.elems[at].has(b) {
				return 0, no
			}
			at, i = at+1, i+1
			for len(d)-i >= 8 && len(p.first)-at >= 8 && // eight at once: they stand there as they are
				binary.LittleEndian.Uint64(d[i:]) == binary.LittleEndian.Uint64(p.first[at:]) {
				at, i = at+8, i+8
			}
		case b == '%' && len(d)-i > 2: // the most frequent escapes, without detours
			high, low := nibble[d[i+1]], nibble[d[i+2]]
			if high|low > 15 || !p.elems[at].has(high<<4|low) {
				return 0, no
			}
			at, i = at+1, i+3
		default:
			if c, ok := asciiEscape(d[i:]); ok {
				if !p.elems[at].has(c) {
					return 0, no
				}
				at, i = at+1, i+6
				continue
			}
			n, size, o := p.matchEscape(d[i:], at)
			if o != yes {
				return 0, o
			}
			at, i = at+n, i+size
		}
	}
	return i, yes
}

// matchEscape reports whether d begins with an escape of the elements from at
// on, how many they are, and how long it is.
func (p *pattern) matchEscape(d []byte, at int) (n, size int, o outcome) {
	e, o := decode(d)
	switch o {
	case no:
		return 0, 0, no
	case partial:
		if !p.mayBecome(d, at) {
			return 0, 0, no
		}
		return 0, 0, partial
	}
	if at+e.n > len(p.elems) {
		return 0, 0, no
	}
	for k := range e.n {
		if !p.elems[at+k].has(e.bytes[k]) {
			return 0, 0, no
		}
	}
	return e.n, e.size, yes
}

// mayBecome reports whether the cut escape d can be completed to one of the
// elements from at on. It keeps bytes from being held back for an escape that
// is of no interest.
func (p *pattern) mayBecome(d []byte, at int) bool {
	var room [2 * longestEscape]byte
	for _, b := range p.elems[at] {
		if beginsWith(append(room[:0], '%', lowerHex[b>>4], lowerHex[b&15]), d) {
			return true
		}
		if b < utf8.RuneSelf && beginsWith(appendUnicode(room[:0], rune(b)), d) {
			return true
		}
		if len(d) == 1 && d[0] == '\\' && slices.Contains(short[:], b) && b != 0 {
			return true
		}
	}
	if p.text == nil || p.text[at] < utf8.RuneSelf {
		return false
	}
	r, n := utf8.DecodeRune(p.text[at:])
	return n > 1 && beginsWith(appendUnicode(room[:0], r), d)
}

// beginsWith reports whether escape, in lower case, begins with d in any case.
// Only hexadecimal digits have a case in an escape: \U is none.
func beginsWith(escape, d []byte) bool {
	if len(d) > len(escape) {
		return false
	}
	for i, c := range d {
		if c != escape[i] && (nibble[c] > 15 || nibble[c] != nibble[escape[i]]) {
			return false
		}
	}
	return true
}
