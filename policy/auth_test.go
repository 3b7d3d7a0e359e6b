package policy

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/refusal"
)

// auth is a service file with this auth list, a secretRef and a POST.
func auth(list string, more ...string) string {
	members := []string{`"secretRef":"key"`, `"auth":` + list, `"endpoints":{"a":{"method":"POST","path":"/a"}}`}
	for _, m := range more {
		key, _, _ := strings.Cut(strings.TrimPrefix(m, "-"), ":")
		members = slices.DeleteFunc(members, func(o string) bool { return strings.HasPrefix(o, key+":") })
		if !strings.HasPrefix(m, "-") {
			members = append(members, m)
		}
	}
	return minimal(members...)
}

func sign(members string) string {
	return auth(`[{"in":"sign","name":"X-Sig"` + members + `}]`)
}

const secretBase = `"baseUrl":"https://api.example.com/bot{secret}"`

// badAuth are the services that must not load, and what they are told.
var badAuth = []struct{ data, code, text string }{
	// The list.
	{auth(`{}`), "AUTH_INVALID", "auth: "},
	{auth(`"header"`), "AUTH_INVALID", "auth: "},
	{auth(`[]`), "AUTH_INVALID", "auth is empty"},
	{auth(`["header"]`), "AUTH_INVALID", "auth.0"},
	{auth(`[{"in":"header","name":"x","nope":1}]`), "FIELD_UNKNOWN:nope", "auth.0.nope"},
	{auth(`[{"in":"header","name":"x","In":"query"}]`), "FIELD_UNKNOWN:In", "auth.0.In"},
	{auth(`[{"in":"header","in":"query"}]`), "JSON_DUPLICATE_KEY", ""},
	{auth(`[{"in":1}]`), "AUTH_INVALID", "auth.0.in"},
	{auth(`[{}]`), "AUTH_INVALID", "in is missing"},
	{auth(`[{"in":"Header","name":"x"}]`), "AUTH_INVALID", "in is none of"},
	{auth(`[{"in":"cookie","name":"x"}]`), "AUTH_INVALID", "in is none of"},
	{auth(`[` + strings.Repeat(`{"in":"path"},`, 16) + `{"in":"path"}]`), "AUTH_INVALID", "more than 16"},
	{auth(`[{"in":"header","name":"x"}]`, `"authHeader":"x"`), "AUTH_INVALID", "auth and authHeader"},
	{auth(`[{"in":"header","name":"x"}]`, `"authScheme":""`), "AUTH_INVALID", "auth and authHeader"},

	// Whose secret.
	{auth(`[{"in":"header","name":"x"}]`, `-"secretRef"`), "SECRETREF_REQUIRED", "secretRef is missing"},
	{auth(`[{"in":"header","name":"x","value":"{secret:other}"}]`), "SECRETREF_INVALID", "never uses {secret}"},
	{auth(`[{"in":"header","name":"x","value":"{secret:other}"}]`, `-"secretRef"`, `"secretByAgent":{"a":"b"}`), "SECRETBYAGENT_INVALID", "never uses {secret}"},
	{minimal(`"secretByAgent":{"*":"key"}`), "SECRETBYAGENT_INVALID", `"*"`},
	{minimal(`"secretByAgent":{"":"key"}`), "SECRETBYAGENT_INVALID", "name of an agent"},
	{minimal(`"secretByAgent":{"a\u0000":"key"}`), "SECRETBYAGENT_INVALID", "name of an agent"},
	{minimal(`"secretByAgent":{"a":"../key"}`), "SECRETBYAGENT_INVALID", "name of a secret"},
	{minimal(`"secretByAgent":{"a":""}`), "SECRETBYAGENT_INVALID", "name of a secret"},
	{minimal(`"secretByAgent":["a"]`), "SECRETBYAGENT_INVALID", ""},

	// Placeholders.
	{auth(`[{"in":"header","name":"x","value":"{secrt}"}]`), "AUTH_INVALID", "unknown placeholder {secrt}; there are {secret}"},
	{auth(`[{"in":"header","name":"x","value":"{SECRET}"}]`), "AUTH_INVALID", "unknown placeholder"},
	{auth(`[{"in":"header","name":"x","value":"{env.KEY}"}]`), "AUTH_INVALID", "unknown placeholder {env.KEY}"},
	{auth(`[{"in":"header","name":"x","value":"{http.request.host}"}]`), "AUTH_INVALID", "unknown placeholder"},
	{auth(`[{"in":"header","name":"x","value":"{signature}"}]`), "AUTH_INVALID", "unknown placeholder"},
	{auth(`[{"in":"header","name":"x","value":"{}"}]`), "AUTH_INVALID", "unknown placeholder {}"},
	{auth(`[{"in":"header","name":"x","value":"{{secret}}"}]`), "AUTH_INVALID", "brace"},
	{auth(`[{"in":"header","name":"x","value":"{secret"}]`), "AUTH_INVALID", "brace"},
	{auth(`[{"in":"header","name":"x","value":"secret}"}]`), "AUTH_INVALID", "brace"},
	{auth(`[{"in":"header","name":"x","value":"{secret:}"}]`), "AUTH_INVALID", "cannot be that of a secret"},
	{auth(`[{"in":"header","name":"x","value":"{secret:a/b}"}]`), "AUTH_INVALID", "cannot be that of a secret"},
	{auth(`[{"in":"header","name":"x","value":"no secret"}]`), "AUTH_INVALID", "value has no {secret}"},
	{auth(`[{"in":"header","name":"x","value":"` + strings.Repeat("a", 4097) + `"}]`), "AUTH_INVALID", "longer than"},
	{minimal(`"headers":{"X-A":"Key {secret}"}`), "HEADERS_INVALID", "{secret}, which is for auth"},

	// Headers.
	{auth(`[{"in":"header"}]`), "AUTH_INVALID", "auth[0] (header): name is missing"},
	{auth(`[{"in":"header","name":"a b"}]`), "AUTH_INVALID", "not the name of a header"},
	{auth(`[{"in":"header","name":"x\r\ny"}]`), "AUTH_INVALID", "not the name of a header"},
	{auth(`[{"in":"header","name":"Host"}]`), "AUTH_INVALID", "may not be Host"},
	{auth(`[{"in":"header","name":"content-length"}]`), "AUTH_INVALID", "may not be Content-Length"},
	{auth(`[{"in":"header","name":"Content-Type"}]`), "AUTH_INVALID", "may not be"},
	{auth(`[{"in":"header","name":"X-Forwarded-For"}]`), "AUTH_INVALID", "may not be"},
	{auth(`[{"in":"header","name":"Sec-WebSocket-Key"}]`), "AUTH_INVALID", "may not be"},
	{auth(`[{"in":"header","name":"x","value":"{secret}\r\nX-B: c"}]`), "AUTH_INVALID", "control character"},
	{auth(`[{"in":"header","name":"x","value":"é{secret}"}]`), "AUTH_INVALID", "not ASCII"},
	{auth(`[{"in":"header","name":"x","value":" {secret}"}]`), "AUTH_INVALID", "space"},
	{auth(`[{"in":"header","name":"x","value":"{secret} "}]`), "AUTH_INVALID", "space"},
	{auth(`[{"in":"header","name":"x-a"},{"in":"header","name":"X-A"}]`), "AUTH_INVALID", "auth[1] (header): the header X-A is used twice"},
	{auth(`[{"in":"header","name":"x-a"},{"in":"header","name":"X_A"}]`), "AUTH_INVALID", "used twice"},
	{auth(`[{"in":"header","name":"x","user":"me"}]`), "AUTH_INVALID", "user belongs to basic"},
	{auth(`[{"in":"header","name":"x","pointer":"/a"}]`), "AUTH_INVALID", "pointer belongs to body"},
	{auth(`[{"in":"header","name":"x"}]`, `"headers":{"X":"y"}`), "HEADERS_INVALID", "carries a credential"},
	{auth(`[{"in":"header","name":"x"}]`, `"passHeaders":["x"]`), "PASSHEADERS_INVALID", "carries a credential"},
	{auth(`[{"in":"sign","name":"X-S","signed":"{timestamp}","timestampHeader":"X-T"}]`, `"passHeaders":["X-T"]`), "PASSHEADERS_INVALID", "carries a credential"},

	// Basic.
	{auth(`[{"in":"basic"}]`), "AUTH_INVALID", "neither user nor password"},
	{auth(`[{"in":"basic","user":"me"}]`), "AUTH_INVALID", "neither user nor password"},
	{auth(`[{"in":"basic","user":"a:b","password":"{secret}"}]`), "AUTH_INVALID", "colon"},
	{auth(`[{"in":"basic","user":"a\n","password":"{secret}"}]`), "AUTH_INVALID", "control"},
	{auth(`[{"in":"basic","name":"x","password":"{secret}"}]`), "AUTH_INVALID", "name belongs to"},
	{auth(`[{"in":"basic","password":"{secret}"},{"in":"header","name":"authorization"}]`), "AUTH_INVALID", "used twice"},
	{auth(`[{"in":"header","name":"authorization"},{"in":"basic","password":"{secret}"}]`), "AUTH_INVALID", "used twice"},

	// Query.
	{auth(`[{"in":"query"}]`), "AUTH_INVALID", "name is missing"},
	{auth(`[{"in":"query","name":"a&b"}]`), "AUTH_INVALID", "name is not"},
	{auth(`[{"in":"query","name":"a[]"}]`), "AUTH_INVALID", "name is not"},
	{auth(`[{"in":"query","name":"a=b"}]`), "AUTH_INVALID", "name is not"},
	{auth(`[{"in":"query","name":"` + strings.Repeat("a", 64) + `"}]`), "AUTH_INVALID", "longer than"},
	{auth(`[{"in":"query","name":"key"},{"in":"query","name":"KEY"}]`), "AUTH_INVALID", "used twice"},
	{auth(`[{"in":"query","name":"a.b"},{"in":"query","name":"a_b"}]`), "AUTH_INVALID", "used twice"},

	// Path.
	{auth(`[{"in":"path"}]`), "AUTH_INVALID", "baseUrl has no {secret}"},
	{auth(`[{"in":"path","name":"x"}]`, secretBase), "AUTH_INVALID", "name belongs to"},
	{auth(`[{"in":"path"},{"in":"path"}]`, secretBase), "AUTH_INVALID", "path is used twice"},
	{auth(`[{"in":"header","name":"x"}]`, secretBase), "BASEURL_INVALID", `auth has no entry {"in":"path"}`},
	{base("https://api.example.com/bot{secret}"), "BASEURL_INVALID", `auth has no entry`},
	{auth(`[{"in":"path"}]`, `"baseUrl":"https://{secret}.example.com/"`), "BASEURL_INVALID", "outside of its path"},
	{auth(`[{"in":"path"}]`, `"baseUrl":"https://api.example.com:{secret}/"`), "BASEURL_INVALID", "outside of its path"},
	{auth(`[{"in":"path"}]`, `"baseUrl":"{secret}://api.example.com/"`), "BASEURL_INVALID", "outside of its path"},
	{auth(`[{"in":"path"}]`, `"baseUrl":"https://api.example.com{secret}"`), "BASEURL_INVALID", "outside of its path"},
	{auth(`[{"in":"path"}]`, `"baseUrl":"https://api.example.com/?k={secret}"`), "BASEURL_INVALID", "query"},
	{auth(`[{"in":"path"}]`, `"baseUrl":"https://api.example.com/{secret}/{secret}"`), "BASEURL_INVALID", "brace"},
	{auth(`[{"in":"path"}]`, `"baseUrl":"https://api.example.com/{key}"`), "BASEURL_INVALID", "unknown placeholder {key}"},
	{auth(`[{"in":"path"}]`, `"baseUrl":"https://api.example.com/{secret"`), "BASEURL_INVALID", "brace"},
	{auth(`[{"in":"path"}]`, `"baseUrl":"https://api.example.com/a}{secret}"`), "BASEURL_INVALID", "brace"},
	{auth(`[{"in":"path"}]`, `"baseUrl":"https://api.example.com/0secret0/{secret}"`), "BASEURL_INVALID", "0secret0"},
	{auth(`[{"in":"path"}]`, `"baseUrl":"https://api.example.com/../{secret}"`), "BASEURL_INVALID", "bad path"},
	{auth(`[{"in":"path"}]`, secretBase, `"endpoints":{"a":{"method":"GET","path":"/x/{secret}"}}`), "ENDPOINT_INVALID:a", "stands in baseUrl"},

	// Body.
	{auth(`[{"in":"body"}]`), "AUTH_INVALID", "pointer"},
	{auth(`[{"in":"body","name":"a","pointer":"/a"}]`), "AUTH_INVALID", "both set"},
	{auth(`[{"in":"body","pointer":"token"}]`), "AUTH_INVALID", "does not begin with a slash"},
	{auth(`[{"in":"body","pointer":"/"}]`), "AUTH_INVALID", "pointer has a name"},
	{auth(`[{"in":"body","pointer":"/a//b"}]`), "AUTH_INVALID", "pointer has a name"},
	{auth(`[{"in":"body","pointer":"/a~2"}]`), "AUTH_INVALID", "~"},
	{auth(`[{"in":"body","pointer":"/a/b/c/d/e/f/g/h/i"}]`), "AUTH_INVALID", "deeper than"},
	{auth(`[{"in":"body","pointer":"/a"},{"in":"body","pointer":"/A"}]`), "AUTH_INVALID", "twice"},
	{auth(`[{"in":"body","pointer":"/a/b"},{"in":"body","pointer":"/a/c"}]`), "AUTH_INVALID", "same member a"},
	{auth(`[{"in":"body","pointer":"/a"},{"in":"body","name":"b"}]`), "AUTH_INVALID", "JSON or a form"},
	{auth(`[{"in":"body","pointer":"/a"}]`, `"endpoints":{"a":{"method":"GET","path":"/a"}}`), "ENDPOINT_INVALID:a", "GET has none"},
	{auth(`[{"in":"body","pointer":"/a"}]`, `"endpoints":{"a":{"method":"POST","path":"/a","body":"form"}}`), "ENDPOINT_INVALID:a", "sends a form"},
	{auth(`[{"in":"body","name":"a"}]`), "ENDPOINT_INVALID:a", `set "body":"form"`},

	// Signatures.
	{auth(`[{"in":"sign","signed":"{body}"}]`), "AUTH_INVALID", "name is missing"},
	{sign(``), "AUTH_INVALID", "signed is missing"},
	{sign(`,"signed":"constant"`), "AUTH_INVALID", "no placeholder"},
	{sign(`,"signed":"{bdy}"`), "AUTH_INVALID", "unknown placeholder {bdy}"},
	{sign(`,"signed":"{body:md5}"`), "AUTH_INVALID", "sha256, sha1 or sha512"},
	{sign(`,"signed":"{header:a b}"`), "AUTH_INVALID", "names no header"},
	{sign(`,"signed":"{header}"`), "AUTH_INVALID", "names no header"},
	{sign(`,"signed":"{method:x}"`), "AUTH_INVALID", "nothing behind a colon"},
	{sign(`,"signed":"{body}","value":"x"`), "AUTH_INVALID", "exactly one {signature}"},
	{sign(`,"signed":"{body}","value":"{signature}{signature}"`), "AUTH_INVALID", "exactly one {signature}"},
	{sign(`,"signed":"{body}","value":"{secret}{signature}"`), "AUTH_INVALID", "unknown placeholder {secret}"},
	{sign(`,"signed":"{body}","value":"{signature}\n"`), "AUTH_INVALID", "cannot stand in a header"},
	{sign(`,"signed":"{body}","algorithm":"md5"`), "AUTH_INVALID", "algorithm is none of"},
	{sign(`,"signed":"{body}","encoding":"hexx"`), "AUTH_INVALID", "encoding is none of"},
	{sign(`,"signed":"{body}","keyEncoding":"pem"`), "AUTH_INVALID", "keyEncoding is none of"},
	{sign(`,"signed":"{body}","key":"abc"`), "AUTH_INVALID", "key has no {secret}"},
	{sign(`,"signed":"{body}","key":"x{secret}","keyEncoding":"hex"`), "AUTH_INVALID", "more than one {secret}"},
	{sign(`,"signed":"{timestamp}{body}"`), "AUTH_INVALID", "sent nowhere"},
	{sign(`,"signed":"{body}","timestampFormat":"unix"`), "AUTH_INVALID", "there is no time stamp"},
	{sign(`,"signed":"{timestamp}","timestampHeader":"X-T","timestampFormat":"ms"`), "AUTH_INVALID", "timestampFormat is none of"},
	{sign(`,"signed":"{body}","timestampHeader":"X-Sig"`), "AUTH_INVALID", "used twice"},
	{sign(`,"signed":"{body}","timestampHeader":"Date"`), "AUTH_INVALID", "may not be Date"},
	{sign(`,"signed":"{body}","password":"x"`), "AUTH_INVALID", "password belongs to basic"},
}

