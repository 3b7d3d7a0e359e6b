package policy

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/http/httpguts"

	"github.com/caddyvault/caddyvault/refusal"
)

// maxEndpoints bounds a service.
const maxEndpoints = 10_000

// Compiled is a service ready to decide with. It is read-only: nothing in it,
// nor in the Service inside, may be changed.
type Compiled struct {
	// Service is the file's content with its defaults filled in.
	Service

	// Origin is scheme://host[:port] in canonical form: lower case,
	// punycode, without the scheme's default port. A secret is bound to it.
	Origin string

	// Base is the parsed baseUrl in canonical form, without a slash at the
	// end of its path.
	Base *url.URL

	// AuthHeader is the canonical name of the header that carries the secret,
	// empty if the service has an auth list.
	AuthHeader string

	// AuthScheme stands before the secret in it, or is empty.
	AuthScheme string

	// Places are where the credential goes, in the order to fill them. Empty
	// for a service without a secret.
	Places []Place

	basePath      string
	pathSecret    bool // basePath has a {secret}
	pathRef       string
	pathSegment   [2]string // the texts of the segment around it
	secrets       []SecretUse
	authHeaders   map[string]bool // by their dashed names
	clientHeaders []string
	bodyForm      bool
	bodyJSON      bool
	readsBody     bool
	agents        map[string]struct{}
	groups        map[string]struct{}
	groupScopes   map[string]map[string]struct{}
	anyAgent      bool
	actions       map[string]struct{}
	anyAction     bool
	scopes        map[string]struct{}
	agentScopes   map[string]map[string]struct{}
	endpoints     map[string]*CompiledEndpoint
	names         []string
	index         index
	looseIndex    index
	reserved      map[string]struct{}
}

// CompiledEndpoint is an endpoint ready to decide with; read-only.
type CompiledEndpoint struct {
	// Endpoint is the configured one with its defaults filled in.
	Endpoint

	// Name is the action.
	Name string

	// DefaultHeaders are the service's and the endpoint's default headers
	// together, by canonical name.
	DefaultHeaders map[string]string

	svc     *Compiled
	pattern pattern
	shape   string
	allowed bool
	same    []*CompiledEndpoint

	told       map[string]string // see tellApart
	fixedQuery string            // Query, encoded
}

// ParseService reads, validates and compiles a service file. The name is the
// file's, without ".json". The error is a *refusal.Refusal.
func ParseService(name string, data []byte) (*Compiled, error) {
	c, r := parseService(name, data)
	if r != nil {
		return nil, r
	}
	return c, nil
}

func parseService(name string, data []byte) (*Compiled, *refusal.Refusal) {
	if !ValidServiceName(name) {
		return nil, refusal.New("SERVICE_INVALID", "the name of a service is 1 to 63 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit")
	}
	svc, r := decodeService(name, data)
	if r != nil {
		return nil, r
	}
	c := &Compiled{Service: *svc, reserved: map[string]struct{}{}}
	for _, step := range []func() *refusal.Refusal{
		c.compileBase, c.compileAuth, c.compileHeaders, c.compileLists, c.compileSettings, c.compileEndpoints,
	} {
		if r := step(); r != nil {
			return nil, r
		}
	}
	return c, nil
}

func (c *Compiled) compileBase() (r *refusal.Refusal) {
	url, err := c.markPath()
	if err != nil {
		return refusal.New("BASEURL_INVALID", "baseUrl %s", err)
	}
	if c.Base, r = parseBaseURL(url, c.AllowPlaintext); r != nil {
		return r
	}
	c.Origin = c.Base.Scheme + "://" + c.Base.Host
	c.basePath = c.Base.EscapedPath()
	if c.pathSecret {
		c.unmarkPath()
	}
	return nil
}

func (c *Compiled) compileHeaders() (r *refusal.Refusal) {
	var wrong string
	if c.Headers, wrong = checkHeaders(c.Headers, c.authHeaders); wrong != "" {
		return invalid("headers", "%s", wrong)
	}
	if c.PassHeaders, r = checkPass(&c.Service, c.authHeaders); r != nil {
		return r
	}
	c.DropHeaders, r = checkDrop(&c.Service)
	return r
}

