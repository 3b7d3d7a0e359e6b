//go:build !unix

package fsx

import "os"

// Weaker says what this system cannot promise; "" if nothing.
const Weaker = "file permissions are not checked, directories are not synced, and the data directory is not locked"

const (
	unixModes = false
	oNoFollow = 0
	oNonblock = 0
)

// SyncDir does nothing here: names are not synced.
func SyncDir(*os.Root) error { return nil }

func quote(path string) string { return path }
