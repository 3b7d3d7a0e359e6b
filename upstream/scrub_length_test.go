package upstream

import (
	"testing"

	"github.com/caddyvault/caddyvault/upstream/scrub"
	"github.com/caddyvault/caddyvault/vault"
)

// What the vault warns of is what is not scrubbed.
func TestMinScrubbed(t *testing.T) {
	if vault.MinScrubbed != scrub.MinLength {
		t.Errorf("secrets under %d bytes are warned of, those under %d not scrubbed", vault.MinScrubbed, scrub.MinLength)
	}
}
