package scrub

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

const benchSecret = "sk-proj-T3BlbkFJ8xQ2eZvKYlo2C51H8xQ2eZvKYl"

// bodies are a megabyte each.
func bodies() map[string][]byte {
	const size = 1 << 20
	r := rand.New(rand.NewPCG(4, 5))
	random := make([]byte, size)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	fill := func(s string) []byte { return []byte(strings.Repeat(s, size/len(s)+1)[:size]) }
	var text, object strings.Builder
	for text.Len() < size {
		text.WriteString([]string{"the ", "project ", "sketch ", "is ", "of ", "lines\n", "and "}[r.IntN(7)])
	}
	for i := 0; object.Len() < size; i++ {
		fmt.Fprintf(&object, `{"id":%d,"node_id":"%s","url":"https:\/\/api.example.com\/repos\/a%%20b","text":"it \"is\" so\n","n":null},`,
			i, base64.StdEncoding.EncodeToString(random[i%1000:i%1000+12]))
	}
	return map[string][]byte{
		"random":                   random,
		"text":                     []byte(text.String()[:size]),
		"JSON":                     []byte(object.String()[:size]),
		"base64":                   []byte(base64.StdEncoding.EncodeToString(random)[:size]),
		"hex":                      []byte(hex.EncodeToString(random)[:size]),
		"zeros":                    make([]byte, size),
		"worst: percent signs":     fill("%"),
		"worst: backslashes":       fill(`\`),
		"worst: first letter":      fill("s"),
		"worst: escaped first":     fill("%73"),
		"worst: u-escaped first":   fill(`\u0073`),
		"worst: most of it":        fill(benchSecret[:len(benchSecret)-1]),
		"worst: most, escaped":     fill(everyByte(benchSecret[:len(benchSecret)-1], "%%%02x")),
		"worst: most, half so":     fill(benchSecret[:20] + everyByte(benchSecret[20:len(benchSecret)-1], `\u%04x`)),
		"hits: nothing but hits":   fill(benchSecret),
		"hits: one in a kilobyte":  fill(benchSecret + strings.Repeat(".", 1000)),
		"hits: base64 of it":       fill(base64.StdEncoding.EncodeToString([]byte(benchSecret))),
		"hits: escaped everywhere": fill(everyByte(benchSecret, "%%%02x")),
	}
}

func BenchmarkReader(b *testing.B) {
	buf := make([]byte, 32<<10)
	for name, body := range bodies() {
		b.Run(name, func(b *testing.B) {
			s := New([]Named{{"ref", benchSecret}})
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				r := s.Reader(bytes.NewReader(body))
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Secrets for which the search is harder: short, many, long, periodic.
func BenchmarkSecrets(b *testing.B) {
	all := bodies()
	var five []Named
	for i := range 5 {
		five = append(five, Named{fmt.Sprint(i), fmt.Sprintf("%d%s", i, benchSecret)})
	}
	for name, secrets := range map[string][]Named{
		"8 bytes":    {{"ref", "p4ssw0rd"}},
		"5 secrets":  five,
		"3000 bytes": {{"ref", strings.Repeat(benchSecret+"\n", 70)}},
		"periodic":   {{"ref", strings.Repeat("a", 40) + "b"}},
		"percents":   {{"ref", "100%25%2525%%%41"}},
	} {
		for _, body := range []string{"JSON", "random"} {
			b.Run(name+" in "+body, func(b *testing.B) {
				s := New(secrets)
				b.SetBytes(int64(len(all[body])))
				for b.Loop() {
					_, _ = io.Copy(struct{ io.Writer }{io.Discard}, s.Reader(bytes.NewReader(all[body])))
				}
			})
		}
	}
	// The worst there is: of each place on, nearly all of the secret is there.
	for name, c := range map[string]byte{"periodic in its letter": 'a', "percent signs in theirs": '%', "backslashes in theirs": '\\'} {
		b.Run(name, func(b *testing.B) {
			s := New([]Named{{"ref", strings.Repeat(string(c), 40) + "b"}})
			b.SetBytes(64 << 10)
			for b.Loop() {
				_, _ = io.Copy(struct{ io.Writer }{io.Discard}, s.Reader(io.LimitReader(letters(c), 64<<10)))
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		New([]Named{{"ref", benchSecret}})
	}
}

// The way of a stream: a few hundred bytes a read.
func BenchmarkSmallChunks(b *testing.B) {
	s := New([]Named{{"ref", benchSecret}})
	event := []byte("data: {\"choices\":[{\"delta\":{\"content\":\" word\"}}]}\n\n")
	r := s.Reader(endless(event))
	buf := make([]byte, 4096)
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

type endless []byte

func (e endless) Read(p []byte) (int, error) { return copy(p, e), nil }

func BenchmarkHeader(b *testing.B) {
	s := New([]Named{{"ref", benchSecret}})
	b.ReportAllocs()
	for b.Loop() {
		s.String("application/json; charset=utf-8")
	}
}
