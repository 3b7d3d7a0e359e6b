package audit

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// fill sets every string of a record, however deep, to s and every number
// to n.
func fill(v reflect.Value, s string, n int64) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Int, reflect.Int64:
		v.SetInt(n)
	case reflect.Uint64:
		v.SetUint(uint64(n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(float64(n) / 3)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), s, n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for i := range 3 {
			fill(v.Index(i), s, n)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.UnixMilli(n)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), s, n)
		}
	}
}

// checkLine holds a line to being one line of printable, parseable JSON.
func checkLine(t testing.TB, line []byte) map[string]any {
	t.Helper()
	if !utf8.Valid(line) {
		t.Fatalf("not UTF-8: %q", line)
	}
	for _, r := range string(line) {
		if !unicode.IsPrint(r) {
			t.Fatalf("raw %U in %q", r, line)
		}
	}
	var m map[string]any
	if err := json.Unmarshal(line, &m); err != nil {
		t.Fatalf("%v: %q", err, line)
	}
	return m
}

func TestAppendJSON(t *testing.T) {
	zero, count := 0.0, 0
	nan := math.NaN()
	for _, c := range []struct {
		name string
		r    Record
		want string
	}{
		{"smallest", Record{Time: time.UnixMilli(1), Event: "x"}, `{"ts":1,"event":"x"}`},
		{"the design's", Record{
			Time: time.UnixMilli(1795468064545), Event: "proxy.call", Service: "github", Action: "repo.get",
			Context: &Context{"tony", "s1", "t1", "default", "vault"}, TokenID: "id", Scope: []string{"github:repos:read"},
			Status: 200, Upstream: "https://api.github.com/repos/o/r?token=x",
		}, `{"ts":1795468064545,"event":"proxy.call","service":"github","action":"repo.get","context":{"agentId":"tony","sessionId":"s1","taskId":"t1","skillId":"default","tool":"vault"},"tokenId":"id","scope":["github:repos:read"],"status":200,"upstream":"https://api.github.com/repos/o/r"}`},
		{"fragment", Record{Time: time.UnixMilli(1), Event: "x", Upstream: "https://a/b#c?d"}, `{"ts":1,"event":"x","upstream":"https://a/b"}`},
		{
			"zeros that say something",
			Record{Time: time.UnixMilli(1), Event: "x", DurationMS: &zero, Count: &count},
			`{"ts":1,"event":"x","durationMs":0,"requestBytes":0,"responseBytes":0,"redactions":0,"count":0}`,
		},
		{
			"not a number",
			Record{Time: time.UnixMilli(1), Event: "x", DurationMS: &nan},
			`{"ts":1,"event":"x","durationMs":0,"requestBytes":0,"responseBytes":0,"redactions":0}`,
		},
		{"empty context", Record{Time: time.UnixMilli(1), Event: "x", Context: &Context{}}, `{"ts":1,"event":"x","context":{}}`},
		{
			"escapes",
			Record{Time: time.UnixMilli(1), Event: "x", Reason: "\"\\\n\r\t\x00\x1b[2J\x7f\u0085\u2028\u2029\u202e\ufeff\xff é\U0001f600\U000e0041"},
			`{"ts":1,"event":"x","reason":"\"\\\n\r\t\u0000\u001b[2J\u007f\u0085\u2028\u2029\u202e\ufeff\ufffd é😀\udb40\udc41"}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.r.AppendJSON(nil)
			if string(got) != c.want {
				t.Fatalf("\n%s, want\n%s", got, c.want)
			}
			checkLine(t, got)
		})
	}
}

// TestRecordFields holds every field of Record to be written, once, and cut.
func TestRecordFields(t *testing.T) {
	var r Record
	fill(reflect.ValueOf(&r).Elem(), strings.Repeat("é", 1000), 7)
	line := r.AppendJSON(nil)
	m := checkLine(t, line)
	// Context is one, Time is ts.
	if want := reflect.TypeFor[Record]().NumField(); len(m) != want {
		t.Fatalf("%d fields in JSON, %d in Record: %s", len(m), want, line)
	}
	if len(m["context"].(map[string]any)) != reflect.TypeFor[Context]().NumField() {
		t.Fatalf("context: %v", m["context"])
	}
	for k, v := range m {
		if s, ok := v.(string); ok && utf8.RuneCountInString(s) != MaxText {
			t.Errorf("%s has %d characters", k, utf8.RuneCountInString(s))
		}
	}
	r = Record{Scope: make([]string, 1000)}
	if m := checkLine(t, r.AppendJSON(nil)); len(m["scope"].([]any)) != MaxScopes {
		t.Fatalf("%d scopes", len(m["scope"].([]any)))
	}
}

func FuzzAppendJSON(f *testing.F) {
	f.Add("tony", int64(1))
	f.Add("\x00\n\u2028\u202e\xff\"}{", int64(-1))
	f.Add(strings.Repeat("\U000e0041", 300), int64(math.MinInt64))
	f.Add(`","seq":1,"prev":"`, int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, s string, n int64) {
		var r Record
		fill(reflect.ValueOf(&r).Elem(), s, n)
		c := newChain()
		c.seq = uint64(n) % (1 << 62)
		line := r.AppendJSON(nil)
		checkLine(t, line)
		// As the writer ends it.
		line = c.appendTail(line[:len(line)-1], 0)
		m := checkLine(t, line)
		seq, prev, ok := parseTail(line)
		if want := newChain().hash; !ok || seq != c.seq || string(prev) != string(want[:]) {
			t.Fatalf("tail of %q: %d, %q, %v", line, seq, prev, ok)
		}
		if id, ok := fieldString(line, callIDKey); s != "" && (!ok || !json.Valid([]byte(`"`+string(id)+`"`))) {
			t.Fatalf("callId of %q: %q", line, id)
		}
		if s != "" && m["agentId"] != m["context"].(map[string]any)["agentId"] {
			t.Fatal("a string is written in two ways")
		}
		if s != "" && utf8.ValidString(s) && m["reason"] != cutText(s) {
			t.Fatalf("%q became %q", s, m["reason"])
		}
		// What is written is found.
		if s != "" {
			match, err := newMatcher("callId", m["callId"].(string))
			if err != nil || !match.match(line) {
				t.Fatalf("%q does not match %q", s, line)
			}
		}
	})
}

func FuzzParseLine(f *testing.F) {
	r := Record{Time: time.UnixMilli(1), Event: "x", CallID: "c"}
	c := newChain()
	line := r.AppendJSON(nil)
	f.Add(c.appendTail(line[:len(line)-1], 0))
	f.Add([]byte(`{"ts":-,"event":"`))
	f.Add([]byte(`,"seq":1,"prev":"` + strings.Repeat("A", 43) + `"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if seq, prev, ok := parseTail(b); ok && (seq == 0 || len(prev) != prevLen) {
			t.Fatalf("%q: %d %q", b, seq, prev)
		}
		_, _, _ = parseHead(b)
		_, _ = fieldString(b, callIDKey)
		_ = isLegacy(b)
	})
}
