//go:build unix

package upstream

import "syscall"

const oNonblock = syscall.O_NONBLOCK
