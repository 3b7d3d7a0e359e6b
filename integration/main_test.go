package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	// The program is built from this package. With it among the imports, a
	// change to it is a change to these tests, and go test does not answer
	// from its cache.
	_ "github.com/caddyvault/caddyvault"
)

// program is the path of the program under test.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "caddyvault")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "caddyvault")
	args := []string{"build", "-o", program}
	if os.Getenv("CADDYVAULT_RACE") != "" {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../cmd/caddyvault")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build caddyvault:", err)
		return 1
	}
	return m.Run()
}
