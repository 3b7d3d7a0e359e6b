package integration

import (
	"os/exec"
	"strings"
	"testing"
)

// vaultCommand runs `caddyvault vault …` against the server.
func (s *server) vaultCommand(status int, env []string, args ...string) (out, errs string) {
	s.t.Helper()
	var o, e strings.Builder
	cmd := exec.Command(program, append([]string{"vault"}, args...)...)
	cmd.Dir = s.dir
	cmd.Env = append(append(s.environment(), "VAULT_URL="+s.base), env...)
	cmd.Stdout, cmd.Stderr = &o, &e
	_ = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != status {
		s.t.Fatalf("%q: status %d, want %d\n%s%s", args, got, status, o.String(), e.String())
	}
	return o.String(), e.String()
}

// TestAgentsCommand administers an agent from the command line, and is it.
func TestAgentsCommand(t *testing.T) {
	t.Parallel()
	s := start(t, config{vault: "\t\tagents {\n\t\t\ttrust none\n\t\t}"})
	agents := func(status int, args ...string) (out, errs string) {
		t.Helper()
		return s.vaultCommand(status, nil, append([]string{"agents"}, args...)...)
	}
	newKey := func(args ...string) (key string) {
		t.Helper()
		out, errs := agents(0, args...)
		key = strings.TrimSuffix(out, "\n")
		if !strings.HasPrefix(key, "cva_") || strings.ContainsAny(key, " \n") || strings.Contains(errs, key) {
			t.Fatalf("%q: %q, %q", args, out, errs)
		}
		s.hide(key, "an agent's key")
		return key
	}
	token := func(status int, key string, want string) {
		t.Helper()
		out, errs := s.vaultCommand(status, []string{"AGENTVAULT_AGENT_KEY=" + key}, "token", "github", "github:repos:read")
		if status == 0 {
			s.hide(strings.TrimSpace(out), "a token")
		}
		if !strings.Contains(out+errs, want) {
			t.Errorf("%q %q, want %q", out, errs, want)
		}
	}

	if out, _ := agents(0, "list"); strings.Count(out, "\n") != 1 {
		t.Errorf("no agents: %q", out)
	}
	first := newKey("add", "tony", "--group", "ci", "--expires", "30d")
	token(0, first, ".")
	_, errs := agents(1, "add", "tony")
	if !strings.Contains(errs, "AGENT_ALREADY_EXISTS") || !strings.Contains(errs, "hint: ") {
		t.Errorf("twice: %q", errs)
	}
	second := newKey("rotate-key", "tony", "--overlap", "1h")
	token(0, first, ".")
	token(0, second, ".")
	third := newKey("rotate-key", "tony")
	token(1, second, "AGENT_KEY_INVALID")
	token(0, third, ".")
	agents(0, "disable", "tony")
	token(1, third, "AGENT_DISABLED")
	if out, _ := agents(0, "list"); !strings.Contains(out, "disabled") || !strings.Contains(out, "ci") || strings.Contains(out, third) {
		t.Errorf("the list: %q", out)
	}
	agents(0, "enable", "tony")
	token(0, third, ".")
	agents(0, "update", "tony", "--binding", "dpop")
	token(1, third, "TOKEN_BINDING_REQUIRED")
	agents(0, "update", "tony", "--binding", "none", "--group", "", "--expires", "never")
	var list struct {
		Agents []map[string]any `json:"agents"`
	}
	out, _ := agents(0, "list", "--json")
	if decode(t, out, &list); len(list.Agents) != 1 || list.Agents[0]["expiresAt"] != nil || list.Agents[0]["binding"] != nil || len(list.Agents[0]["groups"].([]any)) != 0 {
		t.Errorf("the list: %s", out)
	}
	agents(0, "remove", "tony")
	token(1, third, "AGENT_KEY_INVALID")
	if _, errs := agents(1, "remove", "tony"); !strings.Contains(errs, "UNKNOWN_AGENT") {
		t.Errorf("removed twice: %q", errs)
	}
	agents(2, "add")
	if _, errs := s.vaultCommand(1, []string{"VAULT_ADMIN_TOKEN=" + strings.Repeat("wrong", 8)}, "agents", "list"); !strings.Contains(errs, "ADMIN_UNAUTHORIZED") {
		t.Errorf("a wrong admin token: %q", errs)
	}
}
