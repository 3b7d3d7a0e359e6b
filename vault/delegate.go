package vault

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token"
)

// DelegateRequest asks for a token that may do no more than another one
// (POST /vault.delegateToken). What is absent is as the parent has it.
type DelegateRequest struct {
	Token string

	Service string   // if it is named, the parent's
	Scope   []string // nil for the parent's
	TTL     int64    // seconds, 0 for the default
	AgentID string
	TaskID  string
	Limits  *token.Limits

	// Holder is who makes the request. NewHolder is a proof by the key that
	// the child is to be bound to, "" for the parent's.
	Holder    HolderSource
	NewHolder string
}

// DelegateResult is the answer.
type DelegateResult struct {
	IssueResult
	ParentID string `json:"parentId"`
}

// Delegate makes a child of a token. Asking for more than the parent has is
// refused; only the life is shortened to fit.
func (v *Vault) Delegate(ctx context.Context, caller Caller, req DelegateRequest, rec *audit.Record) (*DelegateResult, *refusal.Refusal) {
	if caller.Agent == "" && !caller.Trusted {
		return nil, unauthenticated()
	}
	parent, keys, refused := v.verify(req.Token, req.Holder)
	if parent != nil {
		rec.Service, rec.Scope, rec.Context = parent.Service, parent.Scope, auditContext(parent.Context)
		rec.ParentID, rec.Ancestors = parent.ID, keys.ancestors
	}
	if refused != nil {
		return nil, refused
	}
	if caller.Agent != "" && caller.Agent != parent.Subject {
		return nil, refusal.New("AGENT_MISMATCH", "the token is another agent's")
	}
	if req.Service != "" && req.Service != parent.Service {
		return nil, refusal.New("SERVICE_MISMATCH", "the token is for service %q", parent.Service)
	}
	claims, refused := v.childClaims(parent, req)
	if refused != nil {
		return nil, refused
	}
	rec.Context = auditContext(claims.Context)
	rec.Scope = claims.Scope
	svc, refused := v.service(parent.Service)
	if refused != nil {
		return nil, refused
	}
	// The child's agent must be one that could have such a token, and so must
	// all that it comes from still be.
	for _, agent := range append([]string{claims.Subject, parent.Subject}, agentsOf(parent.Chain)...) {
		if refused := svc.DecideIssue(v.whoIn(&claims, agent), claims.Scope); refused != nil {
			return nil, refused
		}
	}
	if refused := v.bindChild(&claims, req); refused != nil {
		return nil, refused
	}
	if refused := checkLimits(svc, claims.Limits); refused != nil {
		return nil, refused
	}
	if keys.limits.over() {
		return nil, exhausted("calls or bytes")
	}
	res, refused := v.sign(ctx, claims, rec)
	if refused != nil {
		return nil, refused
	}
	return &DelegateResult{IssueResult: *res, ParentID: parent.ID}, nil
}

// bindChild binds a child to a key of its own, if there is a proof of one. It
// is bound as its parent else.
func (v *Vault) bindChild(c *token.Claims, req DelegateRequest) *refusal.Refusal {
	if req.NewHolder == "" || req.Holder == nil {
		return nil
	}
	h := req.Holder.Holder()
	h.Proofs = []string{req.NewHolder}
	jkt, refused := v.checkProof(h, "", "")
	if refused != nil {
		return refused
	}
	c.Bound = &token.Binding{JKT: jkt}
	return nil
}

func agentsOf(chain []token.Ancestor) []string {
	var out []string
	for _, a := range chain {
		out = append(out, a.AgentID)
	}
	return out
}

