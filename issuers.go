package caddyvault

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddyvault/caddyvault/handlers"
	"github.com/caddyvault/caddyvault/identity"
	"github.com/caddyvault/caddyvault/store/fsx"
	"github.com/caddyvault/caddyvault/upstream"
)

// Issuer is somebody whose JWTs say who an agent is: a platform that gives its
// workloads an identity, or an OpenID provider.
type Issuer struct {
	// The `iss` of its JWTs, exactly. Without `keys` it is the URL below which
	// discovery finds them (`/.well-known/openid-configuration`).
	Issuer string `json:"issuer"`

	// What JWTs for this vault are issued for: one of these has to be in
	// `aud`. Required.
	Audience []string `json:"audience"`

	// The claim that names the agent. A name that begins with a slash is a
	// JSON Pointer to a claim within another. Default: `sub`.
	Claim string `json:"claim,omitempty"`

	// Which values of the claim are which agents; the first that matches
	// holds, and a value that matches none is refused. Default: the value is
	// the agent.
	Map []IssuerMap `json:"map,omitempty"`

	// Claims that a JWT must have as well.
	Require []IssuerRequirement `json:"require,omitempty"`

	// The claim that has the agent's groups, as a text or a list of texts.
	// Default: none.
	GroupClaim string `json:"group_claim,omitempty"`

	// The URL or the file of the key set (JWKS). Default: discovery.
	Keys string `json:"keys,omitempty"`

	// The algorithms that are taken. Default: RS256, RS384, RS512, PS256,
	// PS384, PS512, ES256, ES384, ES512 and EdDSA.
	Algorithms []string `json:"algorithms,omitempty"`

	// For how long keys stay good that cannot be fetched anew. Default: `24h`.
	MaxStale caddy.Duration `json:"max_stale,omitempty"`

	// A file with the certificates by which the issuer's server is trusted,
	// instead of the system's. Default: the system's.
	TLSCA string `json:"tls_ca,omitempty"`
}

// IssuerMap says which agent the values of a claim are.
type IssuerMap struct {
	// What the value is like. A `*` stands for one character or more of one
	// segment, between slashes and colons; `**` for one or more of anything.
	Pattern string `json:"pattern"`

	// The agent; each `*` is what that of the pattern stands for.
	AgentID string `json:"agent_id"`
}

// IssuerRequirement is a claim that a JWT must have.
type IssuerRequirement struct {
	// The claim, named as in `claim`: a text, a number, `true` or `false`, or a
	// list of texts one of which matches.
	Claim string `json:"claim"`

	// What it is like, as in `map`; one of these has to match.
	Patterns []string `json:"patterns"`
}

// rules are the settings as package identity takes them.
func (i *Issuer) rules() identity.Rules {
	r := identity.Rules{
		Issuer: i.Issuer, Audiences: i.Audience, Claim: i.Claim, GroupClaim: i.GroupClaim,
		Algorithms: i.Algorithms, MaxStale: time.Duration(i.MaxStale),
	}
	for _, m := range i.Map {
		r.Map = append(r.Map, [2]string{m.Pattern, m.AgentID})
	}
	for _, q := range i.Require {
		r.Require = append(r.Require, identity.Requirement{Claim: q.Claim, Patterns: q.Patterns})
	}
	return r
}

// check says what is wrong with the settings. It opens nothing.
func (i *Issuer) check() error {
	if _, err := identity.NewIssuer(i.rules(), nil); err != nil {
		return err
	}
	_, err := identity.NewSource(identity.Place{Issuer: i.Issuer, Keys: i.Keys, Roots: i.TLSCA})
	return err
}

// issuerKeys are the sources of keys by where these are. A source outlives a
// configuration that is replaced by one that names the same place, so that a
// reload in an issuer's outage costs nothing.
var issuerKeys = caddy.NewUsagePool()

// A usedSource is a source that a configuration has taken.
type usedSource struct {
	pooled string
	kept   string // the name of its file
	*identity.Source
}

// issuersDir is the folder of the data directory with the issuers' keys as they
// were last, for a start in an issuer's outage.
const issuersDir = "issuers"

// issuerFile keeps the keys of one issuer.
type issuerFile struct{ dir, name string }

