package secrets

import (
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

func testAEAD(tb testing.TB, h *keyset.Handle) tink.AEAD {
	tb.Helper()
	a, err := aead.New(h)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}
