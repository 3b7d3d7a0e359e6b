package templates

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault/policy"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestNames(t *testing.T) {
	if _, err := load(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"agentmail", "anthropic", "datadog", "gemini", "github", "github-git", "gitlab", "google-maps", "openai", "posthog", "railway", "shopify", "slack",
		"stripe", "telegram", "twilio",
	}
	if got := Names(); !slices.Equal(got, want) {
		t.Errorf("names: %v", got)
	}
	if _, ok := Get("nothing"); ok {
		t.Error("there is a template nothing")
	}
	all := Builtin()
	delete(all, "github")
	if _, ok := Get("github"); !ok {
		t.Error("the caller's map is the package's own")
	}
}

// compiled is a built-in template as a service, its variables filled with
// their examples where they have no default.
func compiled(t *testing.T, name string) *policy.Compiled {
	t.Helper()
	tm, ok := Get(name)
	if !ok {
		t.Fatalf("no template %s", name)
	}
	vars := map[string]string{}
	for v, d := range tm.Variables {
		if d.Default == "" {
			vars[v] = d.Example
		}
	}
	data, err := tm.Instantiate(vars)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	c, err := policy.ParseService(name, data)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return c
}

var pathParam = regexp.MustCompile(`\{([a-z_]+)(\.\.\.)?\}`)

// sample makes parameters for an endpoint: a telling value for each of its
// path, and one more of each kind.
func sample(e *policy.CompiledEndpoint) string {
	members := []string{}
	for _, m := range pathParam.FindAllStringSubmatch(e.Path, -1) {
		value := `"` + m[1] + ` 1"`
		switch {
		case m[2] != "":
			value = `"dir/` + m[1] + ` 1"`
		case strings.HasSuffix(m[1], "_number"):
			value = `42`
		case m[1] == "inbox_id":
			value = `"me@agentmail.to"`
		case m[1] == "message_id":
			value = `"<id@host>"`
		case m[1] == "api_version":
			value = `"2026-07"`
		}
		members = append(members, fmt.Sprintf("%q:%s", m[1], value))
	}
	if e.Body == policy.BodyNone {
		return "{" + strings.Join(members, ",") + "}"
	}
	if e.Body == policy.BodyForm {
		return "{" + strings.Join(append(members, `"s":"a b"`, `"n":10.50`, `"o":{"k":"v"}`, `"l":[{"x":1}]`), ",") + "}"
	}
	return "{" + strings.Join(append(members, `"s":"a b"`, `"n":10.50`, `"l":["x","y"]`), ",") + "}"
}

// TestGolden shows what every action of every template puts on the wire. The
// golden files are read against the vendors' references when they change.
func TestGolden(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			c := compiled(t, name)
			var b strings.Builder
			if c.Auth == nil {
				fmt.Fprintf(&b, "%s: %s\n", c.AuthHeader, strings.TrimSpace(c.AuthScheme+" <"+c.SecretRef+">"))
			}
			for _, a := range c.Auth {
				fmt.Fprintf(&b, "%s\n", strings.Join(slices.DeleteFunc([]string{a.In, a.Name, a.Value, a.User, a.Password}, func(s string) bool { return s == "" }), " "))
			}
			for _, action := range c.Actions() {
				e := c.Endpoint(action)
				plan, r := e.Plan([]byte(sample(e)))
				if r != nil {
					t.Errorf("%s: %v", action, r)
					continue
				}
				fmt.Fprintf(&b, "\n%s (%s)\n  %s %s", action, strings.Join(e.RequiredScope, " "), plan.Method, plan.Upstream)
				if plan.RawQuery != "" {
					b.WriteString("?" + plan.RawQuery)
				}
				b.WriteString("\n")
				for _, h := range slices.Sorted(maps.Keys(e.DefaultHeaders)) {
					fmt.Fprintf(&b, "  %s: %s\n", h, e.DefaultHeaders[h])
				}
				if plan.ContentType != "" {
					fmt.Fprintf(&b, "  Content-Type: %s\n  %s\n", plan.ContentType, plan.Body)
				}

				under := strings.TrimPrefix(plan.Upstream, c.Upstream(""))
				m, ok := c.Match(plan.Method, "/"+strings.TrimPrefix(under, "/"))
				if !ok || !slices.Contains(m.Alternatives(), e) {
					t.Errorf("%s: %s matches %v", action, under, m)
				}
				for _, s := range e.RequiredScope {
					if !slices.Contains(c.AllowedScopes, s) {
						t.Errorf("%s: the scope %s cannot be had", action, s)
					}
				}
			}
			golden(t, name, b.String())
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs from what is made; look, then run with -update:\n%s", file, got)
	}
}

