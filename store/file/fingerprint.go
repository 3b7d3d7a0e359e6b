package file

import "io/fs"

// fingerprint tells whether a file may have changed. The zero value equals
// that of no file, so it means "look at it".
type fingerprint struct {
	size  int64
	mode  fs.FileMode
	mtime int64 // Unix nanoseconds
	ino   uint64
	ctime int64 // changes even where size and mtime were kept
	gone  bool
}

func fingerprintOf(fi fs.FileInfo) fingerprint {
	f := fingerprint{size: fi.Size(), mode: fi.Mode(), mtime: fi.ModTime().UnixNano()}
	f.ino, f.ctime = inode(fi)
	return f
}
