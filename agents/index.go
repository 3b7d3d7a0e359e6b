package agents

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Agent is a record as it is in force.
type Agent struct {
	Record

	// Used is when the agent was last known by any means, in Unix
	// milliseconds, 0 for never. It is shared by all versions of the agent.
	Used *atomic.Int64
}

// Index is all agents at one time. It is immutable; a change makes another.
type Index struct {
	byID map[string]*Agent
	keys map[string]keyOf // by the key's id
}

type keyOf struct {
	agent *Agent
	key   *Key
}

// NewIndex returns the index of the agents.
func NewIndex(agents []*Agent) *Index {
	x := &Index{byID: make(map[string]*Agent, len(agents)), keys: make(map[string]keyOf, len(agents))}
	for _, a := range agents {
		x.byID[a.ID] = a
		for i := range a.Keys {
			k := &a.Keys[i]
			// An id that two agents have comes of a file copied by hand: it
			// is nobody's.
			if other, taken := x.keys[k.ID]; taken && other.agent != a {
				x.keys[k.ID] = keyOf{}
				continue
			}
			x.keys[k.ID] = keyOf{a, k}
		}
	}
	return x
}

// With returns the index with an agent added or replaced.
func (x *Index) With(a *Agent) *Index { return x.but(a.ID, a) }

// Without returns the index without an agent.
func (x *Index) Without(id string) *Index { return x.but(id, nil) }

func (x *Index) but(id string, a *Agent) *Index {
	all := make([]*Agent, 0, len(x.byID)+1)
	for other, agent := range x.byID {
		if other != id {
			all = append(all, agent)
		}
	}
	if a != nil {
		all = append(all, a)
	}
	return NewIndex(all)
}

// Get returns an agent, or nil if it has no record.
func (x *Index) Get(id string) *Agent { return x.byID[id] }

// All returns the agents in the order of their ids.
func (x *Index) All() []*Agent {
	return slices.SortedFunc(maps.Values(x.byID), func(a, b *Agent) int { return strings.Compare(a.ID, b.ID) })
}

// ByKey returns the agent that a key is of, or nil. That the agent is disabled
// or has ended is for the caller to see.
func (x *Index) ByKey(text string, now time.Time) *Agent {
	id, ok := parseKey(text)
	if !ok {
		return nil
	}
	found := x.keys[id]
	if found.agent == nil || !found.key.matches(text) || !found.key.works(now) {
		return nil
	}
	return found.agent
}
