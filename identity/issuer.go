package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddyvault/caddyvault/agents"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
)

// leeway is by how much the clocks of an issuer and of the vault may differ.
const leeway = 30 * time.Second

// DefaultMaxStale is for how long keys are good that could not be fetched anew.
const DefaultMaxStale = 24 * time.Hour

// maxClaimed is how many groups of a JWT are looked at.
const maxClaimed = 512

// Rules say whom an issuer's JWTs make known.
type Rules struct {
	Issuer    string   // the iss
	Audiences []string // one of which a JWT must be for

	// Claim has the value that names the agent, by default sub; a name that
	// begins with a slash is a JSON Pointer.
	Claim string

	// Map are pairs of a pattern of that value and the agent, of which the
	// first that matches holds. Without, the value is the agent.
	Map [][2]string

	// Require are claims and the patterns one of which they must match.
	Require []Requirement

	// GroupClaim has the agent's groups, if it is set.
	GroupClaim string

	Algorithms []string // default: Algorithms
	MaxStale   time.Duration
}

// TrustedIssuer judges the JWTs of one issuer.
type TrustedIssuer struct {
	Rules
	keys    *Source
	parser  *jwt.Parser
	maps    []*mapping
	require []requirement
}

// Requirement is a claim that a JWT must have.
type Requirement struct {
	Claim    string
	Patterns []string
}

type requirement struct {
	Requirement
	patterns []*pattern
}

// holds reports whether a claim matches: its text, or one of a list.
func (r requirement) holds(v jsontext.Value) bool {
	list, ok := texts(v)
	if s, is := scalar(v); is {
		list, ok = []string{s}, true
	}
	return ok && slices.ContainsFunc(list, func(s string) bool {
		return slices.ContainsFunc(r.patterns, func(p *pattern) bool { _, matches := p.match(s); return matches })
	})
}

// NewIssuer reads the rules for an issuer whose keys are those of a source.
func NewIssuer(r Rules, keys *Source) (*TrustedIssuer, error) {
	if r.Claim == "" {
		r.Claim = "sub"
	}
	if r.Algorithms == nil {
		r.Algorithms = Algorithms
	}
	if r.MaxStale == 0 {
		r.MaxStale = DefaultMaxStale
	}
	t := &TrustedIssuer{Rules: r, keys: keys}
	if len(r.Audiences) == 0 || slices.Contains(r.Audiences, "") {
		return nil, errors.New("audience: name what JWTs for this vault are issued for, as a JWT for somebody else proves nothing here")
	}
	for _, alg := range r.Algorithms {
		if !slices.Contains(Algorithms, alg) {
			return nil, fmt.Errorf("algorithms: %q is none of %s", alg, strings.Join(Algorithms, ", "))
		}
	}
	if r.MaxStale < time.Minute {
		return nil, errors.New("max_stale: less than a minute is no outage")
	}
	for _, pair := range r.Map {
		m, err := newMapping(pair[0], pair[1])
		if err != nil {
			return nil, fmt.Errorf("map: %w", err)
		}
		if !strings.Contains(pair[1], "*") && !agents.ValidID(pair[1]) {
			return nil, fmt.Errorf("map: %q cannot be the id of an agent", pair[1])
		}
		t.maps = append(t.maps, m)
	}
	for _, asked := range r.Require {
		if asked.Claim == "" || len(asked.Patterns) == 0 {
			return nil, errors.New("require: name a claim and what it is like")
		}
		q := requirement{Requirement: asked}
		for _, text := range asked.Patterns {
			p, err := newPattern(text)
			if err != nil {
				return nil, fmt.Errorf("require: %w", err)
			}
			q.patterns = append(q.patterns, p)
		}
		t.require = append(t.require, q)
	}
	// The library checks what claims says, too.
	t.parser = jwt.NewParser(jwt.WithValidMethods(r.Algorithms), jwt.WithStrictDecoding(), jwt.WithIssuer(r.Issuer),
		jwt.WithAudience(r.Audiences...), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway))
	return t, nil
}

