package integration

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestAuditMetrics reads the figures of the audit log over calls and a reload.
func TestAuditMetrics(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issue("main", "github", "github:repos:read")
	read := func(name string) float64 {
		t.Helper()
		_, b := s.adminAPI("GET", "/metrics", nil)
		m := regexp.MustCompile(`(?m)^caddyvault_audit_` + name + ` (\S+)$`).FindSubmatch(b)
		if m == nil {
			t.Fatalf("no %s", name)
		}
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	before := read("records_total")
	for range 10 {
		s.call(token, "github", "public.get", "null")
	}
	s.barrier()
	s.reload(t)
	records := read("records_total")
	if records < before+20 || read("batch_records_sum") < 20 || read("commit_seconds_count") < 10 || read("commit_seconds_sum") <= 0 ||
		read("up") != 1 || read("segments") != 1 || read("bytes") < 1000 {
		t.Errorf("%v records before, %v after", before, records)
	}
	// The last record may be that of a checkpoint, which covers those before.
	eventually(t, "a checkpoint", func() bool { return read("checkpoint_records") >= records-1 })
	if read("checkpoint_timestamp_seconds") < 1e9 {
		t.Error("the checkpoint has no time")
	}
	// A listing is of what happened, unless it asks for checkpoints.
	for body, want := range map[string]bool{`{"limit":1000}`: false, `{"limit":1000,"filters":{"event":"audit.checkpoint"}}`: true} {
		if r := s.post("/vault.audit.query", body); r.status != 200 || strings.Contains(r.body, `"audit.checkpoint"`) != want {
			t.Errorf("%s: %d, and checkpoints: %v", body, r.status, !want)
		}
	}
	_, b := s.adminAPI("GET", "/metrics", nil)
	for _, result := range []string{"sent", "failed"} {
		if line := `caddyvault_audit_checkpoint_posts_total{result="` + result + `"} 0`; !strings.Contains(string(b), line) {
			t.Errorf("no %s", line)
		}
	}
	for range 70 {
		s.post("/vault.call", `{"token":"x.y.z"}`)
	}
	if n := read("suppressed_total"); n != 10 {
		t.Errorf("%v suppressed", n)
	}
}
