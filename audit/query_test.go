package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func seqs(t *testing.T, lines [][]byte) []uint64 {
	t.Helper()
	var out []uint64
	for _, line := range lines {
		seq, _, ok := parseTail(line)
		if !ok {
			t.Fatalf("not a line: %q", line)
		}
		out = append(out, seq)
	}
	return out
}

func TestQuery(t *testing.T) {
	long := strings.Repeat("é", 300)
	l := open(t, Options{Dir: t.TempDir(), CheckpointEvery: -1})
	at := func(ms int64) time.Time { return time.UnixMilli(ms) }
	for _, r := range []Record{
		{Time: at(100), Event: "a", Context: &Context{AgentID: "tony", SessionID: "s1"}},    // 1
		{Time: at(200), Event: "b", Context: &Context{AgentID: "steve"}, Status: 200},       // 2
		{Time: at(300), Event: "a", AgentID: "tony", Reason: `said "agentId":"steve"`},      // 3
		{Time: at(400), Event: "a", Service: "tony"},                                        // 4
		{Time: at(500), Event: "c", Context: &Context{AgentID: "x\n\"y\u2028"}},             // 5
		{Time: at(600), Event: "c", Context: &Context{AgentID: long}, Scope: []string{"a"}}, // 6
		{Time: at(700), Event: "c", Status: 2000, TokenID: "200"},                           // 7
	} {
		appendOK(t, l, r)
	}
	f := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	for _, c := range []struct {
		name string
		q    Query
		want []uint64
		next uint64
	}{
		{"all", Query{}, []uint64{1, 2, 3, 4, 5, 6, 7}, 0},
		{"newest, oldest first", Query{Limit: 2}, []uint64{6, 7}, 6},
		{"before", Query{Limit: 2, Before: 6}, []uint64{4, 5}, 4},
		{"before, to the first", Query{Limit: 3, Before: 4}, []uint64{1, 2, 3}, 0},
		{"before the first", Query{Before: 1}, nil, 0},
		{"before what is to come", Query{Before: 1000, Limit: 1}, []uint64{7}, 7},
		{"event", Query{Filters: f("event", "a")}, []uint64{1, 3, 4}, 0},
		{"context and top level", Query{Filters: f("agentId", "tony")}, []uint64{1, 3}, 0},
		{"not within a value", Query{Filters: f("agentId", "steve")}, []uint64{2}, 0},
		{"two filters", Query{Filters: f("agentId", "tony", "event", "a", "sessionId", "s1")}, []uint64{1}, 0},
		{"escaped", Query{Filters: f("agentId", "x\n\"y\u2028")}, []uint64{5}, 0},
		{"longer than a record keeps", Query{Filters: f("agentId", long)}, []uint64{6}, 0},
		{"number", Query{Filters: f("status", "200")}, []uint64{2}, 0},
		{"digits in a string", Query{Filters: f("tokenId", "200")}, []uint64{7}, 0},
		{"seq", Query{Filters: f("seq", "3")}, []uint64{3}, 0},
		{"array", Query{Filters: f("scope", "a")}, nil, 0},
		{"unknown field", Query{Filters: f("nothing", "a")}, nil, 0},
		{"prefix of a value", Query{Filters: f("agentId", "ton")}, nil, 0},
		{"since", Query{Since: 500}, []uint64{5, 6, 7}, 0},
		{"until", Query{Until: 200}, []uint64{1, 2}, 0},
		{"since and until", Query{Since: 200, Until: 400, Limit: 2}, []uint64{3, 4}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, err := l.Query(context.Background(), c.q)
			if err != nil {
				t.Fatal(err)
			}
			if got := seqs(t, res.Lines); !slices.Equal(got, c.want) || res.Next != c.next {
				t.Fatalf("got %v, next %d", got, res.Next)
			}
		})
	}
	for _, field := range []string{"", "context.agentId", "a|b", "#", "*", "@this", `a\b`, strings.Repeat("a", 65)} {
		if _, err := l.Query(context.Background(), Query{Filters: f(field, "x")}); !errors.Is(err, ErrFilter) {
			t.Errorf("filter %q: %v", field, err)
		}
	}
}

