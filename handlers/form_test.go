package handlers

import (
	"net/url"
	"testing"
)

// FuzzForm: a form that is taken has the meaning that Go's own parser finds.
func FuzzForm(f *testing.F) {
	f.Add("grant_type=client_credentials&scope=a+b&audience=x%20y")
	f.Add("a=1&a=2")
	f.Add("a;b=%zz&&=&=x")
	f.Fuzz(func(t *testing.T, body string) {
		form, refused := parseForm([]byte(body))
		if refused != nil {
			return
		}
		want, err := url.ParseQuery(body)
		if err != nil {
			t.Fatalf("taken, and is %v", err)
		}
		for name, values := range want {
			if len(values) != 1 || form[name] != values[0] {
				t.Fatalf("%q is %q, want %q", name, form[name], values)
			}
		}
	})
}
