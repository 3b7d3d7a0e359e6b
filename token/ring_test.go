package token

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func openRing(t testing.TB, path string, clock *testClock) *Ring {
	t.Helper()
	r, err := OpenRing(path, clock.now, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func states(r *Ring) string {
	var out []string
	for _, k := range r.List() {
		out = append(out, k.Algorithm+" "+string(k.State))
	}
	return strings.Join(out, ", ")
}

func jwksKids(t testing.TB, a *Authority) []string {
	t.Helper()
	var set struct{ Keys []struct{ Kid, Alg string } }
	if err := json.Unmarshal(a.JWKS(), &set); err != nil {
		t.Fatal(err)
	}
	var kids []string
	for _, k := range set.Keys {
		kids = append(kids, k.Kid)
	}
	return kids
}

func issueAt(t testing.TB, a *Authority, clock *testClock) (raw, kid string) {
	t.Helper()
	c := testClaims()
	c.IssuedAt, c.ExpiresAt = clock.now(), clock.now().Add(15*time.Minute)
	raw, key, err := a.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return raw, key.Kid()
}

func mustVerify(t testing.TB, a *Authority, raw, want string) {
	t.Helper()
	if _, r := a.Verify(raw); codeOf(r) != want {
		t.Errorf("%v, want %q", r, want)
	}
}

// TestRing leads keys of every algorithm through their lives.
func TestRing(t *testing.T) {
	for _, alg := range []string{"EdDSA", "ES256", "HS256"} {
		t.Run(alg, func(t *testing.T) {
			clock := &testClock{testNow}
			path := filepath.Join(t.TempDir(), "signing-key.pem")
			ring := openRing(t, path, clock)
			if _, err := ring.Ensure(alg, false); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("no key may be made: %v", err)
			}
			if _, err := ring.Ensure(alg, true); err != nil {
				t.Fatal(err)
			}
			a, err := NewOfRing(ring, alg, testOptions(clock))
			if err != nil {
				t.Fatal(err)
			}
			old, oldKid := issueAt(t, a, clock)
			mustVerify(t, a, old, "")

			// An ordinary rotation: known before it signs.
			next, err := ring.Rotate(alg, clock.now().Add(10*time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			if got := states(ring); got != alg+" active, "+alg+" published" {
				t.Errorf("states %s", got)
			}
			if kids := jwksKids(t, a); alg != "HS256" && (len(kids) != 2 || kids[0] != oldKid || kids[1] != next.Kid()) || alg == "HS256" && len(kids) != 0 {
				t.Errorf("published %q", kids)
			}
			if _, kid := issueAt(t, a, clock); kid != oldKid {
				t.Errorf("signed with %s, before its time", kid)
			}
			clock.unix += 600
			fresh, kid := issueAt(t, a, clock)
			if kid != next.Kid() || states(ring) != alg+" verify-only, "+alg+" active" {
				t.Errorf("signed with %s; %s", kid, states(ring))
			}
			mustVerify(t, a, old, "")
			mustVerify(t, a, fresh, "")

			// Another process reads the same.
			again := openRing(t, path, clock)
			if states(again) != states(ring) {
				t.Errorf("read again: %s", states(again))
			}
			b, err := NewOfRing(again, alg, testOptions(clock))
			if err != nil {
				t.Fatal(err)
			}
			mustVerify(t, b, old, "")
			mustVerify(t, b, fresh, "")

			// When its last token has expired the old one is of no more use.
			clock.unix += int64(verifyFor / time.Second)
			if got := states(ring); got != alg+" active" {
				t.Errorf("states %s", got)
			}
			if kids := jwksKids(t, a); alg != "HS256" && (len(kids) != 1 || kids[0] != next.Kid()) {
				t.Errorf("published %q", kids)
			}

			// Retired, all its tokens are refused at once, remembered or not.
			fresh, _ = issueAt(t, a, clock)
			unseen, _ := issueAt(t, a, clock)
			mustVerify(t, a, fresh, "")
			dead, replacement, err := ring.Retire(next.Kid())
			if err != nil || replacement.Kid() == "" || replacement.Kid() == next.Kid() {
				t.Fatalf("%v, %v", replacement, err)
			}
			dead.Kill()
			for range 2 {
				mustVerify(t, a, fresh, "TOKEN_REVOKED")
				mustVerify(t, a, unseen, "TOKEN_REVOKED")
			}
			good, kid := issueAt(t, a, clock)
			if kid != replacement.Kid() {
				t.Errorf("signed with %s", kid)
			}
			mustVerify(t, a, good, "")
			after := openRing(t, path, clock)
			c, err := NewOfRing(after, alg, testOptions(clock))
			if err != nil {
				t.Fatal(err)
			}
			mustVerify(t, c, fresh, "TOKEN_REVOKED")
			mustVerify(t, c, good, "")
			if slices.Contains(jwksKids(t, c), next.Kid()) {
				t.Error("a retired key is published")
			}
			if _, _, err := ring.Retire(next.Kid()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("retired twice: %v", err)
			}
			data, err := os.ReadFile(path)
			if err != nil || strings.Count(string(data), "BEGIN") != strings.Count(string(data), "BEGIN RETIRED")+1 {
				t.Errorf("left in the file:\n%s", data)
			}
		})
	}
}

// A file of before there were rings is one of them, and a copy of the file of
// before a retirement does not undo it.
func TestRingOfBefore(t *testing.T) {
	clock := &testClock{testNow}
	path := filepath.Join(t.TempDir(), "signing-key.pem")
	const pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n"
	if err := os.WriteFile(path, []byte(pem), 0o600); err != nil {
		t.Fatal(err)
	}
	ring := openRing(t, path, clock)
	k, err := ring.Ensure("EdDSA", false)
	if err != nil || k.Kid() != edKey(t).Kid() {
		t.Fatalf("%v, %v", k, err)
	}
	// Another algorithm beside it is no reason to give it up.
	if _, err := ring.Ensure("ES256", false); err != nil {
		t.Fatal(err)
	}
	if got := states(openRing(t, path, clock)); got != "EdDSA active, ES256 active" {
		t.Errorf("states %s", got)
	}
	old, err := OpenRing(path, clock.now, func(kid string) bool { return kid == k.Kid() })
	if err != nil {
		t.Fatal(err)
	}
	if got := states(old); got != "EdDSA retired, ES256 active" {
		t.Errorf("states %s", got)
	}
	if n, err := old.Ensure("EdDSA", false); err != nil || n.Kid() == k.Kid() {
		t.Errorf("%v, %v", n, err)
	}
}
