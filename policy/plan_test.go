package policy

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func planService(t testing.TB) *Compiled {
	c := service(t, "https://api.example.com/base", map[string]string{
		"get":    "GET /items/{id} r",
		"list":   "GET /items r",
		"me":     "GET /items/me w",
		"subs":   "GET /items/{id}/secrets w",
		"json":   "GET /items/{id}.json r",
		"files":  "GET /files/{path...} r",
		"tail":   "GET /tail/{b...}/end r",
		"dotted": "GET /dotted/{a}..{b} r",
		"semi":   "GET /semi/.{a} r",
		"tree":   "GET /tree/* r",
		"create": "POST /items r",
		"put":    "PUT /items/{id} r",
		"patch":  "PATCH /items/{id} r",
		"delete": "DELETE /items/{id} r",
		"form":   "POST /form/{id} r body=form",
		"query":  "POST /query r body=query",
		"none":   "POST /none/{id} r body=none",
		"search": "GET /search r body=json",
		"head":   "HEAD /items/{id} r",
		"delf":   "DELETE /form/{id} r body=form",
	})
	c.reserve("api_key")
	return c
}

func TestPlan(t *testing.T) {
	c := planService(t)
	for _, tc := range []struct {
		action, params string
		want           string // "METHOD path?query|content type|body"
	}{
		// Paths.
		{"get", `{"id":"a"}`, "GET /base/items/a||"},
		{"get", `{"id":7}`, "GET /base/items/7||"},
		{"get", `{"id":12345678901234567890}`, "GET /base/items/12345678901234567890||"},
		{"get", `{"id":1.50}`, "GET /base/items/1.50||"},
		{"get", `{"id":1e+2}`, "GET /base/items/1e%2B2||"},
		{"get", `{"id":-0}`, "GET /base/items/-0||"},
		{"get", `{"id":"a b"}`, "GET /base/items/a%20b||"},
		{"get", `{"id":"a+b"}`, "GET /base/items/a%2Bb||"},
		{"get", `{"id":"a/b"}`, "GET /base/items/a%2Fb||"},
		{"get", `{"id":"a?b#c&d=e"}`, "GET /base/items/a%3Fb%23c%26d%3De||"},
		{"get", `{"id":"100%"}`, "GET /base/items/100%25||"},
		{"get", `{"id":"%41"}`, "GET /base/items/%2541||"},
		{"get", `{"id":"caf\u00e9"}`, "GET /base/items/caf%C3%A9||"},
		{"get", `{"id":"😀"}`, "GET /base/items/%F0%9F%98%80||"},
		{"get", `{"id":"..."}`, "GET /base/items/...||"},
		{"get", `{"id":"..a"}`, "GET /base/items/..a||"},
		{"get", `{"id":"{id}"}`, "GET /base/items/%7Bid%7D||"},
		{"get", `{"id":"{env.HOME}"}`, "GET /base/items/%7Benv.HOME%7D||"},
		{"get", `{"id":"https://evil"}`, "GET /base/items/https%3A%2F%2Fevil||"},
		{"get", `{"id":"a;b"}`, "GET /base/items/a%3Bb||"},
		{"get", `{"id":"a\\b"}`, `GET /base/items/a%5Cb||`},
		{"get", `{"id":"a@b:c"}`, "GET /base/items/a%40b%3Ac||"},
		{"get", `{"id":"*"}`, "GET /base/items/%2A||"},
		{"json", `{"id":5}`, "GET /base/items/5.json||"},
		{"files", `{"path":"a"}`, "GET /base/files/a||"},
		{"files", `{"path":"a/b c/d.md"}`, "GET /base/files/a/b%20c/d.md||"},
		{"files", `{"path":"a%2Fb"}`, "GET /base/files/a%252Fb||"},
		{"files", `{"path":3}`, "GET /base/files/3||"},
		{"files", `{"path":".github/x"}`, "GET /base/files/.github/x||"},
		{"tail", `{"b":"x/y"}`, "GET /base/tail/x/y/end||"},
		{"dotted", `{"a":"v1","b":"v2"}`, "GET /base/dotted/v1..v2||"},
		{"tree", `{"*":"a/b"}`, "GET /base/tree/a/b||"},
		{"tree", `{"*":""}`, "GET /base/tree/||"},

		// Queries.
		{"list", ``, "GET /base/items||"},
		{"list", `{}`, "GET /base/items||"},
		{"list", ` { } `, "GET /base/items||"},
		{"list", `{"page":2,"q":"a b+c&d=e"}`, "GET /base/items?page=2&q=a%20b%2Bc%26d%3De||"},
		{"list", `{"n":1.10,"big":12345678901234567890}`, "GET /base/items?n=1.10&big=12345678901234567890||"},
		{"list", `{"t":true,"f":false,"z":null,"e":""}`, "GET /base/items?t=true&f=false&e=||"},
		{"list", `{"a":["x",1,null,true]}`, "GET /base/items?a=x&a=1&a=true||"},
		{"list", `{"a":[]}`, "GET /base/items||"},
		{"list", `{"created[gte]":5}`, "GET /base/items?created%5Bgte%5D=5||"},
		{"list", `{"x":"line\nbreak"}`, "GET /base/items?x=line%0Abreak||"},
		{"head", `{"id":"a","v":1}`, "HEAD /base/items/a?v=1||"},
		{"query", `{"a":1}`, "POST /base/query?a=1||"},
		{"query", `{}`, "POST /base/query||"},
		{"get", `{"id":"a","page":2}`, "GET /base/items/a?page=2||"},

		// JSON bodies: order, digits and spelling are the sender's.
		{"create", ``, "POST /base/items|application/json|{}"},
		{
			"create", `{"b":1.0,"a":12345678901234567890,"c":{"x":[1, 2]}}`,
			`POST /base/items|application/json|{"b":1.0,"a":12345678901234567890,"c":{"x":[1, 2]}}`,
		},
		{"create", `{"s":"\u0041\/"}`, `POST /base/items|application/json|{"s":"\u0041\/"}`},
		{"create", `{"n":null}`, `POST /base/items|application/json|{"n":null}`},
		{"put", `{"id":"x"}`, `PUT /base/items/x|application/json|{}`},
		{"put", `{"id":"x","v":1,"w":2}`, `PUT /base/items/x|application/json|{"v":1,"w":2}`},
		{"put", `{"v":1,"id":"x","w":2}`, `PUT /base/items/x|application/json|{"v":1,"w":2}`},
		{"patch", `{"id":"x"}`, `PATCH /base/items/x|application/json|{}`},
		{"delete", `{"id":"x"}`, "DELETE /base/items/x||"},
		{"delete", `{"id":"x","message":"m"}`, `DELETE /base/items/x|application/json|{"message":"m"}`},
		{"search", `{}`, "GET /base/search||"},
		{"search", `{"q":1}`, `GET /base/search|application/json|{"q":1}`},
		{"none", `{"id":"x"}`, "POST /base/none/x||"},

		// Forms.
		{"form", `{"id":"x"}`, "POST /base/form/x|application/x-www-form-urlencoded|"},
		{"form", `{"id":"x","a":"b c","n":null,"t":true}`, "POST /base/form/x|application/x-www-form-urlencoded|a=b%20c&t=true"},
		{"form", `{"id":"x","m":{"k":"v","o":{"p":1}}}`, "POST /base/form/x|application/x-www-form-urlencoded|m%5Bk%5D=v&m%5Bo%5D%5Bp%5D=1"},
		{"form", `{"id":"x","a":["p","q"]}`, "POST /base/form/x|application/x-www-form-urlencoded|a=p&a=q"},
		{"form", `{"id":"x","e[]":["p","q"]}`, "POST /base/form/x|application/x-www-form-urlencoded|e%5B%5D=p&e%5B%5D=q"},
		{
			"form", `{"id":"x","l":[{"price":"p","n":1},{"price":"q"}]}`,
			"POST /base/form/x|application/x-www-form-urlencoded|l%5B0%5D%5Bprice%5D=p&l%5B0%5D%5Bn%5D=1&l%5B1%5D%5Bprice%5D=q",
		},
		{"form", `{"id":"x","o":{}}`, "POST /base/form/x|application/x-www-form-urlencoded|"},
		{"delf", `{"id":"x"}`, "DELETE /base/form/x||"},
		{"delf", `{"id":"x","a":1}`, "DELETE /base/form/x|application/x-www-form-urlencoded|a=1"},
	} {
		p, r := c.Endpoint(tc.action).Plan([]byte(tc.params))
		if r != nil {
			t.Errorf("%s %s: %v", tc.action, tc.params, r)
			continue
		}
		got := p.Method + " " + p.EscapedPath
		if p.RawQuery != "" {
			got += "?" + p.RawQuery
		}
		got += "|" + p.ContentType + "|" + string(p.Body)
		if got != tc.want {
			t.Errorf("%s %s:\n got %s\nwant %s", tc.action, tc.params, got, tc.want)
		}
		if p.Upstream != "https://api.example.com"+p.EscapedPath {
			t.Errorf("%s: upstream %s", tc.action, p.Upstream)
		}
		checkWire(t, p)
	}
}

