package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token"
)

// CallRequest asks for a call to a service's API (wire.md, vault.call).
type CallRequest struct {
	Token   string
	Service string
	Action  string

	// Params is the raw JSON object of parameters, nil if there is none:
	// numbers reach the wire with the digits that were sent.
	Params []byte

	// Holder is who makes the request.
	Holder HolderSource

	// Context holds the fields that were present in the request, by their
	// JSON names.
	Context map[string]string
}

// Admit checks a call's token and its service, in the order of wire.md, and
// returns the agent's claims. It is apart from Call so that whoever serves
// the request can name the agent in its logs.
func (v *Vault) Admit(req CallRequest, rec *audit.Record) (*token.Verified, *refusal.Refusal) {
	rec.Service, rec.Action = req.Service, req.Action
	t, keys, refused := v.verify(req.Token, req.Holder)
	if t != nil {
		rec.TokenID, rec.Scope, rec.Context = t.ID, t.Scope, auditContext(t.Context)
		if len(keys.ancestors) > 0 {
			rec.ParentID, rec.Ancestors = keys.ancestors[0], keys.ancestors[1:]
		}
	}
	return t, refused
}

// decideAction decides whether the token's agent may call an action, and so
// every agent that the token came from: whoever may no longer do something
// has no child that may.
func (st *State) decideAction(svc *policy.Compiled, t *token.Verified, action string) (*policy.CompiledEndpoint, *refusal.Refusal) {
	endpoint, refused := svc.DecideAction(st.whoIn(&t.Claims, t.Subject), action)
	for i := 0; refused == nil && i < len(t.Chain); i++ {
		_, refused = svc.DecideAction(st.whoIn(&t.Claims, t.Chain[i].AgentID), action)
	}
	return endpoint, refused
}

// Call makes the call for an admitted token and streams the answer to w. A
// refusal means that nothing was written to w.
func (v *Vault) Call(w http.ResponseWriter, r *http.Request, t *token.Verified, req CallRequest, rec *audit.Record) *refusal.Refusal {
	svc, refused := v.service(req.Service)
	if refused != nil {
		return refused
	}
	if t.Service != svc.Name {
		return refusal.New("SERVICE_MISMATCH", "the token is for service %q", t.Service).
			WithHint("ask for a token of service %s", svc.Name)
	}
	if req.Action == "" {
		return refusal.New("ACTION_REQUIRED", "name the action in the field action")
	}
	endpoint, refused := v.decideAction(svc, t, req.Action)
	if refused != nil {
		return refused
	}
	if refused := endpoint.DecideScope(t.Scope); refused != nil {
		return refused
	}
	if l := t.Limits; l != nil {
		if refused := endpoint.DecideActionLimit(l.Actions); refused != nil {
			return refused
		}
		if refused := endpoint.DecideParams(l.Params, req.Params); refused != nil {
			return refused
		}
	}
	if refused := checkContext(t.Context, req.Context); refused != nil {
		return refused
	}
	if endpoint.Upgrade != "" {
		return wrongProtocol(svc, endpoint, false)
	}
	plan, refused := endpoint.Plan(req.Params)
	if refused != nil {
		return refused
	}
	rec.Method, rec.Upstream = plan.Method, plan.Upstream
	if len(req.Params) > 0 {
		sum := sha256.Sum256(req.Params)
		rec.ParamsDigest, rec.ParamsBytes = base64.RawURLEncoding.EncodeToString(sum[:]), int64(len(req.Params))
	}

	out := &Outbound{
		Service:     svc,
		Endpoint:    endpoint,
		Method:      plan.Method,
		EscapedPath: plan.EscapedPath,
		RawQuery:    plan.RawQuery,
		Header:      r.Header,
		Envelope:    true,
		ContentType: plan.ContentType,
		Prefix:      ProxyPrefix + svc.Name,
	}
	if plan.Body != nil {
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(plan.Body)), int64(len(plan.Body))
	}
	return v.send(w, r, t, out, rec)
}

