// Package need says what a test needs of the machine.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Programs returns if the programs are installed. If one is not, the test is
// skipped, loudly; in CI, where everything is installed, it fails.
func Programs(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("NOT TESTED: %s is not installed", name)
	}
}
