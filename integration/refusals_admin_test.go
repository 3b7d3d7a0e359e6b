package integration

import (
	"fmt"
	"strings"
	"testing"
)

// TestRefusedAdmin is about what an administrator cannot do either.
func TestRefusedAdmin(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	var rows []refusal
	bad := func(status int, code, name, body string) {
		rows = append(rows, refusal{name: name + " " + tail(body, 60), path: "/vault.admin." + name, event: "admin." + name, status: status, code: code, body: body})
	}
	for _, name := range []string{
		"listTemplates", "loadTemplate", "addService", "updateService", "removeService", "listServices", "getService", "addSecret", "removeSecret", "listSecrets", "listRevocations", "unrevoke",
	} {
		body := `{"bogus":1}`
		switch name {
		case "addService":
			body = strings.Replace(service(""), "{", `{"service":"x","bogus":1,`, 1)
		case "updateService":
			body = `{"service":"github","bogus":1}`
		}
		bad(400, "FIELD_UNKNOWN:bogus", name, body)
	}
	bad(400, "FIELD_UNKNOWN:Service", "getService", `{"Service":"github"}`)
	bad(400, "FIELD_UNKNOWN:BaseUrl", "updateService", `{"service":"github","BaseUrl":"https://evil.example"}`)

	for _, name := range []string{"addService", "updateService", "removeService", "getService"} {
		bad(400, "SERVICE_REQUIRED", name, `{}`)
		bad(400, "SERVICE_REQUIRED", name, `{"service":""}`)
		bad(400, "SERVICE_INVALID", name, `{"service":5}`)
		if name != "addService" {
			bad(404, "UNKNOWN_SERVICE", name, `{"service":"nothing"}`)
			bad(404, "UNKNOWN_SERVICE", name, `{"service":"../../etc/passwd"}`)
		}
	}
	add := func(code, name, rest string, pairs ...string) {
		bad(400, code, "addService", strings.Replace(service(rest, pairs...), "{", `{"service":`+quote(name)+`,`, 1))
	}
	bad(409, "SERVICE_ALREADY_EXISTS", "addService", strings.Replace(service(""), "{", `{"service":"github",`, 1))
	for _, name := range []string{"../x", ".x", "-x", "X", "a/b", "a b", "a\u0000", strings.Repeat("a", 64), "ä", "%2e%2e"} {
		add("SERVICE_INVALID", name, "")
	}
	for _, u := range []string{
		"http://api.example.com", "ftp://api.example.com", "https://", "https://user:pw@api.example.com", "https://api.example.com?x=1", "https://api.example.com#x",
		"https://api.example.com/a/../b", "https://api.example.com/%2e%2e", "https://api.example.com:0", "https://api.example.com:99999", "https://api.example.com\\x", " https://api.example.com",
		"https://169.254.169.254/latest", "https://[fd00:ec2::254]", "https://[fe80::1]", "https://[::ffff:169.254.169.254]", "https://[64:ff9b::a9fe:a9fe]", "https://0.0.0.0", "https://100.100.100.200",
		"https://2130706433", "https://0x7f.1", "https://127.1", "javascript:alert(1)", "//api.example.com", "api.example.com", "https://{env.HOST}", "https://api.example.com/{http.request.host}", "unix//run/docker.sock",
		"http://127.0.0.1.evil.example", "http://localhost.evil.example",
	} {
		add("BASEURL_INVALID", "new", "", "baseUrl", quote(u))
	}
	add("BASEURL_REQUIRED", "new", "", "baseUrl", `""`)
	add("BASEURL_INVALID", "new", "", "baseUrl", `5`)
	add("ENDPOINTS_REQUIRED", "new", "", "endpoints", `{}`)
	for _, e := range []string{
		`{"method":"GET","path":"a"}`, `{"method":"GET"}`, `{"path":"/"}`, `{"method":"CONNECT","path":"/"}`, `{"method":"GET","path":"/../x"}`, `{"method":"GET","path":"/{a"}`,
		`{"method":"GET","path":"/{a}/{a}"}`, `{"method":"GET","path":"/x?y=1"}`, `{"method":"GET","path":"//evil.example"}`, `{"method":"GET","path":"/","body":"xml"}`,
		`{"method":"GET","path":"/","requiredScope":["a b"]}`, `{"method":"GET","path":"/","headers":{"Authorization":"x"}}`,
	} {
		add("ENDPOINT_INVALID:e", "new", "", "endpoints", `{"e":`+e+`}`)
	}
	add("ALLOWEDAGENTS_REQUIRED", "new", "", "allowedAgents", `[]`)
	add("ALLOWEDACTIONS_REQUIRED", "new", "", "allowedActions", `[]`)
	add("ALLOWEDSCOPES_REQUIRED", "new", "", "allowedScopes", `[]`)
	add("ALLOWEDAGENTS_INVALID", "new", "", "allowedAgents", `"*"`)
	add("ALLOWEDSCOPES_INVALID", "new", "", "allowedScopes", `["a b"]`)
	add("AUTHHEADER_INVALID", "new", `"secretRef":"k","authHeader":"Host"`)
	add("AUTHHEADER_INVALID", "new", `"secretRef":"k","authHeader":"X\r\nY"`)
	add("HEADERS_INVALID", "new", `"headers":{"Cookie":"x"}`)
	add("HEADERS_INVALID", "new", `"headers":{"X-A":"a\r\nb"}`)
	add("PASSHEADERS_INVALID", "new", `"passHeaders":["Authorization"]`)
	add("SECRETREF_INVALID", "new", `"secretRef":"../x"`)
	add("REVERSEPROXY_INVALID", "new", `"reverseProxy":{"upstreams":[{"dial":"evil.example:80"}]}`)
	add("REVERSEPROXY_INVALID", "new", `"reverseProxy":{"handle_response":[]}`)
	for _, v := range []string{"two\nlines", "carriage\rreturn", "nul\x00", "ümlaut", " space in front", "space behind "} {
		add("SECRET_INVALID", "new", `"masterSecret":`+quote(v))
	}
	add("SECRET_REQUIRED", "new", `"masterSecret":""`)
	add("MASTERSECRET_INVALID", "new", `"masterSecret":5`)

	bad(400, "FIELD_NOT_ALLOWED:masterSecret", "updateService", `{"service":"github","masterSecret":"x"}`)
	bad(400, "FIELD_NOT_ALLOWED:secret", "updateService", `{"service":"github","secret":"x"}`)
	bad(400, "BASEURL_INVALID", "updateService", `{"service":"github","baseUrl":"https://169.254.169.254"}`)
	bad(400, "BASEURL_REQUIRED", "updateService", `{"service":"github","baseUrl":null}`)
	bad(400, "ENDPOINT_INVALID:repo.get", "updateService", `{"service":"github","endpoints":{"repo.get":{"path":"/../x"}}}`)

	bad(400, "TEMPLATE_REQUIRED", "loadTemplate", `{}`)
	bad(400, "TEMPLATE_INVALID", "loadTemplate", `{"template":5}`)
	for _, name := range []string{"nothing", "../github", "github.json"} {
		bad(404, "UNKNOWN_TEMPLATE", "loadTemplate", `{"template":"`+name+`"}`)
	}
	bad(400, "VARIABLES_REQUIRED:store", "loadTemplate", `{"template":"shopify"}`)
	bad(400, "VARIABLES_INVALID:store", "loadTemplate", `{"template":"shopify","variables":{"store":"evil.example/x?"}}`)
	bad(400, "VARIABLES_INVALID", "loadTemplate", `{"template":"shopify","variables":{"store":5}}`)
	bad(400, "ALLOWEDAGENTS_INVALID", "loadTemplate", `{"template":"openai","allowedAgents":"x"}`)
	bad(400, "SECRET_INVALID", "loadTemplate", `{"template":"openai","masterSecret":"a\nb"}`)

	bad(400, "SECRETREF_REQUIRED", "addSecret", `{"secret":"x"}`)
	bad(400, "SECRET_REQUIRED", "addSecret", `{"secretRef":"x"}`)
	bad(400, "SECRET_REQUIRED", "addSecret", `{"secretRef":"x","secret":""}`)
	bad(400, "SECRET_INVALID", "addSecret", `{"secretRef":"x","secret":["x"]}`)
	bad(400, "SECRET_INVALID", "addSecret", `{"secretRef":"github_pat","secret":"a\r\nb"}`)
	bad(400, "SECRET_INVALID", "addSecret", `{"secretRef":"x","secret":"`+strings.Repeat("x", 64<<10+1)+`"}`)
	for _, ref := range []string{"../x", ".vault-key", "a/b", "a b", strings.Repeat("x", 64)} {
		bad(400, "SECRETREF_INVALID", "addSecret", fmt.Sprintf(`{"secretRef":%q,"secret":"x"}`, ref))
	}
	bad(400, "SECRETREF_REQUIRED", "removeSecret", `{}`)
	bad(404, "UNKNOWN_SECRET", "removeSecret", `{"secretRef":"nothing"}`)
	bad(400, "REVOKE_TARGET_REQUIRED", "unrevoke", `{}`)
	bad(404, "NOT_FOUND", "unrevoke", `{"agentId":"nobody"}`)
	bad(400, "AGENTID_INVALID", "unrevoke", `{"agentId":5}`)

	config := s.post("/vault.admin.getService", `{"service":"github"}`).body
	secrets := s.post("/vault.admin.listSecrets", `{}`).body
	services := s.post("/vault.admin.listServices", `{}`).body
	s.run(t, rows)
	for path, before := range map[string]string{"getService": config, "listSecrets": secrets, "listServices": services} {
		body := `{}`
		if path == "getService" {
			body = `{"service":"github"}`
		}
		if after := s.post("/vault.admin."+path, body).body; after != before {
			t.Errorf("refused requests changed %s:\n%s\nto\n%s", path, before, after)
		}
	}
}

