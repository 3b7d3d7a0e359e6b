package policy

import (
	"strings"

	"github.com/caddyvault/caddyvault/refusal"
)

// maxPath is the longest escaped path that is sent.
const maxPath = 8 << 10

// CheckProxyPath refuses an escaped path that some upstream might read as
// another one than was matched: "." or ".." pieces, cut at "/", "\" or ";",
// encoded or not, once or twice; a backslash in any form; control characters;
// over-long UTF-8; and what is not percent-encoded correctly. The path is
// never changed. The code is PARAM_INVALID:path, or PATH_TOO_LONG.
func CheckProxyPath(escaped string) *refusal.Refusal {
	if len(escaped) > maxPath {
		return refusal.New("PATH_TOO_LONG", "the path is longer than %d bytes", maxPath)
	}
	bad := func(detail string) *refusal.Refusal {
		return refusal.New("PARAM_INVALID:path", "%s", "the path "+detail).
			WithHint("send the path plainly, as the API documents it; it is never normalised")
	}
	percent := false
	for i := 0; i < len(escaped); i++ {
		c := escaped[i]
		switch {
		case c == '%':
			percent = true
			if i+2 >= len(escaped) || !isHex(escaped[i+1]) || !isHex(escaped[i+2]) {
				return bad("is not percent-encoded correctly")
			}
		case c == '\\':
			return bad("has a backslash")
		case c == '[', c == ']':
			// Not in RFC 3986's pchar, but net/url lets them pass as they
			// are and clients send them; they have one reading.
		case !pathByte[c]:
			return bad("has a character that must be percent-encoded")
		}
	}
	if hasDotPiece(escaped) {
		return bad(`has a piece "." or ".."`)
	}
	// Two rounds, because an upstream behind a decoding proxy of its own
	// decodes twice.
	level := escaped
	for range 2 {
		if !percent {
			break
		}
		level = unescapeLenient(level)
		if what := hidden(level); what != "" {
			return bad("has an encoded " + what)
		}
		percent = strings.IndexByte(level, '%') >= 0
	}
	return nil
}

// CheckProxyQuery refuses a query that could not stand in a request line:
// HTTP/2 and HTTP/3 let a space pass, after which an HTTP/1.1 upstream would
// read what it takes for the end of the line. A fragment is refused, too,
// because some servers cut there. The query is otherwise sent as it is. The
// code is PARAM_INVALID:query.
func CheckProxyQuery(raw string) *refusal.Refusal {
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c == '#' || c == 0x7f {
			return refusal.New("PARAM_INVALID:query", "the query has a character that must be percent-encoded").
				WithHint("send a space within a query as %20, a # as %23")
		}
	}
	return nil
}

// hidden says what a decoded path has that it may not have, if anything.
func hidden(decoded string) string {
	for i := range len(decoded) {
		switch c := decoded[i]; {
		case c == '\\':
			return "backslash"
		case c < ' ', c == 0x7f:
			return "control character"
		}
	}
	switch {
	case hasOverlong(decoded):
		return "character in over-long UTF-8"
	case hasDotPiece(decoded):
		return `piece "." or ".."`
	}
	return ""
}

// hasDotPiece says whether s, cut at "/", "\" and ";", has a piece that is
// "." or "..".
func hasDotPiece(s string) bool {
	dots, other := 0, false
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '/' || s[i] == '\\' || s[i] == ';' {
			if !other && (dots == 1 || dots == 2) {
				return true
			}
			dots, other = 0, false
			continue
		}
		if s[i] == '.' {
			dots++
		} else {
			other = true
		}
	}
	return false
}

// hasOverlong says whether s has a UTF-8 sequence longer than its character
// needs, which lax decoders read as "/", "." or NUL (RFC 3629 section 10).
func hasOverlong(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c == 0xc0, c == 0xc1:
			return true
		case i+1 == len(s):
		case c == 0xe0 && s[i+1] >= 0x80 && s[i+1] < 0xa0, c == 0xf0 && s[i+1] >= 0x80 && s[i+1] < 0x90:
			return true
		}
	}
	return false
}

// unescapeLenient decodes every %XX once and leaves the rest as it is.
func unescapeLenient(s string) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	b = append(b, s[:i]...)
	for ; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}
