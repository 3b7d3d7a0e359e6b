package vault

import (
	"bytes"
	"context"
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
	if out.Service.ReadsBody() {
		// Once as it came, and once with the secret in it.
		hold := BodyHold{pool: &v.bodies.known, copies: 2}
		defer hold.Release()
		if refused := hold.readWhole(w, out); refused != nil {
			return refused
		}
	}

	c := &outgoing{v: v, t: t, keys: keys, out: out, rec: rec, start: v.now()}
	if refused := c.begin(r.Context(), creds); refused != nil {
		return refused
	}

	ctx, live := v.live.begin(r.Context(), keys)
	defer live.end()
	out.Cut, out.OnCut = live.cancel, live.onCut
	if !out.Service.StreamsOutliveToken {
		out.Expires = time.Now().Add(v.tokens.Remaining(&t.Claims, c.start))
	}
	if len(keys.limits) > 0 {
		ctx, out.Spend = keys.limits.meter(ctx)
	}
	out.Authorize = c.authorize
	c.result.End = c.end
	defer c.meter()
	// The proxy ends a broken stream with a panic; the record is written all
	// the same.
	defer c.end()

	c.code = refusal.Internal // if Do panics before it has an answer
	refused = v.Upstream.Do(ctx, w, r, out, &c.result)
	c.code = ""
	if refused != nil {
		c.code = refused.Code
		refused.Recorded = true
	}
	return refused
}

// outgoing is a call that has been let out, until its end.
type outgoing struct {
	v    *Vault
	t    *token.Verified
	keys *tokenKeys
	out  *Outbound

	// rec becomes the record of the call's beginning and then that of its
	// end.
	rec   *audit.Record
	start time.Time
	ms    float64

	result Result
	code   string // of its refusal
	ended  sync.Once
}

// begin records the call, which is then durable.
func (c *outgoing) begin(ctx context.Context, creds []Credential) *refusal.Refusal {
	limits := c.keys.limits
	if len(limits) > 0 {
		if refused := limits.reserve(); refused != nil {
			return refused
		}
		c.rec.Spends = limits.ids()
	}
	c.rec.Event = "proxy.call.started"
	c.rec.CallID = uuid.NewString()
	if c.out.Service.NamesSecret() {
		c.rec.SecretRef = refsOf(creds)
	}
	refused := c.v.record(ctx, audit.Entry{Record: *c.rec, Guard: c.revoked, DeniedEvent: "proxy.call.denied"})
	if refused == nil {
		return nil
	}
	if gaveUp, ok := errors.AsType[*audit.UnavailableError](refused.Cause); ok && gaveUp.Seq != 0 {
		// The record may still reach the log; it must not stand there as
		// a call whose outcome nobody knows.
		c.record(refused.Code, 0)
		refused.Recorded = true
		return refused // and what it has reserved stays spent
	}
	limits.release()
	// There is no such call, and what is written of the refusal names none.
	c.rec.CallID, c.rec.Spends, c.rec.SecretRef = "", nil, ""
	return refused
}

func (c *outgoing) revoked() string { return c.v.revoked(c.keys) }

func (c *outgoing) authorize(into []Credential) ([]Credential, *refusal.Refusal) {
	if code := c.revoked(); code != "" {
		return into, revokedRefusal(code)
	}
	return c.v.credentials(c.out.Service, c.t.Subject, into)
}

// end records the end of the call, once.
func (c *outgoing) end() { c.ended.Do(c.recordEnd) }

func (c *outgoing) recordEnd() {
	code, result := c.code, &c.result
	if result.Status != 0 || code == "" || code == refusal.Internal && result.Code != "" {
		code = result.Code
	}
	c.rec.ResponseBytes, c.rec.RequestBytes = result.ResponseBytes.Load(), result.RequestBytes.Load()
	c.rec.Redactions = result.Redactions
	c.rec.Status = result.Status
	if c.rec.Status == 0 && code != "" {
		c.rec.Status = refusal.Status(code)
	}
	c.record(code, c.v.now().Sub(c.start))
}

// record queues the record that ends the call.
func (c *outgoing) record(code string, took time.Duration) {
	c.ms = float64(took.Microseconds()) / 1000
	c.rec.Event, c.rec.Error, c.rec.DurationMS = "proxy.call", code, &c.ms
	if err := c.v.audit.Enqueue(audit.Entry{Record: *c.rec}); err != nil {
		c.v.logger.Error("the end of a call could not be recorded", zap.String("callId", c.rec.CallID), zap.Error(err))
	}
}

// meter tells of the call.
func (c *outgoing) meter() {
	f := Figures{Status: c.result.Status, Code: c.result.Code, Latency: c.result.Latency, Redactions: c.result.Redactions}
	if !c.result.Sent.IsZero() {
		f.Added = c.result.Sent.Sub(c.start)
	}
	c.v.meter(c.out.Service.Name, f)
}
