package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// BenchmarkQuery answers queries from a log of 200,000 records, or of as many
// as CADDYVAULT_RECORDS says; CADDYVAULT_RECORDS_DIR keeps it for the next
// run. Beside it stands decoding every line, as a log without indexes has to. With "dropped cache"
// the system has forgotten the files.
func BenchmarkQuery(b *testing.B) {
	records := 200_000
	if n := os.Getenv("CADDYVAULT_RECORDS"); n != "" {
		var err error
		if records, err = strconv.Atoi(n); err != nil {
			b.Fatal(err)
		}
	}
	dir := filepath.Join(b.TempDir(), "log")
	if kept := os.Getenv("CADDYVAULT_RECORDS_DIR"); kept != "" {
		dir = filepath.Join(kept, strconv.Itoa(records))
	}
	if _, err := os.Stat(dir); err != nil {
		benchLog(b, dir, records)
	}
	l := open(b, Options{Dir: dir})
	waitIndexed(b, l)
	first, err := l.Query(context.Background(), Query{Before: uint64(records / 3), Limit: 1})
	if err != nil || len(first.Lines) != 1 {
		b.Fatal(err)
	}
	ts, _, _ := parseHead(first.Lines[0])
	queries := []struct {
		name string
		q    Query
	}{
		{"newest", Query{}},
		{"agent", Query{Filters: map[string]string{"agentId": "agent-17"}}},
		{"session", Query{Filters: map[string]string{"sessionId": "session-4711"}}},
		{"token", Query{Filters: map[string]string{"tokenId": "6f9619ff-8b86-d011-b42d-00cf4fc964ff"}}},
		{"agent and event", Query{Filters: map[string]string{"agentId": "agent-17", "event": EventCall}}},
		{"nobody", Query{Filters: map[string]string{"agentId": "nobody"}}},
		{"until", Query{Until: ts}},
		{"agent until", Query{Until: ts, Filters: map[string]string{"agentId": "agent-17"}}},
		{"before", Query{Before: uint64(records / 2)}},
	}
	for _, q := range queries {
		b.Run("warm/"+q.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := l.Query(context.Background(), q.q); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/query")
		})
	}
	for _, q := range queries {
		b.Run("dropped cache/"+q.name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				dropCache(b, dir)
				b.StartTimer()
				if _, err := l.Query(context.Background(), q.q); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/query")
		})
	}
	b.Run("decoding every line/agent", func(b *testing.B) {
		for b.Loop() {
			n, err := decodeAll(dir, "agent-17")
			if err != nil || n == 0 {
				b.Fatal(n, err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/query")
	})
}

// decodeAll looks for an agent's records as jq would.
func decodeAll(dir, agent string) (n int, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "audit.log*.jsonl"))
	if err != nil {
		return 0, err
	}
	slices.Sort(names)
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return 0, err
		}
		in := bufio.NewScanner(f)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			var r struct {
				Context struct {
					AgentID string `json:"agentId"`
				} `json:"context"`
			}
			if err := json.Unmarshal(in.Bytes(), &r); err != nil {
				break // what is allocated and not written yet
			}
			if r.Context.AgentID == agent {
				n++
			}
		}
		_ = f.Close()
	}
	return n, nil
}