// childClaims are the claims of a child, or why the parent cannot have it.
func (v *Vault) childClaims(parent *token.Verified, req DelegateRequest) (token.Claims, *refusal.Refusal) {
	c := token.Claims{
		Subject: parent.Subject,
		Service: parent.Service,
		Scope:   parent.Scope,
		Context: parent.Context,
		Bound:   parent.Bound,
		Groups:  parent.Groups,
	}
	if len(parent.Chain) >= token.MaxDepth {
		return c, tooMuch("depth", "the token is the %dth of its line, and the last", token.MaxDepth+1)
	}
	c.Context.Tool = "vault.delegateToken"
	for _, f := range [...]struct {
		name, value string
		into        *string
	}{
		{"AGENTID", req.AgentID, &c.Context.AgentID},
		{"TASKID", req.TaskID, &c.Context.TaskID},
	} {
		if f.value == "" {
			continue
		}
		if refused := checkID(f.name, f.value); refused != nil {
			return c, refused
		}
		*f.into = f.value
	}
	c.Subject = c.Context.AgentID

	if req.Scope != nil {
		for _, s := range req.Scope {
			if !slices.Contains(parent.Scope, s) {
				return c, tooMuch("scope", "the token does not have the scope %s", clip(s))
			}
		}
		c.Scope = uniqueScopes(req.Scope)
	}
	var refused *refusal.Refusal
	if c.Limits, refused = childLimits(parent, req.Limits); refused != nil {
		return c, refused
	}

	above := token.Ancestor{ID: parent.ID, AgentID: parent.Subject}
	if parent.Context.TaskID != c.Context.TaskID {
		above.TaskID = parent.Context.TaskID
	}
	if l := parent.Limits; l != nil {
		above.MaxCalls, above.MaxBytes = l.MaxCalls, l.MaxBytes
	}
	c.Chain = append([]token.Ancestor{above}, parent.Chain...)

	c.IssuedAt = v.now()
	c.ExpiresAt = c.IssuedAt.Add(v.life(req.TTL))
	if c.ExpiresAt.After(parent.ExpiresAt) {
		c.ExpiresAt = parent.ExpiresAt
	}
	if c.ExpiresAt.Unix() <= c.IssuedAt.Unix() {
		return c, refusal.New("TOKEN_EXPIRED", "the token expires in this second").WithHint("issue a new token")
	}
	return c, nil
}

// childLimits are the limits asked for within those of the parent. A budget
// that is not asked for is the parent's alone, which the child's calls count
// against in any case.
func childLimits(parent *token.Verified, asked *token.Limits) (*token.Limits, *refusal.Refusal) {
	have := parent.Limits
	if have == nil {
		have = new(token.Limits)
	}
	l := new(token.Limits)
	if asked != nil {
		*l = *asked
	}
	switch {
	case l.Actions == nil:
		l.Actions = have.Actions
	case have.Actions != nil:
		for _, a := range l.Actions {
			if !slices.Contains(have.Actions, a) {
				return nil, tooMuch("actions", "the token may not call the action %s", clip(a))
			}
		}
	}
	l.Params = maps.Clone(l.Params)
	for name, allowed := range have.Params {
		values, ok := l.Params[name]
		if !ok {
			if l.Params == nil {
				l.Params = make(map[string][]string)
			}
			l.Params[name] = allowed
			continue
		}
		for _, value := range values {
			if !slices.Contains(allowed, value) {
				return nil, tooMuch("params", "the token allows the parameter %s no such value", clip(name))
			}
		}
	}
	for i := -1; i < len(parent.Chain); i++ {
		calls, bytes := have.MaxCalls, have.MaxBytes
		if i >= 0 {
			calls, bytes = parent.Chain[i].MaxCalls, parent.Chain[i].MaxBytes
		}
		if calls > 0 && l.MaxCalls > calls {
			return nil, tooMuch("maxCalls", "the token has, or comes from one that has, %d calls", calls)
		}
		if bytes > 0 && l.MaxBytes > bytes {
			return nil, tooMuch("maxBytes", "the token has, or comes from one that has, %d bytes", bytes)
		}
	}
	if l.Actions == nil && l.Params == nil && l.MaxCalls == 0 && l.MaxBytes == 0 && !l.OneTime {
		return nil, nil
	}
	return l, nil
}

func tooMuch(what, detail string, args ...any) *refusal.Refusal {
	return refusal.New("DELEGATION_DENIED:"+what, detail, args...).
		WithHint("a child can only have what its parent has, or less")
}

// life is how long a token lives for which ttl seconds are asked.
func (v *Vault) life(ttl int64) time.Duration {
	if ttl <= 0 {
		return v.TokenTTL
	}
	return min(time.Duration(min(ttl, int64(v.TokenTTLMax/time.Second)))*time.Second, v.TokenTTLMax)
}
