package cli

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/store/file"
	"github.com/caddyvault/caddyvault/store/secrets"
	"github.com/caddyvault/caddyvault/token"
)

func TestInit(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	dir := filepath.Join(t.TempDir(), "new dir")
	res := shell{}.ok(t, "init", "--dir", dir)
	data := filepath.Join(dir, "data")
	for _, p := range []struct {
		path string
		mode os.FileMode
	}{
		{dir, 0o700},
		{data, 0o700},
		{filepath.Join(dir, "config", "services"), 0o700},
		{filepath.Join(data, ".vault-key"), 0o600},
		{filepath.Join(data, "admin.token"), 0o600},
		{filepath.Join(data, "signing-key.pem"), 0o600},
		{filepath.Join(dir, "Caddyfile"), 0o644},
	} {
		fi, err := os.Stat(p.path)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != p.mode {
			t.Errorf("%s has mode %04o", p.path, fi.Mode().Perm())
		}
		mustContain(t, res.out, "made  "+p.path)
	}
	if _, err := secrets.LoadKEKFile(filepath.Join(data, ".vault-key")); err != nil {
		t.Error(err)
	}
	if ring, err := token.OpenRing(filepath.Join(data, "signing-key.pem"), time.Now, nil); err != nil || len(ring.List()) != 1 {
		t.Error(err)
	}
	if admin := read(t, filepath.Join(data, "admin.token")); len(admin) != 65 {
		t.Errorf("the admin token has %d characters", len(admin))
	}
	for path, content := range tree(t, data) {
		if content != "directory" {
			mustNotContain(t, res.out+res.err, strings.TrimSpace(content))
		}
		_ = path
	}

	before := tree(t, dir)
	again := shell{}.ok(t, "init", "--dir", dir)
	if !maps.Equal(before, tree(t, dir)) {
		t.Error("the second init changed something")
	}
	mustNotContain(t, again.out, "made")

	// A missing signing key is made anew, and nothing else is.
	if err := os.Remove(filepath.Join(data, "signing-key.pem")); err != nil {
		t.Fatal(err)
	}
	res = shell{}.ok(t, "init", "--dir", dir)
	if strings.Count(res.out, "made") != 1 {
		t.Errorf("%s", res.out)
	}
}

func TestInitRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, dir string)
		want    string
	}{
		"older data": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "data", "revocations.json"), "{}", 0o600)
		}, "vault import"},
		"a lost encryption key": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "data", "secrets.enc"), `{"v":2}`, 0o600)
		}, "KEY_MISSING"},
		"a directory others can enter": {func(t *testing.T, dir string) {
			if err := os.Mkdir(filepath.Join(dir, "data"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "chmod 700"},
		"a vault that runs": {func(t *testing.T, dir string) {
			if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
				t.Fatal(err)
			}
			unlock, err := file.Lock(filepath.Join(dir, "data"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(unlock)
		}, "in use"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tc.prepare(t, dir)
			res := shell{}.run(t, "init", "--dir", dir)
			if res.status != exitFailed || exists(filepath.Join(dir, "data", ".vault-key")) {
				t.Errorf("status %d", res.status)
			}
			mustContain(t, res.err, tc.want)
		})
	}
}

func TestInitLeavesConfiguredKeysAlone(t *testing.T) {
	dir := t.TempDir()
	res := shell{environ: []string{"VAULT_ENCRYPTION_KEY=" + strings.Repeat("ab", 32), "VAULT_ADMIN_TOKEN=" + adminToken, "VAULT_SIGNING_KEY=" + adminToken}}.ok(t, "init", "--dir", dir)
	if len(tree(t, filepath.Join(dir, "data"))) != 1 {
		t.Errorf("%v", tree(t, filepath.Join(dir, "data")))
	}
	mustNotContain(t, res.out, adminToken, "abab")
}
