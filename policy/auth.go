package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyvault/caddyvault/refusal"
)

// Auth is one place of a service's credential in its requests. What is put
// there is a text with {secret}, which stands for the service's own secret
// (secretRef, or the agent's in secretByAgent), or {secret:name} for another
// stored one; nothing else is a placeholder, and a brace that is not part of
// one is an error.
type Auth struct {
	// The kind of place. Required.
	//
	// "header" is a request header, "basic" the header Authorization with a
	// user name and a password (RFC 7617), "query" a parameter of the URL,
	// "path" the {secret} in the service's baseUrl, "body" a member of a JSON
	// body or a field of a form, and "sign" a header with an HMAC over the
	// request, in which the secret itself is not sent.
	In string `json:"in,omitzero"`

	// The name of the header (header, sign), of the parameter (query) or of
	// the form field (body). Required for those, but a body may have a
	// pointer instead.
	Name string `json:"name,omitzero"`

	// Where in a JSON body the value is put, as a JSON pointer (RFC 6901)
	// through objects. The members on the way are made if they are missing.
	Pointer string `json:"pointer,omitzero"`

	// What is put there. Default: "{secret}", and "{signature}" for sign,
	// where {timestamp} may stand beside it.
	Value string `json:"value,omitzero"`

	// The user name of basic. Default: empty.
	User string `json:"user,omitzero"`

	// The password of basic. Default: empty.
	Password string `json:"password,omitzero"`

	// What sign signs: a text with {timestamp}, {method}, {host}, {path},
	// {query}, {target} (path and query), {body}, {body:sha256} (its digest
	// in hex; also sha1, sha512), {header:Name}, {secret} and {secret:name}.
	// Required for sign.
	Signed string `json:"signed,omitzero"`

	// The key that sign signs with. Default: "{secret}".
	Key string `json:"key,omitzero"`

	// How the key is stored: "raw" takes its bytes as they are, "hex" and
	// "base64" decode it. Default: raw.
	KeyEncoding string `json:"keyEncoding,omitzero"`

	// The hash of the HMAC: "sha256", "sha1" or "sha512". Default: sha256.
	Algorithm string `json:"algorithm,omitzero"`

	// How the signature is written: "hex", "base64" or "base64url".
	// Default: hex.
	Encoding string `json:"encoding,omitzero"`

	// The header that carries the time stamp. Default: none.
	TimestampHeader string `json:"timestampHeader,omitzero"`

	// The form of the time stamp: "unix" (seconds), "unix-ms" or "rfc3339".
	// Default: unix.
	TimestampFormat string `json:"timestampFormat,omitzero"`
}

// Bounds on what a service may say of its credential.
const (
	maxPlaces   = 16
	maxAuthText = 4096
	maxPointer  = 8
)

// Kinds of places (Auth.In).
const (
	InHeader = "header"
	InBasic  = "basic"
	InQuery  = "query"
	InPath   = "path"
	InBody   = "body"
	InSign   = "sign"
)

// Place is an Auth ready to be filled; read-only.
type Place struct {
	// In is the kind.
	In string

	// Name is the header's canonical name, the parameter's or the field's.
	// Basic's is Authorization.
	Name string

	// Pointer is the way to the member of a JSON body, unescaped.
	Pointer []string

	// Value is what is put there.
	Value Text

	// User and Password are basic's.
	User, Password Text

	// Sign is how the signature is made.
	Sign *Sign
}

// Sign is how a request is signed; read-only.
type Sign struct {
	Signed, Key                    Text
	KeyEncoding                    string
	Algorithm, Encoding            string
	TimestampHeader, TimestampForm string
}

