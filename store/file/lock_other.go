//go:build !(darwin || linux || freebsd || netbsd || openbsd || dragonfly)

package file

import (
	"fmt"
	"os"

	"github.com/caddyvault/caddyvault/store/fsx"
)

// lockDir does not lock here; fsx.Weaker says so.
func lockDir(d *fsx.Dir) (*os.File, error) {
	f, err := d.Root().OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", d.Path(), err)
	}
	return f, nil
}
