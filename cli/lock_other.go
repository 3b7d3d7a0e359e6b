//go:build !(darwin || linux || freebsd || netbsd || openbsd || dragonfly)

package cli

// lockDir does nothing: this system has no lock that the vault would hold.
func lockDir(string) (unlock func(), err error) { return func() {}, nil }
