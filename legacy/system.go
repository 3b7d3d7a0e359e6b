package legacy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyvault/caddyvault/store/fsx"
)

// Names of the older system's files.
const (
	SecretsFile     = "secrets.enc"
	KeyFile         = ".vault-key"
	RevocationsFile = "revocations.json"
	AuditFile       = "audit.log.jsonl"
	policyFile      = "policy.json"
)

// maxFile is the largest file that is read whole, in bytes.
const maxFile = 16 << 20

// ErrNotFound: the directory holds nothing of the older system.
var ErrNotFound = errors.New("nothing of the older Node system found")

// System is what was found.
type System struct {
	// DataDir is the directory with the secrets, the revocations and the
	// audit log, "" if there is none.
	DataDir string

	// ServicesDir is the directory with one file a service, "" if there is
	// none.
	ServicesDir string

	// Files are the names in DataDir that belong to the older system.
	Files []string

	// Services are in the order of their names, which are unique.
	Services []Service

	// Secrets holds every secret by its name.
	Secrets Secrets

	Revocations Revocations

	// Warnings are what an administrator should know, one sentence each.
	Warnings []string
}

// Service is one service as it was written down.
type Service struct {
	// Name is the file's name without ".json", or the key in policy.json.
	// It may be no valid name.
	Name string

	// Path is the file it was read from.
	Path string

	// JSON is the service: one JSON value, perhaps not even an object.
	JSON []byte
}

// Read reads the older system in dir, which is its base directory (with data
// and config beneath it) or its data directory. A key for secrets.enc is
// taken from the keys given, each in any form of ParseKey, or from .vault-key;
// whichever opens the file. The error wraps ErrNotFound if there is nothing.
func Read(dir string, keys ...string) (*System, error) {
	s := &System{}
	data, bases := locate(dir)
	if data != "" {
		if err := s.readData(data, keys); err != nil {
			return nil, err
		}
	}
	for _, base := range bases {
		found, err := s.readConfig(filepath.Join(base, "config"))
		if err != nil {
			return nil, err
		}
		if found {
			break
		}
	}
	if s.DataDir == "" && s.Services == nil {
		return nil, fmt.Errorf("%s: %w", dir, ErrNotFound)
	}
	return s, nil
}

// Detect reports whether dir is a data directory of the older system: it has
// revocations.json, or a secrets.enc of version 1.
func Detect(dir string) bool {
	if exists(filepath.Join(dir, RevocationsFile)) {
		return true
	}
	d, err := fsx.OpenDir(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	b, err := readFile(d, SecretsFile)
	return err == nil && isV1(b)
}

// locate returns the data directory, "" if there is none, and the
// directories that may have a folder config, the likeliest first.
func locate(dir string) (data string, bases []string) {
	for _, d := range []string{filepath.Join(dir, "data"), dir} {
		if Detect(d) {
			data = d
			break
		}
	}
	bases = []string{dir}
	if data == dir {
		bases = append(bases, filepath.Dir(filepath.Clean(dir)))
	}
	return data, bases
}

func (s *System) readData(dir string, keys []string) error {
	d, err := fsx.OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	s.DataDir = dir
	for _, name := range []string{SecretsFile, KeyFile, RevocationsFile, AuditFile} {
		if fi, err := d.Root().Lstat(name); err == nil {
			s.Files = append(s.Files, name)
			s.warnMode(filepath.Join(dir, name), fi, name == SecretsFile || name == KeyFile)
		}
	}

	sealed, err := readFile(d, SecretsFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if s.Secrets, err = s.openSecrets(d, sealed, keys); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, SecretsFile), err)
		}
	}

	revoked, err := readFile(d, RevocationsFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if s.Revocations, err = ParseRevocations(revoked); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, RevocationsFile), err)
		}
	}
	return nil
}

// openSecrets tries the given keys and then the one in the key file.
func (s *System) openSecrets(d *fsx.Dir, sealed []byte, keys []string) (Secrets, error) {
	tried := 0
	for _, key := range keys {
		if strings.TrimSpace(key) == "" {
			continue
		}
		tried++
		secrets, err := OpenSecrets(sealed, key)
		if !errors.Is(err, ErrWrongKey) {
			return secrets, err
		}
	}
	key, err := readFile(d, KeyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && tried == 0:
		return nil, ErrNoKey
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrWrongKey
	case err != nil:
		return nil, err
	}
	return OpenSecrets(sealed, string(key))
}

// warnMode warns of a file that others can write or, if it is private, read.
func (s *System) warnMode(path string, fi fs.FileInfo, private bool) {
	check := fsx.CheckUnwritable
	if private {
		check = fsx.CheckPrivate
	}
	if fi.Mode().IsRegular() && check(path, fi) != nil {
		what := "written"
		if private {
			what = "read or written"
		}
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s could be %s by others (mode %04o)", path, what, fi.Mode().Perm()))
	}
}

// readFile reads a regular file of at most maxFile bytes.
func readFile(d *fsx.Dir, name string) ([]byte, error) {
	f, fi, err := d.OpenRegular(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi.Size() > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", filepath.Join(d.Path(), name), maxFile)
	}
	b := make([]byte, fi.Size())
	n, err := f.ReadAt(b, 0)
	if n < len(b) && err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(d.Path(), name), err)
	}
	return b, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
