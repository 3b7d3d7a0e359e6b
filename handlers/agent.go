package handlers

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token"
	"github.com/caddyvault/caddyvault/vault"
)

// health answers GET /health.
func health(rq *request, _ []byte) *refusal.Refusal {
	if refused := rq.vault.Health(); refused != nil {
		body, err := json.Marshal(struct {
			OK    bool   `json:"ok"`
			Error string `json:"error"`
		}{false, refused.Code})
		if err != nil {
			return refusal.New(refusal.Internal, "").WithCause(err)
		}
		rq.answerRaw(refused.Status, body)
		return nil
	}
	rq.answerRaw(200, []byte(`{"ok":true}`))
	return nil
}

// jwks answers GET /.well-known/jwks.json. A key is published for longer than
// the set may be kept before it signs.
func jwks(rq *request, _ []byte) *refusal.Refusal {
	set := rq.vault.JWKS()
	sum := sha256.Sum256(set)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
	h := rq.w.Header()
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(vault.JWKSMaxAge))
	h.Set("ETag", tag)
	for _, known := range rq.Header["If-None-Match"] {
		for one := range strings.SplitSeq(known, ",") {
			if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == tag || one == "*" {
				rq.w.WriteHeader(http.StatusNotModified)
				return nil
			}
		}
	}
	rq.answerRaw(200, set)
	return nil
}

// issueBody is the body of vault.issueToken.
type issueBody struct {
	Service   string         `json:"service"`
	Scope     []string       `json:"scope"`
	TTL       jsontext.Value `json:"ttl"`
	AgentID   string         `json:"agentId"`
	SessionID string         `json:"sessionId"`
	TaskID    string         `json:"taskId"`
	SkillID   string         `json:"skillId"`
	Tool      string         `json:"tool"`
	Bind      string         `json:"bind"`
	limits
}

// issueToken answers POST /vault.issueToken.
func issueToken(rq *request, body []byte) *refusal.Refusal {
	var in issueBody
	if refused := rq.identify(); refused != nil {
		return refused
	}
	if refused := readIssue(body, &in); refused != nil {
		return refused
	}
	req := vault.IssueRequest{
		Service: in.Service,
		Scope:   in.Scope,
		Holder:  rq,
		Bind:    in.Bind,
		Context: token.Context{AgentID: in.AgentID, SessionID: in.SessionID, TaskID: in.TaskID, SkillID: in.SkillID, Tool: in.Tool},
	}
	rq.record.Service = in.Service
	var refused *refusal.Refusal
	if req.TTL, refused = seconds(in.TTL); refused != nil {
		return refused
	}
	if req.Limits, refused = in.limits.read(); refused != nil {
		return refused
	}
	res, refused := rq.vault.Issue(rq.Context(), rq.caller, req, &rq.record)
	if refused != nil {
		return refused
	}
	return rq.answer(res)
}

// callBody is the body of vault.call.
type callBody struct {
	Token   string         `json:"token"`
	Service string         `json:"service"`
	Action  string         `json:"action"`
	Params  jsontext.Value `json:"params"`
	Context callContext    `json:"context"`
}

// callContext is what a call says of itself; nil is not said.
type callContext struct {
	AgentID   *string `json:"agentId"`
	SessionID *string `json:"sessionId"`
	TaskID    *string `json:"taskId"`
	SkillID   *string `json:"skillId"`
}

// call answers POST /vault.call.
func call(rq *request, body []byte) *refusal.Refusal {
	var in callBody
	if refused := readCall(body, &in); refused != nil {
		return refused
	}
	raw, refused := bearer(rq.Header["Authorization"], in.Token)
	if refused != nil {
		return refused
	}
	req := vault.CallRequest{Token: raw, Service: in.Service, Action: in.Action, Holder: rq}
	if in.Params != nil && in.Params.Kind() != 'n' {
		req.Params = in.Params
	}
	if c := in.Context; c != (callContext{}) {
		req.Context = make(map[string]string, 4)
		for name, value := range map[string]*string{"agentId": c.AgentID, "sessionId": c.SessionID, "taskId": c.TaskID, "skillId": c.SkillID} {
			if value != nil {
				req.Context[name] = *value
			}
		}
	}
	t, refused := rq.vault.Admit(req, &rq.record)
	if refused != nil {
		return refused
	}
	rq.known = true
	rq.agentKnown(t.Subject)
	if refused := rq.held.Known(); refused != nil {
		return refused
	}
	return rq.vault.Call(rq.w, rq.Request, t, req, &rq.record)
}

// bearer returns the token of the Authorization header or of the body. In
// both, they must be equal.
func bearer(authorization []string, inBody string) (string, *refusal.Refusal) {
	if len(authorization) == 0 {
		return inBody, nil
	}
	scheme, value, _ := strings.Cut(authorization[0], " ")
	if len(authorization) > 1 || !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "DPoP") {
		return "", refusal.New("TOKEN_INVALID", "the Authorization header must be one, of the scheme Bearer or DPoP")
	}
	value = strings.TrimSpace(value)
	if inBody != "" && inBody != value {
		return "", refusal.New("TOKEN_INVALID", "the tokens in the Authorization header and in the body differ").
			WithHint("send the token in one of the two")
	}
	return value, nil
}

// revoke answers POST /vault.revoke.
func revoke(rq *request, body []byte) *refusal.Refusal {
	var in struct {
		vault.RevokeTargets
		Reason string `json:"reason"`
	}
	if refused := rq.identifyOrAdmin(); refused != nil {
		return refused
	}
	if refused := decode(body, &in, false); refused != nil {
		return refused
	}
	if in.Reason == "" {
		in.Reason = "manual"
	}
	if refused := rq.vault.Revoke(rq.Context(), rq.caller, in.RevokeTargets, in.Reason, &rq.record); refused != nil {
		return refused
	}
	return rq.answer(struct {
		OK      bool                `json:"ok"`
		Revoked vault.RevokeTargets `json:"revoked"`
	}{true, in.RevokeTargets})
}

// maxInteger is what every JSON reader can hold.
const maxInteger = 1 << 53
