package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault/refusal"
)

// tmpl is a template with the members given added to the least there must be.
func tmpl(base string, members ...string) string {
	all := append([]string{
		`"name":"shop"`, `"baseUrl":"` + base + `"`,
		`"endpoints":{"a":{"method":"GET","path":"/a","requiredScope":["s:r"]}}`,
	}, members...)
	return "{" + strings.Join(all, ",") + "}"
}

const store = `"variables":{"store":{"description":"the store's name","example":"my-store"}}`

func TestTemplate(t *testing.T) {
	tm, err := ParseTemplate([]byte(tmpl("https://{store}.example.com/x", store, `"_c":1`, `"secretEnvHint":"SHOP_KEY"`)))
	if err != nil {
		t.Fatal(err)
	}
	if tm.SecretHint != "SHOP_KEY" || tm.DisplayName != "shop" || tm.SecretRef != "shop" || !slices.Equal(tm.DefaultScopes, []string{"s:r"}) {
		t.Errorf("template: %+v", tm)
	}
	data, err := tm.Instantiate(map[string]string{"store": "acme-1"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseService("shop", data)
	if err != nil {
		t.Fatal(err)
	}
	if c.Origin != "https://acme-1.example.com" || c.SecretRef != "shop" || !slices.Equal(c.AllowedScopes, []string{"s:r"}) {
		t.Errorf("service: %s", data)
	}
	if r := c.DecideIssue(Agent{ID: "anyone"}, []string{"s:r"}); r != nil {
		t.Errorf("a template's defaults let tokens be issued: %v", r)
	}
	if _, err := tm.Instantiate(map[string]string{"store": "other"}); err != nil {
		t.Error(err)
	}
	if again, _ := tm.Instantiate(map[string]string{"store": "acme-1"}); string(again) != string(data) {
		t.Errorf("a template changes as it is used")
	}
}

func TestTemplateVariables(t *testing.T) {
	tm, err := ParseTemplate([]byte(tmpl("https://{store}.example.com", store)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		vars map[string]string
		code string
	}{
		{nil, "VARIABLES_REQUIRED:store"},
		{map[string]string{}, "VARIABLES_REQUIRED:store"},
		{map[string]string{"store": ""}, "VARIABLES_REQUIRED:store"},
		{map[string]string{"Store": "x"}, "FIELD_UNKNOWN:Store"},
		{map[string]string{"store": "x", "nope": "y"}, "FIELD_UNKNOWN:nope"},
		{map[string]string{"store": "evil.com/"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "evil.com#"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "evil.com?"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "evil.com:443/x"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "evil.com\\"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "user@evil"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "a.b"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "my-store.example.com"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "-a"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "a-"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "a_b"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "a b"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "a%2eb"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "ａ"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "a\n"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "{store}"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "{env.X}"}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": strings.Repeat("a", 64)}, "VARIABLES_INVALID:store"},
		{map[string]string{"store": "xn--a"}, "BASEURL_INVALID"},
		{map[string]string{"store": "My-Store"}, ""},
		{map[string]string{"store": "0x7f"}, ""},
	} {
		_, err := tm.Instantiate(tc.vars)
		var r *refusal.Refusal
		errors.As(err, &r)
		if code(r) != tc.code || (err == nil) != (tc.code == "") {
			t.Errorf("%v: got %v, want %s", tc.vars, err, tc.code)
		}
	}

	whole, err := ParseTemplate([]byte(tmpl("https://{host}/api", `"variables":{"host":{"example":"posthog.example.com","default":"eu.posthog.com"}}`)))
	if err != nil {
		t.Fatal(err)
	}
	for v, ok := range map[string]bool{"": true, "a.b.c": true, "a.b:1": false, "a.b/c": false, "127.0.0.1": false, "A.b": false, "a.b.": false} {
		if _, err := whole.Instantiate(map[string]string{"host": v}); (err == nil) != ok {
			t.Errorf("host %q: %v", v, err)
		}
	}
}

func TestParseTemplateRefuses(t *testing.T) {
	for _, tc := range []struct{ data, code string }{
		{``, "JSON_INVALID"},
		{`[]`, "JSON_INVALID"},
		{`{"name":"a","name":"b"}`, "JSON_DUPLICATE_KEY"},
		{`{"baseUrl":"https://a.com"}`, "NAME_REQUIRED"},
		{tmpl("https://a.com", `"nope":1`), "FIELD_UNKNOWN:nope"},
		{`{"name":"A"}`, "NAME_INVALID"},
		{`{"name":"a"}`, "BASEURL_REQUIRED"},
		{tmpl("http://a.com"), "BASEURL_INVALID"},
		{tmpl("https://{x}.com"), "VARIABLES_INVALID"},
		{tmpl("https://a.com", store), "VARIABLES_INVALID"},
		{tmpl("https://{store}.com", `"variables":{"store":{"nope":1}}`), "FIELD_UNKNOWN:nope"},
		{tmpl("https://{store}.com", `"variables":{"store":{"example":"a/b"}}`), "VARIABLES_INVALID:store"},
		{tmpl("https://a.com", `"headers":{"Cookie":"x"}`), "HEADERS_INVALID"},
		{tmpl("https://a.com", `"defaultScopes":["a b"]`), "ALLOWEDSCOPES_INVALID"},
		{tmpl("https://a.com", `"displayName":5`), "DISPLAYNAME_INVALID"},
	} {
		_, err := ParseTemplate([]byte(tc.data))
		var r *refusal.Refusal
		if !errors.As(err, &r) || r.Code != tc.code {
			t.Errorf("%s: got %v, want %s", tc.data, err, tc.code)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add([]byte(tmpl("https://{store}.example.com", store)), "acme")
	f.Add([]byte(tmpl("https://a.{store}.example.com:8443/x", store)), "evil.com#")
	f.Add([]byte(tmpl("https://{store}", store)), "a.b")
	f.Fuzz(func(t *testing.T, data []byte, value string) {
		tm, err := ParseTemplate(data)
		if err != nil {
			return
		}
		vars := map[string]string{}
		for v := range tm.Variables {
			vars[v] = value
		}
		out, err := tm.Instantiate(vars)
		if err != nil {
			return
		}
		c, err := ParseService(tm.Name, out)
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if end := tm.fixedHostEnd(); !strings.HasSuffix(c.Base.Hostname(), strings.ToLower(end)) {
			t.Fatalf("%s leaves %s", c.Base, end)
		}
	})
}
