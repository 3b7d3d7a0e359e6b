package caddyvault

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/handlers"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/upstream"
)

// Handler serves the routes of the vault on a site. Requests for other paths
// go to the next handler.
//
// It sets the placeholder `{http.auth.user.id}` to the agent of the request,
// for logs.
type Handler struct {
	// The groups of routes to serve: `agent` (health, tokens, calls,
	// revocation, audit queries, the key set) and `admin`
	// (`vault.admin.*`). Default: both.
	Routes []string `json:"routes,omitempty"`

	// The name of a service that is served at the root of the site, for
	// clients that take a host and no path: every path is the service's, and
	// no route of the vault is served. It need not exist yet. Default: none.
	Proxy string `json:"proxy,omitempty"`

	app    *App
	server handlers.Server
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.vault",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision finds the app.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := ctx.AppIfConfigured("vault")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return errors.New("the vault is not configured: add the global option `vault`, which may be empty (in JSON, the app \"vault\")")
	}
	if err != nil {
		return err
	}
	h.app = app.(*App)

	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		server.RegisterConnContext(upstream.WithConn)
	}
	groups, err := routeGroups(h.Routes)
	if err != nil {
		return err
	}
	if err := h.checkProxy(); err != nil {
		return err
	}
	h.server = handlers.Server{
		Groups:       groups,
		Proxy:        h.Proxy,
		Identify:     h.app.identify,
		AllowedHosts: h.app.AllowedHosts,
		ClientIP:     clientIP,
		OnAgent:      nameAgent,
		OnRefused:    metrics.refused,
		OnError:      h.logCause,
		Exiting:      caddy.Exiting,
	}
	return nil
}

// checkProxy holds proxy to a name that a service can have.
func (h *Handler) checkProxy() error {
	switch {
	case h.Proxy == "":
		return nil
	case len(h.Routes) > 0:
		return errors.New("proxy serves one service and no routes of the vault: leave one of them out")
	case !policy.ValidServiceName(h.Proxy):
		return fmt.Errorf("proxy: %q cannot be the name of a service", h.Proxy)
	}
	return nil
}

// routeGroups reads the names of route groups; none means all.
func routeGroups(names []string) (handlers.Group, error) {
	if len(names) == 0 {
		return handlers.Agent | handlers.Admin, nil
	}
	var groups handlers.Group
	for _, name := range names {
		switch name {
		case "agent":
			groups |= handlers.Agent
		case "admin":
			groups |= handlers.Admin
		default:
			return 0, fmt.Errorf("unknown group of routes %q: there are agent and admin", name)
		}
	}
	return groups, nil
}

// ServeHTTP serves the vault's own paths.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if h.Proxy == "" && !handlers.Owns(r.URL.Path) {
		return next.ServeHTTP(w, r)
	}
	v, release, err := h.app.hold()
	if err == nil {
		// The proxy ends a broken stream with a panic.
		defer func() {
			if err := release(); err != nil {
				h.app.logger.Error("closing the vault", zap.Error(err))
			}
		}()
	}
	if err == nil && h.server.TokenInOpen(r, v) {
		rec := caddyhttp.NewResponseRecorder(w, nil, nil)
		defer h.logRedacted(r, v, rec, time.Now())
		w = rec
	}
	h.server.Serve(w, r, v, err)
	return nil
}

// clientIP returns what Caddy takes for the client's address.
func clientIP(r *http.Request) string {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return ip
}

// nameAgent makes the agent's name known to access logs.
func nameAgent(r *http.Request, agent string) {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.auth.user.id", agent)
	}
}

// logCause writes what went wrong underneath a refusal to the server's log.
func (h *Handler) logCause(_ *http.Request, r *refusal.Refusal) {
	log := h.app.logger.Debug
	if r.Status >= http.StatusInternalServerError || store.Cause(r) != nil { // of which the answer says nothing
		log = h.app.logger.Error
	}
	log("request refused", zap.String("code", r.Code), zap.Error(r.Cause))
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
