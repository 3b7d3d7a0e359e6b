package scrub

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"
)

var testSecrets = map[string]string{
	"key":           "sk-live_51H8xQ2eZvKYlo2C",
	"eight bytes":   "p4ss:w/d",
	"symbols":       "a+b/c=d&e?f#g \"h\"<i>",
	"percent":       "100%25%2525%%%41",
	"backslash":     `C:\\u0041\n\\\\"x`,
	"periodic":      "abababababab",
	"one character": "aaaaaaaaaaaa",
	"UTF-8":         "pässwörd-密码-🔑!",
	"bytes":         "\xff\xfe\x00\x01\x80\xc3\x28\xf0\x9f",
	"lines":         "-----BEGIN KEY-----\nMIIB\nAg+/==\n-----END KEY-----\n",
}

// everyByte writes each byte of s as a percent escape.
func everyByte(s, format string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, format, s[i])
	}
	return b.String()
}

// everyRune writes each character of s as a \u escape.
func everyRune(s, format string) string {
	var b strings.Builder
	for _, u := range utf16.Encode([]rune(s)) {
		fmt.Fprintf(&b, format, u)
	}
	return b.String()
}

// mixed escapes some of the bytes of s, each in a way of its own.
func mixed(s string, r *rand.Rand) string {
	var b strings.Builder
	for i := range len(s) {
		switch n := r.IntN(6); {
		case n == 0:
			fmt.Fprintf(&b, "%%%02x", s[i])
		case n == 1:
			fmt.Fprintf(&b, "%%%02X", s[i])
		case n == 2 && s[i] < 0x80:
			fmt.Fprintf(&b, `\u%04x`, s[i])
		case n == 3 && s[i] < 0x80:
			fmt.Fprintf(&b, `\u%04X`, s[i])
		case n == 4 && strings.IndexByte("\"\\/", s[i]) >= 0:
			b.WriteString(`\` + s[i:i+1])
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func mixedCase(s string) string {
	b := []byte(s)
	for i := range b {
		if i%2 == 0 {
			b[i] = bytes.ToUpper(b[i : i+1])[0]
		}
	}
	return string(b)
}

func jsonText(s string, html bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(html)
	if err := e.Encode(s); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// encodings returns secret in every form. Those named "base64…" may leave
// characters at their ends, the others nothing.
func encodings(secret string) map[string]string {
	r := rand.New(rand.NewPCG(1, uint64(len(secret))))
	m := map[string]string{
		"plain":         secret,
		"hex":           hex.EncodeToString([]byte(secret)),
		"HEX":           strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"hEx":           mixedCase(hex.EncodeToString([]byte(secret))),
		"percent path":  url.PathEscape(secret),
		"percent query": url.QueryEscape(secret),
		"every %xx":     everyByte(secret, "%%%02x"),
		"every %XX":     everyByte(secret, "%%%02X"),
		"hex, escaped":  everyByte(hex.EncodeToString([]byte(secret)), "%%%02X"),
	}
	for i := range 5 {
		m[fmt.Sprint("mixed ", i)] = mixed(secret, r)
	}
	if strings.ToValidUTF8(secret, "") == secret {
		m["JSON"] = jsonText(secret, true)
		m["JSON, no HTML"] = jsonText(secret, false)
		m["JSON, \\/"] = strings.ReplaceAll(jsonText(secret, false), "/", `\/`)
		m["every \\uxxxx"] = everyRune(secret, `\u%04x`)
		m["every \\uXXXX"] = everyRune(secret, `\u%04X`)
	}
	for _, before := range []string{"", "u", "user:"} {
		for _, after := range []string{"", "!"} {
			text := []byte(before + secret + after)
			std := base64.StdEncoding.EncodeToString(text)
			name := fmt.Sprintf("base64 %q %q ", before, after)
			m[name+"std"] = std
			m[name+"url"] = base64.RawURLEncoding.EncodeToString(text)
			m[name+"PHP"] = strings.ReplaceAll(std, "/", `\/`)
			m[name+".NET"] = strings.ReplaceAll(std, "+", `\u002B`)
			m[name+"query"] = url.QueryEscape(std)
			m[name+"mixed"] = mixed(std, r)
		}
	}
	return m
}

// chunks is a source that returns one piece a Read, however much is asked.
type chunks struct {
	pieces []string
	end    error
	reads  int
}

func (c *chunks) Read(p []byte) (int, error) {
	c.reads++
	if len(c.pieces) == 0 {
		return 0, c.end
	}
	n := copy(p, c.pieces[0])
	if c.pieces[0] = c.pieces[0][n:]; c.pieces[0] == "" {
		c.pieces = c.pieces[1:]
	}
	return n, nil
}

func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEveryEncodingAtEverySplit(t *testing.T) {
	for name, secret := range testSecrets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			secrets := []Named{{"ref", secret}}
			s, plain := New(secrets), newReference(secrets)
			for encoding, text := range encodings(secret) {
				body := "in " + text + " on"
				got, hits := s.String(body)
				want, wantHits := plain.clean(body)
				if got != want || hits != wantHits || hits != 1 {
					t.Fatalf("%s: %q\n got %q, %d hits\nwant %q, %d hits", encoding, body, got, hits, want, wantHits)
				}
				rest := strings.Replace(got, "[REDACTED:ref]", "", 1)
				rest = strings.TrimSuffix(strings.TrimPrefix(rest, "in "), " on")
				switch {
				case strings.HasPrefix(encoding, "base64"):
					if len(rest) > 12*longestEscape { // what stands around, and shared characters
						t.Errorf("%s: left over: %q", encoding, rest)
					}
				case strings.Trim(rest, `"`) != "":
					t.Errorf("%s: left over: %q", encoding, rest)
				}
				for i := range body {
					size := []int{1, 40, 4096}[i%3] // of the caller's buffer
					r := s.Reader(&chunks{pieces: []string{body[:i], body[i:]}, end: io.EOF})
					var out bytes.Buffer
					if _, err := io.CopyBuffer(struct{ io.Writer }{&out}, struct{ io.Reader }{r}, make([]byte, size)); err != nil {
						t.Fatal(err)
					}
					if out.String() != want || r.Hits() != 1 {
						t.Fatalf("%s, cut at %d: %q, %d hits, want %q", encoding, i, &out, r.Hits(), want)
					}
				}
				r := s.Reader(iotest.OneByteReader(strings.NewReader(body)))
				if got := readAll(t, r); got != want {
					t.Fatalf("%s, byte by byte: %q, want %q", encoding, got, want)
				}
			}
		})
	}
}

