// Package ordercheck reads an audit log, and nothing else, and says whether
// a call was started with a token that had been revoked by then, in the
// log's own order. It is apart from package audit so that it shares no
// mistake with it.
package ordercheck

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// Summary is what Check has seen.
type Summary struct {
	Records, Started, Denied, Revoked int
}

// Check reads the records of a log in their order. The error names the first
// call that was started with something revoked.
func Check(r io.Reader) (s Summary, err error) {
	type target struct{ kind, id string }
	revoked := map[target]uint64{}
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var rec struct {
			Seq       uint64
			Event     string
			TokenID   string
			SessionID string
			TaskID    string
			AgentID   string
			Context   struct{ AgentID, SessionID, TaskID string }
		}
		if err := json.Unmarshal(in.Bytes(), &rec); err != nil {
			return s, fmt.Errorf("record behind number %d: %w", s.Records, err)
		}
		s.Records++
		switch rec.Event {
		case "token.revoked":
			s.Revoked++
			for _, t := range []target{{"token", rec.TokenID}, {"session", rec.SessionID}, {"task", rec.TaskID}, {"agent", rec.AgentID}} {
				if t.id != "" {
					revoked[t] = rec.Seq
				}
			}
		case "admin.unrevoke":
			delete(revoked, target{"token", rec.TokenID})
			delete(revoked, target{"session", rec.SessionID})
			delete(revoked, target{"task", rec.TaskID})
			delete(revoked, target{"agent", rec.AgentID})
		case "proxy.call.denied":
			s.Denied++
		case "proxy.call.started":
			s.Started++
			for _, t := range []target{{"token", rec.TokenID}, {"session", rec.Context.SessionID}, {"task", rec.Context.TaskID}, {"agent", rec.Context.AgentID}} {
				if at := revoked[t]; at != 0 {
					return s, fmt.Errorf("record %d starts a call of the %s %q, which record %d revoked", rec.Seq, t.kind, t.id, at)
				}
			}
		}
	}
	return s, in.Err()
}