// SecretUse is a secret of a service and what it must be fit for.
type SecretUse struct {
	// Ref is the secret's name; empty for the service's own, whose name
	// depends on the agent.
	Ref string

	// Plain is set if the secret is sent as it is, so that it must be a
	// text in one line.
	Plain bool

	// InUser is set if it stands in the user name of basic, which a colon
	// would end.
	InUser bool

	// InPath is set if it stands in a path, and Segment is then the text of
	// its segment before and after it.
	InPath  bool
	Segment [2]string

	// KeyEncoding is how it must be encoded, as a key of a signature.
	KeyEncoding string
}

// compileAuth makes the places of the credential out of the short form or
// the list.
func (c *Compiled) compileAuth() (r *refusal.Refusal) {
	if c.SecretRef != "" && !ValidSecretRef(c.SecretRef) {
		return invalid("secretRef", "secretRef is "+secretRefRule)
	}
	if r := c.checkSecretByAgent(); r != nil {
		return r
	}
	if c.Auth == nil {
		r = c.shortAuth()
	} else {
		r = c.listAuth()
	}
	if r != nil {
		return r
	}
	if c.pathSecret && !slices.ContainsFunc(c.Places, func(p Place) bool { return p.In == InPath }) {
		return invalid("baseUrl", `baseUrl has {secret}, and auth has no entry {"in":"path"}`)
	}
	if c.Auth == nil {
		c.clientHeaders = []string{c.AuthHeader}
	}
	for _, p := range c.Places {
		if c.Auth != nil && (p.In == InHeader || p.In == InBasic) {
			c.clientHeaders = append(c.clientHeaders, p.Name)
		}
	}
	return c.checkSecretUse()
}

const secretRefRule = "1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', and begins with a letter or digit"

// shortAuth is the form with authHeader and authScheme.
func (c *Compiled) shortAuth() (r *refusal.Refusal) {
	if c.AuthHeader, c.AuthScheme, r = checkAuth(&c.Service); r != nil {
		return r
	}
	c.Service.AuthHeader, c.Service.AuthScheme = c.AuthHeader, &c.AuthScheme
	c.authHeaders = map[string]bool{dashed(c.AuthHeader): true}
	if c.SecretRef == "" && len(c.SecretByAgent) == 0 {
		return nil
	}
	text := Text{{Var: VarSecret, Secret: c.use("")}}
	if c.AuthScheme != "" {
		text[0].Lit = c.AuthScheme + " "
	}
	c.secrets[0].Plain = true
	c.Places = []Place{{In: InHeader, Name: c.AuthHeader, Value: text}}
	return nil
}

// listAuth is the form with a list.
func (c *Compiled) listAuth() *refusal.Refusal {
	switch {
	case c.Service.AuthHeader != "" || c.Service.AuthScheme != nil:
		return invalid("auth", "the service has auth and authHeader or authScheme, which is auth in short").
			WithHint("leave one of them out; in an update, null removes a field")
	case len(c.Auth) == 0:
		return invalid("auth", "auth is empty").WithHint("leave it out, or list where the secret goes")
	case len(c.Auth) > maxPlaces:
		return invalid("auth", "auth has more than %d entries", maxPlaces)
	}
	c.authHeaders = map[string]bool{}
	for i := range c.Auth {
		b := placeBuilder{c: c, a: &c.Auth[i]}
		if err := b.build(); err != nil {
			return invalid("auth", "auth[%d]%s: %s", i, b.kind(), err)
		}
		c.Places = append(c.Places, b.p)
	}
	if err := c.checkPlaces(); err != nil {
		return invalid("auth", "auth: %s", err)
	}
	return nil
}

// checkSecretByAgent validates the names on both sides.
func (c *Compiled) checkSecretByAgent() *refusal.Refusal {
	for _, agent := range slices.Sorted(maps.Keys(c.SecretByAgent)) {
		switch {
		case agent == wildcard:
			return invalid("secretByAgent", `secretByAgent has an entry for "*"; it takes agents by name`).
				WithHint("the secret of all other agents is secretRef")
		case !ValidAgent(agent):
			return invalid("secretByAgent", "secretByAgent has an empty or illegal name of an agent")
		case !ValidSecretRef(c.SecretByAgent[agent]):
			return invalid("secretByAgent", "secretByAgent.%s is not the name of a secret: %s", shown(agent), secretRefRule)
		}
	}
	return nil
}

