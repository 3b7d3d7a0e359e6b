package vault

import (
	"context"
	"slices"
	"strings"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token"
)

// SiteRequest asks whether a token may enter a site that is not a service's
// API but is guarded as one.
type SiteRequest struct {
	Token   string
	Holder  HolderSource
	Service string   // that the token has to be for
	Scope   []string // that it has to have, all of them
}

// AdmitSite decides and records whether a request may go on. Its context ends
// when the token is revoked; end is called when the request is over.
//
// What cannot be held to here is refused: a token that is limited to actions,
// to parameters or to bytes.
func (v *Vault) AdmitSite(ctx context.Context, req SiteRequest, rec *audit.Record) (_ *token.Verified, _ context.Context, end func(), _ *refusal.Refusal) {
	no := func(t *token.Verified, r *refusal.Refusal) (*token.Verified, context.Context, func(), *refusal.Refusal) {
		return t, nil, nil, r
	}
	t, refused := v.Admit(CallRequest{Token: req.Token, Service: req.Service, Holder: req.Holder}, rec)
	if refused != nil {
		return no(t, refused)
	}
	svc, refused := v.service(req.Service)
	if refused != nil {
		return no(t, refused)
	}
	if t.Service != svc.Name {
		return no(t, refusal.New("SERVICE_MISMATCH", "the token is for service %q", t.Service).
			WithHint("ask for a token of service %s", svc.Name))
	}
	var missing []string
	for _, s := range req.Scope {
		if !slices.Contains(t.Scope, s) {
			missing = append(missing, s)
		}
	}
	if missing != nil {
		return no(t, refusal.New("INSUFFICIENT_SCOPE:"+strings.Join(missing, ","), "the token does not have the scope %s", strings.Join(missing, " ")).
			WithHint("ask vault.issueToken for a token for %s with the scope %s", svc.Name, strings.Join(req.Scope, " ")).
			WithChallenge(`Bearer error="insufficient_scope", scope="`+strings.Join(req.Scope, " ")+`"`))
	}
	for _, agent := range append([]string{t.Subject}, agentsOf(t.Chain)...) {
		if refused := svc.DecideIssue(v.whoIn(&t.Claims, agent), t.Scope); refused != nil {
			return no(t, refused)
		}
	}
	keys := t.Ext.(*tokenKeys)
	if l := t.Limits; l != nil && (l.Actions != nil || l.Params != nil) {
		return no(t, refusal.New("ACTION_NOT_GRANTED", "the token is limited to actions or parameters, of which a site has none").
			WithHint("ask for a token without actions and params"))
	}
	for i := range keys.limits {
		if keys.limits[i].maxBytes > 0 {
			return no(t, refusal.New("ACTION_NOT_GRANTED", "the token has a budget of bytes, which are not counted here").
				WithHint("ask for a token without maxBytes"))
		}
	}
	if refused := keys.limits.reserve(); refused != nil {
		return no(t, refused)
	}
	admitted := *rec
	admitted.Event = siteEvent
	admitted.Spends = keys.limits.ids()
	refused = v.record(ctx, audit.Entry{
		Record:      admitted,
		Guard:       func() string { return v.revoked(keys) },
		DeniedEvent: siteEvent + ".denied",
	})
	if refused != nil {
		if refused.Recorded { // as denied; else it may count after a restart
			keys.limits.release()
		}
		return no(t, refused)
	}
	ctx, live := v.live.begin(ctx, keys)
	return t, ctx, live.end, nil
}

// siteEvent is the event of a request that was let onto a site.
const siteEvent = "site.auth"
