package cli

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// node is an object of a configuration's JSON; nil has no members.
type node map[string]any

// at follows names to an object, nil if there is none.
func (n node) at(names ...string) node {
	for _, name := range names {
		n, _ = n[name].(map[string]any)
	}
	return n
}

func (n node) text(name string) string { s, _ := n[name].(string); return s }
func (n node) flag(name string) bool   { b, _ := n[name].(bool); return b }
func (n node) list(name string) []any  { l, _ := n[name].([]any); return l }

func (n node) texts(name string) []string {
	var out []string
	for _, v := range n.list(name) {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// each calls f with every object in v.
func each(v any, f func(node)) {
	switch v := v.(type) {
	case map[string]any:
		f(v)
		for _, name := range sortedKeys(v) {
			each(v[name], f)
		}
	case []any:
		for _, e := range v {
			each(e, f)
		}
	}
}

// checkConfig looks at a configuration's JSON.
func checkConfig(r *report, config node) {
	r.clean("Caddy's admin API cannot be reached over the network", func() { checkAdminAPI(r, config["admin"], config.at("admin")) })
	r.clean("no secrets in the configuration", func() { checkLiterals(r, config) })

	app := config.at("apps", "vault")
	if app == nil {
		r.problem("the configuration has no vault: add the global option vault")
	} else if app.at("agents").text("trust") == "all" {
		r.problem("agents trust all: anyone who reaches the vault is taken for the agent they say they are")
	}
	http := config.at("apps", "http")
	servers := http.at("servers")
	served := false
	for _, name := range sortedKeys(servers) {
		if s := servers.at(name); servesVault(s) {
			served = true
			checkServer(r, name, s, http)
		}
	}
	if !served {
		r.problem("no site serves the vault: add the directive vault to one")
	}
	if agents := app.at("agents"); served && agents != nil {
		checkAgents(r, agents, servers)
	}
}

// checkAgents looks at how agents are known.
func checkAgents(r *report, agents, servers node) {
	certificates := len(agents.list("certificates")) > 0
	if agents.text("trust") == "none" && agents.text("keys") == "off" && agents.text("identity") == "" && !certificates && len(agents.list("issuers")) == 0 {
		r.warn("agents trust none, and no other means makes one known: nobody can get a token")
	}
	if !certificates {
		return
	}
	asked := false
	for _, name := range sortedKeys(servers) {
		server := servers.at(name)
		if !servesVault(server) {
			continue
		}
		each(server["tls_connection_policies"], func(policy node) {
			auth := policy.at("client_authentication")
			if auth == nil {
				return
			}
			asked = true
			if mode := auth.text("mode"); mode == "request" || mode == "require" {
				r.problem("server %s: client_auth mode %s verifies no certificate, and agents are to be known by theirs: all that show one are refused", name, mode)
			}
		})
	}
	if !asked {
		r.warn("agents are to be known by certificates, and no site of the vault asks for one (client_auth)")
	}
}

// checkAdminAPI looks at where Caddy's admin API listens: it has no
// authentication, and can load a configuration that serves the data directory.
func checkAdminAPI(r *report, set any, admin node) {
	if admin.flag("disabled") {
		return
	}
	listen := admin.text("listen")
	if listen == "" {
		listen = os.Getenv("CADDY_ADMIN")
	}
	if listen == "" {
		listen = caddy.DefaultAdminListen
	}
	addr, err := caddy.ParseNetworkAddress(listen)
	if err != nil {
		r.problem("admin: %q is not an address", listen)
		return
	}
	const fix = "agents on this machine could load a configuration that shows the data directory; set: admin unix/./caddyvault.sock|0600"
	switch {
	case !addr.IsUnixNetwork():
		by := ""
		if set == nil {
			by = " by default"
		}
		r.problem("Caddy's admin API is open on %s%s: %s", listen, by, fix)
	default:
		_, mode, ok := strings.Cut(addr.Host, "|")
		if bits, err := strconv.ParseUint(mode, 8, 32); ok && (err != nil || bits&0o077 != 0) {
			r.problem("Caddy's admin API is on a socket with mode %s: %s", mode, fix)
		}
	}
}

// secretSettings are settings of the vault that hold a reference to a secret.
var secretSettings = []string{"signing_key", "encryption_key", "admin_token"}

var reference = regexp.MustCompile(`^\{(env|file)\.[^{}]+\}$`)

// secretShape is how well-known keys begin.
var secretShape = regexp.MustCompile(`\b(sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|[rs]k_(live|test)_[A-Za-z0-9]{16,}|AKIA[A-Z0-9]{16}|xox[abpr]-[A-Za-z0-9-]{16,}|shpat_[a-f0-9]{16,}|phx_[A-Za-z0-9]{20,})`)

// checkLiterals looks for secrets in the configuration itself, where Caddy's
// autosave and admin API would show them. It does not repeat them.
func checkLiterals(r *report, config node) {
	app := config.at("apps", "vault")
	for _, setting := range secretSettings {
		if v := app.text(setting); v != "" && !reference.MatchString(v) {
			r.problem("%s holds a secret itself; make it a reference, {env.NAME} or {file./path}", setting)
		}
	}
	var walk func(v any, path string)
	walk = func(v any, path string) {
		switch v := v.(type) {
		case map[string]any:
			for _, name := range sortedKeys(v) {
				walk(v[name], path+"/"+name)
			}
		case []any:
			for i, e := range v {
				walk(e, path+"/"+strconv.Itoa(i))
			}
		case string:
			if secretShape.MatchString(v) {
				r.problem("the configuration holds what looks like a key, at %s", path)
			}
		}
	}
	walk(map[string]any(config), "")
}

// servesVault reports whether a server has the vault's handler.
func servesVault(server node) bool { return len(vaultRoutes(server)) > 0 }

// vaultRoutes returns the groups of routes of every vault handler of a server,
// "proxy" for one that serves a service.
func vaultRoutes(server node) (groups []string) {
	each(server["routes"], func(n node) {
		if n.text("handler") != "vault" {
			return
		}
		if routes := n.texts("routes"); n.text("proxy") != "" {
			groups = append(groups, "proxy")
		} else if len(routes) > 0 {
			groups = append(groups, routes...)
		} else {
			groups = append(groups, "agent", "admin")
		}
	})
	return unique(groups)
}

// checkServer looks at one HTTP server that serves the vault.
func checkServer(r *report, name string, server, http node) {
	groups := vaultRoutes(server)
	for _, listen := range server.texts("listen") {
		addr, err := caddy.ParseNetworkAddress(listen)
		switch {
		case err != nil:
			r.problem("server %s: %q is not an address", name, listen)
		case addr.IsUnixNetwork() || isLoopback(addr.Host):
			r.ok("server %s: %s is on this machine only", name, listen)
		case !usesTLS(server, http, addr):
			r.problem("server %s: %s is open to other machines without TLS: tokens travel unencrypted", name, listen)
		case slices.Contains(groups, "admin"):
			r.warn("server %s: the admin routes can be reached from other machines on %s; serve them on their own site, or on loopback", name, listen)
		default:
			r.ok("server %s: %s uses TLS", name, listen)
		}
	}
	if logs := server.at("logs"); logs.flag("should_log_credentials") {
		r.problem("server %s: log_credentials is on: access logs show tokens", name)
	}
	if server.flag("trusted_proxies_unix") || server["trusted_proxies"] != nil && trustsEveryone(server.at("trusted_proxies")) {
		r.warn("server %s: every client is a trusted proxy", name)
	}
}

// trustsEveryone reports whether a static list of proxies has all addresses.
func trustsEveryone(proxies node) bool {
	for _, s := range proxies.texts("ranges") {
		if p, err := netip.ParsePrefix(s); err == nil && p.Bits() == 0 {
			return true
		}
	}
	return false
}

// usesTLS reports whether Caddy will serve TLS on an address: if the server has
// connection policies, is on the HTTPS port, or has a host name for which
// certificates are managed.
func usesTLS(server, http node, addr caddy.NetworkAddress) bool {
	httpPort, httpsPort := port(http, "http_port", 80), port(http, "https_port", 443)
	if addr.StartPort == httpPort && addr.EndPort == httpPort {
		return false
	}
	auto := server.at("automatic_https")
	if len(server.list("tls_connection_policies")) > 0 || addr.StartPort == httpsPort && addr.EndPort == httpsPort {
		return true
	}
	if auto.flag("disable") {
		return false
	}
	hosts := false
	each(server["routes"], func(n node) { hosts = hosts || len(n.texts("host")) > 0 })
	return hosts
}

func port(http node, name string, byDefault uint) uint {
	if f, ok := http[name].(float64); ok && f > 0 {
		return uint(f)
	}
	return byDefault
}
