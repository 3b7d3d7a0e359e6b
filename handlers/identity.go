package handlers

import (
	"net/http"

	"github.com/caddyvault/caddyvault/refusal"
)

// A Means is one way to know an agent. Means are tried in order, and the first
// that is present in a request decides.
type Means interface {
	// Agent returns the id of the agent that made the request. present is
	// false if the request does not use this means; a refusal says that it
	// does and that it does not hold.
	Agent(r *http.Request) (agent string, present bool, refused *refusal.Refusal)
}

// Trust says whose own word is taken for who they are.
type Trust uint8

// The kinds of trust.
const (
	TrustNone     Trust = iota // nobody's
	TrustLoopback              // that of processes on this machine
	TrustAll                   // everybody's
)

// Identifier knows agents.
type Identifier struct {
	Means []Means
	Trust Trust
}

// identify returns the authenticated agent, or whether the caller's own word
// is taken.
func (id Identifier) identify(r *http.Request, local bool) (agent string, trusted bool, refused *refusal.Refusal) {
	for _, m := range id.Means {
		agent, present, refused := m.Agent(r)
		if refused != nil {
			return "", false, refused
		}
		if present {
			return agent, false, nil
		}
	}
	return "", id.Trust == TrustAll || id.Trust == TrustLoopback && local, nil
}
