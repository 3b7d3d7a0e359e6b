package vault

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/agents"
	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/fsx"
	"github.com/caddyvault/caddyvault/store/revocations"
	"github.com/caddyvault/caddyvault/token"
)

const (
	// lastUseFile holds when agents were last known. It is written now and
	// then and only informs: nothing is decided by it.
	lastUseFile  = "agents.used.json"
	lastUseFlush = time.Minute

	// outlived is longer than any token lives.
	outlived = maxTokenLife + time.Minute

	maxTokenLife = 15 * time.Minute
)

// agentSet holds every agent's record in memory. Readers load one pointer; a
// change swaps the index.
type agentSet struct {
	current atomic.Pointer[agents.Index]

	mu sync.Mutex // serialises changes

	// writing is as in services.
	writing sync.Mutex

	files  map[string]agentFile
	flushM sync.Mutex
	used   map[string]int64 // as read at the start, or last written
}

// agentFile is what the store has under one name.
type agentFile struct {
	rev   store.Rev
	agent *agents.Agent // the last good version, nil if there was none
	err   error         // why a newer one is not in use
}

func (s *agentSet) get(id string) *agents.Agent { return s.current.Load().Get(id) }

// rev returns the revision of an agent's file.
func (s *agentSet) rev(id string) store.Rev {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[agents.FileName(id)].rev
}

// load reads all files, and returns the agents that have none any more.
func (s *agentSet) load(ctx context.Context, st store.Store) (gone []string, _ error) {
	entries, err := st.List(ctx, store.Agents)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.files
	s.files = make(map[string]agentFile, len(entries))
	var all []*agents.Agent
	for _, e := range entries {
		name := strings.TrimPrefix(e.Key, store.Agents)
		f := s.newFile(name, e, before[name].agent)
		s.files[name] = f
		if f.agent != nil {
			all = append(all, f.agent)
		} else if b := broken(name); b != nil {
			all = append(all, b)
		}
	}
	s.current.Store(agents.NewIndex(all))
	for name, f := range before {
		if _, ok := s.files[name]; !ok && f.agent != nil {
			gone = append(gone, f.agent.ID)
		}
	}
	return gone, nil
}

// newFile reads an entry. If it is broken, the agent before goes on. Under mu.
func (s *agentSet) newFile(name string, e store.Entry, before *agents.Agent) agentFile {
	f := agentFile{rev: e.Rev, agent: before, err: e.Err}
	if e.Value == nil {
		return f
	}
	r, err := agents.Parse(name, e.Value)
	if err != nil {
		if f.err == nil {
			f.err = err
		}
		return f
	}
	a := &agents.Agent{Record: *r, Used: new(atomic.Int64)}
	if before != nil {
		a.Used = before.Used
	} else {
		a.Used.Store(s.used[r.ID])
	}
	f.agent = a
	return f
}

// apply puts a change into force and reports what is there now and whether it
// was news.
func (s *agentSet) apply(ev store.Event) (now agentFile, news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.TrimPrefix(ev.Key, store.Agents)
	before, known := s.files[name]
	if known && ev.Rev <= before.rev || !known && ev.Type == store.Delete {
		return before, false
	}
	if ev.Type == store.Delete {
		delete(s.files, name)
		s.current.Store(s.current.Load().Without(agents.IDOf(name)))
		return agentFile{agent: before.agent}, true
	}
	now = s.newFile(name, ev.Entry, before.agent)
	s.files[name] = now
	if now.agent != nil && now.agent != before.agent {
		s.current.Store(s.current.Load().With(now.agent))
	} else if b := broken(name); now.agent == nil && b != nil {
		s.current.Store(s.current.Load().With(b))
	}
	return now, true
}

// followAgents applies changes that others make: files edited by hand, other
// nodes. It returns when ctx ends.
func (st *State) followAgents(ctx context.Context, w store.Watcher) {
	defer st.background.Done()
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			if w = st.rewatch(ctx, err, store.Agents, st.loadAgents); w == nil {
				return
			}
			st.live.revoked()
			continue
		}
		st.agents.writing.Lock()
		now, news := st.agents.apply(ev)
		st.agents.writing.Unlock()
		if !news {
			continue
		}
		rec := audit.Record{Event: "agent.changed", AgentID: agents.IDOf(strings.TrimPrefix(ev.Key, store.Agents))}
		switch {
		case ev.Type == store.Delete:
			rec.Reason = agentRemoved
			st.logger.Info("agent removed", zap.String("agent", rec.AgentID))
			if err := st.endAgent(ctx, rec.AgentID); err != nil {
				st.logger.Error("the tokens of a removed agent are void, but that could not be stored", zap.Error(err))
			}
		case now.err != nil:
			rec.Error = "AGENT_INVALID"
			rec.Reason = now.err.Error()
			st.logger.Error("agent file is not valid; the last good version stays in use",
				zap.String("agent", rec.AgentID), zap.Bool("in_use", now.agent != nil), zap.Error(now.err))
		default:
			rec.Reason = agentLoaded
			st.logger.Info("agent loaded", zap.String("agent", rec.AgentID))
		}
		st.live.revoked()
		_ = st.audit.Enqueue(audit.Entry{Record: rec})
	}
}