// checkSecretUse holds the names of secrets and the places to each other.
func (c *Compiled) checkSecretUse() *refusal.Refusal {
	own := slices.ContainsFunc(c.secrets, func(u SecretUse) bool { return u.Ref == "" })
	switch {
	case own && c.SecretRef == "" && len(c.SecretByAgent) == 0:
		return refusal.New("SECRETREF_REQUIRED", "auth uses {secret}, and secretRef is missing").
			WithHint("name the secret in secretRef, or each agent's in secretByAgent, or write {secret:name}")
	case !own && c.SecretRef != "":
		return invalid("secretRef", "secretRef is set, and auth never uses {secret}")
	case !own && len(c.SecretByAgent) > 0:
		return invalid("secretByAgent", "secretByAgent is set, and auth never uses {secret}")
	}
	return nil
}

// use returns the index of a secret in c.secrets, adding it.
func (c *Compiled) use(ref string) int {
	i := slices.IndexFunc(c.secrets, func(u SecretUse) bool { return u.Ref == ref })
	if i < 0 {
		c.secrets = append(c.secrets, SecretUse{Ref: ref})
		i = len(c.secrets) - 1
	}
	return i
}

// Secrets returns the secrets that a request of the service takes, in the
// order in which texts count them. The caller must not change it.
func (c *Compiled) Secrets() []SecretUse { return c.secrets }

// SecretFor returns the name of the i-th secret for an agent, empty if the
// service has none for it.
func (c *Compiled) SecretFor(i int, agent string) string {
	if ref := c.secrets[i].Ref; ref != "" {
		return ref
	}
	if ref, ok := c.SecretByAgent[agent]; ok {
		return ref
	}
	return c.SecretRef
}

// SecretRefs returns the names of all secrets that the service may use,
// sorted, each once.
func (c *Compiled) SecretRefs() []string {
	refs := slices.Collect(maps.Values(c.SecretByAgent))
	if c.SecretRef != "" {
		refs = append(refs, c.SecretRef)
	}
	for _, u := range c.secrets {
		if u.Ref != "" {
			refs = append(refs, u.Ref)
		}
	}
	slices.Sort(refs)
	return slices.Compact(refs)
}

// UsesSecret says whether the service may use the secret of this name.
func (c *Compiled) UsesSecret(ref string) bool {
	return ref != "" && (ref == c.SecretRef || slices.ContainsFunc(c.secrets, func(u SecretUse) bool { return u.Ref == ref }) ||
		slices.Contains(slices.Collect(maps.Values(c.SecretByAgent)), ref))
}

// NamesSecret says whether the record of a call should name its secrets,
// because the service alone does not say which they are.
func (c *Compiled) NamesSecret() bool { return len(c.SecretByAgent) > 0 || len(c.secrets) > 1 }

// UsesFor returns what the secret of this name must be fit for, for whichever
// agent.
func (c *Compiled) UsesFor(ref string) []SecretUse {
	var uses []SecretUse
	for _, u := range c.secrets {
		own := u.Ref == "" && (ref == c.SecretRef || slices.Contains(slices.Collect(maps.Values(c.SecretByAgent)), ref))
		if own || u.Ref == ref {
			uses = append(uses, u)
		}
	}
	return uses
}

// decideAccount refuses an agent for which the service has no secret.
func (c *Compiled) decideAccount(agent string) *refusal.Refusal {
	if c.SecretRef != "" || len(c.SecretByAgent) == 0 || c.SecretByAgent[agent] != "" {
		return nil
	}
	return refusal.New("POLICY_DENY", "the service %s has no secret for the agent %s", c.Name, shown(agent)).
		WithHint("an administrator can add the agent to the service's secretByAgent, or set secretRef for all others")
}

