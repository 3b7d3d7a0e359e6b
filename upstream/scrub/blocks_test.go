package scrub

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"
)

// anyCase gives each hexadecimal digit of an escape a case of its own.
func anyCase(escape string, head int, r *rand.Rand) string {
	b := []byte(escape)
	for i := range b {
		if i%longestEscape >= head && b[i] >= 'a' && b[i] <= 'f' && r.IntN(2) == 0 {
			b[i] -= 'a' - 'A'
		}
	}
	return string(b)
}

// anyWay writes s with each character in one of all the ways there are. How
// many of them are escaped varies from text to text: at one end none is, at
// the other all are.
func anyWay(s string, spaces bool, r *rand.Rand) string {
	var b strings.Builder
	plain := r.IntN(11)
	for len(s) > 0 {
		c := s[0]
		if spaces && c == ' ' && r.IntN(3) == 0 {
			c = '+'
		}
		ch, n := utf8.DecodeRuneInString(s)
		whole := ch != utf8.RuneError || n > 1
		switch way := r.IntN(3); {
		case r.IntN(10) < plain:
			b.WriteByte(c)
		case way == 0 && whole && (n > 1 || c == s[0]):
			for _, u := range utf16.Encode([]rune{ch}) {
				b.WriteString(anyCase(fmt.Sprintf(`\u%04x`, u), 2, r))
			}
			s = s[n:]
			continue
		case way == 0 && c < utf8.RuneSelf:
			b.WriteString(anyCase(fmt.Sprintf(`\u%04x`, c), 2, r))
		case way == 1 && strings.IndexByte("\"\\/\b\f\n\r\t", c) >= 0:
			b.WriteString(`\` + string(`"\/bfnrt`[strings.IndexByte("\"\\/\b\f\n\r\t", c)]))
		default:
			b.WriteString(anyCase(fmt.Sprintf("%%%02x", c), 1, r))
		}
		s = s[1:]
	}
	return b.String()
}

// Every three bytes that the beginning of a hit can have must be in the table
// of blocks: one that is missing hides the secret. The texts are made without
// what the table is made with, and between bytes that are of no hit.
func TestEveryWayToWriteIt(t *testing.T) {
	secrets := map[string]string{"long": strings.Repeat(benchSecret+"\n", 20), "bench": benchSecret, "JSON": "{\"a\": \"b\\c/\"}\t\r\n\b\f"}
	for name, secret := range testSecrets {
		secrets[name] = secret
	}
	for name, secret := range secrets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(7, uint64(len(secret))))
			s := New([]Named{{"ref", secret}})
			check := func(form, text string) {
				t.Helper()
				for _, before := range []string{"", strings.Repeat(".", r.IntN(100))} {
					got, hits := s.String(before + text + "....")
					if want := before + "[REDACTED:ref]...."; got != want || hits != 1 {
						t.Fatalf("%s: %q\n got %q, %d hits", form, text, got, hits)
					}
				}
			}
			for range 400 {
				check("text", anyWay(secret, true, r))
				check("hex", anyWay(anyCase(hex.EncodeToString([]byte(secret)), 0, r), false, r))
				for offset := range 3 {
					chars := []byte(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\x00", offset) + secret + "\x00\x00")))
					// As in base64Core: those whose six bits are all of the secret.
					chars = chars[(offset*8+5)/6 : (offset+len(secret))*8/6]
					for i, c := range chars {
						if at := strings.IndexByte("+/", c); at >= 0 && r.IntN(2) == 0 {
							chars[i] = "-_"[at]
						}
					}
					check("base64", anyWay(string(chars), false, r))
				}
			}
		})
	}
}
