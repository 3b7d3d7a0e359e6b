package integration

import (
	"bufio"
	"encoding/csv"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// auditCommand prepares `caddyvault vault audit …` against the server.
func (s *server) auditCommand(args ...string) *exec.Cmd {
	cmd := s.command(append([]string{"vault", "audit"}, args...)...)
	cmd.Env = append(cmd.Env, "VAULT_URL="+s.base)
	return cmd
}

func (s *server) audit(status int, args ...string) (out, errs string) {
	s.t.Helper()
	var o, e strings.Builder
	cmd := s.auditCommand(args...)
	cmd.Stdout, cmd.Stderr = &o, &e
	_ = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != status {
		s.t.Errorf("audit %q: status %d\n%s%s", args, got, o.String(), e.String())
	}
	return o.String(), e.String()
}

func TestAuditCommands(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issue("tony", "github", "github:repos:read")
	for range 3 {
		s.call(token, "github", "public.get", "null")
	}
	evil := "\x1b[31m=cmd()\u009b"
	s.ok("/vault.revoke", `{"taskId":"=cmd()","reason":`+quote(evil)+`}`, nil)
	s.post("/vault.issueToken", `{"service":`+quote(evil)+`,"scope":["x"],"agentId":"victim"}`)
	s.barrier()
	log := s.read("data/audit.log.jsonl")

	// In columns, and never an escape sequence.
	for _, args := range [][]string{{"tail", "-n", "1000"}, {"query", "--limit", "1000"}, {"--limit", "1000"}, {"export", "--format", "csv"}, {"export", "--format", "cef"}} {
		out, _ := s.audit(0, args...)
		if strings.ContainsAny(out, "\x1b\u009b") || !strings.Contains(out, "proxy.call") || !strings.Contains(out, "tony") {
			t.Errorf("%q: %q", args, out)
		}
	}
	out, _ := s.audit(0, "tail", "-n", "2", "--json", "--event", "proxy.call", "--agent", "tony")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 2 || !strings.Contains(log, lines[0]+"\n") {
		t.Errorf("tail: %q", out)
	}
	// The whole log, from the vault and from the files.
	for _, from := range [][]string{nil, {"--dir", s.data}} {
		out, _ := s.audit(0, append([]string{"export"}, from...)...)
		// Of the export itself and the checkpoints there may be more.
		if !strings.HasPrefix(out, log) {
			t.Errorf("export %q is another log", from)
		}
		out, _ = s.audit(0, append([]string{"export", "--event", "token.revoked", "--format", "csv"}, from...)...)
		if rows, err := csv.NewReader(strings.NewReader(out)).ReadAll(); err != nil || len(rows) != 2 {
			t.Errorf("%v %q", err, out)
		}
		out, _ = s.audit(0, append([]string{"export", "--since", "1h", "--until", time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "--filter", "event=token.issued"}, from...)...)
		if strings.Count(out, "\n") != 1 {
			t.Errorf("export %q with bounds: %q", from, out)
		}
		if out, _ = s.audit(0, append([]string{"export", "--until", "1d"}, from...)...); out != "" {
			t.Errorf("export %q until yesterday: %q", from, out)
		}
	}
	for _, args := range [][]string{
		{"export", "--format", "xml"},
		{"export", "--filter", "x"},
		{"tail", "--agent", ""},
		{"query", "--since", "yesterday"},
		{"tail", "-n", "1001"},
		{"tail", "--filter", "a.b=c"},
		{"export", "--event", "a", "--filter", "event=b"},
		{"export", "x"},
	} {
		if _, errs := s.audit(2, args...); errs == "" {
			t.Errorf("%q says nothing", args)
		}
	}
	s.audit(1, "export", "--dir", filepath.Join(s.dir, "nothing"))

	// -f goes on over a restart of the vault.
	cmd := s.auditCommand("tail", "-f", "-n", "1", "--json", "--event", "token.issued")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(pipe); in.Scan(); {
			lines <- in.Text()
		}
	}()
	next := func(want string) {
		t.Helper()
		select {
		case line := <-lines:
			if !strings.Contains(line, want) {
				t.Errorf("got %q, want %s", line, want)
			}
		case <-time.After(patience):
			t.Fatalf("tail -f does not show %s", want)
		}
	}
	next(`"agentId":"tony"`)
	s.issue("main", "github", "github:repos:read")
	next(`"agentId":"main"`)
	s.stop()
	s.start()
	s.issue("steve", "github", "github:repos:read")
	next(`"agentId":"steve"`)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
}
