package policy

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits on what names may be. They bound error codes and log lines, too.
const (
	maxName  = 63
	maxScope = 256
	maxAgent = 256
)

// ActionIssue is the action that allows tokens for a service to be issued.
// It needs no endpoint.
const ActionIssue = "issue"

// wildcard stands for every agent or every action in a list.
const wildcard = "*"

// ValidServiceName says whether s can name a service or a template:
// [a-z0-9][a-z0-9._-]{0,62}.
func ValidServiceName(s string) bool { return validName(s, false) }

// ValidActionName says whether s can name an action:
// [A-Za-z0-9][A-Za-z0-9._-]{0,62}.
func ValidActionName(s string) bool { return validName(s, true) }

// ValidSecretRef says whether s can name a secret:
// [A-Za-z0-9][A-Za-z0-9._-]{0,62}.
func ValidSecretRef(s string) bool { return validName(s, true) }

// ValidScope says whether s can be a scope: 1 to 256 printable ASCII
// characters without spaces.
func ValidScope(s string) bool {
	if s == "" || len(s) > maxScope {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// ValidAgent says whether s can name an agent: 1 to 256 bytes of UTF-8
// without control characters. Names come from certificates and other
// identities, so spaces and any script are fine.
func ValidAgent(s string) bool {
	if s == "" || len(s) > maxAgent || !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, unicode.IsControl)
}

func validName(s string, upper bool) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case upper && c >= 'A' && c <= 'Z':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// safeName makes a name that came from outside fit for an error code, which
// is sent in a header: printable ASCII without spaces, at most 64 bytes.
func safeName(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	clean := func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}
	return strings.Map(clean, s)
}

// shown makes a name that came from outside fit for a sentence.
func shown(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	clean := func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}
	return strings.Map(clean, s)
}

// nameSet is a set of names, sorted: most have a few.
type nameSet []string

// newNameSet returns the set of names, which it does not change.
func newNameSet(names []string) nameSet {
	if len(names) == 0 {
		return nil
	}
	return slices.Compact(slices.Sorted(slices.Values(names)))
}

func (s nameSet) has(name string) bool {
	_, ok := slices.BinarySearch(s, name)
	return ok
}
