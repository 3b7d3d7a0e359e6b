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
	// Service is the file's content with its defaults filled in, but for its
	// Endpoints, which are compiled: see Actions and Endpoint.
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

	// Outside is what the one who sends calls to the service knows of what
	// ReverseProxy names: nothing to this package.
	Outside any

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
	agents        nameSet
	groups        nameSet
	groupScopes   map[string]nameSet
	anyAgent      bool
	anyAction     bool
	mayIssue      bool
	scopes        nameSet
	agentScopes   map[string]nameSet
	reserved      nameSet

	endpoints []CompiledEndpoint  // by name
	byShape   []*CompiledEndpoint // by method and shape, then by name
	actions   string              // the table of endpoints by name
	index     index
	loose     *index // of the decoded paths, nil if they are the same
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
	c := &Compiled{Service: *svc}
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
	for _, a := range c.AllowedAgents {
		// An agent that is called "group:x" is in no group for that.
		name, isGroup := group(a)
		switch {
		case !ValidAgent(name):
			return invalid("allowedAgents", "allowedAgents has an empty or illegal name")
		case isGroup && name == wildcard:
			return invalid("allowedAgents", `allowedAgents has "group:*"`).WithHint(`every agent is "*"`)
		case isGroup:
			c.groups = append(c.groups, name)
		default:
			c.agents = append(c.agents, name)
		}
	}
	c.agents, c.groups = newNameSet(c.agents), newNameSet(c.groups)
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
	c.scopes = newNameSet(c.AllowedScopes)
	c.anyAgent, c.anyAction = c.agents.has(wildcard), slices.Contains(c.AllowedActions, wildcard)
	c.mayIssue = c.anyAction || slices.Contains(c.AllowedActions, ActionIssue)
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
		into := &c.agentScopes
		if isGroup {
			into = &c.groupScopes
		}
		if *into == nil {
			*into = map[string]nameSet{}
		}
		(*into)[name] = newNameSet(c.AgentScopes[agent])
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
	return checkTransport(c.ReverseProxy, c.Base.Scheme)
}

func (c *Compiled) compileEndpoints() *refusal.Refusal {
	if len(c.Endpoints) == 0 {
		return refusal.New("ENDPOINTS_REQUIRED", "endpoints is missing or empty").
			WithHint(`give at least one, such as {"repo.get":{"method":"GET","path":"/repos/{owner}/{repo}","requiredScope":["github:repos:read"]}}`)
	}
	if len(c.Endpoints) > maxEndpoints {
		return invalid("endpoints", "there are more than %d endpoints", maxEndpoints)
	}
	names := slices.Sorted(maps.Keys(c.Endpoints))
	c.endpoints = make([]CompiledEndpoint, len(names))
	x := &endpointCompiler{svc: c, details: map[string]*EndpointDetails{}, scopes: map[string]string{}}
	for _, s := range c.AllowedScopes {
		x.scopes[s] = s
	}
	allowed := newNameSet(c.AllowedActions)
	for i, name := range names {
		p, shape, r := c.compileEndpoint(name, c.Endpoints[name], x, &c.endpoints[i])
		if r != nil {
			return r
		}
		c.endpoints[i].allowed = c.anyAction || allowed.has(name)
		x.patterns, x.shapes = append(x.patterns, p), append(x.shapes, shape)
	}
	c.Endpoints = nil
	x.finish()
	return nil
}

// compileEndpoint compiles an endpoint into its place, and returns the pattern
// and the shape of its path.
func (c *Compiled) compileEndpoint(name string, ep Endpoint, x *endpointCompiler, into *CompiledEndpoint) (pattern, string, *refusal.Refusal) {
	bad := func(detail string, args ...any) (pattern, string, *refusal.Refusal) {
		return nil, "", endpointInvalid(name, "endpoint "+shown(name)+": "+detail, args...)
	}
	if !ValidActionName(name) {
		return bad("the name is not 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-' beginning with a letter or digit")
	}
	if name == ActionIssue {
		return bad("issue is the action of issuing a token and takes no endpoint")
	}
	ep.Method = strings.ToUpper(ep.Method)
	if methodNumber(ep.Method) < 0 {
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
	if c.pathSecret && slices.Contains(pathParams(ep.Path), "secret") {
		return bad("the path has the parameter {secret}; the service's secret stands in baseUrl")
	}
	headers, wrong := checkHeaders(ep.Headers, c.authHeaders)
	if wrong != "" {
		return bad("%s", wrong)
	}
	ep.Headers = headers
	*into = CompiledEndpoint{EndpointDetails: x.share(c.detailsOf(&ep)), Name: name, Path: ep.Path, svc: c}
	return p, ep.Method + " " + p.key(), nil
}

// allows says whether an action is in allowedActions.
func (c *Compiled) allows(action string) bool {
	if c.anyAction {
		return true
	}
	if e := c.Endpoint(action); e != nil {
		return e.allowed
	}
	return slices.Contains(c.AllowedActions, action)
}

// Actions returns the names of the service's endpoints, sorted.
func (c *Compiled) Actions() []string {
	names := make([]string, len(c.endpoints))
	for i := range names {
		names[i] = c.endpoints[i].Name
	}
	return names
}

// Endpoint returns the endpoint of an action, or nil.
func (c *Compiled) Endpoint(action string) *CompiledEndpoint {
	n := len(c.actions) / tableEntrySize
	h := hash(action)
	for i := tableSeek(c.actions, 0, n, h); i < n; i++ {
		e := tableAt(c.actions, 0, i)
		if e.hash != h {
			break
		}
		if found := &c.endpoints[e.value]; found.Name == action {
			return found
		}
	}
	return nil
}

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
	return c.reserved.has(reservedKey(param))
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
		c.reserved = append(c.reserved, reservedKey(p))
	}
	c.reserved = newNameSet(c.reserved)
}
