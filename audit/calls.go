package audit

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/tidwall/gjson"
)

// openCalls finds calls that were started and never ended.
type openCalls struct {
	open map[string]place // by callId
}

// place is where the line of a started call is.
type place struct {
	part int
	off  int64
}

// blockCalls are the calls of one block that were not both started and
// ended within it.
type blockCalls struct {
	started map[string]int
	ended   []string
}

func (c *blockCalls) reset() {
	if c.started == nil {
		c.started = make(map[string]int)
	}
	clear(c.started)
	c.ended = c.ended[:0]
}

const callIDKey = `"callId":"`

func (c *blockCalls) note(event, line []byte, at int) {
	var started bool
	switch string(event) {
	case EventCallStarted:
		started = true
	case EventCall, EventCallUnknown, EventCallDenied:
	default:
		return
	}
	id, ok := fieldString(line, callIDKey)
	switch {
	case !ok:
	case started:
		c.started[string(id)] = at
	default:
		if _, ok := c.started[string(id)]; ok {
			delete(c.started, string(id))
		} else {
			c.ended = append(c.ended, string(id))
		}
	}
}

// join takes a block's calls over. Within it, an end whose start is not
// known came before any start of the same id.
func (o *openCalls) join(c *blockCalls, part int, off int64) {
	if o.open == nil {
		o.open = make(map[string]place)
	}
	for _, id := range c.ended {
		delete(o.open, id)
	}
	for id, at := range c.started {
		o.open[id] = place{part, off + int64(at)}
	}
}

// in reports whether a call that was started in a part is open.
func (o *openCalls) in(part int) bool {
	for _, p := range o.open {
		if p.part == part {
			return true
		}
	}
	return false
}

// unknown returns the record that ends each call left open, in their order.
func (o *openCalls) unknown(parts []openPart) ([]Record, error) {
	places := make([]place, 0, len(o.open))
	for _, p := range o.open {
		places = append(places, p)
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.part, b.part), cmp.Compare(a.off, b.off))
	})
	records := make([]Record, 0, len(places))
	for _, p := range places {
		line, err := lineAt(parts[p.part].f, p.off)
		parts[p.part].rest()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", parts[p.part].name, err)
		}
		r := Record{
			Event:   EventCallUnknown,
			CallID:  gjson.GetBytes(line, "callId").Str,
			Service: gjson.GetBytes(line, "service").Str,
			Action:  gjson.GetBytes(line, "action").Str,
			TokenID: gjson.GetBytes(line, "tokenId").Str,
		}
		if c := gjson.GetBytes(line, "context"); c.IsObject() {
			r.Context = &Context{
				AgentID:   c.Get("agentId").Str,
				SessionID: c.Get("sessionId").Str,
				TaskID:    c.Get("taskId").Str,
				SkillID:   c.Get("skillId").Str,
				Tool:      c.Get("tool").Str,
			}
		}
		records = append(records, r)
	}
	return records, nil
}

// lineAt returns the line that begins at off, without its newline if it has
// one.
func lineAt(r io.ReaderAt, off int64) ([]byte, error) {
	buf := make([]byte, 0, 4096)
	for {
		n, err := r.ReadAt(buf[len(buf):cap(buf)], off+int64(len(buf)))
		fresh := buf[len(buf) : len(buf)+n]
		if i := slices.Index(fresh, '\n'); i >= 0 {
			return buf[:len(buf)+i], nil
		}
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
		buf = slices.Grow(buf, len(buf)+1)
	}
}
