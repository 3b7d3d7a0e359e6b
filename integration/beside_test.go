package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBeside is about a second process on the same data.
func TestBeside(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	snapshot := func() string {
		var b strings.Builder
		err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if strings.HasPrefix(path, s.data) || strings.HasPrefix(path, s.services) {
				fmt.Fprintln(&b, path, info.Size(), info.Mode(), info.ModTime().UnixNano())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	s.barrier()
	// A checkpoint of what has been written is still to come.
	eventually(t, "a checkpoint", func() bool {
		_, err := os.Stat(filepath.Join(s.data, "audit.checkpoint"))
		return err == nil && strings.Contains(s.read("data/audit.log.jsonl"), `"audit.checkpoint"`)
	})
	before := snapshot()
	if out, err := s.command("validate", "--config", s.file, "--adapter", "caddyfile").CombinedOutput(); err != nil {
		t.Errorf("validate: %v\n%s", err, out)
	}
	if after := snapshot(); after != before {
		t.Errorf("validate changed\n%s\nto\n%s", before, after)
	}

	// Another configuration, the same data.
	other := strings.NewReplacer("admin.sock", "other.sock", ":"+s.port+" {", ":"+s.port2+" {").Replace(s.read("Caddyfile"))
	s.write(s.file+".other", other)
	out, err := s.command("run", "--config", s.file+".other", "--adapter", "caddyfile").CombinedOutput()
	if err == nil || !strings.Contains(string(out)+s.read("caddy.log"), "another process") {
		t.Errorf("a second process: %v\n%s", err, tail(string(out), 2000))
	}
	if r := s.post("/vault.issueToken", issueRead); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}

	// Where there is nothing yet, validate leaves nothing.
	fresh := prepare(t, config{})
	if out, err := fresh.command("validate", "--config", fresh.file, "--adapter", "caddyfile").CombinedOutput(); err != nil {
		t.Errorf("validate: %v\n%s", err, out)
	}
	for _, dir := range []string{fresh.data, fresh.services} {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("validate made %s", filepath.Base(dir))
		}
	}
}

// TestReloadRefused is about a configuration that cannot come up: the one
// before stays.
func TestReloadRefused(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	good, err := s.command("adapt", "--config", s.file, "--adapter", "caddyfile").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"another services directory": strings.Replace(string(good), s.services, s.dir+"/elsewhere", 1),
		"a literal secret":           strings.Replace(string(good), "{env.VAULT_ADMIN_TOKEN}", "a-literal-admin-token-of-enough-length", 1),
		"an unset group":             strings.Replace(string(good), `"handler":"vault"`, `"handler":"vault","routes":["nothing"]`, 1),
	} {
		if bad == string(good) {
			t.Fatalf("%s: nothing to replace in %s", name, good)
		}
		if status, body := s.adminAPI("POST", "/load", strings.NewReader(bad)); status == 200 {
			t.Errorf("%s: loaded: %s", name, body)
		}
		if r := s.post("/vault.issueToken", issueRead); r.status != 200 {
			t.Errorf("%s: afterwards: %d %s", name, r.status, r.body)
		}
	}
	if status, body := s.adminAPI("POST", "/load", strings.NewReader(string(good))); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	s.reload(t)
	if r := s.post("/vault.issueToken", issueRead); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}
