package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// result is what became of one command line.
type result struct {
	out, err string
	status   int
}

// shell is a terminal for tests.
type shell struct {
	environ []string
	in      string
	typed   string // what a person types; then in is a terminal
}

// run runs `vault` with arguments.
func (s shell) run(t *testing.T, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	term := &terminal{
		in: strings.NewReader(s.in), out: &out, err: &errs,
		environ:         s.environ,
		now:             time.Now,
		inputIsTerminal: func() bool { return s.typed != "" },
		readPassword:    func() ([]byte, error) { return []byte(s.typed), nil },
	}
	root := &cobra.Command{Use: "caddyvault", SilenceUsage: true}
	root.SetOut(&out)
	root.SetErr(&errs)
	cmd := &cobra.Command{}
	term.setup(cmd)
	root.AddCommand(cmd)
	root.SetArgs(append([]string{"vault"}, args...))
	err := root.ExecuteContext(context.Background())
	if (err == nil) != (term.status == 0) {
		t.Errorf("%q: error %v with status %d", args, err, term.status)
	}
	if term.status == exitUsage && (err == nil || err.Error() != "exiting with status 2") {
		t.Errorf("%q: Caddy would not exit with 2: %v", args, err)
	}
	return result{out.String(), errs.String(), term.status}
}

// ok is run for a command that must succeed.
func (s shell) ok(t *testing.T, args ...string) result {
	t.Helper()
	res := s.run(t, args...)
	if res.status != 0 {
		t.Fatalf("%q: status %d\n%s%s", args, res.status, res.out, res.err)
	}
	return res
}

func write(t testing.TB, path, content string, perm os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), perm); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, perm); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tree returns every file beneath dir with its content, and every directory.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir():
			m[rel] = "directory"
		case d.Name() != ".lock":
			m[rel] = read(t, path)
		}
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return m
}

func mustContain(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in:\n%s", w, text)
		}
	}
}

func mustNotContain(t *testing.T, text string, unwanted ...string) {
	t.Helper()
	for _, w := range unwanted {
		if strings.Contains(text, w) {
			t.Errorf("%q is in:\n%s", w, text)
		}
	}
}
