package policy

import (
	"encoding/json"
	"reflect"
	"testing"
)

var merges = []struct{ base, patch, want string }{
	{`{}`, `{}`, `{}`},
	{`{"a":1}`, `{}`, `{"a":1}`},
	{`{"a":1}`, `{"a":2}`, `{"a":2}`},
	{`{"a":1,"b":2}`, `{"a":null}`, `{"b":2}`},
	{`{"a":1}`, `{"b":null}`, `{"a":1}`},
	{`{"a":1}`, `{"b":2}`, `{"a":1,"b":2}`},
	{`{"a":[1,2]}`, `{"a":[3]}`, `{"a":[3]}`},
	{`{"a":{"b":1,"c":2}}`, `{"a":{"b":null,"d":3}}`, `{"a":{"c":2,"d":3}}`},
	{`{"a":{"b":{"c":1}}}`, `{"a":{"b":{"d":2}}}`, `{"a":{"b":{"c":1,"d":2}}}`},
	{`{"a":"x"}`, `{"a":{"b":1,"c":null}}`, `{"a":{"b":1}}`},
	{`{"a":{"b":1}}`, `{"a":"x"}`, `{"a":"x"}`},
	{`{}`, `{"a":{"b":{"c":null}}}`, `{"a":{"b":{}}}`},
	{`{"a":[{"b":1}]}`, `{"a":[1]}`, `{"a":[1]}`},
	{`{"n":1.0}`, `{"m":12345678901234567890}`, `{"n":1.0,"m":12345678901234567890}`},
	{`{"z":1,"a":2}`, `{"m":3,"z":4}`, `{"z":4,"a":2,"m":3}`},
	{` { "a" : 1 } `, `{"b":{ "c" : 2}}`, `{"a":1,"b":{"c":2}}`},
	{`{"e":null}`, `{}`, `{"e":null}`},
}

func TestMergePatch(t *testing.T) {
	for _, tc := range merges {
		got, err := MergePatch([]byte(tc.base), []byte(tc.patch))
		if err != nil || string(got) != tc.want {
			t.Errorf("%s + %s: got %s %v, want %s", tc.base, tc.patch, got, err, tc.want)
		}
	}
	for _, tc := range []struct{ base, patch string }{
		{`[]`, `{}`},
		{`{}`, `[]`},
		{`{}`, `null`},
		{`{}`, ``},
		{`{"a":1,"a":2}`, `{}`},
		{`{}`, `{"a":{"b":1,"b":2}}`},
		{`{}`, `{} {}`},
	} {
		if got, err := MergePatch([]byte(tc.base), []byte(tc.patch)); err == nil {
			t.Errorf("%s + %s: got %s", tc.base, tc.patch, got)
		}
	}
}

// naiveMerge is RFC 7396 section 2, word for word.
func naiveMerge(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := map[string]any{}
	if t, ok := target.(map[string]any); ok {
		for k, v := range t {
			out[k] = v
		}
	}
	for k, v := range p {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = naiveMerge(out[k], v)
		}
	}
	return out
}

func FuzzMergePatch(f *testing.F) {
	for _, tc := range merges {
		f.Add([]byte(tc.base), []byte(tc.patch))
	}
	f.Fuzz(func(t *testing.T, base, patch []byte) {
		got, err := MergePatch(base, patch)
		if err != nil {
			return
		}
		var b, p, g any
		for _, x := range []struct {
			raw []byte
			to  *any
		}{{base, &b}, {patch, &p}, {got, &g}} {
			if err := json.Unmarshal(x.raw, x.to); err != nil {
				if x.to == &g {
					t.Fatalf("%s is not JSON: %v", got, err)
				}
				return // a number that encoding/json cannot hold
			}
		}
		if want := naiveMerge(b, p); !reflect.DeepEqual(g, want) {
			t.Fatalf("%s + %s: got %s, want %v", base, patch, got, want)
		}
	})
}
