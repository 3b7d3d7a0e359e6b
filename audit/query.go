package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

	// maxScan is how much of the log one query looks at, in bytes.
	maxScan = 64 << 20

	queryBlock = 256 << 10
)

// Query says which records.
type Query struct {
	// Filters maps the name of a top-level field or of a field of context
	// to the value it must have, there or there. A number is compared by its
	// digits. A value longer than MaxText is compared as a record keeps it.
	Filters map[string]string

	// Since and Until bound the time of records in milliseconds, both
	// inclusive; 0 does not.
	Since, Until int64

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
}

// Query returns the newest records that match, and sees every record that
// was enqueued or acknowledged before. While the log cannot be written and
// records wait, the error is ErrUnavailable and the result is what there is
// without those.
func (l *Log) Query(ctx context.Context, q Query) (Result, error) {
	unavailable := l.barrier(ctx)
	s := search{ctx: ctx, fs: l.opts.fs, limit: q.Limit, since: q.Since, until: q.Until, before: q.Before, budget: maxScan}
	if s.limit <= 0 {
		s.limit = DefaultLimit
	}
	s.limit = min(s.limit, MaxLimit)
	for field, value := range q.Filters {
		m, err := newMatcher(field, value)
		if err != nil {
			return Result{}, err
		}
		s.filters = append(s.filters, m)
	}
	// The longest is likely the rarest.
	slices.SortFunc(s.filters, func(a, b matcher) int { return len(b.text) - len(a.text) })

	view := l.view.snapshot()
	if view.cur == nil {
		return Result{}, ErrClosed
	}
	defer view.cur.release()
	if err := s.run(view); err != nil {
		return Result{}, fmt.Errorf("audit query: %w", err)
	}
	slices.Reverse(s.found)
	return Result{Lines: s.found, Next: s.next}, unavailable
}

// ErrFilter is wrapped if a filter names what cannot be a field.
var ErrFilter = errors.New("not a field of an audit record")

// matcher is one filter.
type matcher struct {
	field, value string
	text, digits []byte // "field":"value" and "field":value; nil if it cannot be
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

// search is a query at work, from the newest record to older ones.
type search struct {
	ctx          context.Context
	fs           fsys
	filters      []matcher
	since, until int64
	before       uint64
	limit        int
	budget       int64

	found [][]byte // newest first
	next  uint64
	end   bool
}

func (s *search) run(v snapshot) error {
	if v.first != 0 {
		if err := s.file(v.cur, v.first, v.size); err != nil {
			return err
		}
	}
	for _, p := range slices.Backward(v.sealed) {
		if s.end {
			break
		}
		if err := s.sealed(p); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if s.next == 1 { // nothing is before the first
		s.next = 0
	}
	return nil
}

func (s *search) sealed(p part) error {
	if s.before != 0 && s.before <= p.first {
		return nil
	}
	f, err := s.fs.OpenRead(p.name)
	if err != nil {
		return err
	}
	defer f.Close()
	return s.file(f, p.first, p.size)
}

// file searches the first size bytes of f backwards, block by block.
func (s *search) file(f io.ReaderAt, first uint64, size int64) error {
	if s.before != 0 {
		if s.before <= first {
			return nil
		}
		var err error
		if size, err = seekSeq(f, size, s.before); err != nil {
			return err
		}
	}
	want := int64(queryBlock)
	buf := make([]byte, 0, queryBlock)
	for size > 0 && !s.end {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		n := min(want, size)
		buf = slices.Grow(buf[:0], int(n))[:n]
		if m, err := f.ReadAt(buf, size-n); err != nil && int64(m) < n {
			return fmt.Errorf("read: %w", err)
		}
		lines := buf
		if n < size { // the first line may have begun before
			i := bytes.IndexByte(buf, '\n')
			if i < 0 || i == len(buf)-1 {
				want *= 2
				continue
			}
			lines = buf[i+1:]
		}
		s.block(lines)
		size -= int64(len(lines))
		s.budget -= int64(len(lines))
		want = queryBlock
		if s.budget <= 0 && !s.end {
			s.end = true
			if seq, _, ok := parseTail(firstLine(lines)); ok {
				s.next = seq
			}
		}
	}
	return nil
}

func firstLine(b []byte) []byte {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i]
	}
	return b
}

// block searches whole lines, the last first.
func (s *search) block(b []byte) {
	for i := range s.filters {
		if !s.filters[i].maybe(b) {
			return
		}
	}
	for end := len(b); end > 0; {
		start := bytes.LastIndexByte(b[:end-1], '\n') + 1
		line := b[start : end-1]
		end = start
		if !s.match(line) {
			continue
		}
		s.found = append(s.found, bytes.Clone(line))
		if len(s.found) == s.limit {
			s.end = true
			if seq, _, ok := parseTail(line); ok {
				s.next = seq
			}
			return
		}
	}
}

func (s *search) match(line []byte) bool {
	for i := range s.filters {
		if !s.filters[i].match(line) {
			return false
		}
	}
	if s.since != 0 || s.until != 0 {
		ts, _, ok := parseHead(line)
		if !ok || s.since != 0 && ts < s.since || s.until != 0 && ts > s.until {
			return false
		}
	}
	return true
}

// seekSeq returns where in the first size bytes of f, which are whole lines,
// the first line with a seq of at least seq begins; size if there is none.
func seekSeq(f io.ReaderAt, size int64, seq uint64) (int64, error) {
	lo, hi := int64(0), size // both are where lines begin; the answer is in [lo, hi]
	for lo < hi {
		// The line that begins first behind the middle, or the one at lo.
		mid := lo + (hi-lo)/2
		at := lo
		if mid > lo {
			l, err := lineAt(f, mid)
			if err != nil {
				return 0, err
			}
			if at = mid + int64(len(l)) + 1; at >= hi {
				at = lo
			}
		}
		line, err := lineAt(f, at)
		if err != nil {
			return 0, err
		}
		got, _, ok := parseTail(line)
		if !ok {
			return 0, fmt.Errorf("no record at byte %d", at)
		}
		switch {
		case got < seq:
			lo = at + int64(len(line)) + 1
		case at == lo:
			return lo, nil
		default:
			hi = at
		}
	}
	return lo, nil
}