// checkContext compares what a request says of itself with its token. A value
// that the vault chose need not be repeated.
func checkContext(have token.Context, said map[string]string) *refusal.Refusal {
	for _, f := range [...]struct{ name, value string }{
		{"agentId", have.AgentID},
		{"sessionId", have.SessionID},
		{"taskId", have.TaskID},
		{"skillId", have.SkillID},
	} {
		if v, ok := said[f.name]; ok && v != f.value && !strings.HasPrefix(f.value, autoPrefix) {
			return refusal.New("CONTEXT_MISMATCH:"+f.name, "the token was issued for another %s", f.name).
				WithHint("send the %s the token was asked for with, or leave it out", f.name)
		}
	}
	return nil
}

// send is the way out that every kind of call takes: record, check, send,
// record (architecture.md, "The way of a call").
func (v *Vault) send(w http.ResponseWriter, r *http.Request, t *token.Verified, out *Outbound, rec *audit.Record) *refusal.Refusal {
	keys := t.Ext.(*tokenKeys)
	var room [4]Credential
	creds, refused := v.credentials(out.Service, t.Subject, room[:0])
	if refused != nil {
		return refused
	}
	if refused := readWhole(w, out); refused != nil {
		return refused
	}

	start := v.now()
	started := *rec
	started.Event = "proxy.call.started"
	started.CallID = uuid.NewString()
	if len(keys.limits) > 0 {
		if refused := keys.limits.reserve(); refused != nil {
			return refused
		}
		started.Spends = keys.limits.ids()
	}
	if out.Service.NamesSecret() {
		started.SecretRef = refsOf(creds)
	}
	refused = v.record(r.Context(), audit.Entry{
		Record:      started,
		Guard:       func() string { return v.revoked(keys) },
		DeniedEvent: "proxy.call.denied",
	})
	if refused != nil {
		if gaveUp, ok := errors.AsType[*audit.UnavailableError](refused.Cause); ok && gaveUp.Seq != 0 {
			// The record may still reach the log; it must not stand there as
			// a call whose outcome nobody knows.
			v.endOfCall(started, refused.Code, 0)
			refused.Recorded = true
			return refused // and what it has reserved stays spent
		}
		keys.limits.release()
		return refused
	}

	ctx, live := v.live.begin(r.Context(), keys)
	defer live.end()
	out.Cut, out.OnCut = live.cancel, live.onCut
	if !out.Service.StreamsOutliveToken {
		out.Expires = time.Now().Add(v.tokens.Remaining(&t.Claims, start))
	}
	if len(keys.limits) > 0 {
		ctx, out.Spend = keys.limits.meter(ctx)
	}

	var result Result
	code := refusal.Internal // if Do panics before it has an answer
	end := sync.OnceFunc(func() {
		if result.Status != 0 || code == "" || code == refusal.Internal && result.Code != "" {
			code = result.Code
		}
		rec := started
		rec.ResponseBytes, rec.RequestBytes = result.ResponseBytes.Load(), result.RequestBytes.Load()
		rec.Redactions = result.Redactions
		rec.Status = result.Status
		if rec.Status == 0 && code != "" {
			rec.Status = refusal.Status(code)
		}
		v.endOfCall(rec, code, v.now().Sub(start))
	})
	result.End = end
	defer func() {
		f := Figures{Status: result.Status, Code: result.Code, Latency: result.Latency, Redactions: result.Redactions}
		if !result.Sent.IsZero() {
			f.Added = result.Sent.Sub(start)
		}
		v.meter(out.Service.Name, f)
	}()
	// The proxy ends a broken stream with a panic; the record is written all
	// the same.
	defer end()

	out.Authorize = func(into []Credential) ([]Credential, *refusal.Refusal) {
		if code := v.revoked(keys); code != "" {
			return into, revokedRefusal(code)
		}
		return v.credentials(out.Service, t.Subject, into)
	}
	refused = v.Upstream.Do(ctx, w, r, out, &result)
	code = ""
	if refused != nil {
		code = refused.Code
		refused.Recorded = true
	}
	return refused
}

// endOfCall queues the record that ends a call.
func (v *Vault) endOfCall(rec audit.Record, code string, took time.Duration) {
	rec.Event = "proxy.call"
	rec.Time = time.Time{}
	rec.Error = code
	ms := float64(took.Microseconds()) / 1000
	rec.DurationMS = &ms
	if err := v.audit.Enqueue(audit.Entry{Record: rec}); err != nil {
		v.logger.Error("the end of a call could not be recorded", zap.String("callId", rec.CallID), zap.Error(err))
	}
}
