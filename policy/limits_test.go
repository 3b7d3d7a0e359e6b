package policy

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault/refusal"
)

func limitedService(t testing.TB) *Compiled {
	t.Helper()
	c, err := ParseService("x", []byte(`{"baseUrl":"https://api.example.com","allowedAgents":["*"],"allowedActions":["issue","repo","contents","tree","search","create","zip"],"allowedScopes":["s"],"endpoints":{
		"repo":{"method":"GET","path":"/repos/{owner}/{repo}"},
		"contents":{"method":"GET","path":"/repos/{owner}/{repo}/contents/{path...}"},
		"tree":{"method":"GET","path":"/tree/*"},
		"zip":{"method":"GET","path":"/zip/{path...}/at/{ref}"},
		"search":{"method":"GET","path":"/search"},
		"hidden":{"method":"GET","path":"/hidden"},
		"create":{"method":"POST","path":"/repos/{owner}/{repo}/{a}-{b}.json"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDecideParams(t *testing.T) {
	c := limitedService(t)
	limits := map[string][]string{"owner": {"o", "p"}, "n": {"42", "true"}}
	for name, tt := range map[string]struct{ params, want string }{
		"kept":                    {`{"owner":"o","n":42}`, ""},
		"another of the list":     {`{"owner":"p","n":"42"}`, ""},
		"true":                    {`{"n":true,"owner":"o","more":[1]}`, ""},
		"no params":               {``, "PARAM_NOT_GRANTED"},
		"one is absent":           {`{"owner":"o"}`, "PARAM_NOT_GRANTED:n"},
		"another value":           {`{"owner":"q","n":42}`, "PARAM_NOT_GRANTED:owner"},
		"the same number":         {`{"owner":"o","n":42.0}`, "PARAM_NOT_GRANTED:n"},
		"null":                    {`{"owner":"o","n":null}`, "PARAM_NOT_GRANTED:n"},
		"a list":                  {`{"owner":["o"],"n":42}`, "PARAM_NOT_GRANTED:owner"},
		"an object":               {`{"owner":{"owner":"o"},"n":42}`, "PARAM_NOT_GRANTED:owner"},
		"another spelling beside": {`{"owner":"o","Owner":"q","n":42}`, "PARAM_NOT_GRANTED:owner"},
		"brackets beside":         {`{"owner":"o","owner[]":"q","n":42}`, "PARAM_NOT_GRANTED:owner"},
		"other case alone":        {`{"OWNER":"o","n":42}`, "PARAM_NOT_GRANTED:owner"},
		"a space at the end":      {`{"owner":"o ","n":42}`, "PARAM_NOT_GRANTED:owner"},
		"twice":                   {`{"owner":"q","owner":"o","n":42}`, "JSON_DUPLICATE_KEY"},
		"not an object":           {`[]`, "JSON_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			checkLimit(t, c.Endpoint("repo").DecideParams(limits, []byte(tt.params)), tt.want)
		})
	}
}

func checkLimit(t *testing.T, r *refusal.Refusal, want string) {
	t.Helper()
	got := code(r)
	if got != want && !(want == "PARAM_NOT_GRANTED" && strings.HasPrefix(got, want+":")) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDecideProxyParams(t *testing.T) {
	c := limitedService(t)
	for name, tt := range map[string]struct {
		action, path, query string
		body                bool
		limits              map[string][]string
		want                string
	}{
		"a segment":                  {"repo", "/repos/o/r", "", false, map[string][]string{"owner": {"o"}}, ""},
		"a segment, escaped":         {"repo", "/repos/%6f/r", "", false, map[string][]string{"owner": {"o"}}, ""},
		"a segment, escaped twice":   {"repo", "/repos/%256f/r", "", false, map[string][]string{"owner": {"o"}}, "PARAM_NOT_GRANTED:owner"},
		"another":                    {"repo", "/repos/q/r", "", false, map[string][]string{"owner": {"o"}}, "PARAM_NOT_GRANTED:owner"},
		"another, and the query":     {"repo", "/repos/q/r", "owner=o", false, map[string][]string{"owner": {"o"}}, "PARAM_NOT_GRANTED:owner"},
		"in the query as well":       {"repo", "/repos/o/r", "owner=q", false, map[string][]string{"owner": {"o"}}, "PARAM_NOT_GRANTED:owner"},
		"in the query, in brackets":  {"repo", "/repos/o/r", "owner%5B%5D=q", false, map[string][]string{"owner": {"o"}}, "PARAM_NOT_GRANTED:owner"},
		"both":                       {"repo", "/repos/o/r", "page=2", false, map[string][]string{"owner": {"o"}, "repo": {"x", "r"}}, ""},
		"several segments":           {"contents", "/repos/o/r/contents/a/b%2Fc", "", false, map[string][]string{"path": {"a/b/c"}}, ""},
		"a subtree":                  {"tree", "/tree/a/b", "", false, map[string][]string{"*": {"a/b"}}, ""},
		"several, then text":         {"zip", "/zip/a/b/at/main", "", false, map[string][]string{"path": {"a/b"}, "ref": {"main"}}, ""},
		"several, then another":      {"zip", "/zip/a/at/x/at/main", "", false, map[string][]string{"path": {"a"}}, "PARAM_NOT_GRANTED:path"},
		"parts of a segment":         {"create", "/repos/o/r/x-y-z.json", "", true, map[string][]string{"a": {"x"}, "b": {"y-z"}, "owner": {"o"}}, ""},
		"parts, another":             {"create", "/repos/o/r/x-y.json", "", true, map[string][]string{"b": {"x"}}, "PARAM_NOT_GRANTED:b"},
		"the query":                  {"search", "/search", "q=a+b&page=1", false, map[string][]string{"q": {"a b"}}, ""},
		"the query, twice":           {"search", "/search", "q=a&q=b", false, map[string][]string{"q": {"a"}}, "PARAM_NOT_GRANTED:q"},
		"the query, in another case": {"search", "/search", "q=a&Q=b", false, map[string][]string{"q": {"a"}}, "PARAM_NOT_GRANTED:q"},
		"the query, a semicolon":     {"search", "/search", "q=a;q=b", false, map[string][]string{"q": {"a;q=b"}}, "PARAM_NOT_GRANTED:q"},
		"the query, badly encoded":   {"search", "/search", "q=a&%zz=b", false, map[string][]string{"q": {"a"}}, "PARAM_NOT_GRANTED:q"},
		"the query of a body":        {"search", "/search", "q=a", true, map[string][]string{"q": {"a"}}, "PARAM_NOT_GRANTED:q"},
		"a body":                     {"create", "/repos/o/r/x-y.json", "title=t", true, map[string][]string{"title": {"t"}}, "PARAM_NOT_GRANTED:title"},
		"no such parameter":          {"search", "/search", "", false, map[string][]string{"owner": {"o"}}, "PARAM_NOT_GRANTED:owner"},
	} {
		t.Run(name, func(t *testing.T) {
			e, ok := c.Match(c.Endpoint(tt.action).Method, tt.path)
			if !ok || e.Name != tt.action {
				t.Fatalf("matched %v", e)
			}
			checkLimit(t, e.DecideProxyParams(tt.limits, tt.path, tt.query, tt.body), tt.want)
		})
	}
}

func TestLimits(t *testing.T) {
	c := limitedService(t)
	e := c.Endpoint("repo")
	checkLimit(t, e.DecideActionLimit(nil), "")
	checkLimit(t, e.DecideActionLimit([]string{"search", "repo"}), "")
	checkLimit(t, e.DecideActionLimit([]string{"Repo"}), "ACTION_NOT_GRANTED")
	checkLimit(t, c.CheckLimits(Limits{Actions: []string{"repo"}, Params: map[string][]string{"owner": {"o"}}}), "")
	checkLimit(t, c.CheckLimits(Limits{Actions: []string{"hidden"}}), "ACTIONS_INVALID:hidden")
	checkLimit(t, c.CheckLimits(Limits{Actions: []string{"issue"}}), "ACTIONS_INVALID:issue")
	checkLimit(t, c.CheckLimits(Limits{Params: map[string][]string{"": {"o"}}}), "PARAMS_INVALID:")

	got, r := ParamTexts([]byte(`{"a":"x","b":[1,"2",true,1e3],"c":false}`))
	want := map[string][]string{"a": {"x"}, "b": {"1", "2", "true", "1e3"}, "c": {"false"}}
	if r != nil || !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%v, %v", got, r)
	}
	for _, bad := range []string{`[]`, `{"a":null}`, `{"a":[]}`, `{"a":[[1]]}`, `{"a":{}}`, `{"a":1,"a":2}`, `{`, `{"a":[null]}`} {
		if _, r := ParamTexts([]byte(bad)); r == nil || r.Base() != "PARAMS_INVALID" {
			t.Errorf("%s: %v", bad, r)
		}
	}
}

// A path that an endpoint matches is made of its values again.
func FuzzPathValues(f *testing.F) {
	c := limitedService(f)
	f.Add("GET", "/repos/o/r/contents/a/b")
	f.Add("POST", "/repos/o/r/x-y-z.json")
	f.Add("GET", "/zip/a/at/b/at/c")
	f.Fuzz(func(t *testing.T, method, path string) {
		if CheckProxyPath(path) != nil {
			return
		}
		e, ok := c.Match(method, path)
		if !ok {
			return
		}
		values := map[string]string{}
		if !pathValues(e.Path, path, func(name, value string) { values[name] = value }) {
			t.Fatalf("%s matches %s, and has no values", e.Name, path)
		}
		var again strings.Builder
		for _, s := range patternOf(e) {
			again.WriteByte('/')
			if s.kind == multi || s.kind == subtree {
				again.WriteString(values[s.names[0]])
				continue
			}
			for i, lit := range s.lits {
				again.WriteString(lit)
				if i < len(s.names) {
					again.WriteString(values[s.names[i]])
				}
			}
		}
		if again.String() != path {
			t.Fatalf("%s: %s became %s of %q", e.Name, path, again.String(), values)
		}
	})
}
