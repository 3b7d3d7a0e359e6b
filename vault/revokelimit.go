package vault

import (
	"math"
	"sync"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store/revocations"
	"github.com/caddyvault/caddyvault/token"
)

// Bounds on what an agent that is known may revoke as its own. It chooses the
// ids, and entries stay: without a bound one agent fills memory and disk.
const (
	// A token that was issued to an agent, or came from one of its own, gives
	// it this many entries: its id, its session, its task. So what is its own
	// can always be revoked.
	revocationsPerToken = 3
	revocationsCredit   = 300_000 // at most kept of these

	// Without: of tokens from before a start, and of what is nobody's.
	revocationsBurst  = 1000
	revocationsPerSec = 10.0

	// Sessions and tasks stay revoked for revocations_keep; an agent's own,
	// beyond this many in that time, for as long as any token lives.
	revocationsLong = 10_000

	// allowanceIdle is how long an agent is remembered that does nothing.
	allowanceIdle   = time.Hour
	allowanceShards = 64 // a power of two
)

// allowances are what agents may still revoke. They outlive configurations,
// and begin anew with a start.
type allowances struct {
	now    func() time.Time
	shards [allowanceShards]struct {
		mu    sync.Mutex
		m     map[string]*allowance
		sweep int // look for who is idle at this size
	}
}

type allowance struct {
	at     time.Time // of free and long
	credit int
	free   float64
	long   float64
}

func newAllowances(now func() time.Time) *allowances {
	a := &allowances{now: now}
	for i := range a.shards {
		a.shards[i].m = make(map[string]*allowance)
	}
	return a
}

// with calls f with the allowance of an agent, as it is now.
func (a *allowances) with(agent string, keep time.Duration, f func(*allowance)) {
	now := a.now()
	s := &a.shards[fnv(agent)%allowanceShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.m[agent]
	if e == nil {
		if len(s.m) >= s.sweep {
			for id, e := range s.m {
				if now.Sub(e.at) > allowanceIdle {
					delete(s.m, id)
				}
			}
			s.sweep = 2*len(s.m) + 16
		}
		e = &allowance{at: now, free: revocationsBurst, long: revocationsLong}
		s.m[agent] = e
	}
	if passed := now.Sub(e.at); passed > 0 {
		e.free = math.Min(revocationsBurst, e.free+passed.Seconds()*revocationsPerSec)
		e.long = math.Min(revocationsLong, e.long+revocationsLong*passed.Seconds()/keep.Seconds())
		e.at = now
	}
	f(e)
}

// creditRevocations is told every token: its agent and those that it came from may revoke
// it.
func (v *Vault) creditRevocations(c *token.Claims) {
	credit := func(agent string) {
		v.allowances.with(agent, v.RevocationsKeep, func(e *allowance) {
			e.credit = min(revocationsCredit, e.credit+revocationsPerToken)
		})
	}
	credit(c.Subject)
	for i := range c.Chain {
		if a := c.Chain[i].AgentID; a != c.Subject {
			credit(a)
		}
	}
}

// chargeRevocations takes what an agent is about to revoke as its own out of
// its allowance, or refuses it. What is revoked already costs nothing, and
// nothing does the agent itself.
func (v *Vault) chargeRevocations(owner string, list []revocations.Revocation) *refusal.Refusal {
	now := v.now()
	var news []*revocations.Revocation
	for i := range list {
		r := &list[i]
		if r.Kind != revocations.Agent && !v.revocations.Revoked(v.revocations.OwnedKey(r.Kind, owner, r.ID), now) {
			news = append(news, r)
		}
	}
	if len(news) == 0 {
		return nil
	}
	var refused *refusal.Refusal
	v.allowances.with(owner, v.RevocationsKeep, func(e *allowance) {
		fromCredit := min(e.credit, len(news))
		rest := float64(len(news) - fromCredit)
		if e.free < rest {
			refused = refusal.New("RATE_LIMITED", "more is revoked than there were tokens for").
				WithHint("try again later; revoking the agent itself, or a token that is shown to /oauth/revoke, is never too much")
			refused.RetryAfter = max(time.Second, time.Duration((rest-e.free)/revocationsPerSec*float64(time.Second)))
			return
		}
		e.credit -= fromCredit
		e.free -= rest
		for _, r := range news {
			if r.Kind == revocations.Token {
				continue
			}
			if e.long < 1 {
				r.Expires = now.Add(outlived)
				continue
			}
			e.long--
		}
	})
	return refused
}
