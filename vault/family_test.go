package vault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/token"
)

// member is one token of a random family, with what the test knows of it.
type member struct {
	raw, id     string
	parent      *member
	agent, task string
	scope       []string
	limits      token.Limits
	revoked     bool // it, or its agent or task
}

func (m *member) line() []*member {
	var out []*member
	for ; m != nil; m = m.parent {
		out = append(out, m)
	}
	return out
}

// may is the model: a call is good if every token of the line allows it.
func (m *member) may(action string, needs []string, params map[string]string) bool {
	for _, m := range m.line() {
		if m.revoked {
			return false
		}
		for _, s := range needs {
			if !slices.Contains(m.scope, s) {
				return false
			}
		}
		if m.limits.Actions != nil && !slices.Contains(m.limits.Actions, action) {
			return false
		}
		for name, values := range m.limits.Params {
			if v, ok := params[name]; !ok || !slices.Contains(values, v) {
				return false
			}
		}
	}
	return true
}

var familyCalls = []struct {
	action string
	needs  []string
	params map[string]string
}{
	{"one", []string{"s1"}, map[string]string{"x": "1"}},
	{"one", []string{"s1"}, map[string]string{"x": "2"}},
	{"two", []string{"s2"}, map[string]string{"x": "1"}},
	{"two", []string{"s2"}, map[string]string{"x": "3"}},
	{"three", []string{"s1", "s3"}, map[string]string{"x": "1", "y": "1"}},
	{"three", []string{"s1", "s3"}, map[string]string{"x": "2", "y": "2"}},
}

// pick returns a random part of list, nil one time in three.
func pick(r *rand.Rand, list ...string) []string {
	if r.IntN(3) == 0 {
		return nil
	}
	var out []string
	for _, s := range list {
		if r.IntN(2) == 0 {
			out = append(out, s)
		}
	}
	if out == nil {
		out = list[:1]
	}
	return out
}

func randomLimits(r *rand.Rand) *token.Limits {
	l := &token.Limits{Actions: pick(r, "one", "two", "three")}
	for _, name := range []string{"x", "y"} {
		if values := pick(r, "1", "2", "3"); values != nil && r.IntN(3) == 0 {
			if l.Params == nil {
				l.Params = map[string][]string{}
			}
			l.Params[name] = values
		}
	}
	if l.Actions == nil && l.Params == nil {
		return nil
	}
	return l
}

