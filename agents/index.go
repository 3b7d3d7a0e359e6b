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

	// Broken is set if there is a file and no version of it is valid. Then
	// only the id is known.
	Broken bool
}

// Broken returns the agent of a file that is not valid.
func Broken(id string) *Agent {
	return &Agent{Record: Record{ID: id}, Used: new(atomic.Int64), Broken: true}
}

// Index is all agents at one time. It is immutable; a change makes another,
// which shares with it what is the same.
type Index struct {
	byID table[*Agent]
	keys table[[]keyOf] // by the key's id: those who have it
}

type keyOf struct {
	agent *Agent
	key   *Key
}

// NewIndex returns the index of the agents.
func NewIndex(agents []*Agent) *Index {
	x := new(Index)
	for _, a := range agents {
		x.byID.put(a.ID, a)
		for i := range a.Keys {
			id := a.Keys[i].ID
			x.keys.put(id, append(slices.Clip(x.keys.get(id)), keyOf{a, &a.Keys[i]}))
		}
	}
	return x
}

// With returns the index with an agent added or replaced.
func (x *Index) With(a *Agent) *Index { return x.but(a.ID, a) }

// Without returns the index without an agent.
func (x *Index) Without(id string) *Index { return x.but(id, nil) }

func (x *Index) but(id string, a *Agent) *Index {
	next := *x
	if before := x.byID.get(id); before != nil {
		for _, k := range before.Keys {
			others := slices.DeleteFunc(slices.Clone(next.keys.get(k.ID)), func(o keyOf) bool { return o.agent == before })
			if len(others) > 0 {
				next.keys.set(k.ID, others)
			} else {
				next.keys.drop(k.ID)
			}
		}
	}
	if a == nil {
		next.byID.drop(id)
		return &next
	}
	next.byID.set(id, a)
	for i := range a.Keys {
		k := a.Keys[i].ID
		next.keys.set(k, append(slices.Clip(next.keys.get(k)), keyOf{a, &a.Keys[i]}))
	}
	return &next
}

// Get returns an agent, or nil if it has no record.
func (x *Index) Get(id string) *Agent { return x.byID.get(id) }

// All returns the agents in the order of their ids.
func (x *Index) All() []*Agent {
	var all []*Agent
	for _, m := range x.byID {
		all = slices.AppendSeq(all, maps.Values(m))
	}
	slices.SortFunc(all, func(a, b *Agent) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// ByKey returns the agent that a key is of, or nil. That the agent is disabled
// or has ended is for the caller to see.
func (x *Index) ByKey(text string, now time.Time) *Agent {
	id, ok := parseKey(text)
	if !ok {
		return nil
	}
	// An id that two agents have comes of a file copied by hand: it is nobody's.
	found := x.keys.get(id)
	if len(found) != 1 || !found[0].key.matches(text) || !found[0].key.works(now) {
		return nil
	}
	return found[0].agent
}
