package file

import "github.com/caddyvault/caddyvault/store/fsx"

// Lock takes a data directory for this process, as an open Store does, until
// unlock is called.
func Lock(dir string) (unlock func(), err error) {
	d, err := fsx.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	f, err := lockDir(d)
	if err != nil {
		_ = d.Close()
		return nil, err
	}
	return func() {
		_ = f.Close()
		_ = d.Close()
	}, nil
}
