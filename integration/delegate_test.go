package integration

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

type delegated struct {
	issued
	ParentID string `json:"parentId"`
}

// delegate makes a child of a token. more is further members of the request.
func (s *server) delegate(token, more string, edits ...edit) delegated {
	s.t.Helper()
	var out delegated
	s.ok("/vault.delegateToken", `{"token":"`+token+`"`+more+`}`, &out, edits...)
	s.hide(out.Token, "a child token")
	return out
}

// TestDelegate is about children of tokens.
func TestDelegate(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	parent := s.issueWith(`"agentId":"main","sessionId":"s1","taskId":"t1","service":"github","scope":["github:repos:read","github:issues:write"],"actions":["repo.get","issues.create"],"params":{"owner":["o","p"]},"maxCalls":10,"ttl":300`)
	child := s.delegate(parent.Token, `,"scope":["github:repos:read"],"params":{"owner":"o"},"maxCalls":5,"agentId":"steve","taskId":"t2","ttl":900`)
	if child.ParentID != parent.TokenID || child.ExpiresInSec > 300 || child.ExpiresInSec < 200 {
		t.Errorf("%+v", child)
	}
	grandchild := s.delegate(child.Token, ``)

	c := payload(t, grandchild.Token)
	if act := fmt.Sprint(c["act"]); c["sub"] != "steve" || act != "map[act:map[act:map[sub:main] sub:steve] sub:steve]" {
		t.Errorf("sub %v, act %v", c["sub"], c["act"])
	}
	if r := s.call(grandchild.Token, "github", "repo.get", `{"owner":"o","repo":"r"}`); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}

	var rows []refusal
	bad := func(status int, code, token, more string) {
		rows = append(rows, refusal{name: more, path: "/vault.delegateToken", event: "token.delegate", status: status, code: code, body: `{"token":"` + token + `"` + more + `}`})
	}
	p := parent.Token
	bad(403, "DELEGATION_DENIED:scope", child.Token, `,"scope":["github:issues:write"]`)
	bad(403, "DELEGATION_DENIED:scope", p, `,"scope":["github:admin"]`)
	bad(403, "DELEGATION_DENIED:actions", p, `,"actions":["repo.get","contents.get"]`)
	bad(403, "DELEGATION_DENIED:params", p, `,"params":{"owner":["o","q"]}`)
	bad(403, "DELEGATION_DENIED:params", child.Token, `,"params":{"owner":"p"}`)
	bad(403, "DELEGATION_DENIED:maxCalls", p, `,"maxCalls":11`)
	bad(403, "DELEGATION_DENIED:maxCalls", grandchild.Token, `,"maxCalls":6`)
	bad(403, "INSUFFICIENT_SCOPE:github:issues:write", p, `,"agentId":"steve"`)
	bad(403, "POLICY_DENY", p, `,"agentId":"stranger"`)
	bad(400, "SCOPE_REQUIRED", p, `,"scope":[]`)
	bad(400, "SCOPE_INVALID", p, `,"scope":"github:repos:read"`)
	bad(400, "ACTIONS_INVALID", p, `,"actions":[]`)
	bad(400, "TTL_INVALID", p, `,"ttl":0`)
	bad(400, "AGENTID_INVALID", p, `,"agentId":"a\u0000"`)
	bad(400, "TASKID_INVALID", p, `,"taskId":"`+strings.Repeat("t", 300)+`"`)
	bad(400, "AGENTID_INVALID", p, `,"agentId":7`)
	bad(401, "TOKEN_INVALID", "x.y.z", ``)
	rows = append(rows,
		refusal{name: "no token", path: "/vault.delegateToken", event: "token.delegate", status: 401, code: "TOKEN_REQUIRED", body: `{}`},
		refusal{name: "from elsewhere", path: "/vault.delegateToken", event: "token.delegate", status: 401, code: "AGENT_UNAUTHENTICATED", body: `{"token":"` + p + `"}`, edits: []edit{header("X-Forwarded-For", "192.0.2.1")}},
		refusal{name: "introspect from elsewhere", path: "/vault.introspectToken", event: "token.introspect", status: 401, code: "AGENT_UNAUTHENTICATED", body: `{"token":"` + p + `"}`, edits: []edit{header("X-Forwarded-For", "192.0.2.1")}},
		refusal{name: "introspect nothing", path: "/vault.introspectToken", event: "token.introspect", status: 401, code: "TOKEN_REQUIRED", body: `{}`},
	)
	s.run(t, rows)

	// What the log says of the family.
	s.barrier()
	records, _ := s.auditLog(0)
	seen := 0
	for _, r := range records {
		if r.text("tokenId") != grandchild.TokenID {
			continue
		}
		seen++
		if r.text("parentId") != child.TokenID || fmt.Sprint(r["ancestors"]) != "["+parent.TokenID+"]" {
			t.Errorf("%v", r)
		}
		if r.text("event") == "proxy.call.started" && fmt.Sprint(r["spends"]) != "["+parent.TokenID+" "+child.TokenID+"]" {
			t.Errorf("spends %v", r["spends"])
		}
	}
	if seen != 3 {
		t.Errorf("%d records of the grandchild", seen)
	}

	// What a token is.
	var info struct {
		Active    bool
		AgentID   string
		CallsLeft int
		Params    map[string][]string
		ParentID  string
		Chain     []struct{ TokenID, AgentID, TaskID string }
	}
	decode(t, s.post("/vault.introspectToken", `{"token":"`+grandchild.Token+`"}`).body, &info)
	if !info.Active || info.AgentID != "steve" || info.CallsLeft != 4 || !slices.Equal(info.Params["owner"], []string{"o"}) || info.ParentID != child.TokenID ||
		fmt.Sprint(info.Chain) != fmt.Sprintf("[{%s steve t2} {%s main t1}]", child.TokenID, parent.TokenID) {
		t.Errorf("%+v", info)
	}
	elsewhere := header("X-Forwarded-For", "192.0.2.1")
	s.same("/vault.introspectToken", `{"token":"x.y.z"}`, `{"active":false}`)
	decode(t, s.post("/vault.introspectToken", `{"token":"`+child.Token+`"}`, bearer(adminToken), elsewhere).body, &info)
	if !info.Active {
		t.Error("an administrator cannot look at a token")
	}

	// A stream of a grandchild ends with its grandparent's agent.
	s.up.answer(oneEvent)
	stream := s.stream(s.base+"/proxy/github/repos/o/r", grandchild.Token)
	s.ok("/vault.revoke", `{"agentId":"main"}`, nil)
	if _, err := io.Copy(io.Discard, stream); err == nil {
		t.Error("the stream ended as if it were over")
	}
	s.refused(t, refusal{method: "GET", path: "/proxy/github/repos/o/r", event: "proxy.call", status: 401, code: "AGENT_REVOKED", edits: []edit{bearer(child.Token)}})
	s.refused(t, refusal{path: "/vault.delegateToken", event: "token.delegate", status: 401, code: "AGENT_REVOKED", body: `{"token":"` + grandchild.Token + `"}`})
	s.same("/vault.introspectToken", `{"token":"`+grandchild.Token+`"}`, `{"active":false}`)
}
