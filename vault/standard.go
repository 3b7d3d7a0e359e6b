package vault

import (
	"context"
	"strings"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/refusal"
)

// StandardInfo is TokenInfo in the names of RFC 7662, section 2.2, and of those
// that add to it.
type StandardInfo struct {
	Active   bool           `json:"active"`
	Scope    string         `json:"scope,omitzero"`
	ClientID string         `json:"client_id,omitzero"`
	Type     string         `json:"token_type,omitzero"`
	Exp      int64          `json:"exp,omitzero"`
	Iat      int64          `json:"iat,omitzero"`
	Sub      string         `json:"sub,omitzero"`
	Aud      string         `json:"aud,omitzero"`
	Iss      string         `json:"iss,omitzero"`
	ID       string         `json:"jti,omitzero"`
	Bound    *StandardCnf   `json:"cnf,omitzero"`
	Actor    *StandardActor `json:"act,omitzero"`

	Service string `json:"service,omitzero"`
	TokenInfoExtra
}

// TokenInfoExtra is what a token has that no standard names.
type TokenInfoExtra struct {
	SessionID string              `json:"sessionId,omitzero"`
	TaskID    string              `json:"taskId,omitzero"`
	Actions   []string            `json:"actions,omitzero"`
	Params    map[string][]string `json:"params,omitzero"`
	MaxCalls  int64               `json:"maxCalls,omitzero"`
	MaxBytes  int64               `json:"maxBytes,omitzero"`
	CallsLeft *int64              `json:"callsLeft,omitzero"`
	BytesLeft *int64              `json:"bytesLeft,omitzero"`
	ParentID  string              `json:"parentId,omitzero"`
	Chain     []AncestorInfo      `json:"chain,omitzero"`
}

// StandardCnf is what a token is bound to.
type StandardCnf struct {
	JKT string `json:"jkt,omitzero"`
	X5T string `json:"x5t#S256,omitzero"`
}

// StandardActor is the line of agents, the user of the token outermost.
type StandardActor struct {
	Sub   string         `json:"sub"`
	Actor *StandardActor `json:"act,omitzero"`
}

// Standard returns the same in the names of the standards.
func (i *TokenInfo) Standard() *StandardInfo {
	if !i.Active {
		return new(StandardInfo)
	}
	c := i.claims
	out := &StandardInfo{
		Active: true, Scope: strings.Join(i.Scope, " "), ClientID: i.AgentID, Type: "Bearer", Exp: i.ExpiresAt, Iat: i.IssuedAt,
		Sub: i.AgentID, Aud: c.Audience, Iss: c.Issuer, ID: i.TokenID, Service: i.Service,
		TokenInfoExtra: TokenInfoExtra{i.SessionID, i.TaskID, i.Actions, i.Params, i.MaxCalls, i.MaxBytes, i.CallsLeft, i.BytesLeft, i.ParentID, i.Chain},
	}
	if b := c.Bound; b != nil {
		out.Bound = &StandardCnf{b.JKT, b.X5T}
		if b.JKT != "" {
			out.Type = "DPoP"
		}
	}
	if len(c.Chain) > 0 {
		out.Actor = &StandardActor{Sub: c.Subject}
		at := out.Actor
		for _, a := range c.Chain {
			at.Actor = &StandardActor{Sub: a.AgentID}
			at = at.Actor
		}
	}
	return out
}

// RevokeToken revokes a token that is shown, for its own agent or an
// administrator. One that is not good needs no revoking (RFC 7009, section
// 2.2).
func (v *Vault) RevokeToken(ctx context.Context, caller Caller, admin bool, raw string, rec *audit.Record) *refusal.Refusal {
	if !admin && caller.Agent == "" && !caller.Trusted {
		return unauthenticated()
	}
	t, refused := v.tokens.Verify(raw)
	if refused != nil {
		return nil
	}
	if !admin && caller.Agent != "" && caller.Agent != t.Subject {
		return refusal.New("AGENT_MISMATCH", "the token is another agent's")
	}
	if admin {
		caller.Trusted = true
	}
	return v.revoke(ctx, caller, RevokeTargets{TokenID: t.ID}, "revoked by its holder", true, rec)
}
