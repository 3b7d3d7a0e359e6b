package vault

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
)

// minAdminToken is the shortest admin token, in characters.
const minAdminToken = 32

// Bounds on guessing (security.md, "Admin").
const (
	adminFailures = 10 // a minute and client
	adminClients  = 4096
)

// adminGate lets administrators in. A correct token always passes; failures
// are counted by client address.
type adminGate struct {
	digest  [sha256.Size]byte
	now     func() time.Time
	guesses guesses
}

// guesses counts wrong credentials by client address.
type guesses struct {
	mu       sync.Mutex
	window   time.Time // the minute that failures count for
	failures map[netip.Prefix]int
}

func (g *adminGate) init(adminToken string, now func() time.Time) {
	g.digest, g.now = sha256.Sum256([]byte(adminToken)), now
}

// Authorize checks the Authorization header of an admin request.
func (v *Vault) Authorize(caller Caller, header http.Header) *refusal.Refusal {
	return v.admin.check(header["Authorization"], caller.Client)
}

// IsAdmin reports whether a header shows the admin token, without counting one
// that is not: it is for routes that agents use, too.
func (v *Vault) IsAdmin(header http.Header) bool { return v.admin.holds(header["Authorization"]) }

// CountGuess counts a credential that is neither the admin token nor an
// agent's, on a route that takes both, and refuses to look at more of them.
func (v *Vault) CountGuess(caller Caller) *refusal.Refusal { return v.admin.guessed(caller.Client) }

func (g *adminGate) guessed(client netip.Addr) *refusal.Refusal {
	if g.guesses.failed(client, g.now()) <= adminFailures {
		return nil
	}
	r := refusal.New("RATE_LIMITED", "too many wrong admin tokens from this address").WithHint("try again in a minute")
	r.RetryAfter = time.Minute
	return r
}

func (g *adminGate) check(authorization []string, client netip.Addr) *refusal.Refusal {
	if g.holds(authorization) {
		return nil
	}
	if refused := g.guessed(client); refused != nil {
		return refused
	}
	return refusal.New("ADMIN_UNAUTHORIZED", "this route needs the admin token").
		WithHint("send it as Authorization: Bearer <admin token>").
		WithChallenge(`Bearer realm="caddyvault admin"`)
}

// holds reports whether there is one header, and it has the admin token.
func (g *adminGate) holds(authorization []string) bool {
	given := ""
	if len(authorization) == 1 {
		if token, ok := strings.CutPrefix(authorization[0], "Bearer "); ok {
			given = token
		}
	}
	// The digests are compared, so that neither content nor length shows in
	// how long it takes.
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], g.digest[:]) == 1
}

// failed counts a failure and returns how many there were in this minute. All
// clients past a bound share one count, so that an attacker with many
// addresses cannot fill the memory.
func (g *guesses) failed(client netip.Addr, now time.Time) int {
	bits := 128
	if client = client.Unmap(); client.Is4() {
		bits = 32
	} else if client.IsValid() {
		bits = 64 // what one subscriber holds
	}
	key, _ := client.WithZone("").Prefix(bits)

	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failures == nil || now.Sub(g.window) >= time.Minute || now.Before(g.window) {
		g.window, g.failures = now, map[netip.Prefix]int{}
	}
	if _, known := g.failures[key]; !known && len(g.failures) >= adminClients {
		key = netip.Prefix{}
	}
	g.failures[key]++
	return g.failures[key]
}
