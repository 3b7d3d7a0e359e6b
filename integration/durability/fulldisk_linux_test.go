package durability

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/audit"
)

// TestFullDisk fills the disk that the data directory is on: calls are
// refused cleanly, nothing reaches the upstream, and when there is room again
// the same process serves again, with everything it has acknowledged.
func TestFullDisk(t *testing.T) {
	var upstreamCalls atomic.Int64
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		upstreamCalls.Add(1)
		_, _ = io.WriteString(w, "ok")
	}))
	defer upstream.Close()
	s := newServer(t)
	data := filepath.Join(s.dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=4m,mode=0700"); err != nil {
		if errors.Is(err, syscall.EPERM) {
			t.Skip("mounting a small disk needs root")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(data, syscall.MNT_DETACH) })
	s.start()
	s.addService(upstream.URL)
	issue := func() (status int, token, id string) {
		status, out := s.post("vault.issueToken", map[string]any{"service": "svc", "scope": []string{"s"}})
		var answer struct{ Token, TokenID string }
		if status == http.StatusOK {
			if err := json.Unmarshal(out, &answer); err != nil {
				t.Error(err)
			}
		} else if status != http.StatusServiceUnavailable || !strings.Contains(string(out), `"AUDIT_UNAVAILABLE"`) {
			t.Errorf("%d %s", status, out)
		}
		return status, answer.Token, answer.TokenID
	}
	_, token, _ := issue()
	call := func() (int, string) {
		status, out := s.post("vault.call", map[string]string{"token": token, "service": "svc", "action": "get"})
		return status, string(out)
	}
	if status, out := call(); status != http.StatusOK {
		t.Fatalf("%d %s", status, out)
	}

	filler, err := os.Create(filepath.Join(data, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	for size := 64 << 10; size > 0; {
		if _, err := filler.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	// There is room that the log has reserved: use it up.
	var acked sync.Map
	var full atomic.Bool
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for i := 0; i < 5000 && !full.Load(); i++ {
				if status, _, id := issue(); status == http.StatusOK {
					acked.Store(id, true)
				} else {
					full.Store(true)
				}
			}
		})
	}
	callers.Wait()
	if !full.Load() {
		t.Fatal("the disk is full, and everything is acknowledged")
	}
	before := upstreamCalls.Load()
	for range 5 {
		if status, out := call(); status != http.StatusServiceUnavailable || !strings.Contains(out, `"AUDIT_UNAVAILABLE"`) {
			t.Fatalf("%d %s", status, out)
		}
	}
	if n := upstreamCalls.Load(); n != before {
		t.Fatalf("%d refused calls reached the upstream", n-before)
	}
	health := func() int {
		res, err := s.client.Get(s.base + "/health")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if status := health(); status != http.StatusServiceUnavailable {
		t.Fatalf("/health says %d", status)
	}

	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	filler.Close()
	for deadline := time.Now().Add(time.Minute); health() != http.StatusOK; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("service does not return")
		}
	}
	if status, out := call(); status != http.StatusOK {
		t.Fatalf("%d %s", status, out)
	}
	s.signal(syscall.SIGTERM)
	report, err := audit.Verify(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	if torn, _ := filepath.Glob(filepath.Join(data, "audit.torn.*")); len(torn) > 0 {
		t.Errorf("half of a record was written: %q", torn)
	}
	for _, r := range s.records() {
		if r["event"] == "token.issued" {
			acked.Delete(r["tokenId"])
		}
	}
	acked.Range(func(id, _ any) bool {
		t.Errorf("%v was acknowledged and is not in the log", id)
		return false
	})
	t.Logf("%d records in %d segments", report.Records, len(report.Segments))
}