func (f issuerFile) Load() ([]byte, error) {
	d, err := fsx.OpenDir(f.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	text, _, err := d.ReadRegular(f.name, 1<<20)
	return text, err
}

func (f issuerFile) Save(text []byte) error {
	if err := fsx.MakePrivateDir(f.dir); err != nil {
		return err
	}
	return fsx.WriteAtomic(f.dir, f.name, text, 0o600)
}

// provisionIssuers makes the means of the issuers, if there are any.
func (a *App) provisionIssuers(allowed []netip.Prefix) error {
	if a.Agents == nil || len(a.Agents.Issuers) == 0 {
		return nil
	}
	trusted := make([]*identity.TrustedIssuer, 0, len(a.Agents.Issuers))
	seen := make(map[string]bool)
	for _, conf := range a.Agents.Issuers {
		wrap := func(err error) error { return fmt.Errorf("agents: issuer %s: %w", conf.Issuer, err) }
		switch {
		case seen[conf.Issuer]:
			return wrap(errors.New("it is given twice"))
		case conf.Issuer == a.Issuer:
			return wrap(errors.New("this is the vault's own name, and its tokens say nothing of who asks"))
		}
		seen[conf.Issuer] = true
		source, err := a.issuerSource(&conf, allowed)
		if err != nil {
			return wrap(err)
		}
		t, err := identity.NewIssuer(conf.rules(), source)
		if err != nil {
			return wrap(err)
		}
		trusted = append(trusted, t)
	}
	all := identity.NewIssuers(trusted)
	means := a.identify.Means
	at := slices.IndexFunc(means, func(m handlers.Means) bool { _, ok := m.(placeholderIdentity); return ok })
	if at < 0 {
		at = len(means)
	}
	means = slices.Insert(means, at, handlers.Means(handlers.Issuers{Trusted: all}))
	a.identify.Means = append(means, handlers.ForeignJWT{Trusted: all})
	return nil
}

// issuerSource returns the source of an issuer's keys, which may be there
// already.
func (a *App) issuerSource(conf *Issuer, allowed []netip.Prefix) (*identity.Source, error) {
	place := identity.Place{Issuer: conf.Issuer}
	repl := caddy.NewReplacer()
	for _, s := range []struct {
		name, value string
		into        *string
	}{{"keys", conf.Keys, &place.Keys}, {"tls_ca", conf.TLSCA, &place.Roots}} {
		value, err := repl.ReplaceOrErr(s.value, true, true)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		if value != "" && !strings.Contains(value, "://") {
			if value, err = filepath.Abs(value); err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
		}
		*s.into = value
	}
	place.Control = upstream.IssuerGuard(allowed)
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q", place.Issuer, place.Keys, place.Roots, allowed))
	pooled := string(sum[:])
	source, _, err := issuerKeys.LoadOrNew(pooled, func() (caddy.Destructor, error) { return identity.NewSource(place) })
	if err != nil {
		return nil, err
	}
	sum = sha256.Sum256(fmt.Appendf(nil, "%q %q %q", place.Issuer, place.Keys, place.Roots))
	a.sources = append(a.sources, usedSource{pooled, hex.EncodeToString(sum[:16]) + ".json", source.(*identity.Source)})
	return source.(*identity.Source), nil
}

// startIssuers begins to keep the issuers' keys fresh.
func (a *App) startIssuers() {
	for _, s := range a.sources {
		var k identity.Keeper
		if !s.Local() {
			k = issuerFile{filepath.Join(a.DataDir, issuersDir), s.kept}
		}
		s.Start(a.logger.Named("issuer"), k)
	}
}

// dropIssuers gives back what this configuration has taken.
func (a *App) dropIssuers() error {
	var errs []error
	for _, s := range a.sources {
		_, err := issuerKeys.Delete(s.pooled)
		errs = append(errs, err)
	}
	a.sources = nil
	return errors.Join(errs...)
}

// addIssuer reads an issuer of the block agents.
func (a *Agents) addIssuer(d *caddyfile.Dispenser) error {
	var i Issuer
	if err := i.unmarshalCaddyfile(d); err != nil {
		return err
	}
	if slices.ContainsFunc(a.Issuers, func(other Issuer) bool { return other.Issuer == i.Issuer }) {
		return d.Errf("issuer %s is given twice", i.Issuer)
	}
	a.Issuers = append(a.Issuers, i)
	return nil
}

// unmarshalCaddyfile reads what follows the word issuer.
func (i *Issuer) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return d.ArgErr()
	}
	i.Issuer = args[0]
	err := eachSetting(d, func(setting string) error { return i.setting(d, setting) }, "map", "require", "audience")
	if err != nil {
		return err
	}
	if err := i.check(); err != nil {
		return d.Errf("issuer %s: %v", i.Issuer, err)
	}
	return nil
}

func (i *Issuer) setting(d *caddyfile.Dispenser, setting string) error {
	var list []string
	var err error
	switch setting {
	case "audience":
		err = manyArgs(d, &list)
		i.Audience = append(i.Audience, list...)
	case "claim":
		err = oneArg(d, &i.Claim)
	case "map":
		if err = manyArgs(d, &list); err == nil && len(list) != 2 {
			err = d.ArgErr()
		}
		if err == nil {
			i.Map = append(i.Map, IssuerMap{list[0], list[1]})
		}
	case "require":
		if err = manyArgs(d, &list); err == nil {
			i.Require = append(i.Require, IssuerRequirement{list[0], list[1:]})
		}
	case "group_claim":
		err = oneArg(d, &i.GroupClaim)
	case "keys":
		err = oneArg(d, &i.Keys)
	case "algorithms":
		err = manyArgs(d, &i.Algorithms)
	case "max_stale":
		err = durationArg(d, &i.MaxStale)
	case "tls_ca":
		err = oneArg(d, &i.TLSCA)
	default:
		return d.Errf("unknown setting %q of issuer", setting)
	}
	if err != nil {
		return err
	}
	// What is wrong is said at its own line.
	rules := i.rules()
	rules.Audiences = []string{"given later"}
	if _, err := identity.NewIssuer(rules, nil); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// Interface guards.
var (
	_ handlers.Means   = handlers.Issuers{}
	_ handlers.Means   = handlers.ForeignJWT{}
	_ caddy.Destructor = (*identity.Source)(nil)
	_ identity.Keeper  = issuerFile{}
)
