package policy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/caddyvault/caddyvault/refusal"
)

// maxScopes bounds what one token may ask for.
const maxScopes = 100

// maxListed bounds how many names a hint lists.
const maxListed = 20

// DecideIssue decides whether an agent may have a token with these scopes. It
// returns nil, or POLICY_DENY, SCOPE_REQUIRED, SCOPE_INVALID,
// SERVICE_ALLOWED_SCOPES_NOT_CONFIGURED, INVALID_SCOPE or INSUFFICIENT_SCOPE,
// in that order.
func (c *Compiled) DecideIssue(agent Agent, scopes []string) *refusal.Refusal {
	if r := c.decideAgent(agent); r != nil {
		return r
	}
	if !c.mayIssue {
		return refusal.New("POLICY_DENY", "the service %s does not allow tokens to be issued", c.Name).
			WithHint(`an administrator can add "issue" to the service's allowedActions`)
	}
	if len(scopes) == 0 {
		return refusal.New("SCOPE_REQUIRED", "scope is missing or empty").
			WithHint("ask for at least one of: %s", c.scopesFor(agent))
	}
	if len(scopes) > maxScopes {
		return refusal.New("SCOPE_INVALID", "more than %d scopes are asked for", maxScopes)
	}
	for _, s := range scopes {
		if !ValidScope(s) {
			return refusal.New("SCOPE_INVALID", "a scope is 1 to %d printable ASCII characters without spaces", maxScope)
		}
	}
	if len(c.scopes) == 0 {
		return refusal.New("SERVICE_ALLOWED_SCOPES_NOT_CONFIGURED", "the service %s has no allowedScopes, so no token can be issued", c.Name).
			WithHint("an administrator can set the service's allowedScopes")
	}
	if missing := missingFrom(c.scopes, scopes); len(missing) > 0 {
		return refusal.New("INVALID_SCOPE:"+list(missing), "the service %s does not have the scope %s", c.Name, list(missing)).
			WithHint("ask for some of: %s", c.scopesFor(agent))
	}
	return c.decideAgentScopes(agent, scopes)
}

// decideAgentScopes decides whether an agent may have the scopes at all.
func (c *Compiled) decideAgentScopes(agent Agent, scopes []string) *refusal.Refusal {
	for _, s := range scopes {
		if c.mayHave(agent, s) {
			continue
		}
		missing := slices.DeleteFunc(uniqueOf(scopes), func(s string) bool { return c.mayHave(agent, s) })
		return refusal.New("INSUFFICIENT_SCOPE:"+list(missing), "the agent %s may not have the scope %s", shown(agent.ID), list(missing)).
			WithHint("ask for some of: %s", c.scopesFor(agent))
	}
	return nil
}

// DecideAction decides whether an agent may call an action and returns its
// endpoint, or POLICY_DENY, UNKNOWN_ACTION or INSUFFICIENT_SCOPE: what the
// service says of the agent now counts, not what it said when a token was
// issued.
func (c *Compiled) DecideAction(agent Agent, action string) (*CompiledEndpoint, *refusal.Refusal) {
	if r := c.decideAgent(agent); r != nil {
		return nil, r
	}
	e := c.Endpoint(action)
	if e == nil && !c.allows(action) || e != nil && !e.allowed {
		return nil, refusal.New("POLICY_DENY", "the service %s does not allow the action %s", c.Name, shown(action)).
			WithHint("%s", c.nearestHint(action))
	}
	if e == nil {
		return nil, refusal.New("UNKNOWN_ACTION", "the service %s has no endpoint for the action %s", c.Name, shown(action)).
			WithHint("%s", c.nearestHint(action))
	}
	if r := c.decideAgentScopes(agent, e.RequiredScope); r != nil {
		return nil, r
	}
	return e, nil
}

// decideAgent decides whether an agent may use the service at all.
func (c *Compiled) decideAgent(agent Agent) *refusal.Refusal {
	if c.anyAgent || c.agents.has(agent.ID) || agent.inAny(c.groups) {
		return c.decideAccount(agent.ID)
	}
	return refusal.New("POLICY_DENY", "the agent %s may not use the service %s", shown(agent.ID), c.Name).
		WithHint("an administrator can add the agent, or a group it is in, to the service's allowedAgents")
}

// DecideScope decides whether a token with these scopes may call the
// endpoint. All of requiredScope must be there.
func (e *CompiledEndpoint) DecideScope(granted []string) *refusal.Refusal {
	for _, need := range e.RequiredScope {
		if !slices.Contains(granted, need) {
			return e.insufficient(granted)
		}
	}
	return nil
}

