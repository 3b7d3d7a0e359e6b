package vault

import (
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token"
)

// TokenInfo is what a token is and what is left of it. Of a token that is not
// good only Active is told (RFC 7662, section 2.2).
type TokenInfo struct {
	Active    bool     `json:"active"`
	TokenID   string   `json:"tokenId,omitzero"`
	AgentID   string   `json:"agentId,omitzero"`
	SessionID string   `json:"sessionId,omitzero"`
	TaskID    string   `json:"taskId,omitzero"`
	SkillID   string   `json:"skillId,omitzero"`
	Tool      string   `json:"tool,omitzero"`
	Service   string   `json:"service,omitzero"`
	Scope     []string `json:"scope,omitzero"`
	IssuedAt  int64    `json:"issuedAt,omitzero"`  // seconds
	ExpiresAt int64    `json:"expiresAt,omitzero"` // seconds

	Actions  []string            `json:"actions,omitzero"`
	Params   map[string][]string `json:"params,omitzero"`
	MaxCalls int64               `json:"maxCalls,omitzero"`
	MaxBytes int64               `json:"maxBytes,omitzero"`
	OneTime  bool                `json:"oneTime,omitzero"`

	// CallsLeft and BytesLeft are the least that the token's own budget and
	// those above it leave.
	CallsLeft *int64 `json:"callsLeft,omitzero"`
	BytesLeft *int64 `json:"bytesLeft,omitzero"`

	// Bound says how its holder has to show that it is theirs: dpop or mtls.
	Bound string `json:"bound,omitzero"`

	ParentID string         `json:"parentId,omitzero"`
	Chain    []AncestorInfo `json:"chain,omitzero"`

	claims *token.Claims
}

// AncestorInfo is one token above, the parent first.
type AncestorInfo struct {
	TokenID  string `json:"tokenId"`
	AgentID  string `json:"agentId"`
	TaskID   string `json:"taskId"`
	MaxCalls int64  `json:"maxCalls,omitzero"`
	MaxBytes int64  `json:"maxBytes,omitzero"`
}

// Introspect says what a token is, to an administrator or to the agent it was
// issued to. To anyone else it is as if there were no such token.
func (v *Vault) Introspect(caller Caller, admin bool, raw string) (*TokenInfo, *refusal.Refusal) {
	if !admin && caller.Agent == "" && !caller.Trusted {
		return nil, unauthenticated()
	}
	t, refused := v.tokens.Verify(raw)
	if refused != nil || !admin && caller.Agent != "" && caller.Agent != t.Subject {
		return new(TokenInfo), nil
	}
	keys := t.Ext.(*tokenKeys)
	if v.revoked(keys) != "" || keys.limits.over() {
		return new(TokenInfo), nil
	}
	info := &TokenInfo{
		Active:    true,
		TokenID:   t.ID,
		AgentID:   t.Subject,
		SessionID: t.Context.SessionID,
		TaskID:    t.Context.TaskID,
		SkillID:   t.Context.SkillID,
		Tool:      t.Context.Tool,
		Service:   t.Service,
		Scope:     t.Scope,
		IssuedAt:  t.IssuedAt.Unix(),
		ExpiresAt: t.ExpiresAt.Unix(),
		claims:    &t.Claims,
	}
	if l := t.Limits; l != nil {
		info.Actions, info.Params = l.Actions, l.Params
		info.MaxCalls, info.MaxBytes, info.OneTime = l.MaxCalls, l.MaxBytes, l.OneTime
	}
	info.CallsLeft, info.BytesLeft = keys.limits.left()
	if b := t.Bound; b != nil {
		info.Bound = "dpop"
		if b.X5T != "" {
			info.Bound = "mtls"
		}
	}
	task := t.Context.TaskID
	for i, a := range t.Chain {
		if i == 0 {
			info.ParentID = a.ID
		}
		if a.TaskID != "" {
			task = a.TaskID
		}
		info.Chain = append(info.Chain, AncestorInfo{a.ID, a.AgentID, task, a.MaxCalls, a.MaxBytes})
	}
	return info, nil
}

// left returns how many calls and bytes may still be spent, nil for no bound.
func (l limits) left() (calls, bytes *int64) {
	least := func(have *int64, n int64) *int64 {
		if n = max(n, 0); have == nil || n < *have {
			return &n
		}
		return have
	}
	for i := range l {
		l[i].mu.Lock()
		if l[i].maxCalls > 0 {
			calls = least(calls, l[i].maxCalls-l[i].calls)
		}
		l[i].mu.Unlock()
		if l[i].maxBytes > 0 {
			bytes = least(bytes, l[i].maxBytes-l[i].bytes.Load())
		}
	}
	return calls, bytes
}
