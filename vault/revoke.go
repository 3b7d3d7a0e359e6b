package vault

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store/revocations"
)

// RevokeTargets names what a revocation is about; at least one is set.
type RevokeTargets struct {
	TokenID   string `json:"tokenId,omitempty"`
	SessionID string `json:"sessionId,omitempty"`
	TaskID    string `json:"taskId,omitempty"`
	AgentID   string `json:"agentId,omitempty"`
}

// targets lists the given targets in the order of revocationKinds.
func (t RevokeTargets) targets() [4]string {
	return [4]string{t.TokenID, t.SessionID, t.TaskID, t.AgentID}
}

// check refuses targets that are absent or not ids.
func (t RevokeTargets) check() *refusal.Refusal {
	given := false
	for i, id := range t.targets() {
		if id == "" {
			continue
		}
		given = true
		if refused := checkID([4]string{"TOKENID", "SESSIONID", "TASKID", "AGENTID"}[i], id); refused != nil {
			return refused
		}
	}
	if !given {
		return refusal.New("REVOKE_TARGET_REQUIRED", "name at least one of tokenId, sessionId, taskId and agentId")
	}
	return nil
}

func (t RevokeTargets) fill(rec *audit.Record) {
	rec.TokenID, rec.SessionID, rec.TaskID, rec.AgentID = t.TokenID, t.SessionID, t.TaskID, t.AgentID
}

// Revoke makes the targets useless for every call that starts after it
// returns. For a caller who is known as an agent, they are its own: of a token,
// session or task of the same id that is another agent's, nothing changes, and
// nothing is told. The revocation is kept even if a refusal says that it could not be
// recorded or stored: on the safe side.
func (v *Vault) Revoke(ctx context.Context, caller Caller, targets RevokeTargets, reason string, rec *audit.Record) *refusal.Refusal {
	return v.revoke(ctx, caller, targets, reason, false, rec)
}

// revoke is Revoke, of what is known to exist if the caller has shown it.
func (v *Vault) revoke(ctx context.Context, caller Caller, targets RevokeTargets, reason string, shown bool, rec *audit.Record) *refusal.Refusal {
	targets.fill(rec)
	rec.Reason = reason
	owner := ""
	switch {
	case caller.Admin || caller.Trusted:
	case caller.Agent == "":
		return unauthenticated()
	default:
		owner = caller.Agent
		rec.Context = &audit.Context{AgentID: owner}
		if targets.AgentID != "" && targets.AgentID != owner {
			return refusal.New("AGENT_MISMATCH", "an agent can revoke itself and what is its own, and no other agent").
				WithHint("an administrator revokes whatever there is, with the admin token as Authorization: Bearer")
		}
	}
	if refused := targets.check(); refused != nil {
		return refused
	}

	// Whoever asked may be gone by now; what they asked for is done.
	ctx = context.WithoutCancel(ctx)
	now := v.now()
	var list []revocations.Revocation
	for i, id := range targets.targets() {
		if id == "" {
			continue
		}
		r := revocations.Revocation{Kind: revocationKinds[i], ID: id, Reason: reason, Since: now}
		if r.Kind != revocations.Agent {
			r.Owner = owner
		}
		switch r.Kind {
		case revocations.Token:
			// No token outlives this, whatever it is.
			r.Expires = now.Add(v.TokenTTLMax + time.Minute)
		case revocations.Session, revocations.Task:
			r.Expires = now.Add(v.RevocationsKeep)
		}
		list = append(list, r)
	}
	if owner != "" && !shown {
		if refused := v.chargeRevocations(owner, list); refused != nil {
			return refused
		}
	}
	enforce := func() {
		for _, r := range list {
			v.revocations.Enforce(r)
		}
	}

	for _, r := range list {
		if err := v.revocations.Save(ctx, r); err != nil {
			enforce()
			v.logger.Error("revocation is in force but could not be stored", zap.Stringer("kind", r.Kind), zap.Error(err))
			return storeRefusal(err)
		}
	}
	rec.Event = "token.revoked"
	if refused := v.record(ctx, audit.Entry{Record: *rec, InForce: enforce}); refused != nil {
		enforce()
		return refused
	}
	return nil
}

// RevocationInfo is one entry of vault.admin.listRevocations.
type RevocationInfo struct {
	Kind    string `json:"kind"`
	ID      string `json:"id"`
	Owner   string `json:"owner,omitempty"` // the agent it holds for, if not for all
	Reason  string `json:"reason"`
	Since   int64  `json:"since"`            // milliseconds
	Expires int64  `json:"expires,omitzero"` // milliseconds, 0 for never
}

// ListRevocations returns what is revoked now.
func (v *Vault) ListRevocations(ctx context.Context) ([]RevocationInfo, *refusal.Refusal) {
	list, err := v.revocations.List(ctx)
	if err != nil {
		return nil, storeRefusal(err)
	}
	out := make([]RevocationInfo, len(list))
	for i, r := range list {
		out[i] = RevocationInfo{Kind: r.Kind.String(), ID: r.ID, Owner: r.Owner, Reason: r.Reason, Since: r.Since.UnixMilli()}
		if !r.Expires.IsZero() {
			out[i].Expires = r.Expires.UnixMilli()
		}
	}
	return out, nil
}
