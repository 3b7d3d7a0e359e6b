package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// TestOrder has 64 callers start calls of tokens that others revoke: in the
// log's own order no call starts after its token's revocation, and no guard
// saw a revocation before it had its number.
func TestOrder(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, SegmentSize: 200_000, Deadline: closeWait})
	const tokens = 200
	var revoked [tokens]atomic.Bool
	var denied, passed atomic.Int64
	var wg sync.WaitGroup
	for c := range 64 {
		wg.Go(func() {
			for i := range 100 {
				n := (c*31 + i) % tokens
				id := fmt.Sprint("token-", n)
				if i%10 == 9 {
					_, err := l.Append(context.Background(), Entry{
						Record:  Record{Event: "token.revoked", TokenID: id},
						InForce: func() { revoked[n].Store(true) },
					})
					if err != nil {
						t.Error(err)
					}
					if !revoked[n].Load() {
						t.Error("acknowledged, and not in force")
					}
					continue
				}
				seq, err := l.Append(context.Background(), Entry{
					Record: Record{Event: EventCallStarted, TokenID: id, CallID: fmt.Sprintf("%d-%d", c, i)},
					Guard: func() string {
						if revoked[n].Load() {
							return "TOKEN_REVOKED"
						}
						return ""
					},
				})
				var d *Denied
				switch {
				case errors.As(err, &d) && d.Code == "TOKEN_REVOKED" && seq > 0:
					denied.Add(1)
				case err == nil:
					passed.Add(1)
					if err := l.Enqueue(Entry{Record: Record{Event: EventCall, TokenID: id, CallID: fmt.Sprintf("%d-%d", c, i)}}); err != nil {
						t.Error(err)
					}
				default:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	verifyOK(t, dir)
	gone := map[string]bool{}
	var started, refused int64
	for i, line := range logLines(t, dir) {
		_, event, _ := parseHead([]byte(line))
		id, _ := fieldString([]byte(line), `"tokenId":"`)
		switch string(event) {
		case "token.revoked":
			gone[string(id)] = true
		case EventCallStarted:
			started++
			if gone[string(id)] {
				t.Fatalf("record %d starts a call of a revoked token", i+1)
			}
		case EventCallDenied:
			refused++
			if !gone[string(id)] || !strings.Contains(line, `"error":"TOKEN_REVOKED"`) {
				t.Fatalf("record %d: %s", i+1, line)
			}
		}
	}
	if started != passed.Load() || refused != denied.Load() || refused == 0 || started == 0 {
		t.Fatalf("%d of %d started, %d of %d denied", started, passed.Load(), refused, denied.Load())
	}
}

// TestGuards are the ends that a guard can come to.
func TestGuards(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	inForce := false
	for _, c := range []struct {
		name        string
		entry       Entry
		code, event string
	}{
		{"passes", Entry{Record: Record{Event: EventCallStarted}, Guard: func() string { return "" }}, "", EventCallStarted},
		{"denies", Entry{Record: Record{Event: EventCallStarted}, Guard: func() string { return "A:b" }}, "A:b", EventCallDenied},
		{"denies under another event", Entry{Record: Record{Event: "x"}, Guard: func() string { return "A" }, DeniedEvent: "y.no"}, "A", "y.no"},
		{"replaces an error", Entry{Record: Record{Event: "x", Error: "OLD"}, Guard: func() string { return "NEW" }}, "NEW", "x.denied"},
		{"denies what it puts in force", Entry{Record: Record{Event: "x"}, Guard: func() string { return "A" }, InForce: func() { inForce = true }}, "A", "x.denied"},
		{"panics", Entry{Record: Record{Event: "x"}, Guard: func() string { panic("no") }}, "INTERNAL", "x.denied"},
		{"hook panics", Entry{Record: Record{Event: "x"}, InForce: func() { panic("no") }}, "", "x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := l.Append(context.Background(), c.entry)
			var d *Denied
			if c.code == "" && err != nil || c.code != "" && (!errors.As(err, &d) || d.Code != c.code) {
				t.Fatal(err)
			}
			res, err := l.Query(context.Background(), Query{Limit: 1})
			if err != nil {
				t.Fatal(err)
			}
			line := string(res.Lines[0])
			if !strings.Contains(line, `"event":"`+c.event+`"`) || strings.Count(line, `"error":`) != min(1, len(c.code)) ||
				c.code != "" && !strings.Contains(line, `"error":"`+c.code+`"`) {
				t.Fatal(line)
			}
		})
	}
	if inForce {
		t.Fatal("a denied record was put into force")
	}
}
