package caddyvault

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/handlers"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/token"
	"github.com/caddyvault/caddyvault/vault"
)

func init() {
	caddy.RegisterModule(new(SiteAuth))
	caddy.RegisterModule(new(Authenticator))
	httpcaddyfile.RegisterHandlerDirective("vault_auth", parseSiteAuth)
	httpcaddyfile.RegisterDirectiveOrder("vault_auth", httpcaddyfile.After, "basic_auth")
}

// guard is what SiteAuth and Authenticator have in common.
type guard struct {
	// The service that a token has to be for. Its `allowedAgents` and scopes
	// decide who gets one. Required.
	Service string `json:"service"`

	// The scopes that a token has to have, all of them. Required.
	Scope []string `json:"scope"`

	app    *App
	server handlers.Server
}

func (g *guard) provision(ctx caddy.Context) error {
	if err := g.check(); err != nil {
		return err
	}
	app, err := ctx.AppIfConfigured("vault")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return errors.New("the vault is not configured: add the global option `vault`, which may be empty (in JSON, the app \"vault\")")
	}
	if err != nil {
		return err
	}
	g.app = app.(*App)
	g.server = handlers.Server{ClientIP: clientIP, OnError: (&Handler{app: g.app}).logCause}
	return nil
}

func (g *guard) check() error {
	if !policy.ValidServiceName(g.Service) {
		return fmt.Errorf("vault_auth: %q cannot be the name of a service", g.Service)
	}
	if len(g.Scope) == 0 {
		return errors.New("vault_auth: name at least one scope")
	}
	for _, s := range g.Scope {
		if !policy.ValidScope(s) || strings.ContainsAny(s, `"\`) {
			return fmt.Errorf("vault_auth: %q cannot be a scope", s)
		}
	}
	return nil
}

func (g *guard) site() handlers.Site { return handlers.Site{Service: g.Service, Scope: g.Scope} }

// hold returns the vault and a function that lets go of it.
func (g *guard) hold() (v *vault.Vault, release func(), err error) {
	v, done, err := g.app.hold()
	if err != nil {
		return nil, func() {}, err
	}
	return v, func() {
		if err := done(); err != nil {
			g.app.logger.Error("closing the vault", zap.Error(err))
		}
	}, nil
}

// user is what placeholders tell of a token.
func user(t *token.Verified) caddyauth.User {
	return caddyauth.User{ID: t.Subject, Metadata: map[string]string{
		"session": t.Context.SessionID,
		"task":    t.Context.TaskID,
		"scope":   strings.Join(t.Scope, " "),
	}}
}

// SiteAuth lets requests on whose token of the vault is for a service and has
// its scopes, and answers others with 401 or 403. The token is taken from
// `Authorization` (`Bearer` or `DPoP`) and out of the request. Each decision is
// recorded, budgets count, and a revocation ends requests under way.
//
// It sets the placeholders `{http.auth.user.id}` to the agent,
// `{http.auth.user.session}`, `{http.auth.user.task}` and
// `{http.auth.user.scope}`, scopes with spaces between them.
type SiteAuth struct{ guard }

// CaddyModule returns the Caddy module information.
func (*SiteAuth) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.vault_auth", New: func() caddy.Module { return new(SiteAuth) }}
}

// Provision finds the app.
func (a *SiteAuth) Provision(ctx caddy.Context) error { return a.provision(ctx) }

// ServeHTTP lets a request on or refuses it.
func (a *SiteAuth) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	v, release, err := a.hold()
	defer release()
	t, ctx, end, refused := a.server.Admit(w, r, v, err, a.site())
	if refused != nil {
		return nil
	}
	defer end()
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		u := user(t)
		repl.Set("http.auth.user.id", u.ID)
		for name, value := range u.Metadata {
			repl.Set("http.auth.user."+name, value)
		}
	}
	return next.ServeHTTP(w, r.WithContext(ctx))
}

// Authenticator is SiteAuth as a provider of Caddy's handler `authentication`,
// beside others. That handler answers every refusal with 401, and a request
// that has gone on is not ended by a revocation.
type Authenticator struct{ guard }

// CaddyModule returns the Caddy module information.
func (*Authenticator) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.authentication.providers.vault", New: func() caddy.Module { return new(Authenticator) }}
}

// Provision finds the app.
func (a *Authenticator) Provision(ctx caddy.Context) error { return a.provision(ctx) }

// Authenticate implements caddyauth.Authenticator.
func (a *Authenticator) Authenticate(w http.ResponseWriter, r *http.Request) (caddyauth.User, bool, error) {
	v, release, err := a.hold()
	defer release()
	t, _, end, refused := a.server.Admit(nil, r, v, err, a.site())
	if refused != nil {
		challenge := refused.Challenge
		if len(challenge) == 0 {
			challenge = []string{`Bearer realm="caddyvault"`}
		}
		for _, c := range challenge {
			w.Header().Add("WWW-Authenticate", c)
		}
		w.Header().Set("Vault-Error", refused.Code)
		return caddyauth.User{}, false, nil
	}
	end()
	return user(t), true, nil
}

// parseSiteAuth parses the directive. Syntax:
//
//	vault_auth [<matcher>] <service> <scope...>
func parseSiteAuth(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	a := new(SiteAuth)
	if err := a.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return a, nil
}

// UnmarshalCaddyfile sets up the handler. See parseSiteAuth for the syntax.
func (a *SiteAuth) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	args := d.RemainingArgs()
	if len(args) < 2 {
		return d.ArgErr()
	}
	a.Service, a.Scope = args[0], args[1:]
	if err := a.check(); err != nil {
		return d.WrapErr(err)
	}
	return noBlock(d)
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*SiteAuth)(nil)
	_ caddyhttp.MiddlewareHandler = (*SiteAuth)(nil)
	_ caddyfile.Unmarshaler       = (*SiteAuth)(nil)
	_ caddy.Provisioner           = (*Authenticator)(nil)
	_ caddyauth.Authenticator     = (*Authenticator)(nil)
)
