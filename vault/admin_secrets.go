package vault

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store"
)

var noExpiry time.Time

// maxSecret is the largest secret, in bytes.
const maxSecret = 64 << 10

var secretRefPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// SecretInfo is one entry of vault.admin.listSecrets.
type SecretInfo struct {
	SecretRef string   `json:"secretRef"`
	UpdatedAt int64    `json:"updatedAt"` // milliseconds
	UsedBy    []string `json:"usedBy"`    // services that refer to it

	// Warning says what is weaker about the secret, if anything is.
	Warning string `json:"warning,omitempty"`
}

// MinScrubbed is the least length of a secret, in bytes, that is looked for in
// answers. A shorter one would be found where it is not.
const MinScrubbed = 8

// SecretWarning says what is weaker about a stored secret; "" is nothing.
func (v *Vault) SecretWarning(ref string) string {
	if s, ok := v.secrets.Get(ref); ok && len(s.Value) < MinScrubbed {
		return fmt.Sprintf("the secret is shorter than %d bytes: it is not looked for in answers, and an API that sends it back shows it", MinScrubbed)
	}
	return ""
}

// writable refuses changes while they could not be recorded.
func (v *Vault) writable() *refusal.Refusal { return v.Health() }

// RecordAdmin writes the record of an admin call that succeeded.
func (v *Vault) RecordAdmin(ctx context.Context, rec audit.Record) *refusal.Refusal {
	return v.record(ctx, audit.Entry{Record: rec})
}

// usedBy returns the names of the services that refer to a secret.
func (v *Vault) usedBy(ref string) []string {
	names := []string{}
	for _, svc := range v.services.all() {
		if svc.compiled != nil && svc.compiled.UsesSecret(ref) {
			names = append(names, svc.name)
		}
	}
	return names
}

// ListSecrets returns the names of the secrets, never a value.
func (v *Vault) ListSecrets() []SecretInfo {
	list := v.secrets.List()
	out := make([]SecretInfo, len(list))
	for i, s := range list {
		out[i] = SecretInfo{SecretRef: s.Ref, UpdatedAt: s.UpdatedAt.UnixMilli(), UsedBy: v.usedBy(s.Ref), Warning: v.SecretWarning(s.Ref)}
	}
	return out
}

// AddSecret stores or replaces a secret. A new one is bound to the origins of
// the services that refer to it now; a replaced one stays bound to what it was
// bound to, so that no file can widen where it goes.
func (v *Vault) AddSecret(ctx context.Context, ref, value string, rec *audit.Record) *refusal.Refusal {
	rec.SecretRef = ref
	if refused := v.writable(); refused != nil {
		return refused
	}
	if !secretRefPattern.MatchString(ref) {
		return refusal.New("SECRETREF_INVALID", "a secretRef is 1 to 63 letters, digits, dots, dashes and underscores, and begins with a letter or digit")
	}
	v.admins.Lock()
	defer v.admins.Unlock()
	var origins []string
	var uses []policy.SecretUse
	for _, name := range v.usedBy(ref) {
		svc := v.services.get(name).compiled
		uses = append(uses, svc.UsesFor(ref)...)
		origins = append(origins, svc.Origin)
	}
	if refused := checkSecret(value, uses); refused != nil {
		return refused
	}
	if s, ok := v.secrets.Get(ref); ok && len(s.Origins) > 0 {
		origins = s.Origins
	}
	return v.setSecret(ctx, ref, value, origins)
}

// checkSecret refuses a value that cannot be a secret, or not one for these
// uses.
func checkSecret(value string, uses []policy.SecretUse) *refusal.Refusal {
	switch {
	case value == "":
		return refusal.New("SECRET_REQUIRED", "the secret is empty")
	case len(value) > maxSecret:
		return refusal.New("SECRET_INVALID", "a secret has at most %d bytes", maxSecret)
	}
	for i := range uses {
		if why := unfit(&uses[i], value); why != "" {
			return refusal.New("SECRET_INVALID", "the secret %s", why)
		}
	}
	return nil
}

// setSecret stores the value first and records it then: a store ahead of the
// log is a crash in between, a log ahead of the store is an older store.
func (v *Vault) setSecret(ctx context.Context, ref, value string, origins []string) *refusal.Refusal {
	version, err := v.secrets.Set(ctx, ref, value, origins...)
	if err != nil {
		if r, ok := errors.AsType[*refusal.Refusal](err); ok {
			return r
		}
		return storeRefusal(err)
	}
	if warning := v.SecretWarning(ref); warning != "" {
		v.logger.Warn(warning, zap.String("secretRef", ref))
	}
	return v.record(ctx, audit.Entry{Record: audit.Record{Event: "secret.set", SecretRef: ref, SecretVersion: version}})
}

// RemoveSecret removes a secret.
func (v *Vault) RemoveSecret(ctx context.Context, ref string, rec *audit.Record) *refusal.Refusal {
	rec.SecretRef = ref
	if refused := v.writable(); refused != nil {
		return refused
	}
	v.admins.Lock()
	defer v.admins.Unlock()
	if _, ok := v.secrets.Get(ref); !ok {
		return refusal.New("UNKNOWN_SECRET", "no secret %q is stored", clip(ref)).WithHint("vault.admin.listSecrets names them")
	}
	return v.removeSecret(ctx, ref)
}

// removeSecret records first and removes then, for the reason in setSecret.
func (v *Vault) removeSecret(ctx context.Context, ref string) *refusal.Refusal {
	if refused := v.record(ctx, audit.Entry{Record: audit.Record{Event: "secret.remove", SecretRef: ref}}); refused != nil {
		return refused
	}
	if err := v.secrets.Remove(ctx, ref); err != nil && !errors.Is(err, store.ErrNotFound) {
		return storeRefusal(err)
	}
	return nil
}

// Unrevoke lifts revocations. Every target must be revoked. The owner is the
// agent that revoked what is its own, empty for a revocation that holds for
// everybody.
func (v *Vault) Unrevoke(ctx context.Context, targets RevokeTargets, owner string, rec *audit.Record) *refusal.Refusal {
	targets.fill(rec)
	if owner != "" {
		rec.Context = &audit.Context{AgentID: owner}
	}
	if refused := v.writable(); refused != nil {
		return refused
	}
	if refused := targets.check(); refused != nil {
		return refused
	}
	if owner != "" && targets.AgentID != "" {
		return refusal.New("OWNER_INVALID", "an agent as a whole has no owner")
	}
	for i, id := range targets.targets() {
		key := v.revocations.Key(revocationKinds[i], id)
		if owner != "" {
			key = v.revocations.OwnedKey(revocationKinds[i], owner, id)
		}
		if id != "" && !v.revocations.Revoked(key, v.now()) {
			return refusal.New("NOT_FOUND", "this %s is not revoked", revocationKinds[i]).
				WithHint("vault.admin.listRevocations names what is, and its owner if an agent has revoked its own")
		}
	}
	for i, id := range targets.targets() {
		if id == "" {
			continue
		}
		err := v.revocations.Lift(ctx, revocationKinds[i], owner, id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return storeRefusal(err)
		}
	}
	return nil
}
