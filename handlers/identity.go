package handlers

import (
	"net/http"
	"strings"

	"github.com/caddyvault/caddyvault/agents"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// A Means is one way to know an agent. Means are tried in order, and the first
// that is present in a request decides.
type Means interface {
	// Agent returns the agent that made the request. present is false if the
	// request does not use this means; a refusal says that it does and that it
	// does not hold.
	Agent(ask Asker) (id Identity, present bool, refused *refusal.Refusal)
}

// Asker is a request whose agent is to be known.
type Asker struct {
	*http.Request
	Vault  *vault.Vault
	Caller vault.Caller

	// Offered is set if the bearer is what the caller wants to be known by. A
	// client certificate has to say the same then, and does not do alone.
	Offered bool
}

// Bearer returns the credential of the one Authorization header, "" if there is
// none of the scheme Bearer. More than one header is none.
func (a Asker) Bearer() string {
	values := a.Header["Authorization"]
	if len(values) != 1 {
		return ""
	}
	scheme, value, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(value)
}

// Identity is who made a request.
type Identity struct {
	Agent string

	// Groups are those that the means vouches for.
	Groups []string
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
func (id Identifier) identify(ask Asker, local bool) (who Identity, trusted bool, refused *refusal.Refusal) {
	certified := ""
	for _, m := range id.Means {
		who, present, refused := m.Agent(ask)
		if refused != nil {
			return Identity{}, false, refused
		}
		if !present {
			continue
		}
		if _, ok := m.(Certificates); ok && ask.Offered {
			certified = who.Agent
			continue
		}
		if certified != "" && certified != who.Agent {
			return Identity{}, false, refusal.New("AGENT_MISMATCH", "the client certificate is another agent's than what was sent")
		}
		if !policy.ValidAgent(who.Agent) {
			return Identity{}, false, refusal.New("AGENT_UNAUTHENTICATED", "what authenticates the caller gives no name that an agent can have").
				WithChallenge(`Bearer realm="caddyvault"`)
		}
		return who, false, nil
	}
	return Identity{}, id.Trust == TrustAll || id.Trust == TrustLoopback && local, nil
}

// Keys is the means of agent keys: a bearer that begins like one.
type Keys struct{}

// Agent implements Means.
func (Keys) Agent(ask Asker) (Identity, bool, *refusal.Refusal) {
	key := ask.Bearer()
	if !agents.LooksLikeKey(key) {
		return Identity{}, false, nil
	}
	agent, refused := ask.Vault.AgentByKey(ask.Caller, key)
	return Identity{Agent: agent}, true, refused
}

// NoKeys refuses agent keys where they are turned off, rather than taking who
// sends one for somebody else.
type NoKeys struct{}

// Agent implements Means.
func (NoKeys) Agent(ask Asker) (Identity, bool, *refusal.Refusal) {
	if !agents.LooksLikeKey(ask.Bearer()) {
		return Identity{}, false, nil
	}
	return Identity{}, true, refusal.New("AGENT_KEY_INVALID", "this vault takes no agent keys").
		WithHint("an administrator can allow them: keys on, in the block agents").
		WithChallenge(`Bearer realm="caddyvault"`)
}
