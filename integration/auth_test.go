package integration

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// More secrets, in the forms that vendors give them.
const (
	secondSecret = "s2-0123456789/other+secret=="
	pathSecret   = "7012345678:AAH-s3cr3t_Of~a.bot"
	pemSecret    = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHt1\n-----END PRIVATE KEY-----\n"
)

// authService is a service of the stand-in with these members.
func (s *server) authService(base, members, endpoints string) string {
	return fmt.Sprintf(`{"baseUrl":%q,"allowedAgents":["main","tony"],"allowedActions":["*"],"allowedScopes":["x"],%s,"endpoints":{%s}}`,
		s.up.URL+base, members, endpoints)
}

// echo answers with all that the upstream was told, in several encodings.
func echo(w http.ResponseWriter, r *http.Request) {
	var all bytes.Buffer
	fmt.Fprintf(&all, "%s\n", r.RequestURI)
	_ = r.Header.Write(&all) // to memory
	_, _ = io.Copy(&all, r.Body)
	target, _, _ := strings.Cut(r.RequestURI, "?")
	w.Header().Set("Link", "<"+target+"?page=2>; rel=\"next\"")
	w.Header().Set("Location", r.RequestURI)
	w.Header().Set("X-Echo", url.QueryEscape(all.String()))
	fmt.Fprintf(w, "%s\n%s\n%s\n", all.String(), hex.EncodeToString(all.Bytes()), base64.StdEncoding.EncodeToString(all.Bytes()))
}