func (e *CompiledEndpoint) insufficient(granted []string) *refusal.Refusal {
	missing := slices.DeleteFunc(slices.Clone(e.RequiredScope), func(s string) bool { return slices.Contains(granted, s) })
	return refusal.New("INSUFFICIENT_SCOPE:"+list(missing), "the action %s needs the scope %s, which the token does not have", e.Name, list(missing)).
		WithHint("ask vault.issueToken for a token for %s with the scope %s", e.svc.Name, list(e.RequiredScope))
}

// NoEndpoint says that no endpoint of the service matches a request, and
// which ones come near.
func (c *Compiled) NoEndpoint(method, escapedPath string) *refusal.Refusal {
	r := refusal.New("NO_ENDPOINT", "the service %s has no endpoint for this method and path", c.Name)
	var others []string
	for i, m := range methods {
		if found := c.find(i, escapedPath); found != nil && m != method {
			others = append(others, m+" ("+found.Name+")")
		}
	}
	if len(others) > 0 {
		return r.WithHint("the path exists with %s", strings.Join(others, ", "))
	}
	if found := c.find(methodNumber(method), escapedPath); found != nil {
		if o := c.otherReading(found, methodNumber(method), escapedPath); o != nil {
			return r.WithHint("the path has a second reading, the action %s; send it without encoded letters, empty segments or semicolons", o.Name)
		}
	}
	if rest := c.withoutBase(escapedPath); rest != "" {
		if found := c.find(methodNumber(method), rest); found != nil {
			return r.WithHint("the path begins with %s, which the service's baseUrl has already: the client's base URL ends in it and so does its path; leave it out of one, for the action %s", c.basePath, found.Name)
		}
	}
	if near := c.nearPaths(method, escapedPath); len(near) > 0 {
		return r.WithHint("near it are: %s", strings.Join(near, ", "))
	}
	return r.WithHint("actions of the service: %s", listed(c.callable()))
}

// withoutBase returns a path that begins with the baseUrl's own without that,
// "" for any other: vendors write their base URL with it in some places and
// without it in others.
func (c *Compiled) withoutBase(path string) string {
	if c.basePath == "" || c.pathSecret {
		return ""
	}
	rest, ok := strings.CutPrefix(path, c.basePath)
	if !ok || rest != "" && rest[0] != '/' {
		return ""
	}
	return cmp.Or(rest, "/")
}

// nearPaths returns up to five endpoints that begin like the path.
func (c *Compiled) nearPaths(method, path string) []string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	var near []string
	for i := range c.endpoints {
		e := &c.endpoints[i]
		begin, _, _ := strings.Cut(e.Path[1:], "/")
		if e.allowed && e.Method == method && first != "" && begin == first && strings.IndexByte(begin, '{') < 0 && begin != starParam {
			if near = append(near, e.Method+" "+e.Path+" ("+e.Name+")"); len(near) == 5 {
				break
			}
		}
	}
	return near
}

// scopesFor lists the scopes that an agent may ask for.
func (c *Compiled) scopesFor(agent Agent) string {
	scopes := slices.DeleteFunc(slices.Clone(c.AllowedScopes), func(s string) bool { return !c.mayHave(agent, s) })
	slices.Sort(scopes)
	return listed(slices.Compact(scopes))
}

// callable returns the actions that are allowed and have an endpoint.
func (c *Compiled) callable() []string {
	var names []string
	for i := range c.endpoints {
		if c.endpoints[i].allowed {
			names = append(names, c.endpoints[i].Name)
		}
	}
	return names
}

// nearestHint names the action that was probably meant, or all there are.
func (c *Compiled) nearestHint(action string) string {
	names := c.callable()
	if len(names) == 0 {
		return "an administrator can add actions to the service's allowedActions"
	}
	if len(action) <= maxName {
		best, at := "", 1+max(2, len(action)/3)
		for _, n := range names {
			if d := distance(strings.ToLower(action), strings.ToLower(n)); d < at {
				best, at = n, d
			}
		}
		if best != "" {
			return "the nearest action is " + best
		}
	}
	return "actions of the service: " + listed(names)
}

// distance is the Levenshtein distance of two short strings.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// missingFrom returns which of the scopes wanted are not in have, each once.
func missingFrom(have nameSet, want []string) []string {
	var missing []string
	for _, s := range want {
		if !have.has(s) && !slices.Contains(missing, s) {
			missing = append(missing, s)
		}
	}
	return missing
}

// uniqueOf returns the names in their order, each once.
func uniqueOf(names []string) []string {
	var out []string
	for _, n := range names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// list joins scopes for a code, which is sent in a header: at most 16.
func list(scopes []string) string {
	return strings.Join(scopes[:min(len(scopes), 16)], ",")
}

// listed joins names for a hint and says how many it left out.
func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	if len(names) > maxListed {
		return strings.Join(names[:maxListed], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}
