package vault

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token"
)

// IssueRequest asks for a token (wire.md, vault.issueToken). The context
// fields may be empty; the vault fills them in.
type IssueRequest struct {
	Service string
	Scope   []string

	// TTL is the life asked for in seconds, 0 for the default.
	TTL int64

	Context token.Context

	// Limits narrow the token further; nil for none.
	Limits *token.Limits

	// Holder is who makes the request, and Bind how the token is to be bound:
	// BindDPoP, BindMTLS, or "" for DPoP if there is a proof.
	Holder HolderSource
	Bind   string
}

// IssueResult is the answer.
type IssueResult struct {
	TokenID      string `json:"tokenId"`
	Token        string `json:"token"`
	ExpiresInSec int    `json:"expiresInSec"`

	// TokenType is DPoP for a token that is bound to a key.
	TokenType string `json:"tokenType,omitzero"`
}

// autoPrefix begins a session or task id that the vault chose. A call need
// not repeat such an id.
const autoPrefix = "auto-"

// maxID is the longest id an agent may choose for its context, in bytes.
const maxID = 256

// Issue decides whether the caller gets the token, records it, and only then
// returns it. rec receives what is known for the record, also of a refusal.
func (v *Vault) Issue(ctx context.Context, caller Caller, req IssueRequest, rec *audit.Record) (*IssueResult, *refusal.Refusal) {
	rec.Service = req.Service
	rec.Scope = req.Scope
	rec.Context = &audit.Context{AgentID: req.Context.AgentID, SessionID: req.Context.SessionID, TaskID: req.Context.TaskID}
	if caller.Agent != "" {
		// Whoever it says it is, the record is of who it is.
		rec.Context.AgentID = caller.Agent
	}

	agent, refused := caller.agent(req.Context.AgentID)
	if refused != nil {
		return nil, refused
	}
	tc, refused := fillContext(req.Context, agent)
	if refused != nil {
		return nil, refused
	}
	rec.Context = auditContext(tc)

	if req.Service == "" {
		return nil, refusal.New("SERVICE_REQUIRED", "name the service the token is for in the field service")
	}
	svc, refused := v.service(req.Service)
	if refused != nil {
		return nil, refused
	}
	groups := claimedGroups(svc, caller.Groups)
	if refused := svc.DecideIssue(v.who(agent, groups), req.Scope); refused != nil {
		return nil, refused
	}

	if refused := checkLimits(svc, req.Limits); refused != nil {
		return nil, refused
	}
	bound, refused := v.bind(req.Holder, req.Bind, cmp.Or(caller.Binding, v.demandedBinding(agent)), "")
	if refused != nil {
		return nil, refused
	}
	now := v.now()
	return v.sign(ctx, token.Claims{
		Subject:   agent,
		IssuedAt:  now,
		ExpiresAt: now.Add(v.life(req.TTL)),
		Service:   svc.Name,
		Scope:     uniqueScopes(req.Scope),
		Context:   tc,
		Limits:    req.Limits,
		Bound:     bound,
		Groups:    groups,
	}, rec)
}

// sign makes a token of claims that have been decided on, and records it.
func (v *Vault) sign(ctx context.Context, claims token.Claims, rec *audit.Record) (*IssueResult, *refusal.Refusal) {
	claims.ID = uuid.NewString()
	if a := v.agents.get(claims.Subject); a != nil && !a.ExpiresAt.IsZero() && a.ExpiresAt.Before(claims.ExpiresAt) {
		claims.ExpiresAt = a.ExpiresAt // no token outlives its agent
	}
	keys := v.revocationKeys(&claims)
	switch code := v.revoked(keys); code {
	case "":
	case unbound:
		return nil, bindingRequired("tokens of this agent are bound to their holder, who has to show what to bind them to").
			WithHint("what is demanded: %s", v.demandedBinding(claims.Subject))
	default:
		return nil, revokedRefusal(code)
	}
	if claims.ExpiresAt.Unix() <= claims.IssuedAt.Unix() {
		return nil, revokedRefusal("AGENT_EXPIRED")
	}
	v.noteUse(claims.Subject, v.now())
	raw, key, err := v.tokens.Sign(claims)
	if errors.Is(err, token.ErrTooLong) {
		return nil, refusal.New("TOKEN_TOO_LONG", "what is asked for does not fit into a token of %d bytes", token.MaxLength).
			WithHint("ask for fewer scopes, actions or values of parameters, or use shorter ids")
	}
	if err != nil {
		return nil, refusal.New(refusal.Internal, "the token could not be signed").WithCause(err)
	}

	ttl := time.Duration(claims.ExpiresAt.Unix()-claims.IssuedAt.Unix()) * time.Second
	rec.Event = "token.issued"
	rec.TokenID = claims.ID
	rec.Scope = claims.Scope
	rec.TTL = int(ttl / time.Second)
	rec.Kid = key.Kid()
	rec.Registered = v.agents.get(claims.Subject) != nil
	keys.key = key
	refused := v.record(ctx, audit.Entry{
		Record: *rec,
		// A revocation that was acknowledged first wins: the writer decides.
		Guard:       func() string { return v.revoked(keys) },
		DeniedEvent: "token.issue.denied",
	})
	if refused != nil {
		return nil, refused
	}
	v.creditRevocations(&claims)
	res := &IssueResult{TokenID: claims.ID, Token: raw, ExpiresInSec: rec.TTL}
	if claims.Bound != nil && claims.Bound.JKT != "" {
		res.TokenType = "DPoP"
	}
	return res, nil
}