// TestEveryPlace makes calls to services whose secrets travel in every way
// there is, with the token where a client of that API has its key. The upstream
// shows back whatever it gets. That no log and no answer shows a secret or a
// token is looked at in each answer, and when the server ends.
func TestEveryPlace(t *testing.T) {
	t.Parallel()
	const get, post, form = `"get":{"method":"GET","path":"/*","requiredScope":["x"]}`,
		`"post":{"method":"POST","path":"/*","requiredScope":["x"]}`, `"post":{"method":"POST","path":"/*","body":"form","requiredScope":["x"]}`
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	jsonBody := []edit{header("Content-Type", "application/json")}
	formBody := []edit{header("Content-Type", "application/x-www-form-urlencoded")}
	s := start(t, config{})
	s.hide(secondSecret, "the second secret")
	s.hide(pathSecret, "the secret of the path")
	s.hide(strings.TrimSpace(pemSecret), "the PEM key")
	s.up.answer(echo)

	for _, tt := range []struct {
		name, base, members, endpoints string
		secret                         string
		method, path, body             string // $TOKEN is the token
		edits                          func(token string) []edit
		wantURI, wantBody              string
		wantHeader                     map[string]string
	}{
		{
			name: "header", members: `"auth":[{"in":"header","name":"X-Api-Key"},{"in":"header","name":"X-App","value":"App {secret:second};"}]`, endpoints: get,
			method: "GET", path: "/a?b=1", edits: func(token string) []edit { return []edit{header("X-Api-Key", token)} },
			wantURI: "/a?b=1", wantHeader: map[string]string{"X-Api-Key": secret, "X-App": "App " + secondSecret + ";"},
		},
		{
			name: "basic", members: `"auth":[{"in":"basic","user":"{secret:second}","password":"{secret}"}]`, endpoints: get,
			method: "GET", path: "/a", edits: func(token string) []edit { return []edit{header("Authorization", basic(token, ""))} },
			wantURI: "/a", wantHeader: map[string]string{"Authorization": basic(secondSecret, secret)},
		},
		{
			name: "query", members: `"auth":[{"in":"query","name":"key"}]`, endpoints: get,
			method: "GET", path: "/a?x=%2f&KEY=$TOKEN&y=1+2", edits: func(string) []edit { return nil },
			wantURI: "/a?x=%2f&y=1+2&key=" + strings.ReplaceAll(url.QueryEscape(secret), "+", "%20"),
		},
		{
			name: "path", base: "/bot{secret}", secret: pathSecret, members: `"auth":[{"in":"path"}]`, endpoints: get,
			method: "GET", path: "/bot$TOKEN/getMe?a=1", edits: func(string) []edit { return nil },
			wantURI: "/bot" + pathSecret + "/getMe?a=1",
		},
		{
			name: "pathheader", base: "/v1/{secret}/x", secret: pathSecret, members: `"auth":[{"in":"path"}]`, endpoints: get,
			method: "GET", path: "/getMe", edits: func(token string) []edit { return []edit{header("Vault-Token", token)} },
			wantURI: "/v1/" + pathSecret + "/x/getMe",
		},
		{
			name: "json", members: `"auth":[{"in":"body","pointer":"/auth/token"}]`, endpoints: post,
			method: "POST", path: "/a", body: `{"text":"{secret}","n":1.50}`, edits: func(token string) []edit { return append(jsonBody, bearer(token)) },
			wantURI: "/a", wantBody: `{"auth":{"token":` + quote(secret) + `},"text":"{secret}","n":1.50}`,
		},
		{
			name: "form", members: `"auth":[{"in":"body","name":"token"}]`, endpoints: form,
			method: "POST", path: "/a", body: `text=%7Bsecret%7D`, edits: func(token string) []edit { return append(formBody, bearer(token)) },
			wantURI: "/a", wantBody: "text=%7Bsecret%7D&token=" + strings.ReplaceAll(url.QueryEscape(secret), "+", "%20"),
		},
		{
			name: "sign", secret: pemSecret, members: `"auth":[{"in":"sign","name":"X-Signature","value":"sha256={signature}","signed":"{method}\n{target}\n{body}"}]`, endpoints: post,
			method: "POST", path: "/a?b=1", body: "anything", edits: func(token string) []edit { return []edit{bearer(token), header("Content-Type", "text/plain")} },
			wantURI: "/a?b=1", wantBody: "anything", wantHeader: map[string]string{"X-Signature": func() string {
				m := hmac.New(sha256.New, []byte(pemSecret))
				m.Write([]byte("POST\n/a?b=1\nanything"))
				return "sha256=" + hex.EncodeToString(m.Sum(nil))
			}()},
		},
	} {
		value := tt.secret
		if value == "" {
			value = secret
		}
		s.addService(tt.name, s.authService(tt.base, tt.members, tt.endpoints), value)
		if strings.Contains(tt.members, ":second}") {
			s.ok("/vault.admin.addSecret", `{"secretRef":"second","secret":`+quote(secondSecret)+`}`, nil)
		}
		token := s.issue("main", tt.name, "x")
		path := "/proxy/" + tt.name + strings.ReplaceAll(tt.path, "$TOKEN", token)
		got := s.do(tt.method, path, tt.body, tt.edits(token)...)
		if got.status != 200 {
			t.Errorf("%s: %d %s", tt.name, got.status, got.body)
			continue
		}
		seen := s.up.last(t)
		if seen.uri != tt.wantURI || tt.wantBody != "" && seen.body != tt.wantBody {
			t.Errorf("%s: the upstream saw %s %q", tt.name, seen.uri, seen.body)
		}
		for name, want := range tt.wantHeader {
			if seen.header.Get(name) != want {
				t.Errorf("%s: the upstream saw %s: %q", tt.name, name, seen.header.Values(name))
			}
		}
		if seen.header.Get("Vault-Token") != "" || strings.Contains(seen.uri+fmt.Sprint(seen.header)+seen.body, token) {
			t.Errorf("%s: the upstream saw the token: %s %v", tt.name, seen.uri, seen.header)
		}
		s.noSecrets(t, tt.name+"'s answer", got.body+headerText(got))
		if loc := got.header.Get("Location"); !strings.HasPrefix(loc, "/proxy/"+tt.name+"/") {
			t.Errorf("%s: Location %q", tt.name, loc)
		}

		// The same by vault.call.
		action, params := "get", `{"*":"a"}`
		if tt.method == "POST" {
			action = "post"
		}
		if got := s.call(token, tt.name, action, params); got.status != 200 {
			t.Errorf("%s: vault.call: %d %s", tt.name, got.status, got.body)
		} else {
			s.noSecrets(t, tt.name+"'s answer to vault.call", got.body+headerText(got))
		}
	}
	if list := s.ok("/vault.admin.listServices", `{}`, nil).body + s.ok("/vault.admin.getService", `{"service":"path"}`, nil).body; !strings.Contains(list, `bot{secret}`) {
		t.Errorf("services: %s", list)
	}
	var secrets struct {
		Secrets []struct {
			SecretRef string
			UpdatedAt int64
			UsedBy    []string
		}
	}
	s.ok("/vault.admin.listSecrets", `{}`, &secrets)
	for _, x := range secrets.Secrets {
		if x.SecretRef == "second" && strings.Join(x.UsedBy, " ") != "basic header" {
			t.Errorf("second is used by %v", x.UsedBy)
		}
	}
	// A secret that another service uses stays.
	s.ok("/vault.admin.removeService", `{"service":"header"}`, nil)
	token := s.issue("main", "basic", "x")
	if got := s.do("GET", "/proxy/basic/a", "", bearer(token)); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	s.ok("/vault.admin.removeService", `{"service":"basic"}`, nil)
	if got := s.post("/vault.admin.removeSecret", `{"secretRef":"second"}`, bearer(adminToken)); got.status != 404 {
		t.Errorf("second is still there: %d %s", got.status, got.body)
	}
}

