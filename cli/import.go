package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddyvault/caddyvault/legacy"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store/secrets"
	"github.com/caddyvault/caddyvault/upstream"
)

func (t *terminal) importCommand() *cobra.Command {
	cmd := t.command("import <dir> [--data-dir <dir>] [--services-dir <dir>] [--dry-run] [--merge] [--skip-invalid]", "Take over the data of the older Node system", 1, 1, t.runImport)
	cmd.Long = `Take over secrets, revocations and services of the older Node system. <dir>
is its base directory, or its data directory. Stop it first.

The key of its secrets.enc is VAULT_ENCRYPTION_KEY (or the variable that
--key-env names) or the file .vault-key, whichever opens it. Everything is
checked as if it came in a request; if anything is not valid, nothing is done,
unless --skip-invalid leaves it out. Its audit log has no chain and is kept
beside the new one, as audit.legacy.jsonl.

If <dir> holds the new data directory too, the old files are moved to
legacy-<time> in it.`
	cmd.Flags().String("data-dir", "", "the new data directory (default: VAULT_DATA_DIR, else ./data)")
	cmd.Flags().String("services-dir", "", "the new services directory (default: VAULT_SERVICES_DIR, else ./config/services)")
	cmd.Flags().String("key-env", "VAULT_ENCRYPTION_KEY", "the environment variable with the old key")
	cmd.Flags().Bool("dry-run", false, "say what would be done, and do nothing")
	cmd.Flags().Bool("merge", false, "add to a vault that has data; what it has is kept")
	cmd.Flags().Bool("skip-invalid", false, "leave out what is not valid")
	return cmd
}

// plan is an import that has been checked.
type plan struct {
	system               *legacy.System
	dataDir, servicesDir string // absolute
	inPlace              bool   // the old data directory is the new one
	services             []plannedService
	secrets              []string // names, in order
	merge                bool

	// encryptionKey is the configured key of the new vault, "" for the one
	// in its data directory.
	encryptionKey string
}

type plannedService struct {
	legacy.Service
	compiled *policy.Compiled
}