// TestFamilies grows random families of tokens and holds every call to the
// model: no descendant does what an ancestor could not, whatever was asked
// for, and a revocation of any node stops exactly its subtree.
func TestFamilies(t *testing.T) {
	v := newTestVault(t)
	good := 0 // calls that are allowed, so that the model is about something
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		name := func(s string) string { return fmt.Sprintf("%s%d", s, seed) }
		ctx := token.Context{AgentID: "a", SessionID: name("session"), TaskID: name("task")}
		root := &member{agent: "a", task: ctx.TaskID, scope: []string{"s1", "s2", "s3"}}
		if l := randomLimits(r); l != nil && seed%2 == 0 {
			root.limits = *l
		}
		issued, refused := v.Issue(t.Context(), local, IssueRequest{Service: "api", Scope: root.scope, Context: ctx, Limits: cloneLimits(root.limits)}, new(audit.Record))
		if refused != nil {
			t.Fatal(refused)
		}
		root.raw, root.id = issued.Token, issued.TokenID
		family := []*member{root}
		denied := 0
		for range 60 {
			parent := family[r.IntN(len(family))]
			child := &member{parent: parent, agent: parent.agent, task: parent.task, scope: pick(r, "s1", "s2", "s3")}
			req := DelegateRequest{Token: parent.raw, Scope: child.scope, Limits: randomLimits(r)}
			if child.scope == nil {
				child.scope = parent.scope
			}
			if r.IntN(3) == 0 {
				req.AgentID = []string{"a", "b", "c", "d"}[r.IntN(4)]
				child.agent = req.AgentID
			}
			if r.IntN(3) == 0 {
				req.TaskID = name("task") + "." + fmt.Sprint(r.IntN(5))
				child.task = req.TaskID
			}
			if req.Limits != nil {
				child.limits = *cloneLimits(*req.Limits)
			}
			res, refused := v.Delegate(t.Context(), local, req, new(audit.Record))
			if refused != nil {
				denied++
				continue
			}
			if res.ParentID != parent.id {
				t.Errorf("the parent is %s", res.ParentID)
			}
			child.raw, child.id = res.Token, res.TokenID
			family = append(family, child)
		}
		if len(family) < 5 || denied == 0 {
			t.Fatalf("a family of %d, %d refused, shows little", len(family), denied)
		}
		check := func(when string) {
			t.Helper()
			for i, m := range family {
				for _, c := range familyCalls {
					params := fmt.Sprintf(`{"x":%q}`, c.params["x"])
					if y, ok := c.params["y"]; ok {
						params = fmt.Sprintf(`{"x":%q,"y":%q}`, c.params["x"], y)
					}
					code := v.callCode(m.raw, c.action, params)
					if want := m.may(c.action, c.needs, c.params); (code == "") != want {
						t.Fatalf("seed %d, %s: token %d of depth %d, %s %s: %q, the model says %v", seed, when, i, len(m.line())-1, c.action, params, code, want)
					}
					if when == "grown" && code == "" {
						good++
					}
				}
			}
		}
		check("grown")

		// Any node may be the one that is revoked, in any of the ways.
		for _, how := range []string{"token", "task", "token"} {
			victim := family[1+r.IntN(len(family)-1)]
			targets := RevokeTargets{TokenID: victim.id}
			if how == "task" {
				targets = RevokeTargets{TaskID: victim.task}
			}
			if refused := v.Revoke(t.Context(), local, targets, "test", new(audit.Record)); refused != nil {
				t.Fatal(refused)
			}
			for _, m := range family {
				m.revoked = m.revoked || how == "token" && m == victim || how == "task" && m.task == victim.task
			}
			check("revoked a " + how)
		}
	}
	if good < 100 {
		t.Errorf("only %d calls were allowed", good)
	}

	// An agent in the middle of a line takes what came from it along.
	root, _ := v.Issue(t.Context(), local, IssueRequest{Service: "api", Scope: []string{"s1"}, Context: token.Context{AgentID: "a"}}, new(audit.Record))
	child, _ := v.Delegate(t.Context(), local, DelegateRequest{Token: root.Token, AgentID: "c"}, new(audit.Record))
	grandchild, _ := v.Delegate(t.Context(), local, DelegateRequest{Token: child.Token, AgentID: "b"}, new(audit.Record))
	if refused := v.Revoke(t.Context(), local, RevokeTargets{AgentID: "c"}, "test", new(audit.Record)); refused != nil {
		t.Fatal(refused)
	}
	for raw, want := range map[string]string{root.Token: "", child.Token: "AGENT_REVOKED", grandchild.Token: "AGENT_REVOKED"} {
		if code := v.callCode(raw, "one", `{"x":1}`); code != want {
			t.Errorf("%q, want %q", code, want)
		}
	}
}

func cloneLimits(l token.Limits) *token.Limits {
	if l.Actions == nil && l.Params == nil {
		return nil
	}
	return &token.Limits{Actions: slices.Clone(l.Actions), Params: l.Params}
}

