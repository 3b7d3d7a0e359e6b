package cli_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"github.com/caddyvault/caddyvault"
	"github.com/caddyvault/caddyvault/cli"
)

// The vault's directives are known to the adapter once its package is linked.
var _ = caddyvault.App{}

// vault runs `caddyvault vault` and returns its output.
func vault(t *testing.T, args ...string) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func(out *os.File) { os.Stdout = out }(os.Stdout)
	os.Stdout = w
	cmd := &cobra.Command{}
	cli.Setup(cmd)
	cmd.SetArgs(args)
	err = cmd.Execute()
	_ = w.Close()
	b, _ := io.ReadAll(r)
	return string(b), err
}

// What init writes is a configuration that the doctor has nothing against.
func TestInitAndDoctorAgree(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dirs := range [][]string{nil, {"--data-dir", filepath.Join(t.TempDir(), "my data"), "--services-dir", "s v c"}} {
		if err := os.RemoveAll("Caddyfile"); err != nil {
			t.Fatal(err)
		}
		if out, err := vault(t, append([]string{"init"}, dirs...)...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		out, err := vault(t, "doctor")
		if err != nil || bytes.Contains([]byte(out), []byte("problem")) {
			t.Errorf("%v\n%s", err, out)
		}
		if dirs != nil && !bytes.Contains([]byte(out), []byte("only the owner can read "+dirs[1])) {
			t.Errorf("the directory was not taken from the Caddyfile:\n%s", out)
		}
	}
}

func TestDoctorOnCaddyfiles(t *testing.T) {
	for name, tc := range map[string]struct{ caddyfile, want string }{
		"plaintext":       {"{\n\tadmin off\n\tvault\n}\n:8787 {\n\tvault\n}\n", "open to other machines without TLS"},
		"HTTP site":       {"{\n\tadmin off\n\tvault\n}\nhttp://v.example.com {\n\tvault agent\n}\n", "without TLS"},
		"log_credentials": {"{\n\tadmin off\n\tvault\n\tservers {\n\t\tlog_credentials\n\t}\n}\nv.example.com {\n\tlog\n\tvault agent\n}\n", "access logs show tokens"},
		"trust all":       {"{\n\tadmin off\n\tvault {\n\t\tagents {\n\t\t\ttrust all\n\t\t}\n\t}\n}\nv.example.com {\n\tvault agent\n}\n", "agents trust all"},
		"literal":         {"{\n\tvault {\n\t\tadmin_token 0123456789012345678901234567890123456789\n\t}\n}\n", "must be a reference"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile("Caddyfile", []byte(tc.caddyfile), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := vault(t, "doctor", "--data-dir", "d", "--services-dir", "s")
			if err == nil || !bytes.Contains([]byte(out), []byte(tc.want)) || bytes.Contains([]byte(out), []byte("01234567890123456789")) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
