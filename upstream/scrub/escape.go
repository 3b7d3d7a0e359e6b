package scrub

import (
	"unicode/utf16"
	"unicode/utf8"
)

// outcome is what a matcher or a decoder says of the bytes it was given.
type outcome uint8

const (
	no      outcome = iota // it is none
	yes                    // it is one
	partial                // the bytes end before it is known
)

// escaped is a decoded escape.
type escaped struct {
	bytes [utf8.UTFMax]byte // what it stands for
	n     int               // how many of them
	size  int               // how long the escape is
}

// decode reads the escape that d begins with: %XX stands for one byte, \uXXXX
// (or a surrogate pair of two) for the UTF-8 of a character, and \n and its
// kind for one character (RFC 3986, section 2.1; RFC 8259, section 7).
func decode(d []byte) (e escaped, o outcome) {
	switch {
	case len(d) == 0:
		return e, partial
	case d[0] == '%':
		return decodePercent(d)
	case d[0] != '\\':
		return e, no
	case len(d) < 2:
		return e, partial
	case d[1] == 'u':
		return decodeUnicode(d)
	}
	c := short[d[1]]
	if c == 0 {
		return e, no
	}
	e.bytes[0], e.n, e.size = c, 1, 2
	return e, yes
}

func decodePercent(d []byte) (e escaped, o outcome) {
	v, o := hexDigits(d[1:], 2)
	e.bytes[0], e.n, e.size = byte(v), 1, 3
	return e, o
}

func decodeUnicode(d []byte) (e escaped, o outcome) {
	v, o := hexDigits(d[2:], 4)
	if o != yes {
		return e, o
	}
	e.size = 6
	r := rune(v)
	if utf16.IsSurrogate(r) {
		rest := d[6:]
		if len(rest) > 0 && rest[0] != '\\' || len(rest) > 1 && rest[1] != 'u' {
			return e, no
		}
		if len(rest) < 2 {
			return e, partial
		}
		v, o := hexDigits(rest[2:], 4)
		if o != yes {
			return e, o
		}
		if r = utf16.DecodeRune(r, rune(v)); r == utf8.RuneError {
			return e, no
		}
		e.size = 12
	}
	e.n = utf8.EncodeRune(e.bytes[:], r)
	return e, yes
}

// asciiEscape returns what the \u escape that d begins with stands for, if it
// is whole and stands for an ASCII character: decode does the same for all.
func asciiEscape(d []byte) (c byte, ok bool) {
	if len(d) < 6 || d[0] != '\\' || d[1] != 'u' || d[2] != '0' || d[3] != '0' {
		return 0, false
	}
	high, low := nibble[d[4]], nibble[d[5]]
	return high<<4 | low, high < 8 && low <= 15
}

// hexDigits reads n hexadecimal digits.
func hexDigits(d []byte, n int) (v uint32, o outcome) {
	for i := range n {
		if i == len(d) {
			return 0, partial
		}
		h := nibble[d[i]]
		if h > 15 {
			return 0, no
		}
		v = v<<4 | uint32(h)
	}
	return v, yes
}

// nibble is the value of a hexadecimal digit, above 15 for anything else.
var nibble = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range byte(10) {
		t['0'+i] = i
	}
	for i := range byte(6) {
		t['a'+i], t['A'+i] = 10+i, 10+i
	}
	return t
}()

// short is what the character after a backslash stands for, 0 if nothing.
var short = [256]byte{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

const lowerHex = "0123456789abcdef"

// appendUnicode appends the \u escape of r, in lower case.
func appendUnicode(b []byte, r rune) []byte {
	if hi, lo := utf16.EncodeRune(r); hi != utf8.RuneError {
		return appendUnicode(appendUnicode(b, hi), lo)
	}
	return append(b, '\\', 'u', lowerHex[r>>12&15], lowerHex[r>>8&15], lowerHex[r>>4&15], lowerHex[r&15])
}
