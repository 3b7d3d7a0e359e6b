//go:build darwin || linux || freebsd || netbsd || openbsd || dragonfly

package file

import (
	"errors"
	"fmt"
	"os"

	"github.com/caddyvault/caddyvault/store/fsx"
	"golang.org/x/sys/unix"
)

// lockDir takes the directory for this process until the returned file is
// closed, also by a crash. A second Open in the same process fails, too.
func lockDir(d *fsx.Dir) (*os.File, error) {
	f, err := d.Root().OpenFile(lockName, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", d.Path(), err)
	}
	fi, err := d.Root().Lstat(lockName)
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file: %w", lockName, fsx.ErrInsecure)
	}
	if err == nil {
		err = f.Chmod(0o600)
	}
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", d.Path(), err)
	}
	return f, nil
}