func TestBadAuth(t *testing.T) {
	for _, tt := range badAuth {
		_, err := ParseService("svc", []byte(tt.data))
		var r *refusal.Refusal
		if !errors.As(err, &r) {
			t.Errorf("loads: %s", tt.data)
			continue
		}
		if r.Code != tt.code || !strings.Contains(r.Detail, tt.text) {
			t.Errorf("%s:\ngot  %s: %s\nwant %s: …%s…", tt.data, r.Code, r.Detail, tt.code, tt.text)
		}
	}
}

func TestGoodAuth(t *testing.T) {
	for _, tt := range []struct {
		data string
		refs string
	}{
		{auth(`[{"_why":"a comment","in":"header","name":"x-api-key"}]`), "key"},
		{auth(`[{"in":"header","name":"Cookie","value":"session={secret}"}]`), "key"},
		{auth(`[{"in":"basic","user":"{secret:id}","password":"{secret}"}]`), "id key"},
		{auth(`[{"in":"basic","user":"{secret}"}]`), "key"},
		{auth(`[{"in":"query","name":"key"},{"in":"header","name":"x","value":"{secret:b}"}]`), "b key"},
		{auth(`[{"in":"path"}]`, secretBase), "key"},
		{auth(`[{"in":"path"}]`, `"baseUrl":"https://api.example.com/{secret:hook}/x"`, `-"secretRef"`), "hook"},
		{auth(`[{"in":"body","pointer":"/a~1b/c"}]`), "key"},
		{auth(`[{"in":"body","name":"token"}]`, `"endpoints":{"a":{"method":"POST","path":"/a","body":"form"}}`), "key"},
		{sign(`,"signed":"{timestamp}.{body}","value":"t={timestamp},v1={signature}"`), "key"},
		{auth(`[{"in":"sign","name":"X-Sig","key":"{secret:k}","keyEncoding":"base64","signed":"{secret:id}{method}"}]`, `-"secretRef"`), "id k"},
		{minimal(`"secretByAgent":{"a":"x","b":"y"}`), "x y"},
		{minimal(`"secretByAgent":{"a":"x","_b":"y"}`, `"secretRef":"z"`), "x y z"},
	} {
		c, err := ParseService("svc", []byte(tt.data))
		if err != nil {
			t.Errorf("%s: %v", tt.data, err)
			continue
		}
		if got := strings.Join(c.SecretRefs(), " "); got != tt.refs {
			t.Errorf("%s uses %s, want %s", tt.data, got, tt.refs)
		}
		for _, ref := range c.SecretRefs() {
			if !c.UsesSecret(ref) || len(c.UsesFor(ref)) == 0 {
				t.Errorf("%s: %s is of no use", tt.data, ref)
			}
		}
	}
}

