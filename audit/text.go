package audit

import (
	"unicode"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// plain says which ASCII bytes stand for themselves in a JSON string.
var plain = func() (t [utf8.RuneSelf]bool) {
	for c := byte(0x20); c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendText appends s as a JSON string (RFC 8259, section 7) of at most
// MaxText characters. Everything that is not printable is escaped: control
// characters, also DEL and C1, would act on a terminal, U+2028 and U+2029
// end a line for some readers, and bidirectional controls show a line as
// something it is not. Bytes that are not UTF-8 become U+FFFD.
func appendText(dst []byte, s string) []byte {
	dst = append(dst, '"')
	chars, start, i := 0, 0, 0
	for i < len(s) && chars < MaxText {
		chars++
		if c := s[i]; c < utf8.RuneSelf {
			if plain[c] {
				i++
				continue
			}
			dst = appendEscaped(append(dst, s[start:i]...), rune(c))
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError || !unicode.IsPrint(r) { // one form for U+FFFD, whatever it stands for
			dst = appendEscaped(append(dst, s[start:i]...), r)
			i += n
			start = i
			continue
		}
		i += n
	}
	dst = append(dst, s[start:i]...)
	return append(dst, '"')
}

func appendEscaped(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	if r > 0xffff {
		r -= 0x10000
		return appendU(appendU(dst, 0xd800+r>>10), 0xdc00+r&0x3ff)
	}
	return appendU(dst, r)
}

func appendU(dst []byte, r rune) []byte {
	return append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// cutText returns the first MaxText characters of s: what a record keeps.
func cutText(s string) string {
	if len(s) <= MaxText {
		return s
	}
	chars := 0
	for i := range s {
		if chars == MaxText {
			return s[:i]
		}
		chars++
	}
	return s
}
