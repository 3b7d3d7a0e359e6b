package plainjson

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// members is what a whole decoder finds in an object.
func members(data []byte) (out []Member, err error) {
	dec := jsontext.NewDecoder(bytes.NewReader(data))
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		text := name.String()
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		out = append(out, Member{[]byte(text), value.Clone()})
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		return nil, err
	}
	return out, nil
}

// read is what this package finds.
func read(data []byte) ([]Member, bool) {
	var o Object
	ok := o.Read(data)
	return o.Members(), ok
}

// plain are texts that are to be taken, other is what is not.
var (
	plain = []string{
		`{}`, " {\n} ", `{"a":"b"}`, `{"token":"x.y.z","service":"svc","action":"a","params":{"owner":"o","page":2}}`,
		`{"a":1,"b":-0,"c":1.5e-7,"d":0.10,"e":1E+9,"f":true,"g":false,"h":null,"i":"","j":[],"k":{}}`,
		`{ "a" : [ 1 , "x" , { "b" : [ ] } ] , "":"" }`,
	}
	other = []string{
		``, ` `, `{`, `}`, `[]`, `null`, `"a"`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,"a":1}`, `{"a":1 "b":2}`, `{"a":1}x`, `{"a":1}{}`,
		`{"a":1,"a":2}`, `{"a":{"b":1,"b":2}}`, `{"a":[{"b":1,"b":2}]}`, `{"a\u0062":1}`, `{"a":"\n"}`, "{\"a\":\"\n\"}", "{\"a\":\"\x7f\"}",
		`{"ä":1}`, `{"a":"ä"}`, "{\"a\":\"\xff\"}", `{"a":01}`, `{"a":-}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":+1}`, `{"a":NaN}`,
		`{"a":tru}`, `{"a":nul`, `{"a":truex}`, `{"a":"b}`, `{"a`, `{'a':1}`, `{"a":1/**/}`, "\ufeff{}", `{"a":[1,]}`, `{"a":[1 2]}`, `{"a":[`,
		`{"a":{"b":{"c":{"d":{}}}}}`, `{"a":[[[[]]]]}`, `{` + strings.Repeat(`"a":1,`, 20) + `"b":1}`,
		`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1,"q":1}`,
	}
)

func TestTexts(t *testing.T) {
	for list, want := range map[string]string{
		`[]`: "0", `[ ]`: "0", `["a"]`: "1a", `[ "a" , "" , "b c" ]`: "3a,,b c",
		`"a"`: "", `["a",1]`: "", `[["a"]]`: "", `{}`: "", `[null]`: "",
	} {
		members, ok := read([]byte(`{"a":` + list + `}`))
		if !ok {
			t.Fatalf("%s is not taken", list)
		}
		got := ""
		if texts, ok := members[0].Texts(); ok {
			got = fmt.Sprint(len(texts)) + strings.Join(texts, ",")
		}
		if got != want {
			t.Errorf("%s: %q, want %q", list, got, want)
		}
	}
}

func TestObject(t *testing.T) {
	for _, text := range plain {
		if _, ok := read([]byte(text)); !ok {
			t.Errorf("%s is not taken", text)
		}
		agree(t, []byte(text))
	}
	for _, text := range other {
		if m, ok := read([]byte(text)); ok {
			t.Errorf("%s is taken for %s", text, m)
		}
	}
	if text, ok := (Member{Value: []byte(`"b"`)}).Text(); !ok || string(text) != "b" {
		t.Errorf("text %q", text)
	}
	if _, ok := (Member{Value: []byte(`1`)}).Text(); ok {
		t.Error("a number is a text")
	}
}

// agree holds what is taken to what a decoder finds.
func agree(t *testing.T, data []byte) {
	t.Helper()
	got, ok := read(data)
	if !ok {
		return
	}
	want, err := members(data)
	if err != nil {
		t.Fatalf("%q is taken, and a decoder says: %v", data, err)
	}
	if len(got) != len(want) {
		t.Fatalf("%q: %s, a decoder finds %s", data, got, want)
	}
	for i := range got {
		if string(got[i].Name) != string(want[i].Name) || string(got[i].Value) != string(want[i].Value) {
			t.Fatalf("%q: %s, a decoder finds %s", data, got, want)
		}
	}
}

func FuzzObject(f *testing.F) {
	for _, text := range append(plain, other...) {
		f.Add([]byte(text))
	}
	f.Fuzz(agree)
}
