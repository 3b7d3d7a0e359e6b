package integration

import (
	"strings"
	"testing"
)

// TestShortSecret stores a secret that is too short to be looked for in
// answers: it is taken, and whoever stores it is told, and can see it later.
func TestShortSecret(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	const short, long = "zq7-Xv9", "zq7-Xv9w"
	s.hide(short, "a short secret")
	const warning = `"warning":"the secret is shorter than 8 bytes`
	if got := s.ok("/vault.admin.addSecret", `{"secretRef":"short","secret":"`+short+`"}`, nil); !strings.Contains(got.body, warning) {
		t.Errorf("stored: %s", got.body)
	}
	if got := s.ok("/vault.admin.addSecret", `{"secretRef":"long","secret":"`+long+`"}`, nil); strings.Contains(got.body, "warning") {
		t.Errorf("stored: %s", got.body)
	}
	s.addService("api", s.authService("", `"secretRef":"with"`, `"get":{"method":"GET","path":"/*","requiredScope":["x"]}`), short)
	list := s.ok("/vault.admin.listSecrets", `{}`, nil).body
	if strings.Count(list, warning) != 2 {
		t.Errorf("listed: %s", list)
	}
	for _, ref := range []string{"short", "with"} {
		eventually(t, "the log warns of "+ref, func() bool {
			for line := range strings.Lines(s.read("caddy.log")) {
				if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, "shorter than 8 bytes") && strings.Contains(line, `"secretRef":"`+ref+`"`) {
					return true
				}
			}
			return false
		})
	}
}