// AuthHeaders returns the canonical names of the headers in which clients of
// the service may send what they take for its key. The caller must not change
// it.
func (c *Compiled) AuthHeaders() []string {
	return c.clientHeaders
}

// Injected returns the canonical names of the headers that the vault sets,
// those of signatures among them.
func (c *Compiled) Injected() []string {
	var names []string
	for _, p := range c.Places {
		switch p.In {
		case InHeader, InBasic:
			names = append(names, p.Name)
		case InSign:
			names = append(names, p.Name)
			if p.Sign.TimestampHeader != "" {
				names = append(names, p.Sign.TimestampHeader)
			}
		}
	}
	return names
}

// checkPlaces refuses what each place alone does not show.
func (c *Compiled) checkPlaces() error {
	form, pointers, paths := false, []Place{}, 0
	for _, p := range c.Places {
		switch {
		case p.In == InPath:
			paths++
		case p.In == InBody && p.Pointer == nil:
			form = true
		case p.In == InBody:
			for _, o := range pointers {
				if reservedKey(o.Pointer[0]) == reservedKey(p.Pointer[0]) {
					return fmt.Errorf("two pointers are in the same member %s of the body", shown(p.Pointer[0]))
				}
			}
			pointers = append(pointers, p)
		}
	}
	switch {
	case paths > 1:
		return fmt.Errorf("the path is used twice")
	case form && len(pointers) > 0:
		return fmt.Errorf("a body is JSON or a form: there is a pointer and a form field")
	}
	c.bodyForm, c.bodyJSON = form, len(pointers) > 0
	c.readsBody = form || c.bodyJSON || slices.ContainsFunc(c.Places, func(p Place) bool {
		return p.Sign != nil && p.Sign.Signed.has(VarBody)
	})
	return nil
}

// ReadsBody says whether a request's body must be had whole before the
// credential can be added.
func (c *Compiled) ReadsBody() bool { return c.readsBody }

// checkBodyAuth refuses an endpoint whose requests have no place for a
// credential that goes into the body.
func (c *Compiled) checkBodyAuth(ep *Endpoint) string {
	if !c.bodyForm && !c.bodyJSON {
		return ""
	}
	switch {
	case ep.Method == "GET", ep.Method == "HEAD", ep.Method == "OPTIONS":
		return "the service's secret goes into the body, and " + ep.Method + " has none"
	case c.bodyForm && ep.Body == BodyJSON:
		return `the service's secret is a form field; set "body":"form"`
	case c.bodyJSON && ep.Body == BodyForm:
		return "the service's secret is a member of a JSON body, and this endpoint sends a form"
	}
	return ""
}

// headerTaken marks a header as a place and says whether it was one already.
func (c *Compiled) headerTaken(canonical string) bool {
	key := dashed(canonical)
	taken := c.authHeaders[key]
	c.authHeaders[key] = true
	return taken
}

// secretPlaceholder finds the {secret} or {secret:name} of a baseUrl. There
// may be one, in the path.
func secretPlaceholder(s string) (before, ref, after string, found bool, err error) {
	before, rest, ok := strings.Cut(s, "{")
	if !ok {
		return s, "", "", false, nil
	}
	inner, after, ok := strings.Cut(rest, "}")
	if !ok || strings.ContainsAny(after, "{}") || strings.Contains(before, "}") {
		return "", "", "", false, fmt.Errorf("has a brace that is not part of one {secret}")
	}
	name, ref, named := strings.Cut(inner, ":")
	if name != "secret" || named && !ValidSecretRef(ref) {
		return "", "", "", false, fmt.Errorf("has the unknown placeholder {%s}; there are {secret} and {secret:name}", shown(inner))
	}
	if scheme := strings.Index(before, "://"); scheme < 0 || !strings.Contains(before[scheme+3:], "/") {
		return "", "", "", false, fmt.Errorf("has {%s} outside of its path", shown(inner))
	}
	return before, ref, after, true, nil
}