// In a text that is full of them, overlapping and cut everywhere.
func TestAgainstPlainSearch(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 3))
	for name, secret := range testSecrets {
		t.Run(name, func(t *testing.T) {
			secrets := []Named{{"one", secret}, {"two", secret[3:] + secret[:5]}, {"short", "abc"}, {"same", secret}}
			s, plain := New(secrets), newReference(secrets)
			var forms []string
			for _, v := range encodings(secret) {
				forms = append(forms, v)
			}
			for _, v := range encodings(secrets[1].Value) {
				forms = append(forms, v)
			}
			// Fewer for a long secret: the reference is slow.
			for range min(60, 1500/len(secret)) {
				var body strings.Builder
				for range 1 + r.IntN(5) {
					form := forms[r.IntN(len(forms))]
					from := r.IntN(3) * r.IntN(len(form)) / 4
					body.WriteString(form[from:])
					if r.IntN(2) == 0 {
						body.WriteString([]string{"%", `\`, `\u`, "%4", "a", " ", secret[:4]}[r.IntN(7)])
					}
				}
				checkAgainst(t, s, plain, body.String(), r)
			}
		})
	}
}

// checkAgainst compares the package with the reference, whole and in pieces.
func checkAgainst(t *testing.T, s *Scrubber, plain *reference, body string, r *rand.Rand) {
	t.Helper()
	want, wantHits := plain.clean(body)
	if got, hits := s.Bytes([]byte(body)); string(got) != want || hits != wantHits {
		t.Fatalf("%q\n got %q, %d hits\nwant %q, %d hits", body, got, hits, want, wantHits)
	}
	src := &chunks{end: io.EOF}
	for rest := body; rest != ""; {
		n := 1 + r.IntN(len(rest))
		if r.IntN(2) == 0 {
			n = min(n, 1+r.IntN(9))
		}
		src.pieces, rest = append(src.pieces, rest[:n]), rest[n:]
	}
	pieces, all := fmt.Sprintf("%q", src.pieces), slices.Clone(src.pieces)
	reader := s.Reader(src)
	if got := readAll(t, reader); got != want || reader.Hits() != wantHits {
		t.Fatalf("%s\n got %q, %d hits\nwant %q, %d hits", pieces, got, reader.Hits(), want, wantHits)
	}
	p := s.Pieces()
	for round := 1; round <= 2; round++ { // the second text knows nothing of the first
		if got := inPieces(p, all); got != want || p.Hits() != round*wantHits {
			t.Fatalf("%s\n got %q, %d hits\nwant %q, %d times %d hits", pieces, got, p.Hits(), want, round, wantHits)
		}
	}
}

// inPieces is what Pieces makes of a text, of which the last piece may be
// empty: it is final all the same.
func inPieces(p *Pieces, text []string) string {
	var got strings.Builder
	for _, piece := range text {
		got.Write(p.Next([]byte(piece), false))
	}
	got.Write(p.Next(nil, true))
	return got.String()
}

// TestPieces cuts texts in two and in three at every place, and into single
// bytes: what comes out is what a whole text becomes.
func TestPieces(t *testing.T) {
	for _, secret := range testSecrets {
		s := New([]Named{{"ref", secret}, {"two", secret[2:] + "tail"}})
		for _, body := range []string{
			"before " + secret + " after", secret, secret + secret, secret + "tail", secret[:len(secret)-1],
			everyByte(secret, "%%%02X") + secret[:4], hex.EncodeToString([]byte(secret)) + "00",
			"a" + base64.StdEncoding.EncodeToString([]byte("u:"+secret)) + "\\u0073", "nothing of it", "",
		} {
			want, wantHits := s.Bytes([]byte(body))
			check := func(pieces ...string) {
				t.Helper()
				p := s.Pieces()
				var got strings.Builder
				for i, piece := range pieces {
					b := []byte(piece)
					got.Write(p.Next(b, i == len(pieces)-1))
					clear(b) // it is the caller's again
				}
				if got.String() != string(want) || p.Hits() != wantHits {
					t.Fatalf("%q\n got %q, %d hits\nwant %q, %d hits", pieces, got.String(), p.Hits(), want, wantHits)
				}
			}
			check(body)
			check(strings.Split(body, "")...)
			for i := range len(body) + 1 {
				check(body[:i], body[i:])
				for _, n := range []int{0, 1, 2, 7} {
					j := min(i+n, len(body))
					check(body[:i], body[i:j], body[j:])
				}
			}
		}
	}
}

func FuzzScrub(f *testing.F) {
	for _, secret := range testSecrets {
		f.Add(secret, "x", "before "+secret+" after", uint64(1))
		f.Add(secret, secret[4:]+"tail", secret+"tail"+everyByte(secret, "%%%02X"), uint64(2))
		f.Add(secret, "", base64.StdEncoding.EncodeToString([]byte("user:"+secret)), uint64(3))
	}
	f.Fuzz(func(t *testing.T, one, two, body string, seed uint64) {
		if len(one) > 80 || len(two) > 80 || len(body) > 800 {
			return // the reference is slow
		}
		secrets := []Named{{"one", one}, {"two", two}}
		checkAgainst(t, New(secrets), newReference(secrets), body, rand.New(rand.NewPCG(seed, 0)))
	})
}

// What cannot be part of a hit is returned at once; only the possible
// beginning of one is kept.
func TestHeldBack(t *testing.T) {
	s := New([]Named{{"ref", "sk-live_51H8xQ2eZvKYlo2C"}})
	tests := []struct{ chunk, held string }{
		{"data: hello world\n\n", ""},
		{"data: {\"a\":1}\n\n", ""},
		{"x", ""},
		{"this ends in s", "s"},
		{"this ends in sk-liv", "sk-liv"},
		{"sk-livX", ""},
		{"100%", "%"},
		{"100%7", "%7"}, // %73 is s
		{"100%9", ""},
		{"%73%6B", "%73%6B"},
		{"%73%6C", ""},
		{`a\`, `\`},
		{`a\n`, ""},
		{`a\u`, `\u`},
		{`a\u00`, `\u00`},
		{`a\u0073`, `\u0073`},
		{`a\u0079`, ""},
		{`a\u01`, ""},
		{`a\U`, ""},
		{"in hexadecimal 736B", "736B"},
		{"in base64 c2stbG", "c2stbG"}, // of "sk-l"
		{"café ☕ 密码", ""},
	}
	for _, tt := range tests {
		t.Run(tt.chunk, func(t *testing.T) {
			src := &chunks{pieces: []string{tt.chunk}, end: errors.New("the source was asked for more")}
			r := s.Reader(src)
			buf := make([]byte, 1024)
			var got string
			if tt.held != tt.chunk {
				n, err := r.Read(buf)
				if err != nil || src.reads != 1 {
					t.Fatalf("%v after %d reads", err, src.reads)
				}
				got = string(buf[:n])
				if rest := strings.Trim(string(buf[n:]), "\x00"); rest != "" {
					t.Errorf("the rest of the buffer has %q", rest)
				}
				if got+tt.held != tt.chunk {
					t.Errorf("returned %q, want all but %q", got, tt.held)
				}
			}
			// At the end it comes, before the error.
			rest, err := io.ReadAll(r)
			if got+string(rest) != tt.chunk || !errors.Is(err, src.end) {
				t.Errorf("then %q, %v", rest, err)
			}
		})
	}
}

// A hit that has no end keeps no memory and is one hit.
func TestEndlessOverlap(t *testing.T) {
	s := New([]Named{{"ref", strings.Repeat("a", 16)}})
	r := s.Reader(io.MultiReader(strings.NewReader("<"), io.LimitReader(letters('a'), 1<<20), strings.NewReader(">")))
	if got := readAll(t, r); got != "<[REDACTED:ref]>" || r.Hits() != 1 {
		t.Errorf("%.100q, %d hits", got, r.Hits())
	}
	if n := cap(r.held) + cap(r.own) + cap(r.clean); n > 64<<10 {
		t.Errorf("%d bytes are kept", n)
	}
}

type letters byte

func (l letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(l)
	}
	return len(p), nil
}

func TestBlock(t *testing.T) {
	const secret = "sk-live_51H8xQ2eZvKYlo2C"
	for i := range secret {
		r := New([]Named{{"ref", secret}}).Reader(&chunks{
			pieces: []string{"before " + secret[:i], secret[i:] + " after", secret}, end: io.EOF,
		})
		r.Block()
		got, err := io.ReadAll(r)
		if string(got) != "before " || !errors.Is(err, ErrHit) || r.Hits() != 1 {
			t.Errorf("cut at %d: %q, %v, %d hits", i, got, err, r.Hits())
		}
		if n, err := r.Read(make([]byte, 10)); n != 0 || !errors.Is(err, ErrHit) {
			t.Errorf("afterwards %d, %v", n, err)
		}
	}
	clean := New([]Named{{"ref", secret}}).Reader(strings.NewReader("nothing"))
	clean.Block()
	if got := readAll(t, clean); got != "nothing" || clean.Hits() != 0 {
		t.Errorf("%q, %d hits", got, clean.Hits())
	}
}

func TestNothingToDo(t *testing.T) {
	s := New([]Named{{"short", "1234567"}, {"empty", ""}})
	if s.Active() {
		t.Error("active without a secret")
	}
	if got := readAll(t, s.Reader(strings.NewReader("1234567"))); got != "1234567" {
		t.Errorf("%q", got)
	}
	if got, n := s.String("1234567 1234567"); got != "1234567 1234567" || n != 0 {
		t.Errorf("%q, %d", got, n)
	}
	active := New([]Named{{"ref", "12345678"}})
	in := []byte("no secret in here")
	if got, n := active.Bytes(in); &got[0] != &in[0] || n != 0 {
		t.Error("copied without need")
	}
	in = []byte("12345678 and 12345678")
	if got, n := active.Bytes(in); string(got) != "[REDACTED:ref] and [REDACTED:ref]" || n != 2 || string(in) != "12345678 and 12345678" {
		t.Errorf("%q, %d, from %q", got, n, in)
	}
}

// A source that never gets on is an error, not a loop, and the reader obeys
// the rules for readers.
func TestReaderRules(t *testing.T) {
	s := New([]Named{{"ref", "sk-live_51H8xQ2eZvKYlo2C"}})
	if _, err := s.Reader(&chunks{}).Read(make([]byte, 10)); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a source that returns nothing: %v", err)
	}
	if n, err := s.Reader(strings.NewReader("x")).Read(nil); n != 0 || err != nil {
		t.Errorf("no space: %d, %v", n, err)
	}
	body := []byte(strings.Repeat("some text, and ", 1000))
	for _, wrap := range []func(io.Reader) io.Reader{iotest.DataErrReader, iotest.HalfReader, iotest.OneByteReader} {
		if err := iotest.TestReader(s.Reader(wrap(bytes.NewReader(body))), body); err != nil {
			t.Error(err)
		}
	}
}

func TestNotShown(t *testing.T) {
	const secret = "sk-live_51H8xQ2eZvKYlo2C"
	s := New([]Named{{"ref", secret}})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%t", "%x"} {
		if got := fmt.Sprintf(verb, s); got != "scrubber" {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}
