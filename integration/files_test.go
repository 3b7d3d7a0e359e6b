package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestServiceFiles is about services as files that people and tools edit.
func TestServiceFiles(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	listed := func() map[string]string {
		var list struct {
			Services []struct{ Service, Error string }
		}
		r := s.post("/vault.admin.listServices", "{}")
		decode(t, r.body, &list)
		out := map[string]string{}
		for _, svc := range list.Services {
			out[svc.Service] = svc.Error
		}
		return out
	}
	file := func(path string) string {
		return `{"_comment":"by hand","baseUrl":"` + s.up.URL + `","allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["x"],"endpoints":{"get":{"method":"GET","path":"` + path + `"}}}`
	}
	has := func(name string) func() bool { return func() bool { _, ok := listed()[name]; return ok } }

	// Dropped in, it is served.
	s.writeService("byhand", file("/first"))
	eventually(t, "the file is served", has("byhand"))
	token := s.issue("tony", "byhand", "x")
	get := func() string {
		if r := s.call(token, "byhand", "get", "null"); r.status != 200 {
			return r.header.Get("Vault-Error")
		}
		return s.up.last(t).uri
	}
	if got := get(); got != "/first" {
		t.Errorf("got %s", got)
	}

	// Changed, the change is served.
	s.writeService("byhand", file("/second"))
	eventually(t, "the change is served", func() bool { return get() == "/second" })

	// Broken, the last good version goes on, and it shows.
	for name, broken := range map[string]string{
		"not JSON": `{"baseUrl":`, "empty": "", "unknown field": strings.Replace(file("/third"), "{", `{"bogus":1,`, 1), "twice": strings.Replace(file("/third"), "{", `{"baseUrl":"http://127.0.0.1",`, 1),
		"metadata": strings.Replace(file("/third"), s.up.URL, "http://169.254.169.254", 1),
	} {
		s.writeService("byhand", broken)
		eventually(t, name+": the error is shown", func() bool { return listed()["byhand"] != "" })
		if got := get(); got != "/second" {
			t.Errorf("%s: got %s", name, got)
		}
		s.writeService("byhand", file("/second"))
		eventually(t, name+": the error goes", func() bool { return listed()["byhand"] == "" })
	}

	// A name or a kind of file that is no service changes nothing.
	s.write(filepath.Join(s.services, "README.md"), "hello")
	s.write(filepath.Join(s.services, ".hidden.json"), file("/hidden"))
	s.write(filepath.Join(s.services, "byhand.json~"), "{}")
	secretFile := filepath.Join(s.dir, "outside.json")
	s.write(secretFile, file("/outside"))
	if err := os.Symlink(secretFile, filepath.Join(s.services, "linked.json")); err != nil {
		t.Fatal(err)
	}
	s.writeService("marker", file("/marker"))
	eventually(t, "the marker is served", has("marker"))
	for name := range listed() {
		if name != "github" && name != "byhand" && name != "marker" && name != "linked" {
			t.Errorf("served: %s", name)
		}
	}
	if r := s.post("/vault.issueToken", `{"service":"linked","scope":["x"]}`); r.status != 404 {
		t.Errorf("a link is followed: %d %s", r.status, r.body)
	}

	// Deleted, it is gone.
	if err := os.Remove(filepath.Join(s.services, "byhand.json")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the service is gone", func() bool { return !has("byhand")() })
	s.refused(t, refusal{path: "/vault.call", body: `{"token":"` + token + `","service":"byhand","action":"get"}`, status: 404, code: "UNKNOWN_SERVICE", event: "proxy.call"})

	// The API writes the same files, for this user alone.
	s.addService("byapi", file("/api"), "")
	info, err := os.Stat(filepath.Join(s.services, "byapi.json"))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v %v", info, err)
	}
	s.ok("/vault.admin.removeService", `{"service":"byapi"}`, nil)
	if _, err := os.Stat(filepath.Join(s.services, "byapi.json")); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}

	// What was changed by hand is recorded so, what a request did is not.
	s.barrier()
	changes := map[string]int{}
	records, _ := s.auditLog(0)
	for _, r := range records {
		if r.text("event") == "service.changed" {
			changes[r.text("service")+" "+r.text("reason")]++
		}
	}
	if changes["byhand loaded"] < 7 || changes["byhand removed"] != 1 || changes["marker loaded"] != 1 ||
		changes["byapi loaded"]+changes["byapi removed"] != 0 {
		t.Errorf("%v", changes)
	}
}

