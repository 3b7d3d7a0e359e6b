package cli

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddyvault/caddyvault/legacy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store/file"
	"github.com/caddyvault/caddyvault/store/fsx"
	"github.com/caddyvault/caddyvault/store/secrets"
	"github.com/caddyvault/caddyvault/token"
	"github.com/caddyvault/caddyvault/vault"
)

// firstCaddyfile is what init writes. DATA_DIR and SERVICES_DIR stand for the
// directories.
//
//go:embed Caddyfile.init
var firstCaddyfile string

func (t *terminal) initCommand() *cobra.Command {
	cmd := t.command("init [--dir <dir>] [--data-dir <dir>] [--services-dir <dir>]", "Make directories, keys and a Caddyfile where there are none", 0, 0, t.runInit)
	cmd.Long = `Make what a vault needs where it is missing: the data directory and the
services directory, the keys that would be generated at the first start
(.vault-key, admin.token, signing-key.pem), and a Caddyfile. Nothing that is
there is changed.

It is also the way to make a new signing key when the vault refuses to start
because its key is gone: tokens under the old key are then worthless.`
	cmd.Flags().String("dir", ".", "where the Caddyfile is, and what the other directories are relative to")
	cmd.Flags().String("data-dir", "data", "the vault's data directory")
	cmd.Flags().String("services-dir", filepath.Join("config", "services"), "the directory with one file a service")
	return cmd
}

func (t *terminal) runInit(_ context.Context, cmd *cobra.Command, _ []string) error {
	var dir, dataDir, servicesDir string
	for name, into := range map[string]*string{"dir": &dir, "data-dir": &dataDir, "services-dir": &servicesDir} {
		var err error
		if *into, err = cmd.Flags().GetString(name); err != nil {
			return err
		}
		if *into == "" || strings.ContainsAny(*into, "{}`\n\r") {
			return misuse("--%s must be a path without braces, backquotes and line breaks", name)
		}
	}
	data, services := beneath(dir, dataDir), beneath(dir, servicesDir)

	if legacy.Detect(data) {
		return refusal.New("DATA_LEGACY", "%s is a data directory of the older Node system", data).
			WithHint("caddyvault vault import %s", shellQuote(dir))
	}
	for _, d := range []struct {
		path string
		make func(string) error
	}{{dir, fsx.MakeDir}, {data, fsx.MakePrivateDir}, {services, fsx.MakeDir}} {
		_, err := os.Stat(d.path)
		missing := errors.Is(err, fs.ErrNotExist)
		if err := d.make(d.path); err != nil {
			return err
		}
		t.made(missing, d.path)
	}
	if err := t.initKeys(data); err != nil {
		return err
	}
	return t.initCaddyfile(dir, dataDir, servicesDir)
}

// made says what became of a path.
func (t *terminal) made(made bool, path string) {
	verb := "kept"
	if made {
		verb = "made"
	}
	fmt.Fprintf(t.out, "%s  %s\n", verb, plain(path))
}

// generatedKey is a key that the vault generates where none is configured.
type generatedKey struct {
	file     string
	variable string // that configures it instead
	make     func(path string) error
}

var generatedKeys = []generatedKey{
	{vault.KEKFile, "VAULT_ENCRYPTION_KEY", func(path string) error {
		// A new key in the place of a lost one would only hide the loss.
		if sealed := filepath.Join(filepath.Dir(path), "secrets.enc"); exists(sealed) {
			return refusal.New("KEY_MISSING", "%s is missing, and %s is encrypted under it", path, sealed).
				WithHint("restore the key from a backup; without it the secrets cannot be read, and have to be removed and set anew")
		}
		_, err := secrets.GenerateKEKFile(path)
		return err
	}},
	{vault.AdminTokenFile, "VAULT_ADMIN_TOKEN", func(path string) error {
		b := make([]byte, 32)
		_, _ = rand.Read(b) // never fails, by its documentation
		return writeNew(path, []byte(hex.EncodeToString(b)+"\n"), 0o600)
	}},
	{vault.SigningKeyFile, "VAULT_SIGNING_KEY", func(path string) error {
		ring, err := token.OpenRing(path, time.Now, nil)
		if err == nil {
			_, err = ring.Ensure("EdDSA", true)
		}
		return err
	}},
}

// initKeys makes the keys that are missing and not configured.
func (t *terminal) initKeys(data string) error {
	var missing []generatedKey
	for _, k := range generatedKeys {
		path := filepath.Join(data, k.file)
		switch {
		case exists(path):
			t.made(false, path)
		case t.setting(k.variable) != "":
			fmt.Fprintf(t.out, "none  %s: %s is set\n", plain(path), k.variable)
		default:
			missing = append(missing, k)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	unlock, err := file.Lock(data)
	if err != nil {
		return err
	}
	defer unlock()
	for _, k := range missing {
		path := filepath.Join(data, k.file)
		if err := k.make(path); err != nil {
			return err
		}
		t.made(true, path)
	}
	return nil
}

func (t *terminal) initCaddyfile(dir, dataDir, servicesDir string) error {
	path := filepath.Join(dir, "Caddyfile")
	content := strings.NewReplacer("DATA_DIR", caddyfilePath(dataDir), "SERVICES_DIR", caddyfilePath(servicesDir)).Replace(firstCaddyfile)
	err := writeNew(path, []byte(content), 0o644)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	t.made(err == nil, path)
	if err == nil {
		where := ""
		if dir != "." {
			where = "cd " + shellQuote(dir) + " && "
		}
		fmt.Fprintf(t.out, "\nStart the vault with: %scaddyvault run\n", where)
	}
	return nil
}

// caddyfilePath writes a path as a Caddyfile takes it.
func caddyfilePath(path string) string {
	if !filepath.IsAbs(path) && !strings.HasPrefix(path, ".") {
		path = "./" + filepath.ToSlash(path)
	}
	if strings.ContainsAny(path, " \t\"#\\") {
		return "`" + path + "`"
	}
	return path
}

// beneath returns path relative to dir, unless it is absolute.
func beneath(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// writeNew writes a file that must not exist; the error wraps fs.ErrExist.
func writeNew(path string, data []byte, perm fs.FileMode) error {
	d, err := fsx.OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.WriteNew(filepath.Base(path), data, perm)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// shellQuote makes a path fit for pasting into a shell.
func shellQuote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@:,", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
