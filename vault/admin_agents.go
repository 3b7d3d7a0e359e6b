package vault

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/caddyvault/caddyvault/agents"
	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/revocations"
)

// maxOverlap is how long an old key may work beside a new one.
const maxOverlap = 30 * 24 * time.Hour

// AgentInfo is one entry of vault.admin.listAgents: never a key or its digest.
type AgentInfo struct {
	AgentID   string         `json:"agentId"`
	Groups    []string       `json:"groups"`
	ExpiresAt int64          `json:"expiresAt,omitzero"` // milliseconds
	Binding   string         `json:"binding,omitempty"`
	Disabled  bool           `json:"disabled"`
	Keys      []AgentKeyInfo `json:"keys"`
	CreatedAt int64          `json:"createdAt,omitzero"` // milliseconds
	UpdatedAt int64          `json:"updatedAt,omitzero"` // milliseconds
	LastUse   int64          `json:"lastUse,omitzero"`   // milliseconds

	// Error says why a newer version of the agent's file is not in use.
	Error string `json:"error,omitempty"`
}

// AgentKeyInfo is what may be said of a key.
type AgentKeyInfo struct {
	ID        string `json:"id"`
	CreatedAt int64  `json:"createdAt,omitzero"` // milliseconds
	Until     int64  `json:"until,omitzero"`     // milliseconds
}

// AgentChange is what addAgent sets and updateAgent changes; nil leaves a field
// as it is.
type AgentChange struct {
	Groups    *[]string
	ExpiresAt *time.Time // the zero time: never
	Binding   *string
	Disabled  *bool
}

func (c AgentChange) apply(r *agents.Record) *refusal.Refusal {
	if c.Groups != nil {
		r.Groups = nil
		for _, g := range *c.Groups {
			if !slices.Contains(r.Groups, g) {
				r.Groups = append(r.Groups, g)
			}
		}
	}
	if c.ExpiresAt != nil {
		r.ExpiresAt = c.ExpiresAt.UTC()
	}
	if c.Binding != nil {
		b, err := agents.ParseBinding(*c.Binding)
		if err != nil {
			return refusal.New("BINDING_INVALID", "binding is dpop, mtls, any or none")
		}
		r.Binding = b
	}
	if c.Disabled != nil {
		r.Disabled = *c.Disabled
	}
	return nil
}

func unknownAgent(id string) *refusal.Refusal {
	return refusal.New("UNKNOWN_AGENT", "there is no agent %q", clip(id)).
		WithHint("vault.admin.listAgents names them, vault.admin.addAgent adds one")
}

func millisOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// ListAgents returns every agent with a record, also those whose file is
// broken.
func (v *Vault) ListAgents() []AgentInfo {
	v.agents.mu.Lock()
	defer v.agents.mu.Unlock()
	now := v.now()
	out := make([]AgentInfo, 0, len(v.agents.files))
	for name, f := range v.agents.files {
		info := AgentInfo{AgentID: agents.IDOf(name), Groups: []string{}, Keys: []AgentKeyInfo{}}
		if f.err != nil {
			info.Error = f.err.Error()
		}
		if a := f.agent; a != nil {
			info.Groups = append(info.Groups, a.Groups...)
			info.ExpiresAt, info.Binding, info.Disabled = millisOf(a.ExpiresAt), string(a.Binding), a.Disabled
			info.CreatedAt, info.UpdatedAt, info.LastUse = millisOf(a.CreatedAt), millisOf(a.UpdatedAt), a.Used.Load()
			for _, k := range a.Keys {
				if k.Until.IsZero() || now.Before(k.Until) {
					info.Keys = append(info.Keys, AgentKeyInfo{ID: k.ID, CreatedAt: millisOf(k.CreatedAt), Until: millisOf(k.Until)})
				}
			}
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b AgentInfo) int {
		if a.AgentID < b.AgentID {
			return -1
		}
		return 1
	})
	return out
}

// AddAgent adds an agent that has no record yet and returns its key, which
// nobody can learn again.
func (v *Vault) AddAgent(ctx context.Context, id string, c AgentChange, rec *audit.Record) (string, *refusal.Refusal) {
	rec.AgentID = id
	if refused := v.writable(); refused != nil {
		return "", refused
	}
	if !agents.ValidID(id) {
		return "", agentIDInvalid()
	}
	v.admins.Lock()
	defer v.admins.Unlock()
	if v.agents.rev(id) != 0 {
		return "", refusal.New("AGENT_ALREADY_EXISTS", "there is an agent %q already", clip(id)).
			WithHint("change it with vault.admin.updateAgent, or give it a new key with vault.admin.rotateAgentKey")
	}
	if v.revocations.Revoked(v.revocations.Key(revocations.Agent, id), v.now()) {
		r := refusal.New("AGENT_REVOKED", "the agent %q is revoked, or was removed so lately that tokens of it may still be about", clip(id)).
			WithHint("lift that with vault.admin.unrevoke, or wait 16 minutes after a removal")
		r.Status = refusal.Status("AGENT_ALREADY_EXISTS")
		return "", r
	}
	now := v.now().UTC().Truncate(time.Second)
	r := &agents.Record{ID: id, CreatedAt: now, UpdatedAt: now}
	if refused := c.apply(r); refused != nil {
		return "", refused
	}
	key, k := agents.NewKey(now)
	r.Keys = []agents.Key{k}
	rec.Kid = k.ID
	if refused := v.putAgent(ctx, r, 0); refused != nil {
		return "", refused
	}
	return key, nil
}

