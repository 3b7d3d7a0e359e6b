package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
)

const (
	// silence is how long a stream may say nothing; the vault says something
	// every 15 seconds.
	silence = time.Minute

	maxRecord = 1 << 20
)

// auditStream follows GET /vault.audit.stream from where it broke off until
// ctx ends or, with follow=false in the query, everything was sent.
type auditStream struct {
	c     *client
	token string
	query url.Values
	once  bool

	lastID    string
	connected bool // at least once
	moved     bool // since it connected last

	// record is given every record, missing is told of those that are gone.
	record  func(line []byte) error
	missing func(first, last uint64)
}

// run connects, and connects again after what a person would try again after.
func (s *auditStream) run(ctx context.Context) error {
	const pause, attempts = time.Second, 10
	for failed := 0; ; {
		s.moved = false
		again, err := s.read(ctx)
		if !again || ctx.Err() != nil {
			return err
		}
		if s.moved {
			failed = 0
		}
		if failed++; !s.connected || s.once && failed > attempts {
			return err
		}
		if failed == 1 {
			fmt.Fprintf(s.c.t.err, "%s; trying again\n", plain(err.Error()))
		}
		timer := time.NewTimer(min(time.Duration(failed)*pause, 10*pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// read reads one connection; again says that another may do better.
func (s *auditStream) read(ctx context.Context) (again bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	query := s.query
	header := http.Header{"Accept": {"text/event-stream"}}
	if s.lastID != "" {
		header.Set("Last-Event-ID", s.lastID)
	}
	res, err := s.c.get(ctx, "/vault.audit.stream?"+query.Encode(), s.token, header)
	if err != nil {
		return true, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(io.LimitReader(res.Body, maxInput))
		return res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests, s.c.refused(res, answer)
	}
	s.connected = true
	quiet := time.AfterFunc(silence, func() { cancel(errors.New("the stream went silent")) })
	defer quiet.Stop()
	in := bufio.NewReaderSize(res.Body, 64<<10)
	var id, kind string
	var data []byte
	for {
		line, err := readLine(in)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
				err = cause
			}
			return true, refusal.New("ANSWER_INCOMPLETE", "the stream of %s broke off: %s", s.c.base, err)
		}
		quiet.Reset(silence)
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "id":
			id = string(value)
		case "event":
			kind = string(value)
		case "data":
			data = append(data[:0], value...)
		}
		if len(line) > 0 {
			continue
		}
		if done, err := s.event(kind, data); done || err != nil {
			return false, err
		}
		if id != "" && id != s.lastID {
			s.lastID, s.moved = id, true
		}
		kind, data = "", data[:0]
	}
}

// event takes one event; done says that there are no more.
func (s *auditStream) event(kind string, data []byte) (done bool, err error) {
	switch {
	case kind == "end":
		return true, nil
	case kind == "missing":
		var m struct {
			First uint64 `json:"firstSeq"`
			Last  uint64 `json:"lastSeq"`
		}
		if err := decodeAnswer(data, &m); err != nil {
			return false, err
		}
		s.missing(m.First, m.Last)
	case kind == "" && len(data) > 0:
		return false, s.record(data)
	}
	return false, nil
}

// readLine reads a line of a bounded length, without its end.
func readLine(in *bufio.Reader) ([]byte, error) {
	var long []byte
	for {
		b, err := in.ReadSlice('\n')
		if err == nil && long == nil {
			return bytes.TrimRight(b, "\r\n"), nil
		}
		long = append(long, b...)
		switch {
		case err == nil:
			return bytes.TrimRight(long, "\r\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(long) > maxRecord:
			return nil, errors.New("a line without end")
		}
	}
}

// stream makes a stream for a selection.
func (t *terminal) stream(s selection, record func([]byte) error) (*auditStream, error) {
	c, err := t.client()
	if err != nil {
		return nil, err
	}
	token, err := t.adminToken()
	if err != nil {
		return nil, err
	}
	return &auditStream{c: c, token: token, query: s.query(), record: record, missing: func(first, last uint64) {
		fmt.Fprintf(t.err, "warning: the records %d to %d are no longer kept\n", first, last)
	}}, nil
}

// setLast begins with the newest n records that match.
func (s *auditStream) setLast(n uint64) { s.query.Set("last", strconv.FormatUint(n, 10)) }

// setOnce ends with what is there.
func (s *auditStream) setOnce() { s.once = true; s.query.Set("follow", "false") }