// TestWire holds the actions that existing clients use to their exact request,
// written by hand from the vendors' references.
func TestWire(t *testing.T) {
	const repo = `"owner":"o","repo":"r"`
	for _, tc := range []struct{ template, action, params, want string }{
		{"github", "repos.list", `{"per_page":100}`, "GET https://api.github.com/user/repos?per_page=100"},
		{"github", "repos.get", `{}`, "GET https://api.github.com/user/repos"},
		{"github", "repo.get", `{` + repo + `}`, "GET https://api.github.com/repos/o/r"},
		{"github", "contents.get", `{` + repo + `,"path":"docs/a b.md","ref":"feature/x"}`, "GET https://api.github.com/repos/o/r/contents/docs/a%20b.md?ref=feature%2Fx"},
		{"github", "contents.create_or_update", `{` + repo + `,"path":"docs/a.md","message":"m","content":"YQ=="}`, `PUT https://api.github.com/repos/o/r/contents/docs/a.md {"message":"m","content":"YQ=="}`},
		{"github", "branches.list", `{` + repo + `}`, "GET https://api.github.com/repos/o/r/branches"},
		{"github", "branches.get", `{` + repo + `,"branch":"feature/x"}`, "GET https://api.github.com/repos/o/r/branches/feature/x"},
		{"github", "refs.get", `{` + repo + `,"branch":"feature/x"}`, "GET https://api.github.com/repos/o/r/git/ref/heads/feature/x"},
		{"github", "refs.create", `{` + repo + `,"ref":"refs/heads/x","sha":"abc"}`, `POST https://api.github.com/repos/o/r/git/refs {"ref":"refs/heads/x","sha":"abc"}`},
		{"github", "refs.update", `{` + repo + `,"branch":"feature/x","sha":"abc","force":false}`, `PATCH https://api.github.com/repos/o/r/git/refs/heads/feature/x {"sha":"abc","force":false}`},
		{"github", "commits.list", `{` + repo + `,"sha":"main"}`, "GET https://api.github.com/repos/o/r/commits?sha=main"},
		{"github", "commits.get", `{` + repo + `,"sha":"abc"}`, "GET https://api.github.com/repos/o/r/git/commits/abc"},
		{"github", "blobs.create", `{` + repo + `,"content":"x"}`, `POST https://api.github.com/repos/o/r/git/blobs {"content":"x"}`},
		{"github", "trees.create", `{` + repo + `,"tree":[]}`, `POST https://api.github.com/repos/o/r/git/trees {"tree":[]}`},
		{"github", "git_commits.create", `{` + repo + `,"message":"m"}`, `POST https://api.github.com/repos/o/r/git/commits {"message":"m"}`},
		{"github", "issues.list", `{` + repo + `,"state":"open"}`, "GET https://api.github.com/repos/o/r/issues?state=open"},
		{"github", "issues.get", `{` + repo + `,"issue_number":7}`, "GET https://api.github.com/repos/o/r/issues/7"},
		{"github", "issues.create", `{` + repo + `,"title":"t","labels":["a"]}`, `POST https://api.github.com/repos/o/r/issues {"title":"t","labels":["a"]}`},
		{"github", "pulls.list", `{` + repo + `}`, "GET https://api.github.com/repos/o/r/pulls"},
		{"github", "pulls.get", `{` + repo + `,"pull_number":7}`, "GET https://api.github.com/repos/o/r/pulls/7"},
		{"github", "pulls.create", `{` + repo + `,"head":"x","base":"main"}`, `POST https://api.github.com/repos/o/r/pulls {"head":"x","base":"main"}`},
		{"github", "pulls.merge", `{` + repo + `,"pull_number":7}`, `PUT https://api.github.com/repos/o/r/pulls/7/merge {}`},
		{"github", "pulls.files", `{` + repo + `,"pull_number":7}`, "GET https://api.github.com/repos/o/r/pulls/7/files"},

		{"stripe", "customers.create", `{"email":"a@b.c","metadata":{"k":"v"}}`, "POST https://api.stripe.com/v1/customers email=a%40b.c&metadata%5Bk%5D=v"},
		{"stripe", "payment_intents.create", `{"amount":2000,"currency":"usd","expand[]":["customer"]}`, "POST https://api.stripe.com/v1/payment_intents amount=2000&currency=usd&expand%5B%5D=customer"},
		{"stripe", "refunds.create", `{"charge":"ch_1"}`, "POST https://api.stripe.com/v1/refunds charge=ch_1"},
		{"stripe", "charges.list", `{"limit":3}`, "GET https://api.stripe.com/v1/charges?limit=3"},
		{"stripe", "customers.get", `{"customer":"cus_1"}`, "GET https://api.stripe.com/v1/customers/cus_1"},
		{"shopify", "orders.list", `{"status":"any"}`, "GET https://my-store.myshopify.com/admin/api/2026-10/orders.json?status=any"},
		{"shopify", "products.get", `{"product_id":632910392}`, "GET https://my-store.myshopify.com/admin/api/2026-10/products/632910392.json"},
		{"shopify", "graphql", `{"query":"{shop{name}}"}`, `POST https://my-store.myshopify.com/admin/api/2026-10/graphql.json {"query":"{shop{name}}"}`},
		{"openai", "chat.completions", `{"model":"m","temperature":0.10,"stream":true}`, `POST https://api.openai.com/v1/chat/completions {"model":"m","temperature":0.10,"stream":true}`},
		{"openai", "models.get", `{"model":"ft:gpt:org"}`, "GET https://api.openai.com/v1/models/ft%3Agpt%3Aorg"},
		{"openai", "embeddings.create", `{"input":"x"}`, `POST https://api.openai.com/v1/embeddings {"input":"x"}`},
		{"anthropic", "messages.create", `{"model":"m","max_tokens":10}`, `POST https://api.anthropic.com/v1/messages {"model":"m","max_tokens":10}`},
		{"anthropic", "models.list", `{"limit":5}`, "GET https://api.anthropic.com/v1/models?limit=5"},
		{"agentmail", "messages.send", `{"inbox_id":"a@agentmail.to","to":"b@c.d"}`, `POST https://api.agentmail.to/v0/inboxes/a%40agentmail.to/messages/send {"to":"b@c.d"}`},
		{"posthog", "query", `{"project_id":12,"query":{"kind":"HogQLQuery"}}`, `POST https://us.posthog.com/api/projects/12/query/ {"query":{"kind":"HogQLQuery"}}`},
		{"railway", "graphql", `{"query":"query{me{name}}"}`, `POST https://backboard.railway.com/graphql/v2 {"query":"query{me{name}}"}`},
	} {
		c := compiled(t, tc.template)
		e := c.Endpoint(tc.action)
		if e == nil {
			t.Errorf("%s has no action %s", tc.template, tc.action)
			continue
		}
		p, r := e.Plan([]byte(tc.params))
		if r != nil {
			t.Errorf("%s %s: %v", tc.template, tc.action, r)
			continue
		}
		got := p.Method + " " + p.Upstream
		if p.RawQuery != "" {
			got += "?" + p.RawQuery
		}
		if len(p.Body) > 0 {
			got += " " + string(p.Body)
		}
		if got != tc.want {
			t.Errorf("%s %s:\n got %s\nwant %s", tc.template, tc.action, got, tc.want)
		}
	}
}