// TestSecretOrigin is about a file that would send a secret somewhere else.
func TestSecretOrigin(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	thief := newUpstream(t)
	token := s.issue("tony", "github", "github:repos:read")
	body := fmt.Sprintf(`{"token":%q,"service":"github","action":"public.get"}`, token)
	s.writeService("github", githubService(thief.URL))
	eventually(t, "the change is seen", func() bool {
		return strings.Contains(s.post("/vault.admin.getService", `{"service":"github"}`).body, thief.URL)
	})
	mismatch := refusal{path: "/vault.call", body: body, status: 503, code: "SECRET_ORIGIN_MISMATCH:github_pat", event: "proxy.call"}
	s.refused(t, mismatch)

	// A second service that names the same secret, and a secret set anew, do
	// not help.
	s.writeService("borrower", githubService(thief.URL))
	eventually(t, "the borrower is served", func() bool {
		return strings.Contains(s.post("/vault.admin.listServices", "{}").body, "borrower")
	})
	borrowed := s.issue("tony", "borrower", "github:repos:read")
	s.refused(t, refusal{path: "/vault.call", body: fmt.Sprintf(`{"token":%q,"service":"borrower","action":"public.get"}`, borrowed), status: 503, code: "SECRET_ORIGIN_MISMATCH:github_pat", event: "proxy.call"})
	s.ok("/vault.admin.addSecret", `{"secretRef":"github_pat","secret":`+quote(secret)+`}`, nil)
	s.refused(t, mismatch)
	s.stop()
	s.start()
	s.refused(t, mismatch)
	if thief.count() != 0 {
		t.Fatal("the other origin was called")
	}

	// An administrator may say so.
	s.ok("/vault.admin.updateService", `{"service":"github","secretRef":"github_pat"}`, nil)
	if r := s.call(token, "github", "public.get", "null"); r.status != 200 || thief.count() != 1 {
		t.Errorf("%d %s", r.status, r.body)
	}
	s.same("/vault.admin.removeService", `{"service":"borrower"}`, `{"ok":true,"service":"borrower"}`)
}

// TestRestart is about what a stop and a start keep.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	good := s.issueWith(`"agentId":"tony","service":"github","scope":["github:repos:read"]`).Token
	revoked := s.issueWith(`"agentId":"tony","service":"github","scope":["github:repos:read"]`)
	s.ok("/vault.revoke", `{"tokenId":"`+revoked.TokenID+`","agentId":"victim"}`, nil)
	list := s.post("/vault.admin.listRevocations", "{}").body
	s.stop()
	s.start()
	if after := s.post("/vault.admin.listRevocations", "{}").body; after != list {
		t.Errorf("revocations\n%s\nto\n%s", list, after)
	}
	if r := s.call(good, "github", "public.get", "null"); r.status != 200 || s.up.last(t).header.Get("Authorization") != "Bearer "+secret {
		t.Errorf("%d %s", r.status, r.body)
	}
	s.run(t, []refusal{
		{path: "/vault.call", body: `{"token":"` + revoked.Token + `","service":"github","action":"public.get"}`, status: 401, code: "TOKEN_REVOKED", event: "proxy.call"},
		{path: "/vault.issueToken", body: `{"agentId":"victim",` + issueRead[1:], status: 401, code: "AGENT_REVOKED", event: "token.issue"},
	})
	for _, name := range []string{"data", "services"} {
		info, err := os.Stat(filepath.Join(s.dir, name))
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
		files, err := os.ReadDir(filepath.Join(s.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			info, err := f.Info()
			if err != nil || info.Mode().IsRegular() && info.Mode().Perm() != 0o600 || info.IsDir() && info.Mode().Perm() != 0o700 {
				t.Errorf("%s/%s: %v %v", name, f.Name(), info.Mode(), err)
			}
		}
	}
}

