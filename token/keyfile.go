package token

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// maxKeyFile is far more than a PKCS #8 file with one Ed25519 key has.
const maxKeyFile = 4 << 10

// LoadOrCreateEd25519 returns the Ed25519 key in the file at path (PKCS #8 in
// PEM, mode 0600). If there is no file and mayCreate is set, a key is made and
// is on disk before it is returned; without mayCreate the error matches
// fs.ErrNotExist. Links and other file types, a file that others can read,
// and one that holds anything but one such key are errors: a signing key is
// never made in the place of another.
func LoadOrCreateEd25519(path string, mayCreate bool) (Key, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return Key{}, fmt.Errorf("signing key: %w", err)
	}
	defer root.Close()

	name := filepath.Base(path)
	priv, err := readKey(root, name)
	if errors.Is(err, fs.ErrNotExist) && mayCreate {
		priv, err = createKey(root, name)
	}
	if err != nil {
		return Key{}, fmt.Errorf("signing key %s: %w", path, err)
	}
	return Ed25519Key(priv)
}

// readKey reads and checks the file name under root.
func readKey(root *os.Root, name string) (ed25519.PrivateKey, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	// Looked at before opening: opening a pipe would wait for its writer.
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("not a regular file (%s)", before.Mode().Type())
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(before, info) {
		return nil, errors.New("replaced while it was opened")
	}
	// Windows has no such bits; its files inherit the directory's access list.
	if perm := info.Mode().Perm(); perm&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("mode %#o lets others read or change it: run chmod 600 on it", perm)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxKeyFile {
		return nil, errors.New("too large for a key")
	}
	return parseKey(data)
}

// parseKey takes exactly one PEM block with an Ed25519 key in PKCS #8. What
// x509 says of a damaged key is dropped, in case it quotes from it.
func parseKey(data []byte) (ed25519.PrivateKey, error) {
	if len(data) == 0 {
		return nil, errors.New("empty file")
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("not one PKCS #8 private key in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("damaged PKCS #8 private key")
	}
	priv, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T, Ed25519 is needed", key)
	}
	return priv, nil
}

// createKey makes a key and writes it: an exclusive file with a random name,
// fsync, rename, fsync of the directory. The caller holds the lock of the data
// directory, so nobody else creates it meanwhile.
func createKey(root *os.Root, name string) (ed25519.PrivateKey, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, err
	}
	temp := "." + name + "." + rand.Text()
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	err = errors.Join(writeKey(f, der), f.Close())
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		return nil, errors.Join(err, root.Remove(temp))
	}
	return priv, syncDir(root)
}

// writeKey writes der as PEM to f, down to the disk.
func writeKey(f *os.File, der []byte) error {
	// The umask may have taken bits away that the owner needs.
	if err := f.Chmod(0o600); err != nil && runtime.GOOS != "windows" {
		return err
	}
	if err := pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der}); err != nil {
		return err
	}
	return f.Sync()
}

// syncDir makes a rename durable. Windows cannot sync a directory.
func syncDir(root *os.Root) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
