package handlers

import (
	"context"
	"net/http"
	"strings"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token"
	"github.com/caddyvault/caddyvault/vault"
)

// Site is what a token has to be for to enter a site.
type Site struct {
	Service string
	Scope   []string
}

// Admit decides whether a request may enter the site, and takes the token out
// of it. A request that may not is answered if w is not nil.
func (s *Server) Admit(w http.ResponseWriter, r *http.Request, v *vault.Vault, openErr error, site Site) (_ *token.Verified, _ context.Context, end func(), _ *refusal.Refusal) {
	rq := &request{Request: r, w: w, server: s, vault: v, event: "site.auth"}
	rq.caller.Client = clientAddr(r)
	t, ctx, end, refused := rq.admit(openErr, site)
	if refused != nil {
		if w != nil {
			rq.refuse(refused)
		} else {
			rq.recordRefusal(refused)
		}
		return nil, nil, nil, refused
	}
	delete(r.Header, "Authorization")
	delete(r.Header, proofHeader)
	return t, ctx, end, nil
}

func (rq *request) admit(openErr error, site Site) (*token.Verified, context.Context, func(), *refusal.Refusal) {
	if openErr != nil {
		return nil, nil, nil, refusal.New(refusal.StoreUnavailable, "the vault could not be opened; the server's log says why").WithCause(openErr)
	}
	rq.record.Service, rq.record.Method, rq.record.Client = site.Service, rq.Method, rq.clientText()
	scheme := "http://"
	if rq.TLS != nil {
		scheme = "https://"
	}
	rq.record.Upstream = scheme + rq.Host + rq.URL.EscapedPath()
	raw, refused := bearer(rq.Header["Authorization"], "")
	if refused != nil {
		return nil, nil, nil, refused.WithChallenge(`Bearer realm="caddyvault"`)
	}
	if raw == "" {
		return nil, nil, nil, refusal.New("TOKEN_REQUIRED", "the request carries no token of the vault").
			WithHint("ask for one with vault.issueToken, for the service %s and the scope %s, and send it as Authorization: Bearer", site.Service, strings.Join(site.Scope, " ")).
			WithChallenge(`Bearer realm="caddyvault", scope="` + strings.Join(site.Scope, " ") + `"`)
	}
	t, ctx, end, refused := rq.vault.AdmitSite(rq.Context(), vault.SiteRequest{Token: raw, Holder: rq, Service: site.Service, Scope: site.Scope}, &rq.record)
	if t != nil {
		rq.known = true
	}
	return t, ctx, end, refused
}
