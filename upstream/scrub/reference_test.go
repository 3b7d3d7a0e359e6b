package scrub

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// reference is the plain search that the package is held against: every
// pattern as a regular expression, tried at every place.
type reference struct {
	refs []string
	exps []*regexp.Regexp
}

// latin1 makes one character of each byte, because regexp knows no bytes.
func latin1(b string) string {
	r := make([]rune, len(b))
	for i := range len(b) {
		r[i] = rune(b[i])
	}
	return string(r)
}

// caseless spells hexadecimal digits in both cases.
func caseless(hex string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(hex) {
		if c >= 'a' && c <= 'f' {
			fmt.Fprintf(&b, "[%c%c]", c, c-32)
		} else {
			b.WriteRune(c)
		}
	}
	return b.String()
}

// oneByte is every way to write a byte.
func oneByte(c byte) []string {
	alternatives := []string{regexp.QuoteMeta(latin1(string([]byte{c}))), "%" + caseless(fmt.Sprintf("%02x", c))}
	if c < 0x80 {
		alternatives = append(alternatives, `\\u`+caseless(fmt.Sprintf("%04x", c)))
	}
	if i := strings.IndexByte("\"\\/\b\f\n\r\t", c); i >= 0 {
		alternatives = append(alternatives, `\\`+regexp.QuoteMeta(`"\/bfnrt`[i:i+1]))
	}
	return alternatives
}

// textual matches secret as a text.
func textual(secret string) string {
	var b strings.Builder
	for len(secret) > 0 {
		r, n := utf8.DecodeRuneInString(secret)
		if r == utf8.RuneError && n == 1 || n == 1 {
			alternatives := oneByte(secret[0])
			if secret[0] == ' ' {
				alternatives = append(alternatives, oneByte('+')...)
			}
			b.WriteString("(?:" + strings.Join(alternatives, "|") + ")")
			secret = secret[1:]
			continue
		}
		var bytewise, units string
		for i := range n {
			bytewise += "(?:" + strings.Join(oneByte(secret[i]), "|") + ")"
		}
		for _, u := range utf16.Encode([]rune{r}) {
			units += `\\u` + caseless(fmt.Sprintf("%04x", u))
		}
		b.WriteString("(?:" + bytewise + "|" + units + ")")
		secret = secret[n:]
	}
	return b.String()
}

// oneOf matches a text of which each character may be one of several.
func oneOf(chars []string) string {
	var b strings.Builder
	for _, set := range chars {
		var alternatives []string
		for i := range len(set) {
			alternatives = append(alternatives, oneByte(set[i])...)
		}
		b.WriteString("(?:" + strings.Join(alternatives, "|") + ")")
	}
	return b.String()
}

func newReference(secrets []Named) *reference {
	ref := &reference{}
	add := func(name, exp string) {
		re := regexp.MustCompile(`\A(?s:` + exp + `)`)
		re.Longest()
		ref.refs, ref.exps = append(ref.refs, name), append(ref.exps, re)
	}
	seen := map[string]bool{}
	for _, s := range secrets {
		if len(s.Value) < MinLength || seen[s.Value] {
			continue
		}
		seen[s.Value] = true
		add(s.Ref, textual(s.Value))
		var digits []string
		for _, c := range fmt.Sprintf("%x", s.Value) {
			digits = append(digits, strings.ToLower(string(c))+strings.ToUpper(string(c)))
		}
		add(s.Ref, oneOf(digits))
		for offset := range 3 {
			add(s.Ref, oneOf(invariant(s.Value, offset)))
		}
	}
	return ref
}

// invariant finds the characters of the base64 of a secret that do not depend
// on what stands around it, by trying what does.
func invariant(secret string, offset int) []string {
	var variants []string
	for _, fill := range []string{"\x00\x00\x00", "\xff\xff\xff", "\xaa\xaa\xaa", "\x55\x55\x55"} {
		variants = append(variants, base64.StdEncoding.EncodeToString([]byte(fill[:offset]+secret+fill)))
	}
	var out []string
	for i := range variants[0] {
		if i < offset { // belongs to what stands before, where that varies by less than it could
			continue
		}
		if i*6 < offset*8 || (i+1)*6 > (offset+len(secret))*8 {
			continue
		}
		c := variants[0][i]
		for _, v := range variants {
			if v[i] != c {
				panic("not invariant")
			}
		}
		switch c {
		case '+':
			out = append(out, "+-")
		case '/':
			out = append(out, "/_")
		default:
			out = append(out, string(c))
		}
	}
	return out
}

// clean does what Scrubber.Bytes does.
func (ref *reference) clean(body string) (string, int) {
	chars := latin1(body)
	var found []match
	at := 0
	for i := range chars {
		for k, re := range ref.exps {
			if loc := re.FindStringIndex(chars[i:]); loc != nil {
				found = append(found, match{at, at + utf8.RuneCountInString(chars[i:i+loc[1]]), ref.refs[k]})
			}
		}
		at++
	}
	slices.SortStableFunc(found, func(a, b match) int {
		if a.start != b.start {
			return a.start - b.start
		}
		if a.end != b.end {
			return b.end - a.end
		}
		return strings.Compare(a.ref, b.ref)
	})
	var out strings.Builder
	done, last, hits := 0, "", 0
	for _, m := range found {
		switch {
		case m.start >= done:
			out.WriteString(body[done:m.start])
		case m.end <= done:
			continue
		case m.ref == last:
			done = m.end
			continue
		}
		out.WriteString("[REDACTED:" + m.ref + "]")
		hits, last, done = hits+1, m.ref, m.end
	}
	out.WriteString(body[done:])
	return out.String(), hits
}
