//go:build unix

package fsx

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Weaker says what this system cannot promise; "" if nothing.
const Weaker = ""

const (
	unixModes = true
	oNoFollow = syscall.O_NOFOLLOW
	oNonblock = syscall.O_NONBLOCK
)

// SyncDir makes what was created, renamed and removed in a directory durable.
func SyncDir(root *os.Root) error {
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// quote makes path fit for pasting behind a chmod.
func quote(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@:,", r))
	}) {
		return fmt.Sprintf("'%s'", strings.ReplaceAll(path, "'", `'\''`))
	}
	return path
}
