package caddyvault

import (
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("vault", parseApp)
	httpcaddyfile.RegisterHandlerDirective("vault", parseHandler)
	// Before everything that answers every request, so that `respond` or
	// `reverse_proxy` on the same site gets what is none of the vault's.
	httpcaddyfile.RegisterDirectiveOrder("vault", httpcaddyfile.Before, "respond")
}

// parseApp parses the global option. See App.UnmarshalCaddyfile.
func parseApp(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		d.Next()
		return nil, d.Err("the global option vault is given twice")
	}
	app := new(App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "vault", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile sets up the app. Syntax:
//
//	vault {
//		data_dir         <directory>
//		services_dir     <directory>
//		templates_dir    <directory>
//		audience         <name>
//		issuer           <name>
//		token_ttl        <duration>
//		token_ttl_max    <duration>
//		signing_key      {env.<name>}|{file.<path>}
//		encryption_key   {env.<name>}|{file.<path>}
//		admin_token      {env.<name>}|{file.<path>}
//		allowed_hosts    <host...>
//		allow_private    <cidr...>
//		body_memory      <size>
//		revocations_keep <duration>
//		dpop_nonce       on|off
//		signing {
//			algorithm    EdDSA|ES256|HS256
//			rotate_every <duration>
//			publish_for  <duration>
//		}
//		agents {
//			certificates san_uri|san_dns|san_email|cn <pattern> [<agentId>]
//			keys     on|off
//			issuer   <url> {
//				audience    <name...>
//				claim       <claim>
//				map         <pattern> <agentId>
//				require     <claim> <pattern...>
//				group_claim <claim>
//				keys        <url>|<file>
//				algorithms  <name...>
//				max_stale   <duration>
//				tls_ca      <file>
//			}
//			identity <placeholder>
//			trust    loopback|none|all
//		}
//		audit {
//			durability   sync|async
//			segment_size <size>
//			keep         <duration>|<size>
//			checkpoint_every <duration>|off
//			checkpoint_url   <url>
//			mirror           <logger>
//			on_full      refuse
//		}
//	}
//
// Every setting is optional.
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the option's name
	return eachSetting(d, func(setting string) (err error) {
		switch setting {
		case "data_dir":
			err = oneArg(d, &a.DataDir)
		case "services_dir":
			err = oneArg(d, &a.ServicesDir)
		case "templates_dir":
			err = oneArg(d, &a.TemplatesDir)
		case "audience":
			err = oneArg(d, &a.Audience)
		case "issuer":
			err = oneArg(d, &a.Issuer)
		case "token_ttl":
			err = durationArg(d, &a.TokenTTL)
		case "token_ttl_max":
			err = durationArg(d, &a.TokenTTLMax)
		case "signing_key":
			err = referenceArg(d, &a.SigningKey)
		case "encryption_key":
			err = referenceArg(d, &a.EncryptionKey)
		case "admin_token":
			err = referenceArg(d, &a.AdminToken)
		case "allowed_hosts":
			err = manyArgs(d, &a.AllowedHosts)
		case "allow_private":
			err = manyArgs(d, &a.AllowPrivate)
		case "body_memory":
			err = sizeArg(d, &a.BodyMemory)
		case "revocations_keep":
			err = durationArg(d, &a.RevocationsKeep)
		case "agents":
			a.Agents = new(Agents)
			err = a.Agents.unmarshalCaddyfile(d)
		case "dpop_nonce":
			var word string
			if err = oneArg(d, &word); err == nil && word != "on" && word != "off" {
				err = d.Errf("dpop_nonce is on or off, not %q", word)
			}
			a.DPoPNonce = word == "on"
		case "signing":
			a.Signing = new(Signing)
			err = a.Signing.unmarshalCaddyfile(d)
		case "audit":
			a.Audit = new(Audit)
			err = a.Audit.unmarshalCaddyfile(d)
		default:
			err = d.Errf("unknown setting %q of vault", setting)
		}
		return err
	})
}

// eachSetting calls set for each line of a block, with d at its first word. A
// setting may stand once, those in often more often.
func eachSetting(d *caddyfile.Dispenser, set func(setting string) error, often ...string) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		setting := d.Val()
		if seen[setting] && !slices.Contains(often, setting) {
			return d.Errf("%s is given twice", setting)
		}
		seen[setting] = true
		if err := set(setting); err != nil {
			return err
		}
	}
	return nil
}

// oneArg reads exactly one argument and no block.
func oneArg(d *caddyfile.Dispenser, into *string) error {
	args := d.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return d.ArgErr()
	}
	*into = args[0]
	return noBlock(d)
}

func manyArgs(d *caddyfile.Dispenser, into *[]string) error {
	*into = d.RemainingArgs()
	if len(*into) == 0 {
		return d.ArgErr()
	}
	return noBlock(d)
}

// noBlock refuses a block after a setting that has none; its lines would be
// taken for settings of the vault.
func noBlock(d *caddyfile.Dispenser) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		return d.Errf("unexpected block")
	}
	return nil
}

func durationArg(d *caddyfile.Dispenser, into *caddy.Duration) error {
	var s string
	setting := d.Val()
	if err := oneArg(d, &s); err != nil {
		return err
	}
	dur, err := caddy.ParseDuration(s)
	if err != nil {
		return d.Errf("%s: %q is not a duration such as 10m", setting, s)
	}
	if dur < time.Second {
		return d.Errf("%s: %q is shorter than a second", setting, s)
	}
	*into = caddy.Duration(dur)
	return nil
}

// referenceArg reads a reference to a secret, never the secret itself.
func referenceArg(d *caddyfile.Dispenser, into *string) error {
	setting := d.Val()
	args := d.RemainingArgs()
	if len(args) != 1 {
		return d.ArgErr()
	}
	if err := checkReference(setting, args[0]); err != nil {
		return d.WrapErr(err)
	}
	*into = args[0]
	return noBlock(d)
}

// parseHandler parses the directive. Syntax:
//
//	vault [<matcher>] [agent] [admin]
//	vault [<matcher>] proxy <service>
//
// Without arguments, every route is served. With proxy, every path is the
// service's.
func parseHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return handler, nil
}

// UnmarshalCaddyfile sets up the handler. See parseHandler for the syntax.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	h.Routes = d.RemainingArgs()
	if len(h.Routes) > 0 && h.Routes[0] == "proxy" {
		if len(h.Routes) != 2 {
			return d.Err("proxy takes the name of one service")
		}
		h.Proxy, h.Routes = h.Routes[1], nil
		if err := h.checkProxy(); err != nil {
			return d.WrapErr(err)
		}
	}
	if _, err := routeGroups(h.Routes); err != nil {
		return d.WrapErr(err)
	}
	return noBlock(d)
}

// Interface guards.
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*Handler)(nil)
)
