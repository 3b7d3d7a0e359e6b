package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// Of a stream of audit records.
const (
	streamHeartbeat = 15 * time.Second // at least so often something is sent
	streamCheck     = time.Second      // so often it is looked whether it may go on
	streamWrite     = 30 * time.Second // a client that takes nothing for so long is gone
)

// streamRequest is what the query of GET /vault.audit.stream asks for.
type streamRequest struct {
	audit.FollowOptions
	resume bool // After is given
	last   int  // how many older records come first
	once   bool // ends with what is there
}

// parseStream reads the query and the header Last-Event-ID. A parameter that
// is none of the stream's own is a filter.
func parseStream(rawQuery string, lastEventID []string) (s streamRequest, _ *refusal.Refusal) {
	values, err := url.ParseQuery(rawQuery)
	if err != nil {
		return s, refusal.New("QUERY_INVALID", "the query string is not well formed")
	}
	s.Filters = make(map[string]string)
	number := func(name, text string, least, most int64) (int64, *refusal.Refusal) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < least || n > most || strconv.FormatInt(n, 10) != text {
			return 0, fieldInvalid(name, "%s is a whole number, at least %d and at most %d", name, least, most)
		}
		return n, nil
	}
	for name, given := range values {
		if len(given) > 1 {
			return s, refusal.New("QUERY_INVALID", "a parameter is given twice")
		}
		var n int64
		var refused *refusal.Refusal
		switch value := given[0]; name {
		case "since":
			s.Since, refused = number(name, value, 1, maxInteger)
		case "until":
			s.Until, refused = number(name, value, 1, maxInteger)
		case "after":
			n, refused = number(name, value, 0, maxInteger)
			s.After, s.resume = uint64(n), true
		case "last":
			n, refused = number(name, value, 0, queryLimitMax)
			s.last = int(n)
		case "follow":
			if value != "true" && value != "false" {
				refused = fieldInvalid(name, "follow is true or false")
			}
			s.once = value == "false"
		default:
			s.Filters[name] = value
		}
		if refused != nil {
			return s, refused
		}
	}
	if len(lastEventID) > 0 {
		n, refused := number("lastEventId", lastEventID[0], 0, maxInteger)
		if refused != nil || len(lastEventID) > 1 {
			return s, fieldInvalid("lastEventId", "the header Last-Event-ID is one seq")
		}
		s.After, s.resume = uint64(n), true
	}
	return s, nil
}

// auditStream answers GET /vault.audit.stream with server-sent events.
func auditStream(rq *request, _ []byte) *refusal.Refusal {
	if rq.Method != http.MethodGet {
		rq.w.Header().Set("Allow", http.MethodGet)
		return refusal.New("METHOD_NOT_ALLOWED", "this route takes GET")
	}
	in, refused := parseStream(rq.URL.RawQuery, rq.Header["Last-Event-Id"])
	if refused != nil {
		return refused
	}
	if refused := vault.CheckFilters(in.Filters); refused != nil {
		return refused
	}
	// Recorded before it is known where it begins, the watching shows only to
	// who asks for older records.
	rq.record.Event = "admin.auditStream"
	rq.record.Client = rq.clientText()
	rq.record.RequestID = rq.requestID()
	if refused := rq.vault.RecordAdmin(rq.Context(), rq.record); refused != nil {
		return refused
	}
	// What was answered before must be there, whoever asks.
	q := audit.Query{Filters: in.Filters, Since: in.Since, Until: in.Until, Limit: max(1, in.last)}
	if in.last == 0 || in.resume {
		q.Limit, q.Filters = 1, map[string]string{"seq": "0"} // nothing
	}
	older, refused := rq.vault.Query(rq.Context(), vault.Caller{Trusted: true}, q)
	if refused != nil {
		return refused
	}
	end := older.Seq
	if !in.resume && (in.last > 0 || in.Since == 0 && !in.once) {
		in.After = end
	}
	f, done, refused := rq.vault.Follow(in.FollowOptions)
	if refused != nil {
		return refused
	}
	defer done()
	s := &eventStream{rq: rq, rc: http.NewResponseController(rq.w), follower: f}
	h := rq.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no")
	rq.w.WriteHeader(http.StatusOK)
	defer func() { _ = s.rc.SetWriteDeadline(time.Time{}) }()
	if in.last > 0 && !in.resume {
		s.records(older.Lines)
	}
	s.seq = in.After
	s.run(in.once, end)
	return nil
}

// eventStream writes records as server-sent events (HTML, section 9.2).
type eventStream struct {
	rq       *request
	rc       *http.ResponseController
	follower *audit.Follower

	seq     uint64 // looked at
	buf     []byte
	written time.Time
	checked time.Time
}

func (s *eventStream) records(lines [][]byte) {
	for _, line := range lines {
		seq, _ := audit.LineSeq(line)
		s.buf = fmt.Appendf(s.buf, "id: %d\ndata: ", seq)
		s.buf = append(append(s.buf, line...), "\n\n"...)
	}
}

// flush sends what is gathered; it reports whether the client took it.
func (s *eventStream) flush() bool {
	_ = s.rc.SetWriteDeadline(time.Now().Add(streamWrite))
	_, err := s.rq.w.Write(s.buf)
	if err == nil {
		err = s.rc.Flush()
	}
	s.buf, s.written = s.buf[:0], time.Now()
	return err == nil
}

// mayGoOn looks, not too often, whether the server is ending or the admin
// token is another now.
func (s *eventStream) mayGoOn() bool {
	if time.Since(s.checked) < streamCheck {
		return true
	}
	s.checked = time.Now()
	return (s.rq.server.Exiting == nil || !s.rq.server.Exiting()) && s.rq.vault.AdminCurrent()
}

// run sends records until it may not go on; once, until those up to end are
// sent.
func (s *eventStream) run(once bool, end uint64) {
	s.buf = append(s.buf, ": audit records\n\n"...)
	if !s.flush() {
		return
	}
	for s.mayGoOn() {
		if once && s.seq >= end {
			s.buf = fmt.Appendf(s.buf, "id: %d\nevent: end\ndata: {}\n\n", s.seq)
			s.flush()
			return
		}
		ctx, cancel := context.WithTimeout(s.rq.Context(), streamCheck)
		b, err := s.follower.Next(ctx)
		cancel()
		if err != nil && (!errors.Is(err, context.DeadlineExceeded) || s.rq.Context().Err() != nil) {
			return
		}
		if b.Missing != [2]uint64{} {
			s.buf = fmt.Appendf(s.buf, "id: %d\nevent: missing\ndata: {\"firstSeq\":%d,\"lastSeq\":%d}\n\n", b.Missing[1], b.Missing[0], b.Missing[1])
		}
		s.records(b.Lines)
		s.seq = max(s.seq, b.Seq)
		if len(s.buf) == 0 && time.Since(s.written) >= streamHeartbeat {
			// An id without data tells where to resume, and is no event.
			s.buf = fmt.Appendf(s.buf, ": still here\nid: %d\n\n", s.seq)
		}
		if len(s.buf) > 0 && !s.flush() {
			return
		}
	}
}