// Issuers are all issuers that are trusted. It never changes.
type Issuers struct{ byName map[string]*TrustedIssuer }

// NewIssuers returns the issuers, of which no two may have one name.
func NewIssuers(list []*TrustedIssuer) *Issuers {
	x := &Issuers{byName: make(map[string]*TrustedIssuer, len(list))}
	for _, t := range list {
		x.byName[t.Issuer] = t
	}
	return x
}

// Agent is who a JWT is about.
type Agent struct {
	ID     string
	Groups []string
}

// Agent returns who a JWT is about. known is false if it is of none of the
// issuers: it may then be for somebody else to judge.
func (x *Issuers) Agent(ctx context.Context, raw string) (who Agent, known bool, refused *refusal.Refusal) {
	c, err := peek(raw)
	if err != nil {
		return Agent{}, false, nil
	}
	t := x.byName[c.iss]
	if t == nil {
		return Agent{}, false, nil
	}
	who, refused = t.agent(ctx, raw)
	return who, true, refused
}

// Foreign refuses a JWT of which nothing else has said who it is about.
func (x *Issuers) Foreign(raw string) *refusal.Refusal {
	c, err := peek(raw)
	if err != nil {
		return invalid("the JWT cannot be judged: %s", err)
	}
	names := make([]string, 0, len(x.byName))
	for name := range x.byName {
		names = append(names, name)
	}
	slices.Sort(names)
	return invalid("this vault does not trust the issuer %q", clip(c.iss)).WithHint("it trusts %s", clip(strings.Join(names, ", ")))
}

// agent verifies a JWT and maps it to an agent. Who cannot show a good
// signature is not told what the rules are.
func (t *TrustedIssuer) agent(ctx context.Context, raw string) (Agent, *refusal.Refusal) {
	head, _, _ := strings.Cut(raw, ".")
	h, err := parseHeader(head)
	if err != nil {
		return Agent{}, t.invalid(err.Error())
	}
	if !slices.Contains(t.Algorithms, h.alg) {
		return Agent{}, t.invalid("its algorithm is not one of those that are taken").WithHint("taken are %s", strings.Join(t.Algorithms, ", "))
	}
	k, refused := t.key(ctx, h)
	if refused != nil {
		return Agent{}, refused
	}
	c, err := t.parse(raw, k)
	if err != nil && !h.hasKid && errors.Is(err, jwt.ErrTokenSignatureInvalid) {
		if other := t.keys.newer(ctx, h, t.MaxStale); other != nil && !other.equal(k) {
			c, err = t.parse(raw, other)
		}
	}
	if err != nil && !errors.Is(err, jwt.ErrTokenInvalidClaims) {
		// The library's errors may quote the JWT.
		return Agent{}, t.invalid("its signature is not that of its key")
	}
	if refused := t.check(c); refused != nil {
		return Agent{}, refused
	}
	if err != nil {
		return Agent{}, t.invalid("its claims are not those of an identity")
	}
	id, refused := t.id(c)
	if refused != nil {
		return Agent{}, refused
	}
	return Agent{ID: id, Groups: t.groups(c)}, nil
}

// parse has the library check a JWT.
func (t *TrustedIssuer) parse(raw string, k *key) (*claims, error) {
	c := new(claims)
	_, err := t.parser.ParseWithClaims(raw, c, func(*jwt.Token) (any, error) { return k.public, nil })
	return c, err
}

