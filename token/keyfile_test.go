package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// LoadOrCreateEd25519 opens a ring for the one key in it.
func LoadOrCreateEd25519(path string, mayCreate bool) (Key, error) {
	r, err := OpenRing(path, time.Now, nil)
	if err != nil {
		return Key{}, err
	}
	return r.Ensure("EdDSA", mayCreate)
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signing-key.pem")
	if _, err := LoadOrCreateEd25519(path, false); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no file, none may be made: %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Fatal("a file was made all the same")
	}
	made, err := LoadOrCreateEd25519(path, true)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	for _, mayCreate := range []bool{true, false} {
		loaded, err := LoadOrCreateEd25519(path, mayCreate)
		if err != nil || loaded.Kid() != made.Kid() || loaded.Kid() == "" {
			t.Errorf("loaded %v, %v; made %v", loaded, err, made)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}

// A file that is there and is not a key of ours stays as it is.
func TestKeyFileRefuses(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.pem")
	if _, err := LoadOrCreateEd25519(good, true); err != nil {
		t.Fatal(err)
	}
	pemData, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte, mode fs.FileMode) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := errors.Join(os.WriteFile(path, data, 0o600), os.Chmod(path, mode)); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := map[string]func(*testing.T, string){
		"empty":           write(nil, 0o600),
		"a line break":    write([]byte("\n"), 0o600),
		"cut":             write(pemData[:len(pemData)/2], 0o600),
		"twice":           write(append(append([]byte{}, pemData...), pemData...), 0o600),
		"another key":     write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600),
		"another type":    write([]byte(strings.ReplaceAll(string(pemData), "PRIVATE", "PUBLIC")), 0o600),
		"damaged":         write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("damaged")}), 0o600),
		"group-readable":  write(pemData, 0o640),
		"world-readable":  write(pemData, 0o604),
		"group-writable":  write(pemData, 0o620),
		"a directory":     func(t *testing.T, path string) { mustNot(t, os.Mkdir(path, 0o700)) },
		"a link":          func(t *testing.T, path string) { mustNot(t, os.Symlink(good, path)) },
		"a dangling link": func(t *testing.T, path string) { mustNot(t, os.Symlink(path+".gone", path)) },
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "signing-key.pem")
			prepare(t, path)
			before, _ := os.ReadFile(path)
			_, err := LoadOrCreateEd25519(path, true)
			if err == nil {
				t.Fatal("no error")
			}
			if errors.Is(err, fs.ErrNotExist) {
				t.Errorf("taken for a first start: %v", err)
			}
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Error("the file was changed")
			}
			if _, err := os.Lstat(path + ".gone"); err == nil {
				t.Error("the link was followed")
			}
		})
	}
}

func TestKeyFileWithoutDirectory(t *testing.T) {
	if _, err := LoadOrCreateEd25519(filepath.Join(t.TempDir(), "no", "key.pem"), true); err == nil {
		t.Error("no error")
	}
}

func mustNot(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// FuzzParseKey: no content of the file makes the parser panic, and what it
// takes is a usable key.
func FuzzParseKey(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN HMAC KEY-----\nKid: AAAAAAAAAAAAAAAAAAAAAA\n\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END HMAC KEY-----\n-----BEGIN RETIRED KEY-----\nAlgorithm: ES256\nKid: x\nRetired: 2026-01-01T00:00:00Z\n\n-----END RETIRED KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeys(data)
		if err != nil {
			return
		}
		again, err := formatKeys(keys)
		if err != nil {
			t.Fatal(err)
		}
		if more, err := parseKeys(again); err != nil || len(more) != len(keys) {
			t.Fatalf("%d keys became %d: %v", len(keys), len(more), err)
		}
	})
}
