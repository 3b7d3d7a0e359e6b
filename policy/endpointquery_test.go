package policy

import (
	"slices"
	"strings"
	"testing"
)

const gitService = `{"baseUrl":"https://git.example.com","secretRef":"s","allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["r","w"],"endpoints":{
	"fetch.refs":{"method":"GET","path":"/{owner}/{repo}/info/refs","query":{"service":"git-upload-pack"},"requiredScope":["r"]},
	"push.refs":{"method":"GET","path":"/{owner}/{repo}/info/refs","query":{"service":"git-receive-pack"},"requiredScope":["w"]},
	"list":{"method":"GET","path":"/list"},
	"list.deleted":{"method":"GET","path":"/list","query":{"state":"deleted"},"requiredScope":["w"]},
	"list.deleted.all":{"method":"GET","path":"/list","query":{"state":"deleted","all":"1"},"requiredScope":["w"]},
	"other":{"method":"GET","path":"/other"}}}`

func TestAlternativesFor(t *testing.T) {
	c, err := ParseService("git", []byte(gitService))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ path, query, want string }{
		{"/o/r/info/refs", "service=git-upload-pack", "fetch.refs"},
		{"/o/r/info/refs", "service=git-receive-pack", "push.refs"},
		{"/o/r/info/refs", "x=1&service=git-receive-pack&y", "push.refs"},
		{"/o/r/info/refs", "", ""},
		{"/o/r/info/refs", "service", ""},
		{"/o/r/info/refs", "service=", ""},
		{"/o/r/info/refs", "service=git-upload-archive", ""},
		{"/o/r/info/refs", "Service=git-upload-pack", "PARAM_INVALID:service"},
		{"/o/r/info/refs", "service=git-upload-pack&service=git-receive-pack", "PARAM_INVALID:service"},
		{"/o/r/info/refs", "service=git-upload-pack&service=git-upload-pack", "PARAM_INVALID:service"},
		{"/o/r/info/refs", "service=git-upload-pack;service=git-receive-pack", "PARAM_INVALID:service"},
		{"/o/r/info/refs", "service=git-upload-pack&SERVICE=git-receive-pack", "PARAM_INVALID:service"},
		{"/o/r/info/refs", "service=git-upload-pack&service[]=git-receive-pack", "PARAM_INVALID:service"},
		{"/o/r/info/refs", "service=git-upload-pack&service%5B%5D=git-receive-pack", "PARAM_INVALID:service"},
		{"/o/r/info/refs", "service=git-upload-pack&s%65rvice=git-receive-pack", "PARAM_INVALID:service"},
		{"/o/r/info/refs", "service=git-upload-pack&s%2565rvice=git-receive-pack", "PARAM_INVALID:service"},
		{"/o/r/info/refs", "service=git-upload-pack&+service=git-receive-pack", "PARAM_INVALID:service"},
		{"/o/r/info/refs", "service=git%2Dreceive-pack", "PARAM_INVALID:service"},
		{"/o/r/info/refs", "service=git+upload", "PARAM_INVALID:service"},
		{"/list", "", "list"},
		{"/list", "state=open", "list"},
		{"/list", "q=state%3Ddeleted", "list"},
		{"/list", "state=deleted", "list.deleted"},
		{"/list", "all=1", "list"},
		{"/list", "all=1&state=deleted", "list.deleted.all"},
		{"/list", "st%61te=deleted", "PARAM_INVALID:state"},
		{"/list", "state=%64eleted", "PARAM_INVALID:state"},
		{"/other", "state=deleted&state=x", "other"},
	} {
		e, ok := c.Match("GET", tc.path)
		if !ok {
			t.Fatalf("%s matches nothing", tc.path)
		}
		found, r := e.AlternativesFor(tc.query)
		got := ""
		switch {
		case r != nil:
			got = r.Code
		case len(found) > 1:
			got = "several"
		case len(found) == 1:
			got = found[0].Name
		}
		if got != tc.want {
			t.Errorf("%s?%s: %q, want %q", tc.path, tc.query, got, tc.want)
		}
	}
}

// TestQueryOfPlan is about vault.call: the action brings its parameters.
func TestQueryOfPlan(t *testing.T) {
	c, err := ParseService("git", []byte(gitService))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ action, params, want string }{
		{"push.refs", `{"owner":"o","repo":"r"}`, "service=git-receive-pack"},
		{"push.refs", `{"owner":"o","repo":"r","a":"b"}`, "a=b&service=git-receive-pack"},
		{"list.deleted.all", `{}`, "all=1&state=deleted"},
		{"list", `{"q":1}`, "q=1"},
		{"list", `{"state":"deleted"}`, "PARAM_INVALID:state"},
		{"list", `{"State":"deleted"}`, "PARAM_INVALID:State"},
		{"list", `{"state[]":"deleted"}`, "PARAM_INVALID"},
		{"fetch.refs", `{"owner":"o","repo":"r","service":"git-receive-pack"}`, "PARAM_INVALID:service"},
	} {
		p, r := c.Endpoint(tc.action).Plan([]byte(tc.params))
		got := p.RawQuery
		if r != nil {
			got = r.Code
		}
		if got != tc.want && !(r != nil && strings.HasPrefix(got, tc.want)) {
			t.Errorf("%s %s: %q, want %q", tc.action, tc.params, got, tc.want)
		}
	}
}

func TestQueryOfEndpointInvalid(t *testing.T) {
	for _, query := range []string{
		`{"":"x"}`, `{"a":""}`, `{"a b":"x"}`, `{"a":"x&b"}`, `{"a":"%41"}`, `{"ä":"x"}`, `{"a":"x","A":"y"}`, `{"a":"x","a[]":"y"}`,
		`{"a":"x","b":"x","c":"x","d":"x","e":"x","f":"x","g":"x","h":"x","i":"x"}`, `{"a":1}`, `[]`, `"a=b"`,
	} {
		_, err := ParseService("s", []byte(`{"baseUrl":"https://a.example","allowedAgents":[],"allowedActions":[],"endpoints":{"e":{"method":"GET","path":"/","query":`+query+`}}}`))
		if err == nil {
			t.Errorf("%s passes", query)
		}
	}
}

func FuzzAlternativesFor(f *testing.F) {
	c, err := ParseService("git", []byte(gitService))
	if err != nil {
		f.Fatal(err)
	}
	e, _ := c.Match("GET", "/o/r/info/refs")
	for _, q := range []string{"", "service=git-upload-pack", "service=git-upload-pack&service=x", "%73ervice=x", "a;b&c==&&"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		found, r := e.AlternativesFor(query)
		if r != nil || len(found) == 0 {
			return
		}
		// Whoever may read must not come to what is written by any reading.
		if found[0].Name == "fetch.refs" && slices.ContainsFunc(strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' }),
			func(p string) bool { return strings.EqualFold(unescapeLenient(p), "service=git-receive-pack") }) {
			t.Errorf("%q is taken for a fetch", query)
		}
	})
}