func agentIDInvalid() *refusal.Refusal {
	return refusal.New("AGENTID_INVALID", "the id of an agent is 1 to 240 bytes of printable text, and neither * nor group:…")
}

// change writes a changed copy of an agent's record. A disabled agent's calls
// that are under way are cut.
func (v *Vault) changeAgent(ctx context.Context, id string, rec *audit.Record, change func(*agents.Record) *refusal.Refusal) *refusal.Refusal {
	rec.AgentID = id
	if refused := v.writable(); refused != nil {
		return refused
	}
	v.admins.Lock()
	defer v.admins.Unlock()
	a := v.agents.get(id)
	if a == nil || a.Broken {
		if v.agents.rev(id) != 0 {
			return refusal.New("AGENT_INVALID", "the file of agent %q is not valid", clip(id)).
				WithHint("vault.admin.listAgents says why; mend the file, or remove the agent and add it anew")
		}
		return unknownAgent(id)
	}
	r := a.Record
	r.Groups, r.Keys = slices.Clone(r.Groups), slices.Clone(r.Keys)
	if refused := change(&r); refused != nil {
		return refused
	}
	r.UpdatedAt = v.now().UTC().Truncate(time.Second)
	return v.putAgent(ctx, &r, v.agents.rev(id))
}

// putAgent writes a record and puts it into force.
func (v *Vault) putAgent(ctx context.Context, r *agents.Record, ifRev store.Rev) *refusal.Refusal {
	value, err := r.Marshal()
	if err != nil {
		return refusal.New("AGENT_INVALID", "%s", err)
	}
	key := store.Agents + agents.FileName(r.ID)
	v.agents.writing.Lock()
	rev, err := v.store.Put(ctx, key, value, ifRev, noExpiry)
	if err == nil {
		v.agents.apply(store.Event{Type: store.Put, Entry: store.Entry{Key: key, Value: value, Rev: rev}})
	}
	v.agents.writing.Unlock()
	switch {
	case errors.Is(err, store.ErrConflict):
		return refusal.New("AGENT_ALREADY_EXISTS", "the agent %q was changed meanwhile", clip(r.ID)).WithHint("look at it and try again")
	case err != nil:
		return storeRefusal(err)
	}
	v.live.revoked()
	return nil
}

// UpdateAgent changes an agent's record.
func (v *Vault) UpdateAgent(ctx context.Context, id string, c AgentChange, rec *audit.Record) *refusal.Refusal {
	return v.changeAgent(ctx, id, rec, c.apply)
}

// RotateAgentKey gives an agent a new key. The one it had works on through the
// overlap; an older one ends at once.
func (v *Vault) RotateAgentKey(ctx context.Context, id string, overlap time.Duration, rec *audit.Record) (string, *refusal.Refusal) {
	if overlap < 0 || overlap > maxOverlap {
		rec.AgentID = id
		return "", refusal.New("OVERLAP_INVALID", "overlap is a number of seconds from 0 to %d", int(maxOverlap/time.Second))
	}
	now := v.now().UTC().Truncate(time.Second)
	key, k := agents.NewKey(now)
	rec.Kid = k.ID
	refused := v.changeAgent(ctx, id, rec, func(r *agents.Record) *refusal.Refusal {
		keys := []agents.Key{k}
		if overlap > 0 && len(r.Keys) > 0 {
			old := r.Keys[0]
			if until := now.Add(overlap); old.Until.IsZero() || until.Before(old.Until) {
				old.Until = until
			}
			keys = append(keys, old)
		}
		r.Keys = keys
		return nil
	})
	if refused != nil {
		return "", refused
	}
	return key, nil
}

// RemoveAgent removes an agent's record, and with it its keys and tokens.
func (v *Vault) RemoveAgent(ctx context.Context, id string, rec *audit.Record) *refusal.Refusal {
	rec.AgentID = id
	if refused := v.writable(); refused != nil {
		return refused
	}
	v.admins.Lock()
	defer v.admins.Unlock()
	if v.agents.rev(id) == 0 {
		return unknownAgent(id)
	}
	if err := v.endAgent(ctx, id); err != nil {
		return storeRefusal(err)
	}
	key := store.Agents + agents.FileName(id)
	v.agents.writing.Lock()
	rev, err := v.store.Delete(ctx, key, store.AnyRev)
	if err == nil {
		v.agents.apply(store.Event{Type: store.Delete, Entry: store.Entry{Key: key, Rev: rev}})
	}
	v.agents.writing.Unlock()
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return storeRefusal(err)
	}
	return nil
}
