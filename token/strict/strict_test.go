package strict

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func decoder(text string) *jsontext.Decoder { return jsontext.NewDecoder(strings.NewReader(text)) }

func TestValues(t *testing.T) {
	for text, want := range map[string][]string{`[]`: {}, `["a","b"]`: {"a", "b"}, `["a",""]`: nil, `["a",1]`: nil, `"a"`: nil, `null`: nil, `["a"`: nil, `[["a"]]`: nil, `{}`: nil} {
		if got, ok := Texts(decoder(text)); ok != (want != nil) || ok && !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", text, got, ok)
		}
	}
	if got, ok := AnyTexts(decoder(`["",""]`)); !ok || len(got) != 2 {
		t.Errorf("%q, %v", got, ok)
	}
	for text, want := range map[string]int64{`0`: 0, `1700000000`: 1700000000, `253402300799`: MaxTime} {
		if got, ok := Seconds(decoder(text)); !ok || got.Unix() != want {
			t.Errorf("%s: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{`-1`, `1.0`, `1e3`, `253402300800`, `1e400`, `99999999999999999999`, `"1"`, `null`, `true`, `[]`} {
		if got, ok := Seconds(decoder(text)); ok {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestWhole(t *testing.T) {
	read := func(text string) error {
		return Whole([]byte(text), func(d *jsontext.Decoder, _ string) error { return d.SkipValue() })
	}
	for _, text := range []string{`{}`, ` {"a":1,"b":{"a":[1,{"a":2}]}} `} {
		if err := read(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{``, `null`, `[]`, `"a"`, `{}{}`, `{} x`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":{"b":1,"b":2}}`, "{\"a\":\"\xff\"}", `{"a":"\ud800"}`, `{"a":1`, `{"a":1,}`, `{a:1}`} {
		if err := read(text); err != ErrForm {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAlphabet(t *testing.T) {
	for text, want := range map[string]bool{"": true, "aZ09-_.": true, "a=": false, "a+": false, "a/": false, "a\n": false, "a b": false, "é": false, "a\x00": false, "@": false, "[": false, "`": false, "{": false} {
		if Alphabet(text) != want {
			t.Errorf("%q", text)
		}
	}
	if _, err := Base64.DecodeString("AB"); err == nil {
		t.Error("trailing bits that are not zero")
	}
}
