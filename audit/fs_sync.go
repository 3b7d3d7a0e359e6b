//go:build !linux

package audit

import "os"

// fdatasync is a whole fsync; on macOS package os uses F_FULLFSYNC for it.
func fdatasync(f *os.File) error { return f.Sync() }
