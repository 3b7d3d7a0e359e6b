package audit

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// allocate reserves room for the bytes of f from off to end without changing
// its size. It reports whether the file system can do that.
func allocate(f *os.File, off, end int64) (can bool, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return true, err
	}
	var serr error
	err = c.Control(func(fd uintptr) {
		// From the end of what is there or reserved already.
		store := unix.Fstore_t{Flags: unix.F_ALLOCATEALL, Posmode: unix.F_PEOFPOSMODE, Length: end - off}
		serr = unix.FcntlFstore(fd, unix.F_PREALLOCATE, &store)
	})
	switch {
	case err != nil:
		return true, err
	case errors.Is(serr, unix.ENOTSUP), errors.Is(serr, unix.EINVAL):
		return false, nil
	}
	return true, os.NewSyscallError("fcntl", serr)
}
