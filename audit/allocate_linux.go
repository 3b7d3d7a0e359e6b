package audit

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// allocate reserves room for the bytes of f from off to end without changing
// its size, so that nobody ever reads a NUL. It reports whether the file
// system can do that.
func allocate(f *os.File, off, end int64) (can bool, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return true, err
	}
	var serr error
	err = c.Control(func(fd uintptr) {
		for {
			serr = unix.Fallocate(int(fd), unix.FALLOC_FL_KEEP_SIZE, off, end-off)
			if !errors.Is(serr, unix.EINTR) {
				return
			}
		}
	})
	switch {
	case err != nil:
		return true, err
	case errors.Is(serr, unix.EOPNOTSUPP), errors.Is(serr, unix.ENOSYS), errors.Is(serr, unix.EINVAL):
		return false, nil
	}
	return true, os.NewSyscallError("fallocate", serr)
}