func (c *Compiled) compileLists() *refusal.Refusal {
	if c.AllowedAgents == nil {
		return refusal.New("ALLOWEDAGENTS_REQUIRED", "allowedAgents is missing").
			WithHint(`list the agents that may use the service, or "*" for all`)
	}
	if c.AllowedActions == nil {
		return refusal.New("ALLOWEDACTIONS_REQUIRED", "allowedActions is missing").
			WithHint(`list "issue" and the endpoints that may be called, or "*" for all`)
	}
	c.agents, c.groups = map[string]struct{}{}, map[string]struct{}{}
	for _, a := range c.AllowedAgents {
		// An agent that is called "group:x" is in no group for that.
		name, isGroup := group(a)
		switch {
		case !ValidAgent(name):
			return invalid("allowedAgents", "allowedAgents has an empty or illegal name")
		case isGroup && name == wildcard:
			return invalid("allowedAgents", `allowedAgents has "group:*"`).WithHint(`every agent is "*"`)
		case isGroup:
			c.groups[name] = struct{}{}
		default:
			c.agents[name] = struct{}{}
		}
	}
	for _, a := range c.AllowedActions {
		if a != wildcard && !ValidActionName(a) {
			return invalid("allowedActions", "allowedActions has an illegal name: %s", shown(a))
		}
	}
	for _, s := range c.AllowedScopes {
		if !ValidScope(s) {
			return invalid("allowedScopes", "allowedScopes has an illegal scope: %s", shown(s))
		}
	}
	c.actions, c.scopes = set(c.AllowedActions), set(c.AllowedScopes)
	_, c.anyAgent = c.agents[wildcard]
	_, c.anyAction = c.actions[wildcard]
	c.agentScopes = make(map[string]map[string]struct{}, len(c.AgentScopes))
	c.groupScopes = map[string]map[string]struct{}{}
	for _, agent := range slices.Sorted(maps.Keys(c.AgentScopes)) {
		name, isGroup := group(agent)
		if name == wildcard {
			return invalid("agentScopes", `agentScopes has an entry for "*"; it takes agents and groups by name`).
				WithHint("what every agent may have is allowedScopes")
		}
		if !ValidAgent(name) {
			return invalid("agentScopes", "agentScopes has an empty or illegal name")
		}
		for _, s := range c.AgentScopes[agent] {
			if !ValidScope(s) {
				return invalid("agentScopes", "agentScopes has an illegal scope: %s", shown(s))
			}
		}
		into := c.agentScopes
		if isGroup {
			into = c.groupScopes
		}
		into[name] = set(c.AgentScopes[agent])
	}
	return nil
}

func (c *Compiled) compileSettings() *refusal.Refusal {
	switch c.Scrub {
	case "":
		c.Scrub = "on"
	case "on", "block", "off":
	default:
		return invalid("scrub", "scrub is none of on, block and off")
	}
	c.Timeouts = c.Timeouts.orDefaults()
	if c.ReverseProxy.Kind() == 'n' {
		c.ReverseProxy = nil
	}
	if r := checkReverseProxy(c.ReverseProxy); r != nil {
		return r
	}
	return checkVersions(c.ReverseProxy, c.Base.Scheme)
}

func (c *Compiled) compileEndpoints() *refusal.Refusal {
	if len(c.Endpoints) == 0 {
		return refusal.New("ENDPOINTS_REQUIRED", "endpoints is missing or empty").
			WithHint(`give at least one, such as {"repo.get":{"method":"GET","path":"/repos/{owner}/{repo}","requiredScope":["github:repos:read"]}}`)
	}
	if len(c.Endpoints) > maxEndpoints {
		return invalid("endpoints", "there are more than %d endpoints", maxEndpoints)
	}
	c.names = slices.Sorted(maps.Keys(c.Endpoints))
	c.endpoints = make(map[string]*CompiledEndpoint, len(c.names))
	all := make([]*CompiledEndpoint, 0, len(c.names))
	groups := map[string][]*CompiledEndpoint{}
	for _, name := range c.names {
		e, r := c.compileEndpoint(name, c.Endpoints[name])
		if r != nil {
			return r
		}
		c.endpoints[name] = e
		all = append(all, e)
		groups[e.shape] = append(groups[e.shape], e)
	}
	// Among endpoints of one shape an allowed one is preferred, then the
	// first by name; the others are its alternatives.
	slices.SortStableFunc(all, func(a, b *CompiledEndpoint) int {
		switch {
		case a.allowed == b.allowed:
			return 0
		case a.allowed:
			return -1
		}
		return 1
	})
	for _, g := range groups {
		tellApart(g)
	}
	c.index = buildIndex(all, func(e *CompiledEndpoint) pattern { return e.pattern })
	c.looseIndex = c.index
	if slices.ContainsFunc(all, func(e *CompiledEndpoint) bool { return strings.Contains(e.Path, "%") }) {
		c.looseIndex = buildIndex(all, func(e *CompiledEndpoint) pattern { return e.pattern.decoded() })
	}
	return nil
}

var methods = map[string]bool{
	"GET": true, "HEAD": true, "POST": true, "PUT": true, "PATCH": true, "DELETE": true, "OPTIONS": true,
}

