package integration

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault/handlers"
)

// TestCanaries puts values that are nobody's business wherever a request has
// room for one, on every route, in requests that succeed and that are refused,
// and looks for them, in every spelling, in whatever the server shows of
// itself: the log and what is beside it, its stream, its exports, its mirror, the
// server's debug log, metrics and configuration.
func TestCanaries(t *testing.T) {
	t.Parallel()
	s := prepare(t, config{vault: "audit {\nmirror vault-audit\nsegment_size 16KiB\n}"})
	s.start()
	s.addService("github", s.githubService(), secret)
	canary := func(name string) string {
		var b [12]byte
		_, _ = rand.Read(b[:])
		v := `cnry/+"&` + hex.EncodeToString(b[:]) + `=~?`
		s.hide(v, "the canary of "+name)
		return v
	}
	answers := ""
	send := func(method, path, body string, edits ...edit) {
		t.Helper()
		r, err := s.try(method, path, body, edits...)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		answers += headerText(r) + r.body + "\n"
	}
	token := s.issue("main", "github", "github:repos:read", "github:issues:write")
	bad := func() edit { return bearer(strings.NewReplacer(`"`, "", " ", "").Replace(canary("a bearer token"))) }
	cookie := func() edit { return header("Cookie", "session="+hex.EncodeToString([]byte(canary("a cookie")))) }

	// Calls, by body and by path.
	for _, action := range []string{"issues.create", "repo.get", "form.post", "hidden.get", "nothing"} {
		for _, tok := range []string{token, "x." + hex.EncodeToString([]byte(canary("a token"))) + ".z"} {
			params := fmt.Sprintf(`{"owner":"o","repo":"r","title":%s,"deep":{"a":[%s]}}`, quote(canary("a parameter")), quote(canary("a deep parameter")))
			if action == "form.post" {
				params = fmt.Sprintf(`{"title":%s}`, quote(canary("a parameter")))
			}
			send("POST", "/vault.call", fmt.Sprintf(`{"token":%q,"service":"github","action":%q,"params":%s}`, tok, action, params), cookie())
		}
	}
	for _, auth := range []edit{bearer(token), bad()} {
		send("POST", "/proxy/github/repos/o/r/issues", `{"title":`+quote(canary("a proxied body"))+`}`, auth, cookie())
		send("POST", "/proxy/github/nowhere", canary("a proxied body"), auth, cookie())
	}
	// Every route that there is, with bodies that are refused and tokens that
	// are wrong, also in forms and with another method. (A query string is
	// Caddy's access log's to show.)
	routes := map[string]string{"/vault.nothing": "POST", "/vault.admin.nothing": "POST"}
	maps.Insert(routes, handlers.Routes())
	if len(routes) < 25 {
		t.Fatalf("only %d routes", len(routes))
	}
	for path, method := range routes {
		bodies := []string{
			canary("no JSON"), `{"secret":` + quote(canary("a field")), `{"masterSecret":` + quote(canary("a secret")) + `,"secret":` + quote(canary("a secret")) + `}`,
			`{"token":` + quote(canary("a token")) + `}`, `[` + quote(canary("an array")) + `]`,
		}
		if method == "GET" {
			bodies = []string{""}
		}
		for _, body := range bodies {
			if path != "/vault.audit.stream" { // with the right token it would not end
				send(method, path, body, cookie())
			}
			send(method, path, body, bad())
		}
		send("PUT", path, bodies[0], cookie())
		form := url.Values{"grant_type": {"client_credentials"}, "client_secret": {canary("a client's secret")}, "token": {canary("a form's token")}}
		send(method, path, form.Encode(), header("Content-Type", "application/x-www-form-urlencoded"), bad())
	}
	send("POST", "/vault.admin.addSecret", `{"secretRef":"other","secret":`+quote(canary("a stored secret"))+`}`)
	send("POST", "/vault.admin.loadTemplate", `{"template":"stripe","masterSecret":`+quote(canary("a template's secret"))+`}`)
	send("GET", "/vault.audit.stream", "", bad())
	s.barrier()

	events, _ := s.watch(t.Context(), "?follow=false")
	for _, e := range ends(t, events) {
		answers += e.data + "\n"
	}
	for _, format := range []string{"jsonl", "csv", "cef"} {
		out, errs := s.audit(0, "export", "--format", format)
		s.noSecrets(t, "an export as "+format, out+errs)
		if !strings.Contains(out, "admin.addSecret") {
			t.Errorf("the export as %s is short", format)
		}
	}
	_, metrics := s.adminAPI("GET", "/metrics", nil)
	s.noSecrets(t, "metrics", string(metrics))
	s.noSecrets(t, "the configuration", s.caddyConfig())
	s.noSecrets(t, "answers and the stream", answers)
	// The mirror goes into the server's log here, which the end of every test
	// looks at, with all files of the data directory.
	eventually(t, "the mirror has come so far", func() bool { return strings.Contains(s.read("caddy.log"), `"logger":"vault-audit"`) })
}