func TestSecretByAgent(t *testing.T) {
	c, err := ParseService("svc", []byte(minimal(`"allowedAgents":["*"]`, `"secretByAgent":{"tony":"tonys"}`)))
	if err != nil {
		t.Fatal(err)
	}
	if _, r := c.DecideAction(Agent{ID: "tony"}, "a"); r != nil || c.SecretFor(0, "tony") != "tonys" {
		t.Errorf("tony: %v, %s", r, c.SecretFor(0, "tony"))
	}
	for _, agent := range []string{"steve", "Tony", "tony ", ""} {
		if _, r := c.DecideAction(Agent{ID: agent}, "a"); r == nil || r.Code != "POLICY_DENY" || !strings.Contains(r.Hint, "secretByAgent") {
			t.Errorf("%q: %v", agent, r)
		}
		if r := c.DecideIssue(Agent{ID: agent}, []string{"s:read"}); r == nil || r.Code != "POLICY_DENY" {
			t.Errorf("%q gets a token: %v", agent, r)
		}
	}
}

func bodyService(t testing.TB, list string) *Compiled {
	t.Helper()
	body := "json"
	if strings.Contains(list, `"name"`) {
		body = "form"
	}
	c, err := ParseService("svc", []byte(auth(list, `"endpoints":{"a":{"method":"POST","path":"/a","body":"`+body+`"}}`)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// filled is what a plan makes with VALUE for every secret.
func filled(p BodyPlan) string {
	var b strings.Builder
	done := 0
	for _, in := range p.Inserts {
		value := "VALUE"
		if in.JSON {
			value = `"VALUE"`
		}
		b.WriteString(string(p.Body[done:in.At]) + in.Before + value + in.After)
		done = in.At
	}
	b.Write(p.Body[done:])
	return b.String()
}

func TestPlanBody(t *testing.T) {
	const one, deep, two, form = `[{"in":"body","pointer":"/token"}]`, `[{"in":"body","pointer":"/auth/api_key"}]`,
		`[{"in":"body","pointer":"/a"},{"in":"body","pointer":"/b/c","value":"{secret:x}"}]`, `[{"in":"body","name":"token"},{"in":"body","name":"id","value":"{secret:x}"}]`
	const jsonType, formType = "application/json", "application/x-www-form-urlencoded"
	for _, tt := range []struct{ list, typ, enc, body, want, code string }{
		{one, jsonType, "", `{}`, `{"token":"VALUE"}`, ""},
		{one, "", "", ``, `{"token":"VALUE"}`, ""},
		{one, "application/json; charset=UTF-8", "identity", `{"a":[{"token":1}]}`, `{"token":"VALUE","a":[{"token":1}]}`, ""},
		{one, "application/vnd.x+json", "", "\t{ \"text\" : \"{secret}\" }\n", "\t{\"token\":\"VALUE\", \"text\" : \"{secret}\" }\n", ""},
		{one, jsonType, "", `{"n":1e400,"big":12345678901234567890.10}`, `{"token":"VALUE","n":1e400,"big":12345678901234567890.10}`, ""},
		{deep, jsonType, "", `{"x":1}`, `{"auth":{"api_key":"VALUE"},"x":1}`, ""},
		{deep, jsonType, "", `{"x":1,"auth":{}}`, `{"x":1,"auth":{"api_key":"VALUE"}}`, ""},
		{deep, jsonType, "", `{"auth": {"y":2}, "x":1}`, `{"auth": {"api_key":"VALUE","y":2}, "x":1}`, ""},
		{two, jsonType, "", `{}`, `{"a":"VALUE","b":{"c":"VALUE"}}`, ""},
		{two, jsonType, "", `{"z":0}`, `{"a":"VALUE","b":{"c":"VALUE"},"z":0}`, ""},
		{two, jsonType, "", `{"b":{"d":1}}`, `{"a":"VALUE","b":{"c":"VALUE","d":1}}`, ""},
		{form, formType, "", `a=1&b`, `a=1&b&token=VALUE&id=VALUE`, ""},
		{form, formType, "", `a=1&`, `a=1&token=VALUE&id=VALUE`, ""},
		{form, "", "", ``, `token=VALUE&id=VALUE`, ""},

		{one, jsonType, "", `{"token":"mine"}`, "", "PARAM_INVALID:token"},
		{one, jsonType, "", `{"a":1,"Token":"mine"}`, "", "PARAM_INVALID:Token"},
		{one, jsonType, "", `{"to\u006ben":null}`, "", "PARAM_INVALID:token"},
		{one, jsonType, "", "{\"to\u212aen\":1}", "", "PARAM_INVALID:to?en"},
		{one, jsonType, "", `{"token[]":1}`, "", "PARAM_INVALID:token[]"},
		{deep, jsonType, "", `{"Auth":{}}`, "", "PARAM_INVALID:Auth"},
		{deep, jsonType, "", `{"auth":{},"AUTH":{"api_key":"x"}}`, "", "PARAM_INVALID:AUTH"},
		{deep, jsonType, "", `{"auth":"x"}`, "", "PARAM_INVALID:auth"},
		{deep, jsonType, "", `{"auth":null}`, "", "PARAM_INVALID:auth"},
		{deep, jsonType, "", `{"auth":{"API-KEY":1}}`, "", "PARAM_INVALID:API-KEY"},
		{one, jsonType, "", `[]`, "", "JSON_INVALID"},
		{one, jsonType, "", `null`, "", "JSON_INVALID"},
		{one, jsonType, "", `{} {}`, "", "JSON_INVALID"},
		{one, jsonType, "", ` `, "", "JSON_INVALID"},
		{one, jsonType, "", "\ufeff{}", "", "JSON_INVALID"},
		{one, jsonType, "", "{\"a\":\"\xff\"}", "", "JSON_INVALID"},
		{one, jsonType, "", `{"a":1,"a":2}`, "", "JSON_DUPLICATE_KEY"},
		{one, jsonType, "", `{"b":{"a":1,"a":2}}`, "", "JSON_DUPLICATE_KEY"},
		{one, jsonType, "", strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65), "", "JSON_INVALID"},
		{one, jsonType, "gzip", `{}`, "", "UNSUPPORTED_MEDIA_TYPE"},
		{one, "text/plain", "", `{}`, "", "UNSUPPORTED_MEDIA_TYPE"},
		{one, "", "", `{}`, "", "UNSUPPORTED_MEDIA_TYPE"},
		{one, "application/json; charset=utf-16", "", `{}`, "", "UNSUPPORTED_MEDIA_TYPE"},
		{one, formType, "", `a=1`, "", "UNSUPPORTED_MEDIA_TYPE"},
		{form, jsonType, "", `{}`, "", "UNSUPPORTED_MEDIA_TYPE"},
		{form, formType, "", `token=x`, "", "PARAM_INVALID:token"},
		{form, formType, "", `a=1&%54oken=x`, "", "PARAM_INVALID:Token"},
		{form, formType, "", `a=1;token=x`, "", "PARAM_INVALID:token"},
		{form, formType, "", `token[0]=x`, "", "PARAM_INVALID:token[0]"},
		{form, formType, "", `+token=x`, "", "PARAM_INVALID:?token"},
		{form, formType, "", `ID`, "", "PARAM_INVALID:ID"},
	} {
		c := bodyService(t, tt.list)
		var typ, enc []string
		if tt.typ != "" {
			typ = []string{tt.typ}
		}
		if tt.enc != "" {
			enc = []string{tt.enc}
		}
		plan, r := c.PlanBody(typ, enc, []byte(tt.body))
		switch {
		case r != nil && r.Code != tt.code, r == nil && tt.code != "":
			t.Errorf("%s %q: %v, want %s", tt.list, tt.body, r, tt.code)
		case r == nil && filled(plan) != tt.want:
			t.Errorf("%s %q: %s, want %s", tt.list, tt.body, filled(plan), tt.want)
		}
	}
}

// FuzzPlanBody looks for a body that is sent with more than was put into it,
// or in which the vault's value is not the one that a reader finds.
func FuzzPlanBody(f *testing.F) {
	for _, s := range []string{`{}`, `{"auth":{"x":1}}`, `{"Auth":{}}`, `{"auth":{"api_key":1}}`, ` {"a":[1,{"auth":2}]} `, `{"\u0061uth":{}}`} {
		f.Add(s)
	}
	c := bodyService(f, `[{"in":"body","pointer":"/auth/api_key"},{"in":"body","pointer":"/id","value":"{secret:x}"}]`)
	f.Fuzz(func(t *testing.T, body string) {
		plan, r := c.PlanBody([]string{"application/json"}, nil, []byte(body))
		if r != nil {
			return
		}
		out := []byte(filled(plan))
		if err := jsontext.NewDecoder(strings.NewReader(string(out))).SkipValue(); err != nil {
			t.Fatalf("%q becomes %s: %v", body, out, err)
		}
		// Go's decoder ignores case: what it finds is what a lax server does.
		var got struct {
			Auth struct {
				Key string `json:"api_key"`
			} `json:"auth"`
			ID string `json:"id"`
		}
		if err := json.Unmarshal(out, &got); err != nil || got.Auth.Key != "VALUE" || got.ID != "VALUE" {
			t.Fatalf("%q becomes %s: %v %+v", body, out, err, got)
		}
	})
}

// FuzzAuth looks for an auth list that loads and holds a placeholder that is
// sent as it is, or that panics.
func FuzzAuth(f *testing.F) {
	for _, tt := range badAuth {
		if c, r := decodeService("svc", []byte(tt.data)); r == nil {
			for _, a := range c.Auth {
				f.Add(a.In, a.Name, a.Value, a.Signed, a.Pointer)
			}
		}
	}
	f.Fuzz(func(t *testing.T, in, name, value, signed, pointer string) {
		list, err := json.Marshal([]map[string]string{{"in": in, "name": name, "value": value, "signed": signed, "pointer": pointer}})
		if err != nil {
			return
		}
		c, err := ParseService("svc", []byte(auth(string(list))))
		if err != nil {
			return
		}
		for _, p := range c.Places {
			texts := []Text{p.Value, p.User, p.Password}
			if p.Sign != nil {
				texts = append(texts, p.Sign.Signed, p.Sign.Key)
			}
			for _, text := range texts {
				for _, piece := range text {
					if strings.ContainsAny(piece.Lit, "{}") {
						t.Fatalf("%s sends %q", list, piece.Lit)
					}
				}
			}
		}
	})
}
