package caddyvault

import (
	"fmt"
	"regexp"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddyvault/caddyvault/handlers"
	"github.com/caddyvault/caddyvault/identity"
	"github.com/caddyvault/caddyvault/refusal"
)

// Agents says how the vault knows who is asking for a token. The means are
// tried in the order of the fields; the first that a request uses decides, and
// has to hold.
type Agents struct {
	// Which names in client certificates that TLS has verified are which
	// agents. With a rule, a client certificate that is not verified, matches
	// no rule, or is two agents by them is refused. Default: none, and
	// certificates say nothing.
	Certificates []CertificateRule `json:"certificates,omitempty"`

	// Whether agents may prove who they are with a key that
	// `vault.admin.addAgent` has made: `on` or `off`. Default: `on`.
	Keys string `json:"keys,omitempty"`

	// Whose JWTs say who an agent is. Default: nobody's.
	Issuers []Issuer `json:"issuers,omitempty"`

	// One placeholder of a request, and nothing beside it, that names the
	// agent, set by authentication in front of the vault:
	// `{http.auth.user.id}` behind `basic_auth` or `forward_auth`. An empty
	// value means that it does not say. Default: none.
	Identity string `json:"identity,omitempty"`

	// Who is believed without proof: `loopback` for processes on this
	// machine, `none`, or `all`. Default: `loopback`.
	Trust string `json:"trust,omitempty"`
}

// CertificateRule says which names in a client certificate are which agent.
type CertificateRule struct {
	// Where the name stands: `san_uri`, `san_dns` or `san_email` among the
	// subject's alternative names, or `cn`, the subject's common name.
	Field string `json:"field"`

	// What the name is. A `*` stands for one character or more of one
	// segment: between slashes of a URI, between dots of a DNS name and of an
	// address's domain, before the @ of an address. A common name is one
	// segment.
	Pattern string `json:"pattern"`

	// Whom the name stands for; each `*` is what that of the pattern has
	// matched. Default: what the `*` has matched, or the whole name if there
	// is none.
	AgentID string `json:"agent_id,omitempty"`
}

func (a *Agents) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return eachSetting(d, func(setting string) (err error) {
		switch setting {
		case "certificates":
			err = a.certificatesArgs(d)
		case "keys":
			if err = oneArg(d, &a.Keys); err == nil && a.Keys != "on" && a.Keys != "off" {
				err = d.Errf("keys is on or off, not %q", a.Keys)
			}
		case "issuer":
			err = a.addIssuer(d)
		case "identity":
			if err = oneArg(d, &a.Identity); err == nil {
				if _, bad := parsePlaceholderIdentity(a.Identity); bad != nil {
					err = d.WrapErr(bad)
				}
			}
		case "trust":
			if err = oneArg(d, &a.Trust); err == nil {
				if _, bad := a.identifier(); bad != nil {
					err = d.WrapErr(bad)
				}
			}
		default:
			err = d.Errf("unknown setting %q of agents", setting)
		}
		return err
	}, "certificates", "issuer")
}

// certificatesArgs reads one rule.
func (a *Agents) certificatesArgs(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 2 || len(args) > 3 || args[len(args)-1] == "" {
		return d.ArgErr()
	}
	rule := CertificateRule{Field: args[0], Pattern: args[1]}
	if len(args) == 3 {
		rule.AgentID = args[2]
	}
	a.Certificates = append(a.Certificates, rule)
	if _, err := a.certificateRules(); err != nil {
		return d.WrapErr(err)
	}
	return noBlock(d)
}

func (a *Agents) certificateRules() (rules identity.CertificateRules, err error) {
	for _, r := range a.Certificates {
		if err := rules.Add(r.Field, r.Pattern, r.AgentID); err != nil {
			return nil, fmt.Errorf("agents: certificates %w", err)
		}
	}
	return rules, nil
}

// identifier builds the means by which agents are known.
func (a *Agents) identifier() (handlers.Identifier, error) {
	id := handlers.Identifier{Trust: handlers.TrustLoopback}
	if a == nil {
		id.Means = []handlers.Means{handlers.Keys{}}
		return id, nil
	}
	rules, err := a.certificateRules()
	if err != nil {
		return id, err
	}
	if len(rules) > 0 {
		id.Means = append(id.Means, handlers.Certificates{Rules: rules})
	}
	switch a.Keys {
	case "", "on":
		id.Means = append(id.Means, handlers.Keys{})
	case "off":
		id.Means = append(id.Means, handlers.NoKeys{})
	default:
		return id, fmt.Errorf("agents: keys is on or off, not %q", a.Keys)
	}
	switch a.Trust {
	case "", "loopback":
	case "none":
		id.Trust = handlers.TrustNone
	case "all":
		id.Trust = handlers.TrustAll
	default:
		return id, fmt.Errorf("agents: trust is loopback, none or all, not %q", a.Trust)
	}
	if a.Identity != "" {
		placeholder, err := parsePlaceholderIdentity(a.Identity)
		if err != nil {
			return id, err
		}
		id.Means = append(id.Means, placeholder)
	}
	return id, nil
}

// placeholderIdentity is the agent that authentication in front of the vault
// has put into the placeholder of this name, without its braces. It says
// nothing of what a client offers as its own.
type placeholderIdentity string

var requestPlaceholder = regexp.MustCompile(`^\{(http\.[^\s{}]+)\}$`)

// parsePlaceholderIdentity takes one placeholder of a request. A text beside it,
// a forgotten brace, a constant or the environment's would name an agent for
// whoever asks: nobody would have to authenticate.
func parsePlaceholderIdentity(s string) (placeholderIdentity, error) {
	m := requestPlaceholder.FindStringSubmatch(s)
	if m == nil {
		return "", fmt.Errorf("agents: identity is one placeholder of a request and nothing else, such as {http.auth.user.id}, not %q", s)
	}
	return placeholderIdentity(m[1]), nil
}

// Agent implements handlers.Means.
func (p placeholderIdentity) Agent(ask handlers.Asker) (handlers.Identity, bool, *refusal.Refusal) {
	repl, ok := ask.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok || ask.Offered {
		return handlers.Identity{}, false, nil
	}
	agent, _ := repl.GetString(string(p))
	return handlers.Identity{Agent: agent}, agent != "", nil
}

// Interface guards.
var _ handlers.Means = placeholderIdentity("")
