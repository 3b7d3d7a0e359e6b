package cli

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddyvault/caddyvault/identity"
	"github.com/caddyvault/caddyvault/upstream"
)

// issuerPatience is how long the doctor waits for one issuer.
const issuerPatience = 10 * time.Second

// checkIssuers looks at the issuers of JWTs that are trusted. One whose keys are
// in a file is looked at in any case, others are asked if that is wanted.
func checkIssuers(ctx context.Context, r *report, app node, online bool) {
	var allowed []netip.Prefix
	for _, text := range app.texts("allow_private") {
		if p, err := netip.ParsePrefix(text); err == nil {
			allowed = append(allowed, p)
		}
	}
	repl := caddy.NewReplacer()
	for _, one := range app.at("agents").list("issuers") {
		conf, _ := one.(map[string]any)
		issuer := node(conf)
		source, err := identity.NewSource(identity.Place{
			Issuer: issuer.text("issuer"), Keys: repl.ReplaceAll(issuer.text("keys"), ""), Roots: repl.ReplaceAll(issuer.text("tls_ca"), ""),
			Control: upstream.IssuerGuard(allowed),
		})
		if err != nil {
			r.problem("issuer %s: %s", issuer.text("issuer"), err)
			continue
		}
		if !online && !source.Local() {
			continue
		}
		checkIssuer(ctx, r, issuer.text("issuer"), source)
	}
}

func checkIssuer(ctx context.Context, r *report, name string, source *identity.Source) {
	ctx, cancel := context.WithTimeout(ctx, issuerPatience)
	defer cancel()
	switch n, err := source.Check(ctx); {
	case source.Local() && errors.Is(err, fs.ErrNotExist):
		r.warn("issuer %s: there is no file of its keys yet, and its agents get no tokens: %s", name, err)
	case err != nil:
		r.problem("issuer %s: its keys cannot be had, and its agents get no tokens: %s", name, err)
	case n == 0:
		r.problem("issuer %s: it publishes no key that can be used", name)
	default:
		r.ok("issuer %s: keys can be had (%d)", name, n)
	}
}
