// Package caddyvault is a Caddy plugin that keeps API keys from the agents
// that need them. An agent asks the vault for a scoped, short-lived token and
// calls an API through it with that token; the vault checks token and policy,
// records the call, adds the real key, and proxies.
//
// The app "vault" holds the configuration, the handler "http.handlers.vault"
// serves its routes on a site.
package caddyvault

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/handlers"
	"github.com/caddyvault/caddyvault/upstream"
	"github.com/caddyvault/caddyvault/vault"
)

func init() {
	caddy.RegisterModule(new(App))
	caddy.RegisterModule(new(Handler))
}

// Defaults and bounds of the configuration (config.md).
const (
	defaultAudience = "agentic-credential-vault-proxy"
	defaultIssuer   = "caddyvault"
	defaultTTL      = 10 * time.Minute
	maxTTL          = 15 * time.Minute
	minKeyLength    = 32
	defaultKeep     = 30 * 24 * time.Hour
)

// App is the vault: where its state is, how tokens are made, and whom it
// believes. The handler `http.handlers.vault` serves it on a site.
type App struct {
	// The directory that holds the vault's state: the audit log, encrypted
	// secrets, revocations, and the keys that are not configured. It belongs
	// to one process at a time. Default: the folder `vault` in Caddy's data
	// directory.
	DataDir string `json:"data_dir,omitempty"`

	// The directory with one JSON file a service. It is watched: a file that
	// is dropped in is served, one that is deleted is gone. Default: the
	// folder `services` in the data directory.
	ServicesDir string `json:"services_dir,omitempty"`

	// A directory with service templates beside the built-in ones; a template
	// of the same name replaces the built-in one. Default: none.
	TemplatesDir string `json:"templates_dir,omitempty"`

	// The audience (`aud`) of tokens. Default:
	// `agentic-credential-vault-proxy`.
	Audience string `json:"audience,omitempty"`

	// The issuer (`iss`) of tokens. Default: `caddyvault`.
	Issuer string `json:"issuer,omitempty"`

	// The life of a token that asks for none. Default: `10m`.
	TokenTTL caddy.Duration `json:"token_ttl,omitempty"`

	// The longest life of a token, at most 15 minutes. Default: `15m`.
	TokenTTLMax caddy.Duration `json:"token_ttl_max,omitempty"`

	// A reference, `{env.NAME}` or `{file./path}`, to a key of at least 32
	// characters that tokens are signed with (HS256). Default: an Ed25519 key
	// is generated in the data directory, and its public half is published at
	// `/.well-known/jwks.json`.
	SigningKey string `json:"signing_key,omitempty"`

	// Whether a DPoP proof has to carry a nonce of the vault (RFC 9449,
	// section 9), which makes a proof that was made in advance worthless.
	// Default: false.
	DPoPNonce bool `json:"dpop_nonce,omitempty"`

	// How the generated keys sign tokens, and when another takes over.
	// Default: EdDSA, and no other until an administrator says so.
	Signing *Signing `json:"signing,omitempty"`

	// A reference to the key that wraps the keys of stored secrets: 64 hex
	// digits, or 32 bytes in base64. Default: one is generated in the data
	// directory.
	EncryptionKey string `json:"encryption_key,omitempty"`

	// A reference to the token of administrators, at least 32 characters.
	// Default: one is generated in the data directory.
	AdminToken string `json:"admin_token,omitempty"`

	// Host names that a request over a loopback connection may name beside
	// the loopback names and addresses. Others are refused, because a web
	// page can make its own name lead to this machine. Default: none.
	AllowedHosts []string `json:"allowed_hosts,omitempty"`

	// How the vault knows agents. Default: processes on this machine are
	// believed, nobody else is.
	Agents *Agents `json:"agents,omitempty"`

	// How long a revoked session or task stays revoked. Revoked tokens are
	// kept until they would have expired, revoked agents for ever. Default:
	// 30 days.
	RevocationsKeep caddy.Duration `json:"revocations_keep,omitempty"`

	// How the audit log is kept. Default: on disk before a call goes on, in
	// segments of 64 MiB.
	Audit *Audit `json:"audit,omitempty"`

	// Private address ranges (CIDR) that services may be on. Without, only a
	// service whose base URL itself names a private or loopback address is
	// reached there. Default: none.
	AllowPrivate []string `json:"allow_private,omitempty"`

	// How many bytes of bodies may be held at a time that have to be had whole:
	// those that the secret goes into or that are signed, which count twice,
	// and those of the API's own routes. What is beyond that is refused with
	// `BODY_MEMORY_EXHAUSTED`. At least 32 MiB. Default: 256 MiB.
	BodyMemory int64 `json:"body_memory,omitempty"`

	ctx       caddy.Context
	logger    *zap.Logger
	engine    *engine
	proxy     *upstream.Proxy
	settings  engineSettings
	mirror    *mirror
	mirroring bool // mirror is, or nothing is instead
	vaultConf vault.Config
	identify  handlers.Identifier
	sources   []usedSource // of the keys of issuers
	poster    *poster      // nil: checkpoints stay here

	open   func() (*vault.Vault, error) // the first call opens
	cancel func()                       // of what open subscribed to
	mu     sync.Mutex
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "vault",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision checks the configuration. It opens no file: a configuration is
// also provisioned to validate it, beside a running server.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.logger = ctx, ctx.Logger()
	if err := a.setDirectories(); err != nil {
		return err
	}
	if err := a.setVaultConfig(); err != nil {
		return err
	}
	var err error
	if a.identify, err = a.Agents.identifier(); err != nil {
		return err
	}
	allowed := make([]netip.Prefix, len(a.AllowPrivate))
	for i, s := range a.AllowPrivate {
		if allowed[i], err = netip.ParsePrefix(s); err != nil {
			return fmt.Errorf("allow_private: %q is not an address range in CIDR notation", s)
		}
	}
	if err := a.provisionIssuers(allowed); err != nil {
		return err
	}
	if err := registerIssuers(ctx.GetMetricsRegistry(), a.sources); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	for i, h := range a.AllowedHosts {
		a.AllowedHosts[i] = strings.ToLower(h)
		if h == "" || strings.ContainsAny(h, "/:* ") {
			return fmt.Errorf("allowed_hosts: %q is not a host name", h)
		}
	}
	if a.proxy, err = upstream.New(ctx, allowed); err != nil {
		return err
	}
	if a.settings.audit, err = a.Audit.options(); err != nil {
		return err
	}
	if a.Audit != nil && a.Audit.CheckpointURL != "" {
		u, err := checkpointURL(a.Audit.CheckpointURL)
		if err != nil {
			return err
		}
		a.poster = newPoster(u, upstream.GuardFor(u.Hostname(), allowed), a.logger.Named("checkpoint_url"))
		a.settings.audit.OnCheckpoint = a.poster.offer
	}
	if a.mirror, err = newMirror(ctx, a.Audit); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	a.vaultConf.Upstream, a.vaultConf.Meter, a.vaultConf.CheckService = a.proxy, metrics, a.proxy.Check
	if err := metrics.register(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	a.engine = acquireEngine(a.DataDir)
	if err := a.engine.check(a.settings); err != nil {
		return err
	}
	if err := registerAudit(ctx.GetMetricsRegistry(), a.engine); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	a.open = sync.OnceValues(func() (*vault.Vault, error) { return a.openOn(a.engine) })
	return nil
}

// setDirectories makes the directories absolute.
func (a *App) setDirectories() error {
	repl := caddy.NewReplacer()
	for _, d := range []struct {
		setting string
		dir     *string
		def     func() string
	}{
		{"data_dir", &a.DataDir, func() string { return filepath.Join(caddy.AppDataDir(), "vault") }},
		{"services_dir", &a.ServicesDir, func() string { return filepath.Join(a.DataDir, "services") }},
		{"templates_dir", &a.TemplatesDir, func() string { return "" }},
	} {
		if *d.dir == "" {
			*d.dir = d.def()
		}
		if *d.dir == "" {
			continue
		}
		dir, err := repl.ReplaceOrErr(*d.dir, true, true)
		if err != nil {
			return fmt.Errorf("%s: %w", d.setting, err)
		}
		if *d.dir, err = filepath.Abs(dir); err != nil {
			return fmt.Errorf("%s: %w", d.setting, err)
		}
	}
	a.settings.servicesDir = a.ServicesDir
	return nil
}

// setVaultConfig fills in the defaults and resolves the references to secrets.
func (a *App) setVaultConfig() error {
	if a.Audience == "" {
		a.Audience = defaultAudience
	}
	if a.Issuer == "" {
		a.Issuer = defaultIssuer
	}
	if a.TokenTTLMax == 0 {
		a.TokenTTLMax = caddy.Duration(maxTTL)
	}
	if a.TokenTTL == 0 {
		a.TokenTTL = min(caddy.Duration(defaultTTL), a.TokenTTLMax)
	}
	if a.RevocationsKeep == 0 {
		a.RevocationsKeep = caddy.Duration(defaultKeep)
	}
	ttl, most := time.Duration(a.TokenTTL), time.Duration(a.TokenTTLMax)
	switch {
	case most < time.Second || most > maxTTL:
		return fmt.Errorf("token_ttl_max: %s is not between 1s and %s", most, maxTTL)
	case ttl < time.Second || ttl > most:
		return fmt.Errorf("token_ttl: %s is not between 1s and token_ttl_max, %s", ttl, most)
	case time.Duration(a.RevocationsKeep) < maxTTL:
		return fmt.Errorf("revocations_keep: %s is shorter than the life of a token", time.Duration(a.RevocationsKeep))
	}
	if a.BodyMemory != 0 && a.BodyMemory < vault.MinBodyMemory {
		return fmt.Errorf("body_memory: %d bytes is less than 32MiB, which the two largest bodies take", a.BodyMemory)
	}
	a.vaultConf = vault.Config{
		BodyMemory:      a.BodyMemory,
		Audience:        a.Audience,
		Issuer:          a.Issuer,
		TokenTTL:        ttl,
		TokenTTLMax:     most,
		RevocationsKeep: time.Duration(a.RevocationsKeep),
		DPoPNonce:       a.DPoPNonce,
		Templates:       a.template,
		TemplateNames:   a.templateNames,
	}
	for _, s := range []struct {
		setting, reference string
		into               *string
		least              int
	}{
		{"signing_key", a.SigningKey, &a.vaultConf.SigningKey, minKeyLength},
		{"encryption_key", a.EncryptionKey, &a.settings.encryptionKey, 0},
		{"admin_token", a.AdminToken, &a.vaultConf.AdminToken, minKeyLength},
	} {
		value, err := resolveReference(s.setting, s.reference)
		if err != nil {
			return err
		}
		if value != "" && len(value) < s.least {
			return fmt.Errorf("%s: the value of %s is shorter than %d characters", s.setting, s.reference, s.least)
		}
		*s.into = value
	}
	if a.vaultConf.SigningKey != "" && a.Signing != nil {
		return errors.New("signing: tokens are signed with signing_key; leave one of the two out")
	}
	var err error
	a.vaultConf.Signing, err = a.Signing.config()
	return err
}

// Start opens the vault, so that a configuration whose state cannot be opened
// does not come up.
func (a *App) Start() error {
	v, err := a.open()
	if err != nil {
		return err
	}
	a.engine.useAudit(a.settings.audit)
	if a.poster != nil {
		if c := v.Audit().Checkpoint(); c.Size > 0 {
			a.poster.offer(c)
		}
		a.poster.start()
	}
	a.engine.useMirror(a.mirror, a.logger)
	a.mirroring = true
	a.startIssuers()
	go a.proxy.Refresh(v.Policies())
	return nil
}

// Stop does nothing: requests still run, and the next configuration goes on
// with the same state.
func (a *App) Stop() error { return nil }

// Cleanup releases what this configuration took. It also runs after a failed
// Provision.
func (a *App) Cleanup() error {
	if a.proxy != nil {
		a.proxy.Close()
	}
	a.mu.Lock()
	if a.cancel != nil {
		a.cancel()
	}
	a.mu.Unlock()
	err := a.dropIssuers()
	if a.engine == nil {
		return err
	}
	a.engine.dropAudit(a.settings.audit)
	if a.poster != nil {
		a.poster.stop()
	}
	if a.mirroring {
		a.engine.dropMirror(a.mirror, a.logger)
	}
	return errors.Join(err, a.engine.release())
}

// openOn opens the state of an engine under this configuration.
func (a *App) openOn(e *engine) (*vault.Vault, error) {
	st, err := e.open(a.settings, a.logger)
	if err != nil {
		return nil, err
	}
	v, err := vault.New(st, a.vaultConf)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancel == nil {
		forget, release := st.OnServiceChange(func(name string) {
			a.proxy.Forget(name)
			if svc := v.Policy(name); svc != nil {
				a.proxy.Prepare(svc)
			}
			if !st.Has(name) {
				metrics.forget(name)
			}
		}), v.HoldAdmin()
		a.cancel = func() { forget(); release() }
	}
	return v, nil
}

// hold returns the vault for one request, which calls release when it is done.
func (a *App) hold() (v *vault.Vault, release func() error, err error) {
	if a.engine.retain() {
		if v, err = a.open(); err != nil {
			_ = a.engine.release()
			return nil, nil, err
		}
		return v, a.engine.release, nil
	}
	// The configuration is gone, and so was its state; this request began
	// under it all the same.
	e := acquireEngine(a.DataDir)
	if v, err = a.openOn(e); err != nil {
		_ = e.release()
		return nil, nil, err
	}
	return v, e.release, nil
}

// Interface guards.
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