// service returns a service's JSON with some members replaced by name.
func service(more string, pairs ...string) string {
	members := map[string]string{
		"baseUrl": `"https://api.example.com"`, "allowedAgents": `["*"]`, "allowedActions": `["*"]`, "allowedScopes": `["x"]`, "endpoints": `{"e":{"method":"GET","path":"/"}}`,
	}
	for i := 0; i < len(pairs); i += 2 {
		members[pairs[i]] = pairs[i+1]
	}
	out := "{"
	if more != "" {
		out += more + ","
	}
	for _, name := range []string{"baseUrl", "allowedAgents", "allowedActions", "allowedScopes", "endpoints"} {
		out += fmt.Sprintf("%q:%s,", name, members[name])
	}
	return strings.TrimSuffix(out, ",") + "}"
}

// TestAdminToken is about who is an administrator.
func TestAdminToken(t *testing.T) {
	t.Parallel()
	s := startHS256(t)
	agent := s.issue("main", "github", "github:repos:read")
	asAdmin := sign(t, hs256, goodClaims().with("sub", "admin", "admin", true, "role", "admin", "ctx", map[string]string{"agentId": "admin"}), signingKey)
	s.hide(asAdmin, "a token")
	wrong := func(name string, e edit) refusal {
		return refusal{name: name, path: "/vault.admin.listSecrets", body: "{}", edits: []edit{e}, status: 401, code: "ADMIN_UNAUTHORIZED", event: "admin.listSecrets"}
	}
	rows := []refusal{
		wrong("none", noHeader("Authorization")),
		wrong("empty", header("Authorization", "")),
		wrong("no scheme", header("Authorization", adminToken)),
		wrong("Basic", header("Authorization", "Basic "+adminToken)),
		wrong("lower case", header("Authorization", "bearer "+adminToken)),
		wrong("two spaces", header("Authorization", "Bearer  "+adminToken)),
		wrong("two headers", header("Authorization", "Bearer "+adminToken, "Bearer "+adminToken)),
		wrong("a part", bearer(adminToken[:len(adminToken)-1])),
		wrong("an agent's token", bearer(agent)),
		wrong("a token that says so", bearer(asAdmin)),
	}
	s.run(t, rows)
	for i := range 3 {
		r := s.refused(t, refusal{path: "/vault.admin.addSecret", body: `{"secretRef":"x","secret":"y"}`, edits: []edit{bearer(fmt.Sprint("guess", i))}, status: 429, code: "RATE_LIMITED", event: "admin.addSecret"})
		if r.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	// Whoever has the right one is not locked out by those who guess.
	s.same("/vault.admin.listTemplates", `{}`, s.post("/vault.admin.listTemplates", `{}`).body)
	if r := s.post("/vault.admin.listSecrets", `{}`); r.status != 200 || strings.Contains(r.body, `"x"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
}
