package vault

import (
	"bytes"
	"context"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/gjson"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token"
)

// budgetGrace is how long a budget is remembered after its token's end, for
// clocks; budgetKeep how long one is of which the end is not known. No token
// lives as long, so that its count is never forgotten before it.
const (
	budgetGrace = 2 * time.Minute
	budgetKeep  = token.MaxTTL + budgetGrace
)

// budgetShards is a power of two.
const budgetShards = 64

// budgets count what tokens with a budget have spent. They outlive
// configurations, and are built again from the audit log after a restart.
type budgets struct {
	now    func() time.Time
	shards [budgetShards]struct {
		mu    sync.Mutex
		m     map[string]*budget // by tokenId
		sweep int                // look for what is over at this size
	}
}

// budget is what one token has spent.
type budget struct {
	mu      sync.Mutex // of calls
	calls   int64
	bytes   atomic.Int64
	expires time.Time
}

func newBudgets(now func() time.Time) *budgets {
	b := &budgets{now: now}
	for i := range b.shards {
		b.shards[i].m = make(map[string]*budget)
	}
	return b
}

// fnv is FNV-1a.
func fnv(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

// of returns the budget of a token that ends at a time, zero if that is not
// known.
func (b *budgets) of(id string, ends time.Time) *budget {
	s := &b.shards[fnv(id)%budgetShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	now := b.now()
	until := ends.Add(budgetGrace)
	if ends.IsZero() {
		until = now.Add(budgetKeep)
	}
	if e := s.m[id]; e != nil {
		if until.After(e.expires) {
			e.expires = until
		}
		return e
	}
	if len(s.m) >= s.sweep {
		for id, e := range s.m {
			if now.After(e.expires) {
				delete(s.m, id)
			}
		}
		s.sweep = 2*len(s.m) + 16
	}
	e := &budget{expires: until}
	s.m[id] = e
	return e
}

// limit is one budget that calls of a token count against.
type limit struct {
	*budget
	id                 string
	maxCalls, maxBytes int64 // 0 for no bound
	oneTime            bool
}

// limits are the budgets of a token and of those above it, the topmost first:
// all tokens of a family lock them in one order.
type limits []limit

func (b *budgets) limits(c *token.Claims) limits {
	var out limits
	for i := len(c.Chain) - 1; i >= 0; i-- {
		if a := c.Chain[i]; a.MaxCalls > 0 || a.MaxBytes > 0 {
			out = append(out, limit{b.of(a.ID, time.Time{}), a.ID, a.MaxCalls, a.MaxBytes, false})
		}
	}
	if l := c.Limits; l.Budgeted() {
		out = append(out, limit{b.of(c.ID, c.ExpiresAt), c.ID, l.MaxCalls, l.MaxBytes, l.OneTime})
	}
	return out
}

// reserve takes one call out of every budget, or out of none.
func (l limits) reserve() *refusal.Refusal {
	for i := range l {
		l[i].mu.Lock()
		defer l[i].mu.Unlock()
	}
	for i := range l {
		if refused := l[i].spent(); refused != nil {
			return refused
		}
	}
	for i := range l {
		l[i].calls++
	}
	return nil
}

// over reports whether no further call may start.
func (l limits) over() bool {
	for i := range l {
		l[i].mu.Lock()
		refused := l[i].spent()
		l[i].mu.Unlock()
		if refused != nil {
			return true
		}
	}
	return false
}

// spent says why no further call may start. l is locked.
func (l *limit) spent() *refusal.Refusal {
	switch {
	case l.oneTime && l.calls >= 1:
		return refusal.New("TOKEN_REPLAYED", "the token was good for one call, which it has made").WithHint("issue a new token")
	case l.maxCalls > 0 && l.calls >= l.maxCalls:
		return exhausted("calls")
	case l.maxBytes > 0 && l.bytes.Load() >= l.maxBytes:
		return exhausted("bytes")
	}
	return nil
}

func exhausted(of string) *refusal.Refusal {
	return refusal.New("BUDGET_EXHAUSTED", "the token's budget of %s is spent", of).
		WithHint("the same token will not do again: issue a new one")
}

// release gives back a call that did not start.
func (l limits) release() {
	for i := range l {
		l[i].mu.Lock()
		l[i].calls--
		l[i].mu.Unlock()
	}
}

// ids are the tokens whose budgets a call counts against, as it is recorded.
func (l limits) ids() []string {
	ids := make([]string, len(l))
	for i := range l {
		ids[i] = l[i].id
	}
	return ids
}

// meter returns a context that ends, and a function that fails, once more
// bytes have passed than there are; it is nil if bytes are not counted.
func (l limits) meter(ctx context.Context) (context.Context, func(n int) error) {
	counted := false
	for i := range l {
		counted = counted || l[i].maxBytes > 0
	}
	if !counted {
		return ctx, nil
	}
	ctx, cut := context.WithCancelCause(ctx)
	return ctx, func(n int) error {
		over := false
		for i := range l {
			v := l[i].bytes.Add(int64(n))
			over = over || l[i].maxBytes > 0 && v > l[i].maxBytes
		}
		if !over {
			return nil
		}
		refused := exhausted("bytes")
		cut(refused)
		return refused
	}
}

// A budgetReplay counts, while the audit log is read at the start, what tokens
// that may still be alive have spent.
type budgetReplay struct {
	b     *budgets
	since int64               // milliseconds
	open  map[string][]string // what calls without an end count against
}

func newBudgetReplay(b *budgets) *budgetReplay {
	return &budgetReplay{b: b, since: b.now().Add(-budgetKeep).UnixMilli(), open: map[string][]string{}}
}

var spendsKey = []byte(`,"spends":["`)

// spends returns the ids in a record, if it is a new one and has some. Almost
// all records are told by their first bytes.
func (r *budgetReplay) spends(line []byte) (ids []string) {
	if !since(line, r.since) || !bytes.Contains(line, spendsKey) {
		return nil
	}
	for _, id := range gjson.GetBytes(line, "spends").Array() {
		ids = append(ids, id.Str)
	}
	return ids
}

// since reports whether a record is not older than a time in milliseconds.
func since(line []byte, ms int64) bool {
	const head = len(`{"ts":`)
	if len(line) < head+14 {
		return false
	}
	digits, _, _ := bytes.Cut(line[head:head+14], []byte{','})
	ts, err := strconv.ParseInt(string(digits), 10, 64)
	return err == nil && ts >= ms
}

// charged is told every request that was let onto a site.
func (r *budgetReplay) charged(line []byte) { r.count(r.spends(line)) }

func (r *budgetReplay) count(ids []string) {
	for _, id := range ids {
		r.b.of(id, time.Time{}).calls++
	}
}

// started is told every proxy.call.started, ended every proxy.call.
func (r *budgetReplay) started(line []byte) {
	ids := r.spends(line)
	if ids == nil {
		return
	}
	r.count(ids)
	r.open[gjson.GetBytes(line, "callId").Str] = ids
}

func (r *budgetReplay) ended(line []byte) {
	ids := r.spends(line)
	if ids == nil {
		return
	}
	n := gjson.GetBytes(line, "requestBytes").Int() + gjson.GetBytes(line, "responseBytes").Int()
	for _, id := range ids {
		r.b.of(id, time.Time{}).bytes.Add(n)
	}
	delete(r.open, gjson.GetBytes(line, "callId").Str)
}

// done is told that the log has been read. How many bytes a call has moved
// that a crash ended is not known, so its budget of bytes is spent.
func (r *budgetReplay) done() {
	for _, ids := range r.open {
		for _, id := range ids {
			r.b.of(id, time.Time{}).bytes.Store(math.MaxInt64 / 2)
		}
	}
}
