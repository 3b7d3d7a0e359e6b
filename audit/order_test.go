package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyvault/caddyvault/audit/ordercheck"
)

// TestOrder has 64 callers start calls of tokens that others revoke: in the
// log's own order no call starts after its token's revocation, and no guard
// saw a revocation before it had its number.
func TestOrder(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, SegmentSize: 200_000, Deadline: closeWait})
	const tokens, callers, revocations = 30_000, 64, 10_000
	var revoked [tokens]atomic.Bool
	var denied, passed atomic.Int64
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := c; i < 4*revocations; i += callers {
				// A few callers at a time have to do with the same token.
				n := i / 8 % tokens
				id := fmt.Sprint("token-", n)
				if i%4 == 1 {
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
	lines := logLines(t, dir)
	sum, err := ordercheck.Check(strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	if int64(sum.Started) != passed.Load() || int64(sum.Denied) != denied.Load() || sum.Denied == 0 || sum.Started == 0 || sum.Revoked != revocations {
		t.Fatalf("%+v, %d passed, %d denied", sum, passed.Load(), denied.Load())
	}
	// The checker is one that can find something: with the revocation of a
	// token that had started a call moved before everything, it does.
	started := make(map[string]bool)
	for _, line := range lines {
		id, _ := fieldString([]byte(line), `"tokenId":"`)
		switch {
		case strings.Contains(line, `"event":"`+EventCallStarted+`"`):
			started[string(id)] = true
		case strings.Contains(line, `"event":"token.revoked"`) && started[string(id)]:
			if _, err := ordercheck.Check(strings.NewReader(line + "\n" + strings.Join(lines, "\n"))); err == nil {
				t.Fatal("a revocation before everything goes unnoticed")
			}
			return
		}
	}
	t.Fatal("no call was started before its token's revocation")
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