// TestMatch holds what the vendors' own clients send to the action it is.
func TestMatch(t *testing.T) {
	for _, tc := range []struct{ template, method, path, want string }{
		{"github", "GET", "/repos/o/r/contents/docs%2Freadme.md", "contents.get"}, // Octokit
		{"github", "GET", "/repos/o/r/git/ref/heads%2Fmain", "git_refs.get"},      // Octokit
		{"github", "GET", "/repos/o/r/git/ref/heads/main", "refs.get"},
		{"github", "GET", "/repos/o/r/git/ref/tags/v1", "git_refs.get"},
		{"github", "GET", "/repos/o/r/branches/a%2Fb", "branches.get"},
		{"github", "DELETE", "/repos/o/r", ""},
		{"github", "GET", "/repos/o%2Fr/issues/..", ""},
		{"github", "GET", "/repos/o/r%2Fpulls", ""},
		{"github-git", "POST", "/o/r.git/git-receive-pack", "push"},
		{"github-git", "GET", "/o/r.git/HEAD", ""},
		{"openai", "POST", "/chat/completions", "chat.completions"},
		{"openai", "POST", "/v1/chat/completions", ""},
		{"anthropic", "POST", "/v1/messages", "messages.create"},
		{"anthropic", "POST", "/v1/messages/count_tokens", "messages.count_tokens"},
		{"stripe", "POST", "/v1/customers/cus_1", "customers.update"},
		{"stripe", "GET", "/v1/customers/search", "customers.search"},
		{"shopify", "POST", "/admin/api/2026-04/graphql.json", "graphql.version"},
		{"shopify", "GET", "/admin/api/2026-10/orders/5.json", "orders.get"},
		{"shopify", "GET", "/admin/api/2026-10/orders/count.json", "orders.count"},
	} {
		got := ""
		if policy.CheckProxyPath(tc.path) == nil {
			if e, ok := compiled(t, tc.template).Match(tc.method, tc.path); ok {
				got = e.Name
			}
		}
		if got != tc.want {
			t.Errorf("%s: %s %s: got %q, want %q", tc.template, tc.method, tc.path, got, tc.want)
		}
	}
}