// checkWire sends a plan and compares what arrives with what was planned.
func checkWire(t *testing.T, p Plan) {
	t.Helper()
	path, err := url.PathUnescape(p.EscapedPath)
	if err != nil {
		t.Fatalf("%s: %v", p.EscapedPath, err)
	}
	req, err := http.NewRequest(p.Method, "http://upstream", bytes.NewReader(p.Body))
	if err != nil {
		t.Fatal(err)
	}
	req.URL = &url.URL{Scheme: "http", Host: "upstream", Path: path, RawPath: p.EscapedPath, RawQuery: p.RawQuery}
	var b bytes.Buffer
	if err := req.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadRequest(bufio.NewReader(&b))
	if err != nil {
		t.Fatalf("%s: %v", p.EscapedPath, err)
	}
	want := p.EscapedPath
	if p.RawQuery != "" {
		want += "?" + p.RawQuery
	}
	body, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got.RequestURI != want || !bytes.Equal(body, p.Body) {
		t.Errorf("planned %s %q, sent %s %q", want, p.Body, got.RequestURI, body)
	}
	if _, err := url.ParseQuery(p.RawQuery); err != nil {
		t.Errorf("query %s: %v", p.RawQuery, err)
	}
}

func TestPlanRefuses(t *testing.T) {
	c := planService(t)
	for _, tc := range []struct{ action, params, code string }{
		// Not an object, or not JSON.
		{"get", `[]`, "PARAMS_INVALID"},
		{"get", `"x"`, "PARAMS_INVALID"},
		{"get", `null`, "PARAMS_INVALID"},
		{"get", `5`, "PARAMS_INVALID"},
		{"get", `{`, "JSON_INVALID"},
		{"get", `{"id":"a"`, "JSON_INVALID"},
		{"get", `{"id":"a"} x`, "JSON_INVALID"},
		{"get", `{"id":"a"}{}`, "JSON_INVALID"},
		{"get", `{"id":01}`, "JSON_INVALID"},
		{"get", "{\"id\":\"\xff\"}", "JSON_INVALID"},
		{"get", `{"id":"\ud800"}`, "JSON_INVALID"},
		{"get", `{"id":"a","id":"b"}`, "JSON_DUPLICATE_KEY"},
		{"get", `{"id":"a","\u0069d":"b"}`, "JSON_DUPLICATE_KEY"},
		{"create", `{"a":{"b":1,"b":2}}`, "JSON_DUPLICATE_KEY"},
		{"create", `{"a":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`, "JSON_INVALID"},

		// Path parameters: absent or of the wrong type.
		{"get", ``, "MISSING_PATH_PARAM:id"},
		{"get", `{}`, "MISSING_PATH_PARAM:id"},
		{"get", `{"ID":"a"}`, "MISSING_PATH_PARAM:id"},
		{"files", `{"id":"a"}`, "MISSING_PATH_PARAM:path"},
		{"tree", `{}`, "MISSING_PATH_PARAM:*"},
		{"get", `{"id":null}`, "PARAM_INVALID:id"},
		{"get", `{"id":true}`, "PARAM_INVALID:id"},
		{"get", `{"id":["a"]}`, "PARAM_INVALID:id"},
		{"get", `{"id":{"a":1}}`, "PARAM_INVALID:id"},
		{"get", `{"id":""}`, "PARAM_INVALID:id"},
		{"files", `{"path":""}`, "PARAM_INVALID:path"},

		// Dot pieces, cut at every separator.
		{"get", `{"id":"."}`, "PARAM_INVALID:id"},
		{"get", `{"id":".."}`, "PARAM_INVALID:id"},
		{"get", `{"id":"../x"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"x/.."}`, "PARAM_INVALID:id"},
		{"get", `{"id":"x/../y"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"x/./y"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"..\\x"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"x\\.."}`, "PARAM_INVALID:id"},
		{"get", `{"id":"..;x"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"x;.."}`, "PARAM_INVALID:id"},
		{"get", `{"id":".;"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"%2e%2e"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"%2E"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"..%2fx"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"%252e%252e"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"..%5cx"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"\u002e\u002e"}`, "PARAM_INVALID:id"},
		{"files", `{"path":".."}`, "PARAM_INVALID:path"},
		{"files", `{"path":"a/../../b"}`, "PARAM_INVALID:path"},
		{"files", `{"path":"a/./b"}`, "PARAM_INVALID:path"},
		{"files", `{"path":"a/%2e%2e/b"}`, "PARAM_INVALID:path"},
		{"files", `{"path":"/etc/passwd"}`, "PARAM_INVALID:path"},
		{"files", `{"path":"a//b"}`, "PARAM_INVALID:path"},
		{"files", `{"path":"a/"}`, "PARAM_INVALID:path"},
		{"files", `{"path":"/"}`, "PARAM_INVALID:path"},
		{"tail", `{"b":"../x"}`, "PARAM_INVALID:b"},
		{"tree", `{"*":"../x"}`, "PARAM_INVALID:*"},
		{"tree", `{"*":"/"}`, "PARAM_INVALID:*"},
		{"semi", `{"a":"."}`, "PARAM_INVALID:a"},
		{"semi", `{"a":";x"}`, "PARAM_INVALID:a"},
		{"semi", `{"a":"/x"}`, "PARAM_INVALID:a"},
		{"dotted", `{"a":"x/","b":"/y"}`, "PARAM_INVALID:a"},

		// Control characters.
		{"get", `{"id":"a\u0000b"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"a\nb"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"a\r\nHost: evil"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"a\tb"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"a\u007fb"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"a\u0085b"}`, "PARAM_INVALID:id"},

		// A value that turns the path into that of a stricter action.
		{"get", `{"id":"me"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"1/secrets"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"me;x"}`, "PARAM_INVALID:id"},
		{"get", `{"id":"m%65"}`, "PARAM_INVALID:id"},

		// Names.
		{"list", `{"":1}`, "PARAM_INVALID:"},
		{"list", `{"a\u0000":1}`, "PARAM_INVALID:a?"},
		{"list", `{"a\r\nX: y":1}`, "PARAM_INVALID:a??X:?y"},
		{"list", `{"api_key":"k"}`, "PARAM_INVALID:api_key"},
		{"list", `{"API_KEY":"k"}`, "PARAM_INVALID:API_KEY"},
		{"list", `{"api_key[]":"k"}`, "PARAM_INVALID:api_key[]"},
		{"list", `{"Api_Key[0]":"k"}`, "PARAM_INVALID:Api_Key[0]"},
		{"list", `{" api.key":"k"}`, "PARAM_INVALID:?api.key"},
		{"create", `{"api_key":"k"}`, "PARAM_INVALID:api_key"},
		{"form", `{"id":"x","api_key":{"a":1}}`, "PARAM_INVALID:api_key"},

		// Values that do not fit where they go.
		{"list", `{"o":{"a":1}}`, "PARAM_INVALID:o"},
		{"list", `{"o":{}}`, "PARAM_INVALID:o"},
		{"list", `{"a":[[1]]}`, "PARAM_INVALID:a"},
		{"list", `{"a":[{"b":1}]}`, "PARAM_INVALID:a"},
		{"query", `{"o":{"a":1}}`, "PARAM_INVALID:o"},
		{"form", `{"id":"x","a":[[1]]}`, "PARAM_INVALID:a"},
		{"none", `{"id":"x","a":1}`, "PARAM_INVALID:a"},
		{"none", `{"id":"x","a":null}`, "PARAM_INVALID:a"},

		// Sizes.
		{"get", `{"id":"` + strings.Repeat("a", maxPath+1) + `"}`, "PATH_TOO_LONG"},
		{"list", `{"q":"` + strings.Repeat("a", maxQuery+1) + `"}`, "PATH_TOO_LONG"},
	} {
		p, r := c.Endpoint(tc.action).Plan([]byte(tc.params))
		if len(tc.params) > 100 {
			tc.params = tc.params[:100]
		}
		if r == nil {
			t.Errorf("%s %s: makes %+v", tc.action, tc.params, p)
			continue
		}
		if r.Code != tc.code {
			t.Errorf("%s %s: got %s, want %s", tc.action, tc.params, r.Code, tc.code)
		}
		if strings.ContainsAny(r.Code+r.Detail+r.Hint, "\r\n\x00") {
			t.Errorf("%s %s: control characters in %v", tc.action, tc.params, r)
		}
	}
}

