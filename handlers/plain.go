package handlers

import (
	"github.com/caddyvault/caddyvault/internal/plainjson"
	"github.com/caddyvault/caddyvault/refusal"
)

// What nearly every body of the two busiest routes is made of is read without a
// decoder. Everything else, and all that is to be refused, goes to decode.

// readCall reads the body of vault.call.
func readCall(body []byte, in *callBody) *refusal.Refusal {
	if in.plain(body) {
		return nil
	}
	*in = callBody{}
	return decode(body, in, false)
}

// plain reads a plain body, which in.Params stays a part of.
func (in *callBody) plain(body []byte) bool {
	var o plainjson.Object
	if !o.Read(body) {
		return false
	}
	ok := true
	for _, m := range o.Members() {
		switch string(m.Name) {
		case "token":
			ok = ok && textOf(m, &in.Token)
		case "service":
			ok = ok && textOf(m, &in.Service)
		case "action":
			ok = ok && textOf(m, &in.Action)
		case "params":
			in.Params = m.Value
		case "context":
			ok = ok && in.Context.plain(m.Value)
		default:
			return false
		}
	}
	return ok
}

func (c *callContext) plain(body []byte) bool {
	var o plainjson.Object
	if !o.Read(body) {
		return false
	}
	ok := true
	for _, m := range o.Members() {
		var text string
		if ok = ok && textOf(m, &text); !ok {
			return false
		}
		switch string(m.Name) {
		case "agentId":
			c.AgentID = &text
		case "sessionId":
			c.SessionID = &text
		case "taskId":
			c.TaskID = &text
		case "skillId":
			c.SkillID = &text
		default:
			return false
		}
	}
	return ok
}

// readIssue reads the body of vault.issueToken.
func readIssue(body []byte, in *issueBody) *refusal.Refusal {
	if in.plain(body) {
		return nil
	}
	*in = issueBody{}
	return decode(body, in, false)
}

// plain reads a plain body that asks for no limits.
func (in *issueBody) plain(body []byte) bool {
	var o plainjson.Object
	if !o.Read(body) {
		return false
	}
	ok := true
	for _, m := range o.Members() {
		switch string(m.Name) {
		case "service":
			ok = ok && textOf(m, &in.Service)
		case "scope":
			if ok {
				in.Scope, ok = m.Texts()
			}
		case "ttl":
			in.TTL = m.Value
		case "agentId":
			ok = ok && textOf(m, &in.AgentID)
		case "sessionId":
			ok = ok && textOf(m, &in.SessionID)
		case "taskId":
			ok = ok && textOf(m, &in.TaskID)
		case "skillId":
			ok = ok && textOf(m, &in.SkillID)
		case "tool":
			ok = ok && textOf(m, &in.Tool)
		case "bind":
			ok = ok && textOf(m, &in.Bind)
		default:
			return false
		}
	}
	return ok
}

func textOf(m plainjson.Member, into *string) bool {
	text, ok := m.Text()
	if ok {
		*into = string(text)
	}
	return ok
}
