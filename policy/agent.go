package policy

import "strings"

// groupPrefix begins an entry of allowedAgents or agentScopes that names a
// group of agents rather than one.
const groupPrefix = "group:"

// Agent is who a decision is about.
type Agent struct {
	ID string

	// Groups are those that the agent's record has now, Claimed those that an
	// issuer has vouched for when the agent asked for its token. They count
	// alike; two lists save putting them together for each call.
	Groups  []string
	Claimed []string
}

// ValidGroup says whether s can name a group, for which the rule is that of an
// agent's name.
func ValidGroup(s string) bool { return ValidAgent(s) }

// group returns the name of the group that an entry stands for, if it stands
// for one.
func group(entry string) (name string, ok bool) { return strings.CutPrefix(entry, groupPrefix) }

// inAny reports whether one of the agent's groups is in set.
func (a Agent) inAny(set nameSet) bool {
	if len(set) == 0 {
		return false
	}
	for _, list := range [...][]string{a.Groups, a.Claimed} {
		for _, g := range list {
			if set.has(g) {
				return true
			}
		}
	}
	return false
}

// mayHave says whether an agent may have a scope, so far as agentScopes say:
// its own entry decides alone; without one, it may have what any of its groups'
// entries lists; with no entry at all, everything.
func (c *Compiled) mayHave(a Agent, scope string) bool {
	if own, ok := c.agentScopes[a.ID]; ok {
		return own.has(scope)
	}
	if len(c.groupScopes) == 0 {
		return true
	}
	limited := false
	for _, list := range [...][]string{a.Groups, a.Claimed} {
		for _, g := range list {
			set, ok := c.groupScopes[g]
			if set.has(scope) {
				return true
			}
			limited = limited || ok
		}
	}
	return !limited
}

// NamesGroup reports whether the service says anything of a group. A token
// carries only the groups that matter to its service.
func (c *Compiled) NamesGroup(name string) bool {
	if c.groups.has(name) {
		return true
	}
	_, ok := c.groupScopes[name]
	return ok
}