// endAgent makes the tokens of an agent that is removed useless: the agent is
// revoked for as long as one of them could live. A revocation without an end
// stays.
func (st *State) endAgent(ctx context.Context, id string) error {
	e, err := st.store.Get(ctx, store.Revocations+revocations.Agent.String()+"/"+id)
	if err == nil && e.Expires.IsZero() {
		return nil
	}
	now := st.now()
	r := revocations.Revocation{Kind: revocations.Agent, ID: id, Reason: "agent removed", Since: now, Expires: now.Add(outlived)}
	err = st.revocations.Save(ctx, r)
	st.revocations.Enforce(r)
	return err
}

// agentBlocked returns the code for which an agent with a record may do
// nothing now, or "". One look into a map, on the way of every call.
func (st *State) agentBlocked(id string, now time.Time) string {
	a := st.agents.get(id)
	switch {
	case a == nil:
		return ""
	case a.Disabled || a.Broken:
		return "AGENT_DISABLED"
	case a.Expired(now):
		return "AGENT_EXPIRED"
	}
	return ""
}

// who returns the agent as decisions take it, with the groups that an issuer
// has vouched for.
func (st *State) who(id string, claimed []string) policy.Agent {
	who := policy.Agent{ID: id, Claimed: claimed}
	if a := st.agents.get(id); a != nil {
		who.Groups = a.Groups
	}
	return who
}

// whoIn returns one of a token's agents as decisions take it. The groups in the
// token are those of the agent that its line began with, and of no other.
func (st *State) whoIn(c *token.Claims, agent string) policy.Agent {
	first := c.Subject
	if n := len(c.Chain); n > 0 {
		first = c.Chain[n-1].AgentID
	}
	if agent == first {
		return st.who(agent, c.Groups)
	}
	return st.who(agent, nil)
}

// demandedBinding returns how an agent's tokens have to be bound, as its record
// says, or "".
func (st *State) demandedBinding(id string) string {
	if a := st.agents.get(id); a != nil {
		return string(a.Binding)
	}
	return ""
}

// bindingHolds reports whether a token is bound as its agent's record demands,
// if there is one.
func bindingHolds(a *agents.Agent, have *token.Binding) bool {
	if a == nil {
		return true
	}
	switch a.Binding {
	case agents.NotBound:
		return true
	case agents.DPoP:
		return have != nil && have.JKT != ""
	case agents.MTLS:
		return have != nil && have.X5T != ""
	}
	return have != nil
}

// AgentByKey returns the id of the agent that a key is of. Wrong keys are
// counted by client, as wrong admin tokens are.
func (v *Vault) AgentByKey(caller Caller, key string) (string, *refusal.Refusal) {
	if a := v.agents.current.Load().ByKey(key, v.now()); a != nil {
		return a.ID, nil
	}
	if v.keyGuesses.failed(caller.Client, v.now()) > adminFailures {
		r := refusal.New("RATE_LIMITED", "too many wrong agent keys from this address").WithHint("try again in a minute")
		r.RetryAfter = time.Minute
		return "", r
	}
	return "", refusal.New("AGENT_KEY_INVALID", "this is no key of an agent, or no longer").
		WithHint("an administrator makes a new one with vault.admin.rotateAgentKey").
		WithChallenge(`Bearer realm="caddyvault", error="invalid_token"`)
}

// CheckAgent refuses an authenticated agent that may do nothing now, and notes
// that it was here.
func (v *Vault) CheckAgent(id string) *refusal.Refusal {
	now := v.now()
	if v.revocations.Revoked(v.revocations.Key(revocations.Agent, id), now) {
		return revokedRefusal("AGENT_REVOKED")
	}
	if code := v.agentBlocked(id, now); code != "" {
		return revokedRefusal(code)
	}
	v.noteUse(id, now)
	return nil
}

func (st *State) noteUse(id string, now time.Time) {
	if a := st.agents.get(id); a != nil {
		a.Used.Store(now.UnixMilli())
	}
}

// readLastUse reads what flushLastUse wrote. A file that cannot be read costs
// nothing but what it says.
func (st *State) readLastUse() {
	b, err := fsx.ReadPrivate(filepath.Join(st.dataDir, lastUseFile))
	if err == nil {
		err = json.Unmarshal(b, &st.agents.used)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		st.logger.Warn("when agents were last used is not known", zap.Error(err))
	}
}

// flushLastUse writes when agents were last used, if that has changed.
func (st *State) flushLastUse() {
	st.agents.flushM.Lock()
	defer st.agents.flushM.Unlock()
	used := map[string]int64{}
	news := false
	for _, a := range st.agents.current.Load().All() {
		if ms := a.Used.Load(); ms != 0 {
			used[a.ID] = ms
			news = news || st.agents.used[a.ID] != ms
		}
	}
	if !news {
		return
	}
	b, err := json.Marshal(used, json.Deterministic(true))
	if err == nil {
		err = fsx.WriteAtomic(st.dataDir, lastUseFile, b, 0o600)
	}
	if err != nil {
		st.logger.Warn("when agents were last used could not be written", zap.Error(err))
		return
	}
	st.agents.mu.Lock()
	st.agents.used = used
	st.agents.mu.Unlock()
}

// keepLastUse writes it every so often and at the end.
func (st *State) keepLastUse(ctx context.Context) {
	defer st.background.Done()
	tick := time.NewTicker(lastUseFlush)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			st.flushLastUse()
			return
		case <-tick.C:
			st.flushLastUse()
		}
	}
}

// claimedGroups returns those of an agent's claimed groups that a service
// speaks of: a token carries no others.
func claimedGroups(svc *policy.Compiled, groups []string) []string {
	var out []string
	for _, g := range groups {
		if svc.NamesGroup(g) && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}