// key returns the key that a JWT says it is signed with.
func (t *TrustedIssuer) key(ctx context.Context, h header) (*key, *refusal.Refusal) {
	k, err := t.keys.find(ctx, h, t.MaxStale)
	switch {
	case err == nil:
		return k, nil
	case errors.Is(err, errUnavailable):
		r := refusal.New("ISSUER_UNAVAILABLE", "the keys of the issuer %q cannot be had, and without them this JWT cannot be judged", t.Issuer).
			WithHint("try again; that they cannot be had, and why, is in the server's log").WithCause(err)
		r.RetryAfter = retryAfter
		return nil, r
	case errors.Is(err, errUnknownKey):
		return nil, t.invalid("it names no key that the issuer publishes").
			WithHint("if the issuer has just begun to use a key, try again in %d seconds", attemptsIn/time.Second)
	}
	return nil, t.invalid("there is not exactly one key of the issuer that fits its algorithm and its kid")
}

// check is what the claims of a JWT with a good signature have to be.
func (t *TrustedIssuer) check(c *claims) *refusal.Refusal {
	now := time.Now()
	switch {
	case c.iss != t.Issuer:
		return t.invalid("it is of another issuer")
	case !slices.ContainsFunc(c.aud, func(a string) bool { return slices.Contains(t.Audiences, a) }):
		return t.invalid("it is for another audience").WithHint("let it be issued for %s", strings.Join(t.Audiences, " or "))
	case c.exp.IsZero():
		return t.invalid("it does not say when it expires")
	case !now.Before(c.exp.Add(leeway)):
		return t.invalid("it has expired").WithHint("get a new one from its issuer")
	case now.Add(leeway).Before(c.nbf) || now.Add(leeway).Before(c.iat):
		return t.invalid("it is not valid yet").WithHint("if it is new, compare the clocks of the issuer and of the vault")
	case c.exp.Before(c.iat) || c.exp.Before(c.nbf):
		return t.invalid("it expires before it is valid")
	case c.bound:
		return t.invalid("it is bound to a key by cnf, which a bearer cannot show")
	}
	for _, r := range t.require {
		v, ok := c.at(r.Claim)
		if !ok || !r.holds(v) {
			return t.invalid("its claim %s is not what this vault requires", r.Claim).WithHint("it has to be like %s", strings.Join(r.Patterns, " or "))
		}
	}
	return nil
}

// id returns the agent that the claims name.
func (t *TrustedIssuer) id(c *claims) (string, *refusal.Refusal) {
	v, ok := c.at(t.Claim)
	value, isText := "", false
	if ok {
		value, isText = text(v)
	}
	if !isText || value == "" {
		return "", t.invalid("it has no text in the claim %s, which names the agent", t.Claim)
	}
	id := value
	if t.maps != nil {
		matched := false
		for _, m := range t.maps {
			if id, matched = m.apply(value); matched {
				break
			}
		}
		if !matched {
			return "", t.invalid("no rule makes an agent of %s %q", t.Claim, clip(value)).
				WithHint("an administrator adds one to the issuer in the block agents: map %s <agentId>", clip(value))
		}
	}
	if !agents.ValidID(id) {
		return "", t.invalid("%s %q gives no name that an agent can have", t.Claim, clip(value)).
			WithHint("an administrator adds a rule to the issuer in the block agents: map <pattern> <agentId>")
	}
	return id, nil
}

// groups returns the agent's groups that the claims name. What cannot be a
// group gives no right, and is left out.
func (t *TrustedIssuer) groups(c *claims) []string {
	if t.GroupClaim == "" {
		return nil
	}
	v, ok := c.at(t.GroupClaim)
	if !ok {
		return nil
	}
	list, ok := texts(v)
	if !ok {
		return nil
	}
	var out []string
	for _, g := range list[:min(len(list), maxClaimed)] {
		if policy.ValidGroup(g) && g != "*" && !strings.HasPrefix(g, "group:") && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}

func invalid(detail string, args ...any) *refusal.Refusal {
	return refusal.New("AGENT_TOKEN_INVALID", detail, args...).WithChallenge(`Bearer realm="caddyvault", error="invalid_token"`)
}

func (t *TrustedIssuer) invalid(detail string, args ...any) *refusal.Refusal {
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	return invalid("the JWT of %s is not taken: %s", t.Issuer, detail)
}

// clip shortens what stands in a JWT, for use in a message.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
