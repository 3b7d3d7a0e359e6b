package shell

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault/internal/need"
)

// programs are all those the scripts run. Each is wrapped, in every test, by
// one that writes down its arguments and environment.
var programs = []string{"cat", "curl", "id", "jq", "mkfifo", "mktemp", "readlink", "rm"}

// A box is a copy of the scripts in a directory of its own, so that no .env or
// data directory of the developer has a part in a test, and a stand-in.
type box struct {
	t     *testing.T
	vault *standIn

	dir  string   // with the scripts, under a name that needs quoting
	home string   // working directory and HOME
	env  []string // NAME=value, for every command
	log  string   // what the wrappers wrote down
}

func newBox(t *testing.T) *box {
	t.Helper()
	root := t.TempDir()
	b := &box{
		t:     t,
		vault: newStandIn(t),
		dir:   filepath.Join(root, `it's $(a) "dir"`),
		home:  filepath.Join(root, "home"),
		log:   filepath.Join(root, "programs.log"),
	}
	bin := filepath.Join(root, "bin")
	tmp := filepath.Join(root, "tmp")
	for _, d := range []string{b.dir, b.home, bin, tmp} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"agentvault", "agentvault.sh"} {
		src, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(b.dir, name), string(src), 0o755)
	}
	for _, name := range programs {
		write(t, filepath.Join(bin, name), fmt.Sprintf(
			"#!/bin/sh\n{ printf '%%s\\n' %q \"$@\"; export -p; } >>'%s'\nexec '%s' \"$@\"\n",
			name, b.log, find(t, name)), 0o755)
	}
	b.env = []string{
		"PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH"),
		"HOME=" + b.home, "TMPDIR=" + tmp, "LC_ALL=C.UTF-8",
		"VAULT_URL=" + b.vault.URL,
	}
	t.Cleanup(func() {
		left, err := os.ReadDir(tmp)
		if err != nil || len(left) > 0 {
			t.Errorf("temporary files were left over: %v %v", left, err)
		}
		b.checkPrograms()
	})
	return b
}

// checkPrograms looks for secrets in the arguments and environments of every
// program that was run. An admin token in the environment is what a caller put
// there, so that one is not looked for among the tests that do.
func (b *box) checkPrograms() {
	b.t.Helper()
	logged, err := os.ReadFile(b.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Fatal(err)
	}
	if bytes.Contains(logged, []byte(agentKey)) {
		b.t.Errorf("an agent's key was in the arguments or environment of a program")
	}
	if bytes.Contains(logged, []byte(agentToken)) {
		b.t.Errorf("an agent's token was in the arguments or environment of a program")
	}
	for line := range bytes.Lines(logged) {
		if bytes.Contains(line, []byte(adminToken)) && !bytes.Contains(line, []byte("VAULT_ADMIN_TOKEN=")) {
			b.t.Errorf("the admin token was in the arguments or environment of a program")
		}
	}
}

// find returns the path of a program.
func find(t *testing.T, name string) string {
	t.Helper()
	need.Programs(t, name)
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// A result is what a command left behind.
type result struct {
	stdout, stderr string
	code           int
}

// command prepares a program with the box's environment. Standard input is
// empty unless the caller sets it.
func (b *box) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.t.Context(), name, args...)
	cmd.Dir = b.home
	cmd.Env = b.env
	return cmd
}

func (b *box) result(cmd *exec.Cmd) result {
	b.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// run runs agentvault.
func (b *box) run(stdin string, args ...string) result {
	b.t.Helper()
	cmd := b.command(filepath.Join(b.dir, "agentvault"), args...)
	cmd.Stdin = strings.NewReader(stdin)
	return b.result(cmd)
}

// script runs a bash script in which $LIB is agentvault.sh. It goes through a
// file, so that nothing in it is an argument.
func (b *box) script(text string, flags ...string) result {
	b.t.Helper()
	file := filepath.Join(b.home, "script")
	write(b.t, file, text, 0o600)
	cmd := b.command("bash", append(flags, file)...)
	cmd.Env = append(cmd.Env, "LIB="+filepath.Join(b.dir, "agentvault.sh"))
	return b.result(cmd)
}

func (b *box) want(got result, want result) {
	b.t.Helper()
	if got != want {
		b.t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}
