package token

import (
	"hash/maphash"
	"sync/atomic"
)

// signedTokens is how many tokens are remembered as signed here. Most are used
// within moments, and most of them once.
const signedTokens = 2048

// signed remembers the texts of the last tokens that this process signed: the
// signature of such a text need not be verified when it comes back, which is
// most of what a token costs that is used for the first time. The text decides;
// whatever differs from it in a single byte is looked at like any other. All
// else that makes a token good is asked of these, too.
type signed struct {
	seed  maphash.Seed
	slots [signedTokens]atomic.Pointer[string]
}

func newSigned() *signed { return &signed{seed: maphash.MakeSeed()} }

// slot returns the one place where raw may be. Nobody outside can know it, so
// nobody can choose whose place is taken.
func (s *signed) slot(raw string) *atomic.Pointer[string] {
	return &s.slots[maphash.String(s.seed, raw)%signedTokens]
}

func (s *signed) add(raw string) {
	if s != nil {
		s.slot(raw).Store(&raw)
	}
}

func (s *signed) has(raw string) bool {
	if s == nil {
		return false
	}
	text := s.slot(raw).Load()
	return text != nil && *text == raw
}
