package handlers

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// delegateToken answers POST /vault.delegateToken.
func delegateToken(rq *request, body []byte) *refusal.Refusal {
	var in struct {
		Token   string         `json:"token"`
		Scope   []string       `json:"scope"`
		TTL     jsontext.Value `json:"ttl"`
		AgentID string         `json:"agentId"`
		TaskID  string         `json:"taskId"`
		Proof   string         `json:"holderProof"`
		limits
	}
	if refused := rq.identify(); refused != nil {
		return refused
	}
	if refused := decode(body, &in, false); refused != nil {
		return refused
	}
	req := vault.DelegateRequest{Scope: in.Scope, AgentID: in.AgentID, TaskID: in.TaskID, Holder: rq, NewHolder: in.Proof}
	var refused *refusal.Refusal
	if req.Token, refused = rq.subjectToken(in.Token); refused != nil {
		return refused
	}
	if req.TTL, refused = seconds(in.TTL); refused != nil {
		return refused
	}
	if req.Limits, refused = in.limits.read(); refused != nil {
		return refused
	}
	res, refused := rq.vault.Delegate(rq.Context(), rq.caller, req, &rq.record)
	if refused != nil {
		return refused
	}
	return rq.answer(res)
}

// subjectToken returns the token that a request is about. In the header stands
// who asks, unless the body has no token.
func (rq *request) subjectToken(inBody string) (string, *refusal.Refusal) {
	if inBody != "" {
		return inBody, nil
	}
	return bearer(rq.Header["Authorization"], "")
}

// introspectToken answers POST /vault.introspectToken.
func introspectToken(rq *request, body []byte) *refusal.Refusal {
	var in struct {
		Token string `json:"token"`
	}
	admin := rq.isAdmin()
	if !admin {
		if refused := rq.identify(); refused != nil {
			return refused
		}
	}
	if refused := decode(body, &in, false); refused != nil {
		return refused
	}
	if in.Token == "" {
		return refusal.New("TOKEN_REQUIRED", "name the token in the field token")
	}
	info, refused := rq.vault.Introspect(rq.caller, admin, in.Token)
	if refused != nil {
		return refused
	}
	return rq.answer(info)
}

// isAdmin reports whether the request shows the admin token. One that is wrong
// is not counted: it may be an agent's own key.
func (rq *request) isAdmin() bool { return rq.vault.IsAdmin(rq.Header) }
