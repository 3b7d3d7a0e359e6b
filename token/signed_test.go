package token

import (
	"fmt"
	"sync"
	"testing"
)

// TestSigned changes each byte of a token that was signed here: what is left
// has its signature verified, and is refused.
func TestSigned(t *testing.T) {
	for name, key := range map[string]Key{"HS256": hmacKey(t), "EdDSA": edKey(t)} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t, key, nil, testOptions(&testClock{testNow}))
			raw, err := a.Issue(testClaims())
			if err != nil {
				t.Fatal(err)
			}
			if !a.signed.has(raw) {
				t.Fatal("not remembered as signed here")
			}
			for i := range len(raw) {
				b := []byte(raw)
				if b[i]++; b[i] == '{' {
					b[i] = 'a'
				}
				changed := string(b)
				if a.signed.has(changed) {
					t.Fatalf("byte %d changed, and taken for what was signed", i)
				}
				if _, r := a.Verify(changed); codeOf(r) != "TOKEN_INVALID" {
					t.Fatalf("byte %d changed: %v", i, r)
				}
			}
			for _, other := range []string{raw[:len(raw)-1], raw + "A", raw + ".", raw + "=", "." + raw} {
				if _, r := a.Verify(other); codeOf(r) != "TOKEN_INVALID" {
					t.Errorf("%q: %v", other, r)
				}
			}
			if _, r := a.Verify(raw); r != nil {
				t.Error(r)
			}
		})
	}
}

// TestSignedPlaces has more tokens signed than are remembered, by many at once:
// each is good, whether it is still remembered or not.
func TestSignedPlaces(t *testing.T) {
	a := newAuthority(t, hmacKey(t), nil, testOptions(&testClock{testNow}))
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			var raws []string
			for i := range signedTokens {
				c := testClaims()
				c.ID = fmt.Sprintf("%d-%d", w, i)
				raw, err := a.Issue(c)
				if err != nil {
					t.Error(err)
					return
				}
				raws = append(raws, raw)
			}
			for _, raw := range raws {
				if _, r := a.Verify(raw); r != nil {
					t.Error(r)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkVerifySigned is the first look at a token that was signed here.
func BenchmarkVerifySigned(b *testing.B) {
	b.Run("EdDSA", func(b *testing.B) {
		a, raw := benchToken(b, edKey(b), -1)
		a.signed = newSigned()
		a.signed.add(raw)
		b.ReportAllocs()
		for b.Loop() {
			if _, r := a.Verify(raw); r != nil {
				b.Fatal(r)
			}
		}
	})
}
