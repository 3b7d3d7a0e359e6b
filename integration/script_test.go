package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault/internal/need"
)

// TestScripts starts a vault with the example's configuration, in a directory
// that holds nothing else, and uses it with agentvault alone.
func TestScripts(t *testing.T) {
	t.Parallel()
	need.Programs(t, "bash", "curl", "jq")
	s := prepare(t, config{})
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile(filepath.Join(root, "Caddyfile.example"))
	if err != nil {
		t.Fatal(err)
	}
	s.write(s.file, string(example))
	s.services = filepath.Join(s.dir, "config", "services")
	s.conf.env = []string{"PORT=" + s.port}
	s.conf.unset = []string{"VAULT_ADMIN_TOKEN"}
	s.start()
	admin := strings.TrimSpace(s.read("data/admin.token"))
	s.hide(admin, "the generated admin token")
	s.ok("/vault.admin.addService", `{"service":"github","masterSecret":`+quote(secret)+","+strings.TrimPrefix(s.githubService(), "{"), nil, bearer(admin))

	// script runs a command as a person would type it.
	script := func(text string) (stdout, stderr string, ok bool) {
		cmd := exec.Command("bash", "-c", text)
		cmd.Dir = s.dir
		cmd.Env = append(s.environment(), "PATH="+root+string(os.PathListSeparator)+os.Getenv("PATH"), "VAULT_URL="+s.base, "VAULT_DATA_DIR="+s.data, "LIB="+root+"/agentvault.sh", "VAULT_ADMIN_TOKEN=")
		var out, errs syncBuffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		s.noSecrets(t, text, out.String()+errs.String())
		return out.String(), errs.String(), err == nil
	}
	must := func(text string) string {
		t.Helper()
		out, errs, ok := script(text)
		if !ok {
			t.Fatalf("%s:\n%s%s", text, out, errs)
		}
		return out
	}

	if out := must(`agentvault health`); !strings.Contains(out, "true") {
		t.Errorf("health: %s", out)
	}
	if out := must(`agentvault services`); !strings.Contains(out, "github") {
		t.Errorf("services: %s", out)
	}
	out := must(`agentvault token github github:repos:read | agentvault call github repo.get --json '{"owner":"o","repo":"r"}'`)
	if strings.TrimSpace(out) != `{"full_name":"o/r"}` {
		t.Errorf("call: %q", out)
	}
	if got := s.up.last(t); got.uri != "/base/repos/o/r" || got.header.Get("Authorization") != "Bearer "+secret {
		t.Errorf("the upstream got %s", got.uri)
	}
	out = must(`source "$LIB" && T=$(AGENTVAULT_AGENT_ID=tony AGENTVAULT_TTL=60 AGENTVAULT_SESSION_ID=s9 agentvault_token github github:repos:read) && agentvault_call "$T" github contents.get '{"owner":"o","repo":"r","path":"a/b"}'`)
	if strings.TrimSpace(out) != `{"full_name":"o/r"}` || s.up.last(t).uri != "/base/repos/o/r/contents/a/b" {
		t.Errorf("sourced: %q, %s", out, s.up.last(t).uri)
	}
	if out := must(`agentvault audit --limit 10 --event proxy.call --agent tony`); strings.Count(out, "contents.get") != 1 || strings.Contains(out, "repo.get") {
		t.Errorf("audit: %s", out)
	}

	// What is refused goes to standard error, with its code and a hint.
	before := s.up.count()
	for text, code := range map[string]string{
		`agentvault token github github:admin`: "INVALID_SCOPE:github:admin",
		`agentvault token nothing x`:           "UNKNOWN_SERVICE",
		`agentvault token github github:repos:read | agentvault call github issues.create`:                               "INSUFFICIENT_SCOPE:github:issues:write",
		`agentvault token github github:repos:read | agentvault call github repo.get --json '{"owner":"..","repo":"x"}'`: "PARAM_INVALID:owner",
		`agentvault call github repo.get --token x.y.z`:                                                                  "TOKEN_INVALID",
	} {
		out, errs, ok := script(text)
		if ok || out != "" || !strings.Contains(errs, "agentvault: "+code) {
			t.Errorf("%s: %v\n%s%s", text, ok, out, errs)
		}
	}
	must(`agentvault revoke --agent tony --reason 'no longer here'`)
	if _, errs, ok := script(`AGENTVAULT_AGENT_ID=tony agentvault token github github:repos:read`); ok || !strings.Contains(errs, "AGENT_REVOKED") {
		t.Errorf("after the revocation: %v %s", ok, errs)
	}
	if n := s.up.count() - before; n != 0 {
		t.Errorf("the upstream saw %d requests that were refused", n)
	}
}
