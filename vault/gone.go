package vault

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"
	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/agents"
	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/revocations"
)

// recentAgents are those that had a record while a token that may still live
// was issued to them, as the audit log knows when it is opened. One whose file
// was removed while nothing ran is not to go on without a record: who is known
// by a certificate needs none.
type recentAgents struct {
	since int64 // milliseconds
	ids   map[string]struct{}
}

func newRecentAgents(now time.Time) *recentAgents {
	return &recentAgents{since: now.Add(-outlived).UnixMilli(), ids: make(map[string]struct{})}
}

var registeredMark = []byte(`,"registered":true`)

// issued is told every token.issued.
func (r *recentAgents) issued(line []byte) {
	if bytes.Contains(line, registeredMark) && since(line, r.since) {
		r.ids[gjson.GetBytes(line, "context.agentId").Str] = struct{}{}
	}
}

// added and removed are told what administrators do, changed what was done to
// files.
func (r *recentAgents) added(line []byte) {
	if since(line, r.since) {
		r.ids[gjson.GetBytes(line, "agentId").Str] = struct{}{}
	}
}

func (r *recentAgents) removed(line []byte) {
	delete(r.ids, gjson.GetBytes(line, "agentId").Str)
}

func (r *recentAgents) changed(line []byte) {
	switch gjson.GetBytes(line, "reason").Str {
	case agentLoaded:
		r.added(line)
	case agentRemoved:
		r.removed(line)
	}
}

// Reasons of an agent.changed.
const (
	agentLoaded  = "loaded"
	agentRemoved = "removed"
)

// loadAgents reads all files anew, and ends the agents that have none any more.
func (st *State) loadAgents(ctx context.Context, from store.Store) error {
	gone, err := st.agents.load(ctx, from)
	if err != nil {
		return err
	}
	if err := st.endAbsent(ctx, gone); err != nil {
		st.logger.Error("the tokens of removed agents are void, but that could not be stored", zap.Error(err))
	}
	return nil
}

// endAbsent ends those of the agents that have no file, and writes that down.
func (st *State) endAbsent(ctx context.Context, ids []string) error {
	var failed error
	for _, id := range ids {
		if st.agents.rev(id) != 0 || st.revocations.Revoked(st.revocations.Key(revocations.Agent, id), st.now()) {
			continue
		}
		failed = errors.Join(failed, st.endAgent(ctx, id))
		st.logger.Info("agent removed unseen", zap.String("agent", id))
		_ = st.audit.Enqueue(audit.Entry{Record: audit.Record{Event: "agent.changed", AgentID: id, Reason: agentRemoved}})
	}
	return failed
}

// endRecent ends the agents that have lost their files since the log was
// written.
func (st *State) endRecent(ctx context.Context, r *recentAgents) error {
	return st.endAbsent(ctx, slices.Sorted(maps.Keys(r.ids)))
}

// broken stands in for an agent whose file is not valid and never was, as far
// as is known: its record may say that it may do nothing.
func broken(name string) *agents.Agent {
	id := agents.IDOf(name)
	if agents.FileName(id) != name {
		return nil // nobody's
	}
	return agents.Broken(strings.Clone(id))
}
