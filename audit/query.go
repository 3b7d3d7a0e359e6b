package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// Limits of one query.
const (
	// MaxLimit is the most records that a query returns.
	MaxLimit = 1000

	// DefaultLimit is how many it returns if it does not say.
	DefaultLimit = 100

	// maxScan is how much of the log one query looks at, in bytes. An entry
	// of an index counts as hitCost.
	maxScan = 64 << 20
	hitCost = 64

	queryBlock = 256 << 10
)

// Query says which records.
type Query struct {
	// Filters maps the name of a top-level field or of a field of context
	// to the value it must have, there or there. A number is compared by its
	// digits. A value longer than MaxText is compared as a record keeps it.
	Filters map[string]string

	// Agents, if not nil, lets only records of these agents through, whatever
	// the filters say: those whose agentId is one of them, in the context or,
	// as the target of a revocation, at the top level.
	Agents []string

	// Since and Until bound the time of records in milliseconds, both
	// inclusive; 0 does not.
	Since, Until int64

	// Without, if not empty, lets no records of this event through.
	Without string

	// Before, if not 0, lets only records with a smaller seq through.
	Before uint64

	// Limit is how many at most; 0 is DefaultLimit, more than MaxLimit is
	// MaxLimit.
	Limit int
}

// Result is what a query found.
type Result struct {
	// Lines are the newest records that match, oldest first, each byte for
	// byte as it is in the log, without its newline.
	Lines [][]byte

	// Next is the Before with which to go on, to older records; 0 if there
	// are none. There may be a Next without there being Lines: a query looks
	// at a bounded stretch of the log.
	Next uint64

	// Seq is the last record that the query could see.
	Seq uint64
}

// Query returns the newest records that match, and sees every record that
// was enqueued or acknowledged before. While the log cannot be written and
// records wait, the error is ErrUnavailable and the result is what there is
// without those.
func (l *Log) Query(ctx context.Context, q Query) (Result, error) {
	unavailable := l.barrier(ctx)
	s := search{ctx: ctx, l: l, limit: q.Limit, since: q.Since, until: q.Until, before: q.Before, without: q.Without, budget: maxScan}
	if s.limit <= 0 {
		s.limit = DefaultLimit
	}
	s.limit = min(s.limit, MaxLimit)
	var err error
	if s.filters, err = newFilters(q.Filters, q.Agents); err != nil {
		return Result{}, err
	}
	view, live, _ := l.index.snapshot(liveIndexed)
	if view.cur == nil {
		return Result{}, ErrClosed
	}
	defer view.cur.release()
	if s.filters.seq(&s.before) {
		if err := s.run(view, live); err != nil {
			return Result{}, fmt.Errorf("audit query: %w", err)
		}
	}
	last, err := view.last(l.opts.fs)
	if err != nil {
		return Result{}, fmt.Errorf("audit query: %w", err)
	}
	slices.Reverse(s.found)
	return Result{Lines: s.found, Next: s.next, Seq: last}, unavailable
}

// ErrFilter is wrapped if a filter names what cannot be a field.
var ErrFilter = errors.New("not a field of an audit record")

// filters are what every line must match.
type filters struct {
	all    []matcher
	agents []matcher // one of these; nil: any
}

func newFilters(fields map[string]string, agents []string) (f filters, err error) {
	for field, value := range fields {
		m, err := newMatcher(field, value)
		if err != nil {
			return f, err
		}
		f.all = append(f.all, m)
	}
	if agents != nil {
		f.agents = make([]matcher, 0, len(agents))
		for _, agent := range agents {
			m, err := newMatcher("agentId", agent)
			if err != nil {
				return f, err
			}
			f.agents = append(f.agents, m)
		}
		if len(f.agents) == 1 { // which an index may know
			f.all, f.agents = append(f.all, f.agents[0]), nil
		}
	}
	// The longest is likely the rarest.
	slices.SortFunc(f.all, func(a, b matcher) int { return len(b.text) - len(a.text) })
	return f, nil
}

// CheckFilters returns ErrFilter, wrapped, if one names what cannot be a
// field.
func CheckFilters(fields map[string]string) error {
	_, err := newFilters(fields, nil)
	return err
}

// seq lowers before to what a filter by seq leaves; it reports whether
// anything can match.
func (f *filters) seq(before *uint64) bool {
	for _, m := range f.all {
		if m.field != "seq" {
			continue
		}
		seq, err := strconv.ParseUint(m.value, 10, 64)
		if err != nil || seq == 0 || *before != 0 && seq >= *before || seq == 1<<64-1 {
			return false
		}
		*before = seq + 1
	}
	return true
}

// maybe is quick, and wrong only where it says yes.
func (f *filters) maybe(b []byte) bool {
	for i := range f.all {
		if !f.all[i].maybe(b) {
			return false
		}
	}
	return f.agents == nil || slices.ContainsFunc(f.agents, func(m matcher) bool { return m.maybe(b) })
}

// candidates yields those of whole lines that may match, in their order.
func (f *filters) candidates(b []byte) iter.Seq[[]byte] {
	if !f.maybe(b) {
		return func(func([]byte) bool) {}
	}
	if len(f.all) == 0 || f.all[0].digits != nil {
		return linesOf(b)
	}
	text := f.all[0].text
	return func(yield func([]byte) bool) {
		for {
			i := bytes.Index(b, text)
			if i < 0 {
				return
			}
			start := bytes.LastIndexByte(b[:i], '\n') + 1
			end := i + bytes.IndexByte(b[i:], '\n')
			if !yield(b[start:end]) {
				return
			}
			b = b[end+1:]
		}
	}
}

func (f *filters) match(line []byte) bool {
	for i := range f.all {
		if !f.all[i].match(line) {
			return false
		}
	}
	return f.agents == nil || slices.ContainsFunc(f.agents, func(m matcher) bool { return m.match(line) })
}

// matcher is one filter.
type matcher struct {
	field, value string
	text, digits []byte // "field":"value" and "field":value; nil if it cannot be
}

// key returns the field and the value as an index hashes them.
func (m *matcher) key() (field, text []byte) {
	at := len(m.field) + len(`"":`)
	return m.text[1 : 1+len(m.field)], m.text[at+1 : len(m.text)-1]
}

func newMatcher(field, value string) (matcher, error) {
	if field == "" || len(field) > 64 || strings.ContainsFunc(field, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_')
	}) {
		return matcher{}, fmt.Errorf("filter %q: %w", field, ErrFilter)
	}
	m := matcher{field: field, value: cutText(value)}
	key := `"` + field + `":`
	// There is one way in which a record shows a string.
	m.text = appendText([]byte(key), value)
	if _, err := strconv.ParseFloat(value, 64); err == nil && strings.Trim(value, "0123456789.-") == "" {
		m.digits = []byte(key + value)
	}
	return m, nil
}

// maybe is quick, and wrong only where it says yes.
func (m *matcher) maybe(b []byte) bool {
	return bytes.Contains(b, m.text) || m.digits != nil && bytes.Contains(b, m.digits)
}

func (m *matcher) match(line []byte) bool {
	return m.maybe(line) && (m.equal(gjson.GetBytes(line, m.field)) || m.equal(gjson.GetBytes(line, "context."+m.field)))
}

func (m *matcher) equal(r gjson.Result) bool {
	switch r.Type {
	case gjson.String:
		return r.Str == m.value
	case gjson.Number:
		return r.Raw == m.value
	default:
		return false
	}
}
