package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddyvault/caddyvault/legacy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store/file"
	"github.com/caddyvault/caddyvault/store/fsx"
	"github.com/caddyvault/caddyvault/vault"
)

// importFresh imports into a data directory without data. The new files are
// made in a directory beneath it, where renaming always works, and moved to
// their places when all of them are there; an error moves everything back.
func (t *terminal) importFresh(ctx context.Context, p *plan) (err error) {
	if err := p.makeDataDir(); err != nil {
		return err
	}
	unlock, err := file.Lock(p.dataDir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.checkFresh(); err != nil {
		return err
	}
	key := p.encryptionKey
	if own := filepath.Join(p.dataDir, vault.KEKFile); key == "" && !p.isOld(vault.KEKFile) && exists(own) {
		b, err := fsx.ReadPrivate(own)
		if err != nil {
			return err
		}
		key = string(b)
	}

	stage, err := os.MkdirTemp(p.dataDir, ".import-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	err = t.withVault(ctx, stage, filepath.Join(stage, "services"), key, func(v *vault.Vault) error { return t.fill(ctx, v, p) })
	if err != nil {
		return err
	}
	m := &mover{}
	if err := t.place(p, stage, m); err != nil {
		return errors.Join(err, m.undo())
	}
	return nil
}

// makeDataDir makes the data directory, or tightens the older system's.
func (p *plan) makeDataDir() error {
	if p.inPlace {
		// The older system made it with whatever umask there was.
		if err := os.Chmod(p.dataDir, 0o700); err != nil {
			return err
		}
	}
	return fsx.MakePrivateDir(p.dataDir)
}

func (p *plan) isOld(name string) bool {
	return p.inPlace && slices.Contains(p.system.Files, name)
}

// checkFresh refuses directories that have data. Keys may be there, as init
// makes them.
func (p *plan) checkFresh() error {
	entries, err := os.ReadDir(p.dataDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		state := name == legacy.SecretsFile || name == legacy.RevocationsFile || name == "revocations.log" ||
			strings.HasPrefix(name, "audit.log.") || name == auditLegacy
		if state && !p.isOld(name) {
			return refusal.New("DATA_NOT_EMPTY", "%s has data already: %s", p.dataDir, name).
				WithHint("choose another --data-dir, or add to it with --merge")
		}
	}
	for _, svc := range p.services {
		path := p.servicePath(svc.Name)
		if exists(path) && !sameFile(path, svc.Path) {
			return refusal.New("DATA_NOT_EMPTY", "there is a service %s already: %s", svc.Name, path).
				WithHint("choose another --services-dir, or add to it with --merge")
		}
	}
	return nil
}

func (p *plan) servicePath(name string) string { return filepath.Join(p.servicesDir, name+".json") }

// place moves the old files away and the new ones in.
func (t *terminal) place(p *plan, stage string, m *mover) error {
	if err := t.placeServices(p, stage, m); err != nil {
		return err
	}
	if p.inPlace {
		old := filepath.Join(p.dataDir, "legacy-"+t.stamp())
		if err := m.mkdir(old); err != nil {
			return err
		}
		for _, name := range p.system.Files {
			to := filepath.Join(old, name)
			if name == legacy.AuditFile {
				to = filepath.Join(p.dataDir, auditLegacy)
			}
			if err := m.rename(filepath.Join(p.dataDir, name), to); err != nil {
				return err
			}
			if err := m.chmod(to, 0o600); err != nil {
				return err
			}
		}
		t.finding("kept", "the old files in "+old)
	}
	entries, err := os.ReadDir(stage)
	if err != nil {
		return err
	}
	for _, e := range entries {
		to := filepath.Join(p.dataDir, e.Name())
		if !e.Type().IsRegular() || e.Name() == ".lock" {
			continue
		}
		if exists(to) {
			// The stage's own admin token or signing key, of no use where
			// there is one. Anything else was refused before.
			if slices.ContainsFunc(generatedKeys, func(k generatedKey) bool { return k.file == e.Name() }) {
				continue
			}
			return fmt.Errorf("%s: %w", to, fs.ErrExist)
		}
		if err := m.rename(filepath.Join(stage, e.Name()), to); err != nil {
			return err
		}
	}
	if !p.inPlace {
		if err := t.keepAuditLog(p); err != nil {
			return err
		}
	}
	d, err := fsx.OpenDir(p.dataDir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync("")
}

// placeServices writes the service files that are not in their place yet. One
// that is stays as it is, but for others' right to write it.
func (t *terminal) placeServices(p *plan, stage string, m *mover) error {
	inPlace := p.system.ServicesDir != "" && sameFile(p.system.ServicesDir, p.servicesDir)
	if inPlace {
		if err := m.deny(p.servicesDir); err != nil {
			return err
		}
	}
	if err := fsx.MakeDir(p.servicesDir); err != nil {
		return err
	}
	d, err := fsx.OpenDir(p.servicesDir)
	if err != nil {
		return err
	}
	defer d.Close()
	for _, svc := range p.services {
		path := p.servicePath(svc.Name)
		if exists(path) {
			if err := m.deny(path); err != nil {
				return err
			}
			continue
		}
		data, err := os.ReadFile(filepath.Join(stage, "services", svc.Name+".json"))
		if err != nil {
			return err
		}
		if err := d.WriteNew(svc.Name+".json", data, 0o600); err != nil {
			return err
		}
		m.undoes = append(m.undoes, func() error { return os.Remove(path) })
	}
	return nil
}

// mover changes files and remembers how to take it back.
type mover struct{ undoes []func() error }

func (m *mover) undo() error {
	var errs []error
	for _, f := range slices.Backward(m.undoes) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func (m *mover) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	m.undoes = append(m.undoes, func() error { return os.Remove(path) })
	return os.Chmod(path, 0o700)
}

// rename moves a file to a name that is free. The directory's lock is held, so
// that nobody takes it meanwhile.
func (m *mover) rename(from, to string) error {
	if exists(to) {
		return fmt.Errorf("%s: %w", to, fs.ErrExist)
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	m.undoes = append(m.undoes, func() error { return os.Rename(to, from) })
	return nil
}

func (m *mover) chmod(path string, perm fs.FileMode) error {
	fi, err := os.Lstat(path)
	if err != nil || !fi.Mode().IsRegular() && !fi.IsDir() || fi.Mode().Perm() == perm {
		return err
	}
	if err := os.Chmod(path, perm); err != nil {
		return err
	}
	m.undoes = append(m.undoes, func() error { return os.Chmod(path, fi.Mode().Perm()) })
	return nil
}

// deny takes others' right to write from a file or directory.
func (m *mover) deny(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	return m.chmod(path, fi.Mode().Perm()&^0o022)
}
