package token

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/caddyvault/caddyvault/store/fsx"
)

// LoadOrCreateEd25519 returns the Ed25519 key in the file at path (PKCS #8 in
// PEM, mode 0600). If there is no file and mayCreate is set, a key is made and
// is on disk before it is returned; without mayCreate the error matches
// fs.ErrNotExist. Links and other file types, a file that others can read,
// and one that holds anything but one such key are errors: a signing key is
// never made in the place of another. The caller holds the lock of the data
// directory, so that no one else creates the file meanwhile.
func LoadOrCreateEd25519(path string, mayCreate bool) (Key, error) {
	dir, err := fsx.OpenDir(filepath.Dir(path))
	if err != nil {
		return Key{}, fmt.Errorf("signing key: %w", err)
	}
	defer dir.Close()

	name := filepath.Base(path)
	data, err := dir.ReadPrivate(name)
	if errors.Is(err, fs.ErrNotExist) && mayCreate {
		data, err = createKey(dir, name)
	}
	if err != nil {
		return Key{}, fmt.Errorf("signing key: %w", err)
	}
	priv, err := parseKey(data)
	if err != nil {
		return Key{}, fmt.Errorf("signing key %s: %w", path, err)
	}
	return Ed25519Key(priv)
}

// createKey makes a key, writes its file and returns what is in it.
func createKey(dir *fsx.Dir, name string) ([]byte, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, err
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return data, dir.WriteNew(name, data, 0o600)
}

// parseKey takes exactly one PEM block with an Ed25519 key in PKCS #8. What
// x509 says of a damaged key is dropped, in case it quotes from it.
func parseKey(data []byte) (ed25519.PrivateKey, error) {
	if len(data) == 0 {
		return nil, errors.New("empty file")
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0 {
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
