package vault

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/token"
)

// TestRevocationsAreBounded has an agent revoke all there is, and more.
func TestRevocationsAreBounded(t *testing.T) {
	v := newTestVault(t)
	now := time.Now()
	v.allowances = newAllowances(func() time.Time { return now })
	agent := Caller{Agent: "a"}
	revoke := func(c Caller, targets RevokeTargets) (code string, wait time.Duration) {
		t.Helper()
		if refused := v.Revoke(t.Context(), c, targets, "", new(audit.Record)); refused != nil {
			return refused.Code, refused.RetryAfter
		}
		return "", 0
	}
	must := func(c Caller, targets RevokeTargets) {
		t.Helper()
		if code, _ := revoke(c, targets); code != "" {
			t.Fatalf("%+v: %s", targets, code)
		}
	}
	issue := func(i int) token.Claims {
		t.Helper()
		res, refused := v.Issue(t.Context(), agent, IssueRequest{Service: "api", Scope: []string{"s1"}, Context: token.Context{SessionID: fmt.Sprint("s", i), TaskID: fmt.Sprint("t", i)}}, new(audit.Record))
		if refused != nil {
			t.Fatal(refused)
		}
		got, refused := v.tokens.Verify(res.Token)
		if refused != nil {
			t.Fatal(refused)
		}
		return got.Claims
	}

	first := issue(0)
	var mine []token.Claims
	for i := range 50 {
		mine = append(mine, issue(i+1))
	}
	// The credit of these is spent on nothing, and then what is free.
	for i := range 51*revocationsPerToken + revocationsBurst {
		must(agent, RevokeTargets{TokenID: fmt.Sprint("nothing ", i)})
	}
	code, wait := revoke(agent, RevokeTargets{TokenID: "one more"})
	if code != "RATE_LIMITED" || wait <= 0 || wait > time.Minute {
		t.Fatalf("%q, %v", code, wait)
	}
	if v.revocations.Revoked(v.revocations.OwnedKey(revocationKinds[0], "a", "one more"), now) {
		t.Error("what is refused is revoked")
	}

	// What costs nothing, others, and those who are not bounded.
	must(agent, RevokeTargets{TokenID: "nothing 1"})
	must(Caller{Agent: "b"}, RevokeTargets{TokenID: "one more"})
	must(Caller{Admin: true}, RevokeTargets{TokenID: "one more", SessionID: "any"})
	must(local, RevokeTargets{TokenID: "another", TaskID: "any"})
	rec := new(audit.Record)
	if refused := v.revoke(t.Context(), agent, RevokeTargets{TokenID: first.ID}, "", true, rec); refused != nil {
		t.Errorf("a token that is shown: %s", refused.Code)
	}

	// A new token brings what it takes to end it.
	next := issue(100)
	must(agent, RevokeTargets{TokenID: next.ID, SessionID: next.Context.SessionID, TaskID: next.Context.TaskID})
	if code, _ := revoke(agent, RevokeTargets{SessionID: mine[0].Context.SessionID, TaskID: mine[0].Context.TaskID}); code != "RATE_LIMITED" {
		t.Errorf("too much: %q", code)
	}
	now = now.Add(wait + time.Second)
	must(agent, RevokeTargets{SessionID: mine[0].Context.SessionID})

	// A session beyond the many stays revoked for as long as a token lives.
	v.allowances.with("a", v.RevocationsKeep, func(e *allowance) { e.long, e.free = 1, 10 })
	must(agent, RevokeTargets{SessionID: "long", TaskID: "short"})
	list, refused := v.ListRevocations(t.Context())
	if refused != nil {
		t.Fatal(refused)
	}
	kept := map[string]time.Duration{}
	for _, r := range list {
		kept[r.ID] = time.Duration(r.Expires-r.Since) * time.Millisecond
	}
	if kept["long"].Round(time.Second) != v.RevocationsKeep || kept["short"] < maxTokenLife || kept["short"] > 2*maxTokenLife {
		t.Errorf("kept for %v and %v", kept["long"], kept["short"])
	}

	must(agent, RevokeTargets{AgentID: "a"}) // never too much
}

// TestAllowancesAreForgotten bounds what is remembered of agents.
func TestAllowancesAreForgotten(t *testing.T) {
	now := time.Now()
	a := newAllowances(func() time.Time { return now })
	for i := range 20_000 {
		a.with(fmt.Sprint(i), time.Hour, func(*allowance) {})
		now = now.Add(time.Second)
	}
	n := 0
	for i := range a.shards {
		n += len(a.shards[i].m)
	}
	if most := 4*int(allowanceIdle/time.Second) + 32*allowanceShards; n > most {
		t.Errorf("%d agents are remembered, more than %d", n, most)
	}
}
