package handlers

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/refusal"
)

func code(r *refusal.Refusal) string {
	if r == nil {
		return ""
	}
	return r.Code
}

func TestDecode(t *testing.T) {
	deep := func(n int) string { return `{"o":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}` }
	tests := []struct{ body, loose, strict string }{
		{`{}`, "", ""},
		{`{"s":"a","n":1}`, "", ""},
		{` {"s":null} `, "", ""},
		{``, "JSON_INVALID", "JSON_INVALID"},
		{`null`, "JSON_INVALID", "JSON_INVALID"},
		{`[]`, "JSON_INVALID", "JSON_INVALID"},
		{`"s"`, "JSON_INVALID", "JSON_INVALID"},
		{`{`, "JSON_INVALID", "JSON_INVALID"},
		{`{} {}`, "JSON_INVALID", "JSON_INVALID"},
		{`{}x`, "JSON_INVALID", "JSON_INVALID"},
		{"\ufeff{}", "JSON_INVALID", "JSON_INVALID"},
		{`{"s":'a'}`, "JSON_INVALID", "JSON_INVALID"},
		{`{"s":"a",}`, "JSON_INVALID", "JSON_INVALID"},
		{`{"s":"` + "\xff" + `"}`, "JSON_INVALID", "JSON_INVALID"},
		{`{"s":"\ud800"}`, "JSON_INVALID", "JSON_INVALID"},
		{`{"s":"a","s":"b"}`, "JSON_DUPLICATE_KEY:s", "JSON_DUPLICATE_KEY:s"},
		{`{"s":"a","\u0073":"b"}`, "JSON_DUPLICATE_KEY:s", "JSON_DUPLICATE_KEY:s"},
		{`{"o":{"x":1,"x":2}}`, "JSON_DUPLICATE_KEY:x", "JSON_DUPLICATE_KEY:x"},
		{`{"s":1}`, "S_INVALID", "S_INVALID"},
		{`{"n":"1"}`, "N_INVALID", "N_INVALID"},
		{`{"S":"a"}`, "", "FIELD_UNKNOWN:S"},
		{`{"other":1}`, "", "FIELD_UNKNOWN:other"},
		{deep(64), "", ""},
		{deep(65), "JSON_INVALID", "JSON_INVALID"},
		{`{"s":"` + strings.Repeat("[", 100) + `"}`, "", ""},
	}
	for _, tt := range tests {
		var into struct {
			S string         `json:"s"`
			N int            `json:"n"`
			O jsontext.Value `json:"o"`
		}
		if got := code(decode([]byte(tt.body), &into, false)); got != tt.loose {
			t.Errorf("%.60q: %q, want %q", tt.body, got, tt.loose)
		}
		if got := code(decode([]byte(tt.body), &into, true)); got != tt.strict {
			t.Errorf("%.60q, strict: %q, want %q", tt.body, got, tt.strict)
		}
	}
}

func TestTake(t *testing.T) {
	tests := []struct{ body, service, rest, code string }{
		{`{"service":"a","x":1.50,"y":[{"z":null}]}`, `"a"`, `{"x":1.50,"y":[{"z":null}]}`, ""},
		{`{"x":1}`, "", `{"x":1}`, ""},
		{`{"service":"a"}`, `"a"`, `{}`, ""},
		{`{"service":"a","service":"b"}`, "", "", "JSON_DUPLICATE_KEY:service"},
		{`{"x":1,"x":2}`, "", "", "JSON_DUPLICATE_KEY:x"},
		{`{"service":"a"} 1`, "", "", "JSON_INVALID"},
		{`{"service":`, "", "", "JSON_INVALID"},
		{`[]`, "", "", "JSON_INVALID"},
	}
	for _, tt := range tests {
		taken, rest, refused := take([]byte(tt.body), "service")
		if code(refused) != tt.code {
			t.Errorf("%s: %q, want %q", tt.body, code(refused), tt.code)
			continue
		}
		if tt.code == "" && (string(taken["service"]) != tt.service || string(rest) != tt.rest) {
			t.Errorf("%s: took %s, left %s", tt.body, taken["service"], rest)
		}
	}
}

// FuzzTake holds that what is taken and what is left are the whole body, by
// the standard library's reading of it.
func FuzzTake(f *testing.F) {
	for _, s := range []string{`{"service":"a","x":1}`, `{"a":{"b":[1,2,{"c":null}]},"service":{}}`, `{}`, `{"service":"\u0061"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		taken, rest, refused := take(body, "service")
		if refused != nil {
			return
		}
		var whole, left map[string]json.RawMessage
		if err := json.Unmarshal(body, &whole); err != nil {
			t.Fatalf("accepted, but encoding/json says %v", err)
		}
		if err := json.Unmarshal(rest, &left); err != nil {
			t.Fatalf("what is left, %s, is not an object: %v", rest, err)
		}
		if _, ok := left["service"]; ok {
			t.Fatal("taken and left")
		}
		if taken["service"] != nil {
			left["service"] = nil
		}
		if len(left) != len(whole) {
			t.Fatalf("%d members of %d", len(left), len(whole))
		}
	})
}

func TestInteger(t *testing.T) {
	tests := []struct {
		in string
		n  int64
		ok bool
	}{
		{"1", 1, true},
		{"0", 0, true},
		{"900", 900, true},
		{"1000", 1000, true},
		{"999999999999999999999999999999", 1000, true},
		{"-1", 0, false},
		{"1.0", 0, false},
		{"1e3", 0, false},
		{`"5"`, 0, false},
		{"true", 0, false},
		{"null", 0, false},
		{"", 0, false},
	}
	for _, tt := range tests {
		if n, ok := integer(jsontext.Value(tt.in), 1000); ok != tt.ok || ok && n != tt.n {
			t.Errorf("integer(%s) = %d, %v", tt.in, n, ok)
		}
	}
}

func TestCheckMediaType(t *testing.T) {
	tests := []struct {
		types, encodings []string
		ok               bool
	}{
		{types: []string{"application/json"}, ok: true},
		{types: []string{"application/json; charset=utf-8"}, ok: true},
		{types: []string{"Application/JSON;charset=UTF-8"}, ok: true},
		{types: []string{"application/json"}, encodings: []string{"identity"}, ok: true},
		{types: nil},
		{types: []string{""}},
		{types: []string{"text/plain"}},
		{types: []string{"application/json", "application/json"}},
		{types: []string{"application/json; charset=latin1"}},
		{types: []string{"application/json; charset=utf-8; x=y"}},
		{types: []string{"application/json; x=y"}},
		{types: []string{"application/json, text/plain"}},
		{types: []string{"application/jsonp"}},
		{types: []string{"application/x-www-form-urlencoded"}},
		{types: []string{"application/json"}, encodings: []string{"gzip"}},
		{types: []string{"application/json"}, encodings: []string{"identity", "br"}},
	}
	for _, tt := range tests {
		h := http.Header{"Content-Type": tt.types, "Content-Encoding": tt.encodings}
		if got := checkMediaType(h) == nil; got != tt.ok {
			t.Errorf("%q %q: %v", tt.types, tt.encodings, got)
		}
	}
}