// The parameter's value may be anything, a secret by mistake among it: it
// stays out of the refusal.
func TestPlanRefusalKeepsValue(t *testing.T) {
	c := planService(t)
	_, r := c.Endpoint("get").Plan([]byte(`{"id":"../sk-very-secret"}`))
	if r == nil || strings.Contains(r.Code+r.Detail+r.Hint, "secret") {
		t.Errorf("got %+v", r)
	}
}

func FuzzPlan(f *testing.F) {
	c := planService(f)
	for _, a := range c.Actions() {
		for _, p := range []string{`{"id":"a"}`, `{"id":"../x"}`, `{"path":"a/b","q":[1,{"b":2}]}`, `{"*":"a%2fb"}`, `{"a":"x","b":";"}`, `{"id":"a","o":{"b":null}}`} {
			f.Add(a, []byte(p))
		}
	}
	f.Fuzz(func(t *testing.T, action string, params []byte) {
		e := c.Endpoint(action)
		if e == nil {
			return
		}
		p, r := e.Plan(params)
		if r != nil {
			return
		}
		checkWire(t, p)
		under, ok := strings.CutPrefix(p.EscapedPath, "/base")
		if !ok || !strings.HasPrefix(under, "/") {
			t.Fatalf("%s leaves the base", p.EscapedPath)
		}
		// The path has the endpoint's own shape, byte for byte; only an
		// encoded backslash is allowed here and not under /proxy/.
		if !naiveSegments(patternOf(e), strings.Split(under[1:], "/")) {
			t.Fatalf("%s is not of the shape %s", under, e.Path)
		}
		if !strings.Contains(strings.ToLower(under), "5c") {
			if r := CheckProxyPath(under); r != nil && !strings.Contains(under, "%25") {
				t.Fatalf("%s: %v", under, r)
			}
		}
		if m, ok := c.Match(e.Method, under); ok && m.stricterThan(e) {
			t.Fatalf("%s of %s is %s", under, e.Name, m.Name)
		}
		if e.Body == BodyJSON && p.Body != nil {
			if _, err := readObject(p.Body); err != nil {
				t.Fatalf("%s: %v", p.Body, err)
			}
		}
	})
}