// What each API wants its key in, and which headers its clients choose.
func TestHeaders(t *testing.T) {
	for name, want := range map[string]string{
		"agentmail":  "Authorization Bearer | ",
		"anthropic":  "X-Api-Key  | Anthropic-Beta,Anthropic-Version",
		"github":     "Authorization Bearer | Git-Protocol,X-Github-Api-Version",
		"github-git": "  | Git-Protocol", // Basic, see its golden file
		"openai":     "Authorization Bearer | Openai-Beta,Openai-Organization,Openai-Project",
		"posthog":    "Authorization Bearer | ",
		"railway":    "Authorization Bearer | ",
		"shopify":    "X-Shopify-Access-Token  | ",
		"stripe":     "Authorization Bearer | Stripe-Version",
	} {
		c := compiled(t, name)
		if got := c.AuthHeader + " " + c.AuthScheme + " | " + strings.Join(c.PassHeaders, ","); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		tm, _ := Get(name)
		if tm.DisplayName == "" || tm.Description == "" || tm.SecretHint == "" || len(tm.DefaultScopes) == 0 {
			t.Errorf("%s does not say what it is: %+v", name, tm)
		}
	}
	if v := compiled(t, "anthropic").Endpoint("messages.create").DefaultHeaders["Anthropic-Version"]; v != "2023-06-01" {
		t.Errorf("anthropic-version: %q", v)
	}
	shopify, _ := Get("shopify")
	if _, err := shopify.Instantiate(nil); err == nil || !strings.Contains(err.Error(), "VARIABLES_REQUIRED:store") {
		t.Errorf("an unfilled variable: %v", err)
	}
}
