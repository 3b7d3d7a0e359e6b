package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// service compiles endpoints given as name → "METHOD /path scope…".
func service(t testing.TB, base string, endpoints map[string]string, extra ...string) *Compiled {
	t.Helper()
	c, err := ParseService("svc", serviceJSON(base, endpoints, extra...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serviceJSON writes a service file; extra are whole members, and those for
// body are "name=value" settings of an endpoint behind its path.
func serviceJSON(base string, endpoints map[string]string, extra ...string) []byte {
	eps := map[string]Endpoint{}
	for name, s := range endpoints {
		f := strings.Fields(s)
		e := Endpoint{Method: f[0], Path: f[1]}
		for _, s := range f[2:] {
			if body, ok := strings.CutPrefix(s, "body="); ok {
				e.Body = body
			} else {
				e.RequiredScope = append(e.RequiredScope, s)
			}
		}
		eps[name] = e
	}
	raw := map[string]any{}
	for name, e := range eps {
		m := map[string]any{"method": e.Method, "path": e.Path}
		if e.RequiredScope != nil {
			m["requiredScope"] = e.RequiredScope
		}
		if e.Body != "" {
			m["body"] = e.Body
		}
		raw[name] = m
	}
	b, _ := json.Marshal(raw)
	members := []string{
		fmt.Sprintf(`"baseUrl":%q`, base), `"allowedAgents":["*"]`, `"allowedScopes":["r","w"]`, `"endpoints":` + string(b),
	}
	if !slices.ContainsFunc(extra, func(s string) bool { return strings.HasPrefix(s, `"allowedActions"`) }) {
		members = append(members, `"allowedActions":["*"]`)
	}
	return []byte("{" + strings.Join(append(members, extra...), ",") + "}")
}

var matchService = map[string]string{
	"root":        "GET /",
	"users":       "GET /users",
	"users.slash": "GET /users/",
	"me":          "GET /users/me",
	"user":        "GET /users/{id}",
	"user.json":   "GET /users/{id}.json",
	"user.post":   "POST /users/{id}",
	"compare":     "GET /compare/{base}...{head}",
	"contents":    "GET /contents/{path...}",
	"protection":  "GET /branches/{branch...}/protection",
	"branch":      "GET /branches/{branch...}",
	"branch.sub":  "GET /branches/{branch...}/{x}/checks",
	"public":      "GET /public/*",
	"public.deep": "GET /public/a/{x}",
	"public.lit":  "GET /public/a/b",
	"api.v":       "GET /v{n}/x",
	"api.v1":      "GET /v1/x",
	"api.any":     "GET /{v}/x",
	"model":       "POST /models/{m}:generate",
	"spaced":      "GET /a%20b",
}

func TestMatch(t *testing.T) {
	c := service(t, "https://api.example.com/base", matchService)
	for _, tc := range []struct{ method, path, want string }{
		{"GET", "/", "root"},
		{"GET", "", "root"},
		{"GET", "/users", "users"},
		{"GET", "/users/", "users.slash"},
		{"GET", "/users/me", "me"},
		{"GET", "/users/you", "user"},
		{"GET", "/users/you.json", "user.json"},
		{"GET", "/users/.json", "user"},
		{"GET", "/users/me.json", "user.json"},
		{"GET", "/users/a%2Fb", "user"},
		{"GET", "/users/a/b", ""},
		{"GET", "/users//", ""},
		{"POST", "/users/me", "user.post"},
		{"PUT", "/users/me", ""},
		{"get", "/users/me", ""},
		{"HEAD", "/users/me", "me"},
		{"HEAD", "/users/a/b", ""},
		{"GET", "/Users/me", ""},
		{"GET", "users/me", ""},
		{"GET", "/compare/a...b", "compare"},
		{"GET", "/compare/a....b", "compare"},
		{"GET", "/compare/a...", ""},
		{"GET", "/compare/...b", ""},
		{"GET", "/compare/ab", ""},
		{"GET", "/contents/a", "contents"},
		{"GET", "/contents/a/b/c", "contents"},
		{"GET", "/contents/docs%2Freadme.md", "contents"},
		{"GET", "/contents/", ""},
		{"GET", "/contents", ""},
		{"GET", "/contents//a", ""},
		{"GET", "/contents/a/", ""},
		{"GET", "/contents/a//b", ""},
		{"GET", "/branches/x", "branch"},
		{"GET", "/branches/x/y", "branch"},
		{"GET", "/branches/x/y/protection", "protection"},
		{"GET", "/branches/protection", "branch"},
		{"GET", "/branches/x/y/checks", "branch.sub"},
		{"GET", "/branches/x/checks", "branch"},
		{"GET", "/public/", "public"},
		{"GET", "/public/x", "public"},
		{"GET", "/public/x/y//z", "public"},
		{"GET", "/public", ""},
		{"GET", "/public/a/b", "public.lit"},
		{"GET", "/public/a/c", "public.deep"},
		{"GET", "/public/a/", "public"},
		{"GET", "/public/a/b/c", "public"},
		{"GET", "/v1/x", "api.v1"},
		{"GET", "/v2/x", "api.v"},
		{"GET", "/w/x", "api.any"},
		{"POST", "/models/gemini:generate", "model"},
		{"POST", "/models/:generate", ""},
		{"GET", "/a%20b", "spaced"},
		{"GET", "/a b", ""},
		{"GET", "/nothing", ""},
	} {
		got := ""
		if e, ok := c.Match(tc.method, tc.path); ok {
			got = e.Name
		}
		if got != tc.want {
			t.Errorf("%s %s: got %q, want %q", tc.method, tc.path, got, tc.want)
		}
	}
}

// A path that some server reads as a stricter endpoint than the one it
// matches byte for byte must match nothing.
func TestMatchOtherReading(t *testing.T) {
	c := service(t, "https://api.example.com", map[string]string{
		"all":     "GET /v1/* r",
		"admin":   "GET /v1/admin w",
		"user":    "GET /v1/users/{id} r",
		"secrets": "GET /v1/users/{id}/secrets w",
		"encoded": "GET /v1/a%20b w",
		"me":      "GET /v1/users/%40me w",
		"open":    "GET /v1/open r",
		"hidden":  "GET /v1/hidden r",
	}, `"allowedActions":["issue","all","admin","user","secrets","encoded","open","me"]`)
	for path, want := range map[string]string{
		"/v1/admin":                 "admin",
		"/v1/other":                 "all",
		"/v1/%61dmin":               "",
		"/v1/admi%6E":               "",
		"/v1/%2561dmin":             "",
		"/v1/admin/":                "",
		"/v1//admin":                "",
		"/v1/admin;x=1":             "",
		"/v1/admin%3Bx":             "",
		"/v1/;x/admin":              "",
		"/v1/%2Fadmin":              "",
		"/v1/admin%2F":              "",
		"/v1/users/1":               "user",
		"/v1/users/1%2Fsecrets":     "",
		"/v1/users/1%252Fsecrets":   "",
		"/v1/users/1%2Fother":       "user",
		"/v1/users/1/secrets":       "secrets",
		"/v1/a%20b":                 "encoded",
		"/v1/a%20%62":               "",
		"/v1/users/%40me":           "me",
		"/v1/users/@me":             "",
		"/v1/users/%40%6de":         "",
		"/v1/users/@you":            "user",
		"/v1/%61%20b":               "",
		"/v1/ope%6E":                "all",
		"/v1/hidden":                "hidden",
		"/v1/hidde%6E":              "",
		"/v1/caf%C3%A9/admin-guide": "all",
	} {
		got := ""
		if e, ok := c.Match("GET", path); ok {
			got = e.Name
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestAlternatives(t *testing.T) {
	eps := map[string]string{"a.old": "GET /x/{p} r", "b.new": "GET /x/{q} w", "c": "GET /y r"}
	c := service(t, "https://api.example.com", eps, `"allowedActions":["b.new"]`)
	e, ok := c.Match("GET", "/x/1")
	if !ok || e.Name != "b.new" {
		t.Fatalf("the allowed one of two equal endpoints is preferred: %v", e)
	}
	var names []string
	for _, a := range e.Alternatives() {
		names = append(names, a.Name)
	}
	if !slices.Equal(names, []string{"a.old", "b.new"}) {
		t.Errorf("alternatives: %v", names)
	}
}
