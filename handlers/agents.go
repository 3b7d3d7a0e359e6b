package handlers

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

type okAgent struct {
	OK      bool   `json:"ok"`
	AgentID string `json:"agentId"`
}

type okAgentKey struct {
	okAgent
	AgentKey string `json:"agentKey"`
}

// agentChange reads the fields that addAgent sets and updateAgent changes. null
// means the default.
func agentChange(taken map[string]jsontext.Value) (c vault.AgentChange, _ *refusal.Refusal) {
	if v := taken["groups"]; v != nil {
		groups := []string{}
		if v.Kind() != 'n' && json.Unmarshal(v, &groups) != nil {
			return c, fieldInvalid("groups", "groups is an array of names")
		}
		c.Groups = &groups
	}
	if v := taken["expiresAt"]; v != nil {
		t, ok := moment(v)
		if !ok {
			return c, fieldInvalid("expiresAt", "expiresAt is a time as in 2030-12-31T00:00:00Z, or in milliseconds, or null for never")
		}
		c.ExpiresAt = &t
	}
	if v := taken["binding"]; v != nil {
		binding := ""
		if v.Kind() != 'n' && json.Unmarshal(v, &binding) != nil {
			return c, fieldInvalid("binding", "binding is dpop, mtls, any or none")
		}
		c.Binding = &binding
	}
	if v := taken["disabled"]; v != nil {
		disabled := false
		if v.Kind() != 'n' && json.Unmarshal(v, &disabled) != nil {
			return c, fieldInvalid("disabled", "disabled is true or false")
		}
		c.Disabled = &disabled
	}
	return c, nil
}

// moment reads a time: RFC 3339, or Unix milliseconds. null is the zero time.
func moment(v jsontext.Value) (time.Time, bool) {
	switch v.Kind() {
	case 'n':
		return time.Time{}, true
	case '0':
		ms, ok := integer(v, maxInteger)
		t := time.UnixMilli(ms)
		return t, ok && ms > 0 && t.UTC().Year() <= 9999
	case '"':
		var s string
		if json.Unmarshal(v, &s) != nil {
			return time.Time{}, false
		}
		t, err := time.Parse(time.RFC3339, s)
		return t, err == nil && !t.IsZero() && t.UTC().Year() >= 1970
	}
	return time.Time{}, false
}

// agentCall decodes the body of a call that takes an agent's id and names.
func agentCall(rq *request, body []byte, names ...string) (string, map[string]jsontext.Value, *refusal.Refusal) {
	taken, refused := only(body, append(names, "agentId")...)
	if refused != nil {
		return "", nil, refused
	}
	id, refused := requiredField(taken, "agentId")
	rq.record.AgentID = id
	return id, taken, refused
}

func addAgent(rq *request, body []byte) (any, *refusal.Refusal) {
	id, taken, refused := agentCall(rq, body, "groups", "expiresAt", "binding")
	if refused != nil {
		return nil, refused
	}
	change, refused := agentChange(taken)
	if refused != nil {
		return nil, refused
	}
	key, refused := rq.vault.AddAgent(rq.Context(), id, change, &rq.record)
	if refused != nil {
		return nil, refused
	}
	return okAgentKey{okAgent{true, id}, key}, nil
}

func updateAgent(rq *request, body []byte) (any, *refusal.Refusal) {
	id, taken, refused := agentCall(rq, body, "groups", "expiresAt", "binding", "disabled")
	if refused != nil {
		return nil, refused
	}
	change, refused := agentChange(taken)
	if refused != nil {
		return nil, refused
	}
	if refused := rq.vault.UpdateAgent(rq.Context(), id, change, &rq.record); refused != nil {
		return nil, refused
	}
	return okAgent{true, id}, nil
}

func rotateAgentKey(rq *request, body []byte) (any, *refusal.Refusal) {
	id, taken, refused := agentCall(rq, body, "overlap")
	if refused != nil {
		return nil, refused
	}
	var overlap int64
	if v := taken["overlap"]; v != nil && v.Kind() != 'n' {
		n, ok := integer(v, 1<<31)
		if !ok {
			return nil, fieldInvalid("overlap", "overlap is a whole number of seconds")
		}
		overlap = n
	}
	key, refused := rq.vault.RotateAgentKey(rq.Context(), id, time.Duration(overlap)*time.Second, &rq.record)
	if refused != nil {
		return nil, refused
	}
	return okAgentKey{okAgent{true, id}, key}, nil
}

func disableAgent(rq *request, body []byte) (any, *refusal.Refusal) {
	id, _, refused := agentCall(rq, body)
	if refused != nil {
		return nil, refused
	}
	disabled := true
	if refused := rq.vault.UpdateAgent(rq.Context(), id, vault.AgentChange{Disabled: &disabled}, &rq.record); refused != nil {
		return nil, refused
	}
	return okAgent{true, id}, nil
}

func removeAgent(rq *request, body []byte) (any, *refusal.Refusal) {
	id, _, refused := agentCall(rq, body)
	if refused != nil {
		return nil, refused
	}
	if refused := rq.vault.RemoveAgent(rq.Context(), id, &rq.record); refused != nil {
		return nil, refused
	}
	return okAgent{true, id}, nil
}

func listAgents(rq *request, body []byte) (any, *refusal.Refusal) {
	if refused := empty(body); refused != nil {
		return nil, refused
	}
	list := rq.vault.ListAgents()
	rq.count(len(list))
	return struct {
		Agents []vault.AgentInfo `json:"agents"`
	}{list}, nil
}
