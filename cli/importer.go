package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/legacy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store/fsx"
	"github.com/caddyvault/caddyvault/upstream"
	"github.com/caddyvault/caddyvault/vault"
)

// The settings of the vault that an import goes through. Its tokens are never
// issued; only how long revocations are kept matters.
const (
	importTTL  = 15 * time.Minute
	importKeep = 30 * 24 * time.Hour
)

// importReason stands in the records of what was imported.
const importReason = "imported from the older system"

// auditLegacy is what the older audit log is kept as.
const auditLegacy = "audit.legacy.jsonl"

// withVault opens the vault in a data directory and calls f. What f does goes
// through the same checks and into the same log as a request.
func (t *terminal) withVault(ctx context.Context, dataDir, servicesDir, encryptionKey string, f func(*vault.Vault) error) (err error) {
	st, err := vault.OpenState(ctx, vault.StateOptions{
		DataDir: dataDir, ServicesDir: servicesDir, EncryptionKey: encryptionKey,
		ParseService: upstream.ParseService, Logger: zap.NewNop(), Now: t.now,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	v, err := vault.New(st, vault.Config{
		Audience: "import", Issuer: "import",
		TokenTTL: importTTL, TokenTTLMax: importTTL, RevocationsKeep: importKeep,
		SigningKey: t.setting("VAULT_SIGNING_KEY"), AdminToken: t.setting("VAULT_ADMIN_TOKEN"),
	})
	if err != nil {
		return err
	}
	return f(v)
}

// fill puts what was planned into a vault. What the vault has is kept.
func (t *terminal) fill(ctx context.Context, v *vault.Vault, p *plan) error {
	stored := map[string]bool{}
	for _, s := range v.ListSecrets() {
		stored[s.SecretRef] = true
	}
	present := map[string]bool{}
	boundTo := map[string][]string{}
	for _, s := range v.ListServices() {
		present[s.Service] = true
		if svc := v.Policy(s.Service); svc != nil {
			for _, ref := range svc.SecretRefs() {
				boundTo[ref] = append(boundTo[ref], svc.Origin)
			}
		}
	}
	// Adding a service binds its secret to its origin. That is for an
	// administrator to say of a secret that is here already, not for a file
	// that comes with others. All are looked at before the first is added.
	for _, svc := range p.services {
		for _, ref := range svc.compiled.SecretRefs() {
			if !present[svc.Name] && stored[ref] && !slices.Contains(boundTo[ref], svc.compiled.Origin) {
				return refusal.New("SECRET_ORIGIN_MISMATCH", "service %s would send the secret %s, which the vault already has, to %s", svc.Name, ref, svc.compiled.Origin).
					WithHint("add this service by itself: caddyvault vault services add %s", shellQuote(svc.Path))
			}
		}
	}

	for _, svc := range p.services {
		if present[svc.Name] {
			t.finding("kept", "service "+svc.Name+", which the vault already has")
			continue
		}
		var rec audit.Record
		if refused := v.AddService(ctx, svc.Name, svc.JSON, nil, &rec); refused != nil {
			return fmt.Errorf("service %s: %w", svc.Name, refused)
		}
		if err := recordImport(ctx, v, "admin.addService", rec); err != nil {
			return err
		}
	}
	for _, ref := range p.secrets {
		if stored[ref] {
			t.finding("kept", "secret "+ref+", which the vault already has")
			continue
		}
		var rec audit.Record
		if refused := v.AddSecret(ctx, ref, p.system.Secrets[ref], &rec); refused != nil {
			return fmt.Errorf("secret %s: %w", ref, refused)
		}
		if err := recordImport(ctx, v, "admin.addSecret", rec); err != nil {
			return err
		}
	}
	return t.revokeAll(ctx, v, p.system.Revocations)
}

func recordImport(ctx context.Context, v *vault.Vault, event string, rec audit.Record) error {
	rec.Event, rec.Reason = event, importReason
	if refused := v.RecordAdmin(ctx, rec); refused != nil {
		return refused
	}
	return nil
}

// revokeAll revokes what the older system had revoked. An id that cannot be
// one, and so never will be in a token, is left out.
func (t *terminal) revokeAll(ctx context.Context, v *vault.Vault, r legacy.Revocations) error {
	for _, k := range []struct {
		kind   string
		ids    []string
		target func(id string) vault.RevokeTargets
	}{
		{"token", r.Tokens, func(id string) vault.RevokeTargets { return vault.RevokeTargets{TokenID: id} }},
		{"session", r.Sessions, func(id string) vault.RevokeTargets { return vault.RevokeTargets{SessionID: id} }},
		{"task", r.Tasks, func(id string) vault.RevokeTargets { return vault.RevokeTargets{TaskID: id} }},
		{"agent", r.Agents, func(id string) vault.RevokeTargets { return vault.RevokeTargets{AgentID: id} }},
	} {
		for _, id := range k.ids {
			var rec audit.Record
			refused := v.Revoke(ctx, vault.Caller{Trusted: true}, k.target(id), importReason, &rec)
			switch {
			case refused == nil:
			case refused.Status == http.StatusBadRequest:
				t.finding("warning", fmt.Sprintf("revoked %s %.80q is no valid id and was left out", k.kind, id))
			default:
				return refused
			}
		}
	}
	return nil
}

// mergeInto adds to a vault that has data.
func (t *terminal) mergeInto(ctx context.Context, p *plan) error {
	if p.inPlace {
		return refusal.New("DATA_LEGACY", "%s holds the older system's data itself, there is nothing to merge into", p.dataDir).
			WithHint("leave --merge out")
	}
	err := t.withVault(ctx, p.dataDir, p.servicesDir, p.encryptionKey, func(v *vault.Vault) error { return t.fill(ctx, v, p) })
	if err != nil {
		return err
	}
	return t.keepAuditLog(p)
}

// keepAuditLog copies the older audit log into the data directory.
func (t *terminal) keepAuditLog(p *plan) error {
	if !slices.Contains(p.system.Files, legacy.AuditFile) {
		return nil
	}
	from, err := fsx.OpenDir(p.system.DataDir)
	if err != nil {
		return err
	}
	defer from.Close()
	f, _, err := from.OpenRegular(legacy.AuditFile, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	to, err := fsx.OpenDir(p.dataDir)
	if err != nil {
		return err
	}
	defer to.Close()
	name := auditLegacy
	if exists(filepath.Join(p.dataDir, name)) {
		name = "audit.legacy." + t.stamp() + ".jsonl"
	}
	tmp, err := to.CreateTemp(name, 0o600)
	if err != nil {
		return err
	}
	if _, err = io.Copy(tmp, f); err == nil {
		err = tmp.Commit()
	}
	if err != nil {
		tmp.Abort()
		return err
	}
	t.finding("kept", "the older audit log as "+filepath.Join(p.dataDir, name))
	return tmp.Close()
}

// stamp is the time in a file's name.
func (t *terminal) stamp() string { return t.now().UTC().Format("20060102T150405Z") }

func sortedKeys[M ~map[string]V, V any](m M) []string { return slices.Sorted(maps.Keys(m)) }

func unique(list []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}