// TestFamilyBudgets lets 64 callers spend the budgets of a family at once.
func TestFamilyBudgets(t *testing.T) {
	v := newTestVault(t)
	root, refused := v.Issue(t.Context(), local, IssueRequest{Service: "api", Scope: []string{"s1"}, Context: token.Context{AgentID: "a"}, Limits: &token.Limits{MaxCalls: 100}}, new(audit.Record))
	if refused != nil {
		t.Fatal(refused)
	}
	delegate := func(parent string, most int64) string {
		t.Helper()
		req := DelegateRequest{Token: parent}
		if most > 0 {
			req.Limits = &token.Limits{MaxCalls: most}
		}
		res, refused := v.Delegate(context.Background(), local, req, new(audit.Record))
		if refused != nil {
			t.Fatal(refused)
		}
		return res.Token
	}
	small, free := delegate(root.Token, 30), delegate(root.Token, 0)
	smaller := delegate(small, 10)
	tokens := []string{root.Token, small, smaller, free}
	var made [4]atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 8 {
				at := (i + j) % 4
				switch code := v.callCode(tokens[at], "one", `{"x":1}`); code {
				case "":
					made[at].Add(1)
				case "BUDGET_EXHAUSTED":
				default:
					t.Error(code)
				}
			}
		})
	}
	wg.Wait()
	total := made[0].Load() + made[1].Load() + made[2].Load() + made[3].Load()
	under := made[1].Load() + made[2].Load()
	if total != 100 || under > 30 || made[2].Load() > 10 {
		t.Errorf("made %d, of them %d of 30, of them %d of 10", total, under, made[2].Load())
	}
	if code := v.callCode(free, "one", `{"x":1}`); code != "BUDGET_EXHAUSTED" {
		t.Errorf("a child without a budget of its own: %q", code)
	}
	if _, refused := v.Delegate(t.Context(), local, DelegateRequest{Token: free}, new(audit.Record)); refused == nil || refused.Code != "BUDGET_EXHAUSTED" {
		t.Errorf("a child of a spent token: %v", refused)
	}
}

// TestDeepest is a line of the greatest depth with ids as long as UUIDs, which
// must fit into a token.
func TestDeepest(t *testing.T) {
	v := newTestVault(t)
	if refused := v.UpdateService(t.Context(), "api", []byte(`{"allowedAgents":["*"]}`), new(audit.Record)); refused != nil {
		t.Fatal(refused)
	}
	l := &token.Limits{Actions: []string{"one", "two"}, Params: map[string][]string{"x": {token.NewID(), token.NewID()}}, MaxCalls: 1 << 40, MaxBytes: 1 << 50}
	root, refused := v.Issue(t.Context(), local, IssueRequest{
		Service: "api", Scope: []string{"s1", "s2", "s3"}, Limits: l,
		Context: token.Context{AgentID: token.NewID(), SessionID: token.NewID(), TaskID: token.NewID(), SkillID: token.NewID()},
	}, new(audit.Record))
	if refused != nil {
		t.Fatal(refused)
	}
	raw := root.Token
	for range token.MaxDepth {
		res, refused := v.Delegate(t.Context(), local, DelegateRequest{Token: raw, AgentID: token.NewID(), TaskID: token.NewID(), Limits: &token.Limits{MaxCalls: 1 << 40, MaxBytes: 1 << 50}}, new(audit.Record))
		if refused != nil {
			t.Fatal(refused)
		}
		raw = res.Token
	}
	t.Logf("%d bytes", len(raw))
	info, refused := v.Introspect(local, false, raw)
	if refused != nil || len(info.Chain) != token.MaxDepth || info.Chain[token.MaxDepth-1].TokenID != root.TokenID {
		t.Fatalf("%+v, %v", info, refused)
	}
	if _, refused := v.Delegate(t.Context(), local, DelegateRequest{Token: raw}, new(audit.Record)); refused == nil || refused.Code != "DELEGATION_DENIED:depth" {
		t.Errorf("one deeper: %v", refused)
	}
	if refused := v.Revoke(t.Context(), local, RevokeTargets{TokenID: root.TokenID}, "test", new(audit.Record)); refused != nil {
		t.Fatal(refused)
	}
	if code := v.callCode(raw, "one", `{"x":1}`); code != "TOKEN_REVOKED" {
		t.Errorf("%q", code)
	}
}