func (t *terminal) runImport(ctx context.Context, cmd *cobra.Command, args []string) error {
	p := &plan{}
	var keyEnv string
	var dryRun, skip bool
	for name, into := range map[string]*string{"data-dir": &p.dataDir, "services-dir": &p.servicesDir, "key-env": &keyEnv} {
		*into, _ = cmd.Flags().GetString(name)
	}
	for name, into := range map[string]*bool{"dry-run": &dryRun, "merge": &p.merge, "skip-invalid": &skip} {
		*into, _ = cmd.Flags().GetBool(name)
	}
	if err := p.setDirectories(t); err != nil {
		return err
	}

	var err error
	if p.system, err = legacy.Read(args[0], t.setting(keyEnv)); err != nil {
		if errors.Is(err, legacy.ErrWrongKey) || errors.Is(err, legacy.ErrNoKey) {
			return refusal.New("KEY_INVALID", "%s", err).WithHint("set %s to the key that the older system ran with", plain(keyEnv))
		}
		return err
	}
	p.inPlace = p.system.DataDir != "" && sameFile(p.system.DataDir, p.dataDir)
	t.setEncryptionKey(p)
	for _, w := range p.system.Warnings {
		t.finding("warning", w)
	}
	invalid := t.check(p)
	if invalid > 0 && !skip {
		return refusal.New("IMPORT_INVALID", "%d of what was found is not valid; nothing was done", invalid).
			WithHint("mend it, or leave it out with --skip-invalid")
	}
	if dryRun {
		fmt.Fprintln(t.out, "nothing was done (--dry-run)")
		return nil
	}
	if p.merge {
		err = t.mergeInto(ctx, p)
	} else {
		err = t.importFresh(ctx, p)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(t.out, "imported into %s\n", plain(p.dataDir))
	return nil
}

// setDirectories fills in the defaults, which are those of Caddyfile.example.
func (p *plan) setDirectories(t *terminal) (err error) {
	if p.dataDir == "" {
		p.dataDir = t.dataDir()
	}
	if p.servicesDir == "" {
		p.servicesDir = t.setting("VAULT_SERVICES_DIR")
	}
	if p.servicesDir == "" {
		p.servicesDir = filepath.Join(t.homeDir(), "config", "services")
	}
	if p.dataDir, err = filepath.Abs(p.dataDir); err != nil {
		return err
	}
	p.servicesDir, err = filepath.Abs(p.servicesDir)
	return err
}

// setEncryptionKey decides what wraps the new vault's keys: VAULT_ENCRYPTION_KEY
// if it is a key, because the vault is going to be started with it.
func (t *terminal) setEncryptionKey(p *plan) {
	key := t.setting("VAULT_ENCRYPTION_KEY")
	if key == "" {
		return
	}
	if _, err := secrets.KEKFromString(key); err != nil {
		t.finding("warning", "VAULT_ENCRYPTION_KEY is neither 64 hex digits nor 32 bytes in base64, and the vault will not take it: "+
			"it opened the old secrets, the new ones are under a key in the data directory; unset it before the vault is started")
		return
	}
	p.encryptionKey = key
}

// finding prints one line of a report.
func (t *terminal) finding(kind, text string) {
	fmt.Fprintf(t.out, "%-8s %s\n", kind, plain(text))
}

// check looks at everything that was found, reports it, and returns how much
// of it is not valid.
func (t *terminal) check(p *plan) (invalid int) {
	bad := func(what string, err error) {
		invalid++
		text := what + ": " + err.Error()
		if r, ok := errors.AsType[*refusal.Refusal](err); ok && r.Hint != "" {
			text += " (" + r.Hint + ")"
		}
		t.finding("invalid", text)
	}
	origins := map[string][]string{}
	for _, svc := range p.system.Services {
		compiled, err := upstream.ParseService(svc.Name, svc.JSON)
		if err != nil {
			bad(svc.Path+": service "+svc.Name, err)
			continue
		}
		p.services = append(p.services, plannedService{svc, compiled})
		refs := compiled.SecretRefs()
		for _, ref := range refs {
			origins[ref] = append(origins[ref], compiled.Origin)
		}
		t.finding("service", fmt.Sprintf("%s at %s, %d endpoints, secret %s", svc.Name, compiled.Origin, len(compiled.Actions()), strings.Join(refs, " and ")))
	}
	for _, ref := range sortedKeys(p.system.Secrets) {
		if err := checkSecret(ref, p.system.Secrets[ref], len(origins[ref]) > 0); err != nil {
			bad(fmt.Sprintf("secret %.80q", ref), err)
			continue
		}
		p.secrets = append(p.secrets, ref)
		if len(origins[ref]) == 0 {
			t.finding("secret", ref+", which no service uses")
		} else {
			t.finding("secret", ref+", for "+strings.Join(unique(origins[ref]), " and "))
		}
	}
	for _, svc := range p.services {
		for _, ref := range svc.compiled.SecretRefs() {
			if _, ok := p.system.Secrets[ref]; !ok {
				t.finding("warning", fmt.Sprintf("service %s: there is no secret %s; set it with: caddyvault vault secrets set %s", svc.Name, ref, ref))
			}
		}
	}
	if r := p.system.Revocations; r.Len() > 0 {
		t.finding("revoked", fmt.Sprintf("%d tokens, %d sessions, %d tasks, %d agents", len(r.Tokens), len(r.Sessions), len(r.Tasks), len(r.Agents)))
	}
	return invalid
}

// checkSecret refuses what the vault would refuse, before anything is written.
// No error shows the value.
func checkSecret(ref, value string, inHeader bool) error {
	switch {
	case !secrets.ValidRef(ref):
		return errors.New("the name is not 1 to 63 letters, digits, dots, dashes and underscores that begin with a letter or digit")
	case value == "":
		return errors.New("it is empty")
	case len(value) > secrets.MaxValue || strings.Contains(value, "\x00"):
		return fmt.Errorf("it is longer than %d bytes or holds a NUL", secrets.MaxValue)
	case inHeader && (!printable(value) || strings.TrimSpace(value) != value):
		return errors.New("it holds a line break, a space at an end, or a character that is not ASCII, and cannot stand in a header")
	}
	return nil
}

// sameFile reports whether two paths lead to the same directory.
func sameFile(a, b string) bool {
	fa, err := os.Stat(a)
	if err != nil {
		return false
	}
	fb, err := os.Stat(b)
	return err == nil && os.SameFile(fa, fb)
}