// TestDamage is about a data directory that is not as it was left. The server
// does not start, says which file it is, and replaces nothing.
func TestDamage(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	s.issue("tony", "github", "github:repos:read")
	s.ok("/vault.admin.addSecret", `{"secretRef":"second","secret":"0123456789-second"}`, nil)
	s.ok("/vault.revoke", `{"agentId":"victim"}`, nil)
	older := s.read("data/secrets.enc")
	s.ok("/vault.admin.addSecret", `{"secretRef":"second","secret":"9876543210-second"}`, nil)
	s.stop()

	files, err := filepath.Glob(filepath.Join(s.data, "*"))
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := filepath.Glob(filepath.Join(s.data, ".*"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{} // by what it is for
	good := map[string][]byte{}
	for _, path := range append(files, hidden...) {
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if good[path], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		base := filepath.Base(path)
		for _, what := range []string{"secrets.enc", ".vault-key", "signing-key", "revocations", "audit.log"} {
			if strings.HasPrefix(base, what) {
				names[what] = path
			}
		}
	}
	if len(names) != 5 {
		t.Fatalf("files: %v", names)
	}
	flip := func(b []byte) []byte {
		out := append([]byte(nil), b...)
		out[len(out)/2] ^= 1
		return out
	}
	half := func(b []byte) []byte { return b[:len(b)/2] }
	empty := func([]byte) []byte { return []byte{} }
	missing := func([]byte) []byte { return nil }
	for _, c := range []struct {
		what, how string
		f         func([]byte) []byte
	}{
		{"secrets.enc", "missing", missing},
		{"secrets.enc", "empty", empty},
		{"secrets.enc", "half", half},
		{"secrets.enc", "flipped", flip},
		{"secrets.enc", "older", func([]byte) []byte { return []byte(older) }},
		{"secrets.enc", "swapped", func(b []byte) []byte {
			// The two ciphertexts under each other's names.
			return []byte(strings.NewReplacer("github_pat", "second", "second", "github_pat").Replace(string(b)))
		}},
		{".vault-key", "missing", missing},
		{".vault-key", "empty", empty},
		{".vault-key", "half", half},
		{".vault-key", "another", func(b []byte) []byte { return []byte(strings.Repeat("ab", 32)) }},
		{"signing-key", "missing", missing},
		{"signing-key", "empty", empty},
		{"signing-key", "half", half},
		{"revocations", "missing", missing},
		{"revocations", "empty", empty},
		{"revocations", "flipped", flip},
		{"audit.log", "missing", missing},
		{"audit.log", "flipped", flip},
	} {
		t.Run(c.what+" "+c.how, func(t *testing.T) {
			path := names[c.what]
			bad := c.f(good[path])
			if bad == nil {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			} else {
				s.write(path, string(bad))
			}
			os.Remove(filepath.Join(s.dir, "caddy.log"))
			err := s.tryStart()
			if err == nil {
				s.stop()
				t.Error("the server came up")
			} else if said := s.output.String() + s.read("caddy.log"); !strings.Contains(said, filepath.Base(path)) && !strings.Contains(said, "the encryption key is not the one") {
				t.Errorf("it does not name %s:\n%s", filepath.Base(path), lastError(said))
			}
			now, err := os.ReadFile(path)
			if bad == nil && !os.IsNotExist(err) || bad != nil && string(now) != string(bad) {
				t.Errorf("the file was replaced")
			}
			for path, b := range good {
				s.write(path, string(b))
			}
		})
	}

	// For everybody to read, each private file is refused with what to do.
	for _, what := range []string{"secrets.enc", ".vault-key", "signing-key"} {
		if err := os.Chmod(names[what], 0o644); err != nil {
			t.Fatal(err)
		}
		if said := s.startFails(); !strings.Contains(said, "chmod") || !strings.Contains(said, filepath.Base(names[what])) {
			t.Errorf("%s: %s", what, tail(said, 1500))
		}
		if err := os.Chmod(names[what], 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// And all is well again.
	os.Remove(filepath.Join(s.dir, "caddy.log"))
	s.start()
	token := s.issue("tony", "github", "github:repos:read")
	if r := s.call(token, "github", "public.get", "null"); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// lastError returns what a server said in the end, without the rest of its log.
func lastError(said string) string {
	var out []string
	for line := range strings.Lines(said) {
		if strings.Contains(strings.ToLower(line), "error") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}