// maxBudget is the largest budget, in calls or bytes.
const maxBudget = 1 << 53

// checkLimits refuses limits that a token cannot carry or no call could keep.
func checkLimits(svc *policy.Compiled, l *token.Limits) *refusal.Refusal {
	if l == nil {
		return nil
	}
	if l.MaxCalls < 0 || l.MaxCalls > maxBudget {
		return refusal.New("MAXCALLS_INVALID", "maxCalls is a whole number, at least 1")
	}
	if l.MaxBytes < 0 || l.MaxBytes > maxBudget {
		return refusal.New("MAXBYTES_INVALID", "maxBytes is a whole number, at least 1")
	}
	if l.OneTime {
		if l.MaxCalls > 1 {
			return refusal.New("ONETIME_INVALID", "a token for one call cannot have maxCalls %d", l.MaxCalls)
		}
		l.MaxCalls = 1
	}
	return svc.CheckLimits(policy.Limits{Actions: l.Actions, Params: l.Params})
}

// agent returns the agent's id: the authenticated one, or the claimed one if
// the caller's word is taken.
func (c Caller) agent(claimed string) (string, *refusal.Refusal) {
	switch {
	case c.Agent != "" && claimed != "" && claimed != c.Agent:
		return "", refusal.New("AGENT_MISMATCH", "the request says it is from agent %q, and the caller is another one", clip(claimed)).
			WithHint("leave agentId out, or send your own")
	case c.Agent != "":
		return c.Agent, nil
	case c.Trusted && claimed == "":
		return "main", nil
	case c.Trusted:
		return claimed, nil
	}
	return "", unauthenticated()
}

func unauthenticated() *refusal.Refusal {
	return refusal.New("AGENT_UNAUTHENTICATED", "this vault does not know who is asking").
		WithHint("authenticate to the site in front of the vault, or ask from the machine itself").
		WithChallenge(`Bearer realm="caddyvault"`)
}

// fillContext checks the ids and fills in those that are absent (wire.md).
func fillContext(c token.Context, agent string) (token.Context, *refusal.Refusal) {
	c.AgentID = agent
	for _, f := range [...]struct {
		name  string
		value *string
		fill  func() string
	}{
		{"AGENTID", &c.AgentID, nil},
		{"SESSIONID", &c.SessionID, autoID},
		{"TASKID", &c.TaskID, autoID},
		{"SKILLID", &c.SkillID, func() string { return "default" }},
		{"TOOL", &c.Tool, func() string { return "vault.issueToken" }},
	} {
		if *f.value == "" && f.fill != nil {
			*f.value = f.fill()
		}
		if refused := checkID(f.name, *f.value); refused != nil {
			return c, refused
		}
	}
	return c, nil
}

func autoID() string { return autoPrefix + hex.EncodeToString(randomBytes(4)) }

// checkID refuses an id that is too long or holds what does not print. field
// is the JSON name in capitals.
func checkID(field, id string) *refusal.Refusal {
	if len(id) > maxID || !utf8.ValidString(id) || strings.ContainsFunc(id, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return refusal.New(field+"_INVALID", "an id has at most %d bytes and only characters that print", maxID)
	}
	return nil
}

// uniqueScopes returns the scopes in their order, each once.
func uniqueScopes(scopes []string) []string {
	out := make([]string, 0, len(scopes))
	for _, s := range scopes {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func auditContext(c token.Context) *audit.Context {
	return &audit.Context{AgentID: c.AgentID, SessionID: c.SessionID, TaskID: c.TaskID, SkillID: c.SkillID, Tool: c.Tool}
}