// TestQueryPages pages through many segments, in pages of every size, and
// compares with what was written.
func TestQueryPages(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, CheckpointEvery: -1, SegmentSize: 40_000})
	const n = 1500
	for i := range n {
		r := Record{Event: "test", CallID: fmt.Sprint(i), Service: []string{"a", "b", "c"}[i%3]}
		if i%100 == 7 { // longer than a block of the search
			for range MaxScopes {
				r.Scope = append(r.Scope, strings.Repeat("\u202e", MaxText))
			}
		}
		if err := l.Enqueue(Entry{Record: r}); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []int{5, 100, 1000} {
		var got []string
		q := Query{Filters: map[string]string{"service": "b"}, Limit: limit}
		for {
			res, err := l.Query(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range slices.Backward(res.Lines) {
				id, _ := fieldString(line, callIDKey)
				got = append(got, string(id))
			}
			if q.Before = res.Next; q.Before == 0 {
				break
			}
		}
		slices.Reverse(got)
		if len(got) != n/3 {
			t.Fatalf("limit %d: %d records", limit, len(got))
		}
		for i, id := range got {
			if id != fmt.Sprint(i*3+1) {
				t.Fatalf("limit %d: record %d is %s", limit, i, id)
			}
		}
	}
	// Byte for byte.
	res, err := l.Query(context.Background(), Query{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	all := logLines(t, dir)
	for i, line := range res.Lines {
		if want := all[len(all)-len(res.Lines)+i]; string(line) != want {
			t.Fatalf("%s\nis not\n%s", line, want)
		}
	}
}

// TestQueryBound looks at a bounded stretch of the log.
func TestQueryBound(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir(), CheckpointEvery: -1, SegmentSize: 100_000})
	for range 3000 {
		if err := l.Enqueue(Entry{Record: Record{Event: "test"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.barrier(context.Background()); err != nil {
		t.Fatal(err)
	}
	v := l.view.snapshot()
	defer v.cur.release()
	unindexed, err := newFilters(map[string]string{"callId": "none"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var before uint64
	for rounds := 0; ; rounds++ {
		s := search{ctx: context.Background(), l: l, limit: 10, before: before, budget: 10_000, filters: unindexed}
		if err := s.run(v, nil); err != nil {
			t.Fatal(err)
		}
		if s.next == 0 {
			if rounds < 2 {
				t.Fatalf("only %d rounds", rounds)
			}
			break
		}
		if before != 0 && s.next >= before || rounds > 1000 {
			t.Fatalf("no progress: before %d, next %d", before, s.next)
		}
		before = s.next
	}
}

// TestQuerySeesEnqueued has callers who each look for what they have just
// enqueued, while segments are sealed.
func TestQuerySeesEnqueued(t *testing.T) {
	for _, d := range []Durability{Sync, Async} {
		l := open(t, Options{Dir: t.TempDir(), CheckpointEvery: -1, SegmentSize: 5000, Durability: d, Deadline: closeWait})
		var wg sync.WaitGroup
		for c := range 16 {
			wg.Go(func() {
				for i := range 20 {
					id := fmt.Sprintf("%d-%d", c, i)
					if err := l.Enqueue(Entry{Record: Record{Event: "test", CallID: id}}); err != nil {
						t.Error(err)
						return
					}
					res, err := l.Query(context.Background(), Query{Filters: map[string]string{"callId": id}})
					if err != nil || len(res.Lines) != 1 {
						t.Errorf("%s: %q, %v", id, res.Lines, err)
						return
					}
				}
			})
		}
		wg.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestQueryWithout leaves out records of one event, and pages on over them.
func TestQueryWithout(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir(), Deadline: closeWait, CheckpointEvery: -1})
	for i := range 30 {
		event := "test"
		if i%3 > 0 {
			event = EventCheckpoint
		}
		appendOK(t, l, Record{Event: event, CallID: "c"})
	}
	for _, q := range []Query{{}, {Filters: map[string]string{"callId": "c"}}} {
		q.Without, q.Limit = EventCheckpoint, 4
		n := 0
		for {
			res, err := l.Query(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range res.Lines {
				if LineEvent(line) != "test" {
					t.Fatalf("%s", line)
				}
				n++
			}
			if q.Before = res.Next; res.Next == 0 {
				break
			}
		}
		if n != 10 {
			t.Errorf("%d records of 10", n)
		}
	}
}