func (c *Compiled) compileEndpoint(name string, ep Endpoint) (*CompiledEndpoint, *refusal.Refusal) {
	bad := func(detail string, args ...any) (*CompiledEndpoint, *refusal.Refusal) {
		return nil, endpointInvalid(name, "endpoint "+shown(name)+": "+detail, args...)
	}
	if !ValidActionName(name) {
		return bad("the name is not 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-' beginning with a letter or digit")
	}
	if name == ActionIssue {
		return bad("issue is the action of issuing a token and takes no endpoint")
	}
	ep.Method = strings.ToUpper(ep.Method)
	if !methods[ep.Method] {
		return bad("the method is none of GET, HEAD, POST, PUT, PATCH, DELETE and OPTIONS")
	}
	p, err := parsePattern(ep.Path)
	if err != nil {
		return bad("%s", err)
	}
	if wrong := c.compileQuery(ep); wrong != "" {
		return bad("%s", wrong)
	}
	for _, s := range ep.RequiredScope {
		if !ValidScope(s) {
			return bad("requiredScope has an illegal scope: %s", shown(s))
		}
	}
	switch ep.Body {
	case "":
		ep.Body = BodyJSON
		if ep.Method == "GET" || ep.Method == "HEAD" {
			ep.Body = BodyQuery
		}
	case BodyJSON, BodyForm:
		if ep.Method == "HEAD" {
			return bad("a HEAD request has no body")
		}
	case BodyQuery, BodyNone:
	default:
		return bad("body is none of json, form, query and none")
	}
	switch {
	case ep.Upgrade != "" && ep.Upgrade != "websocket":
		return bad("upgrade can only be websocket")
	case ep.Upgrade != "" && ep.Method != "GET":
		return bad("a websocket begins with GET")
	case len(ep.Subprotocols) > 0 && ep.Upgrade == "":
		return bad(`subprotocols are those of "upgrade": "websocket"`)
	case slices.ContainsFunc(ep.Subprotocols, func(p string) bool { return len(p) > 64 || !httpguts.ValidHeaderFieldName(p) }):
		return bad("subprotocols has an illegal name")
	}
	if wrong := c.checkBodyAuth(&ep); wrong != "" {
		return bad("%s", wrong)
	}
	if c.pathSecret && slices.Contains(p.params(), "secret") {
		return bad("the path has the parameter {secret}; the service's secret stands in baseUrl")
	}
	headers, wrong := checkHeaders(ep.Headers, c.authHeaders)
	if wrong != "" {
		return bad("%s", wrong)
	}
	ep.Headers = headers
	together := maps.Clone(c.Headers)
	maps.Copy(together, headers)

	keys := make([]string, len(p))
	for i, s := range p {
		keys[i] = s.key()
	}
	return &CompiledEndpoint{
		Endpoint:       ep,
		Name:           name,
		DefaultHeaders: together,
		svc:            c,
		pattern:        p,
		shape:          ep.Method + " " + strings.Join(keys, "/"),
		allowed:        c.allows(name),
	}, nil
}

// allows says whether an action is in allowedActions.
func (c *Compiled) allows(action string) bool {
	if c.anyAction {
		return true
	}
	_, ok := c.actions[action]
	return ok
}

// Actions returns the names of the service's endpoints, sorted. The caller
// must not change it.
func (c *Compiled) Actions() []string { return c.names }

// Endpoint returns the endpoint of an action, or nil.
func (c *Compiled) Endpoint(action string) *CompiledEndpoint { return c.endpoints[action] }

// Upstream returns the URL of an escaped path under the service's baseUrl,
// without a query.
func (c *Compiled) Upstream(escapedPath string) string { return c.Origin + c.FullPath(escapedPath) }

// FullPath returns an escaped path under the service's baseUrl with the
// baseUrl's own path before it, which is what is sent.
func (c *Compiled) FullPath(escapedPath string) string {
	if escapedPath == "" && c.basePath == "" {
		return "/"
	}
	return c.basePath + escapedPath
}

// Reserved says whether a query or body parameter is the place of the
// service's own credential, in any case, with or without brackets behind it.
func (c *Compiled) Reserved(param string) bool {
	if len(c.reserved) == 0 {
		return false
	}
	_, ok := c.reserved[reservedKey(param)]
	return ok
}

// reservedKey folds the spellings of a parameter that some server reads as
// one: PHP cuts at "[", drops spaces before, and takes "." and " " for "_".
func reservedKey(param string) string {
	param, _, _ = strings.Cut(strings.TrimLeft(param, " "), "[")
	fold := func(r rune) rune {
		switch {
		case r == '.' || r == ' ' || r == '-':
			return '_'
		case r >= 0x80: // the Kelvin sign and the long s are ASCII letters in other clothes
			return unicode.ToLower(unicode.ToUpper(r))
		}
		return r
	}
	return strings.Map(fold, strings.ToLower(param))
}

// reserve marks the names of parameters that carry the service's credential.
func (c *Compiled) reserve(params ...string) {
	for _, p := range params {
		c.reserved[reservedKey(p)] = struct{}{}
	}
}

// Service returns the service of the endpoint.
func (e *CompiledEndpoint) Service() *Compiled { return e.svc }

// Alternatives returns all endpoints with the same method and shape of path
// as e, e itself among them, by name. An older name of an action is one.
func (e *CompiledEndpoint) Alternatives() []*CompiledEndpoint { return e.same }

func set(list []string) map[string]struct{} {
	m := make(map[string]struct{}, len(list))
	for _, s := range list {
		m[s] = struct{}{}
	}
	return m
}