// TestRefusedPlaces sends what an agent may not, to places that are the
// vault's.
func TestRefusedPlaces(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	const post = `"post":{"method":"POST","path":"/*","requiredScope":["x"]}`
	s.addService("json", s.authService("", `"auth":[{"in":"body","pointer":"/token"}]`, post), secret)
	s.addService("sign", s.authService("", `"auth":[{"in":"sign","name":"x-sig","signed":"{body}"}]`, post), secret)
	s.addService("query", s.authService("", `"auth":[{"in":"query","name":"key"}]`, post), secret)
	s.addService("path", s.authService("/bot{secret}", `"auth":[{"in":"path"}]`, post), pathSecret)
	s.addService("accounts", s.authService("", `"secretByAgent":{"tony":"tonys"},"secretRef":"shared"`, post), secret)
	s.ok("/vault.admin.addService", `{"service":"noone",`+s.authService("", `"secretByAgent":{"tony":"tonys"}`, post)[1:], nil)
	s.hide(pathSecret, "the secret of the path")
	typed := func(service string, edits ...edit) []edit {
		return append([]edit{bearer(s.issue("main", service, "x")), header("Content-Type", "application/json")}, edits...)
	}
	large := strings.Repeat("a", 8<<20+1)
	for _, r := range []refusal{
		{name: "a member", path: "/proxy/json/a", body: `{"Token":"mine"}`, edits: typed("json"), status: 400, code: "PARAM_INVALID:Token"},
		{name: "no JSON", path: "/proxy/json/a", body: `{`, edits: typed("json"), status: 400, code: "JSON_INVALID"},
		{name: "a key twice", path: "/proxy/json/a", body: `{"a":1,"a":2}`, edits: typed("json"), status: 400, code: "JSON_DUPLICATE_KEY"},
		{name: "compressed", path: "/proxy/json/a", body: `{}`, edits: typed("json", header("Content-Encoding", "gzip")), status: 415, code: "UNSUPPORTED_MEDIA_TYPE"},
		{name: "text", path: "/proxy/json/a", body: `{}`, edits: typed("json", header("Content-Type", "text/plain")), status: 415, code: "UNSUPPORTED_MEDIA_TYPE"},
		{name: "large", path: "/proxy/sign/a", body: large, edits: typed("sign"), status: 413, code: "BODY_TOO_LARGE"},
		{name: "large, length unknown", path: "/proxy/sign/a", body: large, edits: typed("sign", chunked), status: 413, code: "BODY_TOO_LARGE"},
		{name: "a parameter", path: "/proxy/query/a?key[]=x", edits: typed("query"), status: 400, code: "PARAM_INVALID:key[]"},
		{name: "two tokens", path: "/proxy/query/a?key=x", edits: typed("query"), status: 401, code: "TOKEN_INVALID"},
		{name: "no account", method: "POST", path: "/vault.issueToken", body: `{"service":"noone","scope":["x"],"agentId":"main"}`, status: 403, code: "POLICY_DENY", event: "token.issue"},
	} {
		t.Run(r.name, func(t *testing.T) {
			if r.event == "" {
				r.event = "proxy.call"
			}
			s.refused(t, r)
		})
	}
	// A placeholder that an agent sends is a text like any other.
	got := s.do("POST", "/proxy/path/{secret}?{secret}", "{secret}", typed("path")...)
	if seen := s.up.last(t); got.status != 200 || !strings.HasSuffix(seen.uri, "/%7Bsecret%7D?{secret}") || strings.Count(seen.uri+seen.body, "7012345678") != 1 {
		t.Errorf("%d %s: %s %s", got.status, got.body, seen.uri, seen.body)
	}
	// Nor can a parameter of vault.call stand in the vault's place.
	if got := s.call(s.issue("main", "json", "x"), "json", "post", `{"*":"a","token":"mine"}`); got.status != 400 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// TestAccounts is about one API with an account for each agent.
func TestAccounts(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	const tonys = "tonys-own-key-0123456789"
	s.hide(tonys, "Tony's key")
	s.addService("api", s.authService("", `"secretRef":"shared","secretByAgent":{"tony":"tonys"}`, `"get":{"method":"GET","path":"/*","requiredScope":["x"]}`), secret)
	main, tony := s.issue("main", "api", "x"), s.issue("tony", "api", "x")
	if got := s.do("GET", "/proxy/api/a", "", bearer(main)); got.status != 200 || s.up.last(t).header.Get("Authorization") != "Bearer "+secret {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := s.do("GET", "/proxy/api/a", "", bearer(tony)); got.status != 503 || got.header.Get("Vault-Error") != "MISSING_MASTER_SECRET:tonys" {
		t.Errorf("%d %s", got.status, got.body)
	}
	s.ok("/vault.admin.addSecret", `{"secretRef":"tonys","secret":"`+tonys+`"}`, nil)
	s.up.answer(echo)
	for _, who := range []struct{ token, ref, value string }{{tony, "tonys", tonys}, {main, "shared", secret}, {tony, "tonys", tonys}} {
		got := s.do("GET", "/proxy/api/a", "", bearer(who.token))
		if got.status != 200 || s.up.last(t).header.Get("Authorization") != "Bearer "+who.value {
			t.Errorf("%d %s", got.status, got.body)
		}
		if !strings.Contains(got.body, "[REDACTED:"+who.ref+"]") {
			t.Errorf("answered %s", got.body)
		}
		s.noSecrets(t, "the answer", got.body+headerText(got))
	}
	s.barrier()
	records, _ := s.auditLog(0)
	var refs []string
	for _, rec := range records {
		if rec.text("event") == "proxy.call.started" && rec.text("service") == "api" {
			refs = append(refs, rec.text("secretRef"))
		}
	}
	if strings.Join(refs, " ") != "shared tonys shared tonys" {
		t.Errorf("the log says %v", refs)
	}

	// A file cannot send Tony's key elsewhere.
	other := newUpstream(t)
	s.writeService("thief", strings.Replace(s.authService("", `"secretByAgent":{"main":"tonys"}`, `"get":{"method":"GET","path":"/*"}`), s.up.URL, other.URL, 1))
	eventually(t, "the service is there", func() bool {
		return s.post("/vault.issueToken", `{"service":"thief","scope":["x"],"agentId":"main"}`).status == 200
	})
	if got := s.do("GET", "/proxy/thief/a", "", bearer(s.issue("main", "thief", "x"))); got.status != 503 || got.header.Get("Vault-Error") != "SECRET_ORIGIN_MISMATCH:tonys" || other.count() != 0 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// TestRoot is about a service at the root of a site.
func TestRoot(t *testing.T) {
	t.Parallel()
	s := start(t, config{sites: `
http://:$PORT {
	bind 127.0.0.1
	log
	vault
}
http://:$PORT2 {
	bind 127.0.0.1
	log
	vault proxy api
}`})
	root := func(r *http.Request) { r.URL.Host = "127.0.0.1:" + s.port2; r.Host = r.URL.Host }
	r := refusal{method: "GET", path: "/v1/x", edits: []edit{root, bearer("a.b.c")}, status: 401, code: "TOKEN_INVALID", event: "proxy.call"}
	s.refused(t, r)
	github := s.issue("main", "github", "github:repos:read")
	r.edits, r.status, r.code = []edit{root, bearer(github)}, 404, "UNKNOWN_SERVICE"
	s.refused(t, r)

	s.addService("api", s.authService("/base", `"auth":[{"in":"query","name":"key"}]`, `"get":{"method":"GET","path":"/*","requiredScope":["x"]}`), secret)
	r.status, r.code = 403, "SERVICE_MISMATCH"
	s.refused(t, r)
	token := s.issue("main", "api", "x")
	s.up.answer(echo)
	for _, path := range []string{"/v1/x", "/health", "/vault.issueToken", "/vault.admin.listSecrets", "/proxy/github/x", "/.well-known/jwks.json", "/"} {
		got := s.do("GET", path+"?key="+token, "", root, noHeader("Authorization"))
		if got.status != 200 || !strings.HasPrefix(s.up.last(t).uri, "/base"+path+"?key=") {
			t.Errorf("%s: %d %s", path, got.status, got.body)
			continue
		}
		s.noSecrets(t, path, got.body+headerText(got))
		if loc := got.header.Get("Location"); loc != path {
			t.Errorf("%s: Location %q", path, loc)
		}
		if link := got.header.Get("Link"); link != "<http://127.0.0.1:"+s.port2+path+"?page=2>; rel=\"next\"" {
			t.Errorf("%s: Link %q", path, link)
		}
	}
	for _, r := range []refusal{
		{name: "another's name", edits: []edit{root, host("evil.example")}, status: 421, code: "HOST_DENIED", event: "request"},
		{name: "another's page", edits: []edit{root, header("Origin", "https://evil.example")}, status: 403, code: "ORIGIN_DENIED", event: "request"},
		{name: "no token", edits: []edit{root}, status: 401, code: "TOKEN_REQUIRED", event: "proxy.call"},
		{name: "a method", method: "DELETE", edits: []edit{root, bearer(token)}, status: 404, code: "NO_ENDPOINT", event: "proxy.call"},
		{name: "dots", path: "/a/%2e%2e/b", edits: []edit{root, bearer(token)}, status: 400, code: "PARAM_INVALID:path", event: "proxy.call"},
	} {
		t.Run(r.name, func(t *testing.T) {
			if r.method == "" {
				r.method = "GET"
			}
			if r.path == "" {
				r.path = "/health"
			}
			s.refused(t, r)
		})
	}
}
