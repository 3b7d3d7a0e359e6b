package caddyvault

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/upstream"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int) *http.Response {
	return &http.Response{StatusCode: status, Body: http.NoBody, Header: http.Header{"Location": {"https://elsewhere.example/"}}}
}

// TestCheckpointURLBad has the other side be down, slow and rude: what is
// sent is the newest, at a bounded rate, and nobody waits.
func TestCheckpointURLBad(t *testing.T) {
	for _, c := range []struct {
		name string
		bad  func(r *http.Request) (*http.Response, error)
	}{
		{"down", func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }},
		{"slow", func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }},
		{"failing", func(*http.Request) (*http.Response, error) { return answer(500), nil }},
		{"redirecting", func(r *http.Request) (*http.Response, error) {
			if r.URL.Host != "w.example" {
				return nil, errors.New("a redirect was followed")
			}
			return answer(307), nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zapcore.ErrorLevel)
				u, _ := url.Parse("https://w.example/capability-in-the-path")
				p := newPoster(u, nil, zap.New(core))
				good := false
				var tries int
				var sent []string
				p.client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
					tries++
					if !good {
						return c.bad(r)
					}
					b, err := io.ReadAll(r.Body)
					sent = append(sent, string(b))
					return answer(204), err
				})
				before := postedCounts(t)
				p.start()
				for i := range 3600 { // an hour of them
					start := time.Now()
					p.offer(audit.Checkpoint{Size: uint64(i + 1), Note: "old"})
					if time.Since(start) != 0 {
						t.Fatal("waited")
					}
					time.Sleep(time.Second)
				}
				synctest.Wait()
				if tries < 10 || tries > 30 || int(p.failed.Load()) < tries-1 || len(sent) != 0 || logs.Len() != int(p.failed.Load()) {
					t.Fatalf("%d tries, %d failed, %d sent, %d logged", tries, p.failed.Load(), len(sent), logs.Len())
				}
				for _, e := range logs.All() {
					if err, _ := e.ContextMap()["error"].(string); strings.Contains(err, "capability") {
						t.Fatalf("logged: %s", err)
					}
				}
				good = true
				p.offer(audit.Checkpoint{Size: 5000, Note: "newest"})
				time.Sleep(postPause + time.Minute)
				synctest.Wait()
				if len(sent) != 1 || sent[0] != "newest" || p.sent.Load() != 1 {
					t.Fatalf("sent %q", sent)
				}
				for i := range 100 {
					p.offer(audit.Checkpoint{Size: uint64(6000 + i), Note: "many"})
					time.Sleep(time.Second)
				}
				synctest.Wait()
				if len(sent) < 9 || len(sent) > 12 {
					t.Fatalf("%d sent in 100 s", len(sent)-1)
				}
				p.stop()
				after := postedCounts(t)
				if n := after["sent"] - before["sent"]; n != float64(p.sent.Load()) {
					t.Errorf("%v counted as sent of %d", n, p.sent.Load())
				}
				if n := after["failed"] - before["failed"]; n != float64(p.failed.Load()) {
					t.Errorf("%v counted as failed of %d", n, p.failed.Load())
				}
			})
		})
	}
}

// postedCounts reads the metric of checkpoints that were sent.
func postedCounts(t *testing.T) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	if err := metrics.register(registry); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]float64)
	for _, f := range families {
		if f.GetName() == "caddyvault_audit_checkpoint_posts_total" {
			for _, m := range f.GetMetric() {
				counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return counts
}

// TestCheckpointURL sends the checkpoints of a log to a server, which
// verifies the log with them.
func TestCheckpointURL(t *testing.T) {
	got := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- r.Method + " " + r.Header.Get("Content-Type") + "\n" + string(b)
	}))
	defer server.Close()
	u, err := checkpointURL(server.URL + "/w")
	if err != nil {
		t.Fatal(err)
	}
	p := newPoster(u, upstream.GuardFor(u.Hostname(), nil), zap.NewNop())
	p.start()
	defer p.stop()
	dir := t.TempDir()
	l, err := audit.Open(audit.Options{Dir: dir, CheckpointEvery: time.Millisecond, OnCheckpoint: p.offer, Deadline: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(context.Background(), audit.Entry{Record: audit.Record{Event: "test"}}); err != nil {
		t.Fatal(err)
	}
	head, note, _ := strings.Cut(<-got, "\n")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if head != "POST text/plain; charset=utf-8" {
		t.Fatal(head)
	}
	if _, err := audit.VerifyWith(dir, audit.VerifyOptions{Checkpoints: []string{note}}); err != nil {
		t.Fatal(err)
	}
	// An address that a name leads to is held to the rules.
	guard := upstream.GuardFor("w.example", nil)
	for _, addr := range []string{"169.254.169.254:443", "10.0.0.1:443", "127.0.0.1:443", "[::1]:443"} {
		if guard("tcp", addr, nil) == nil {
			t.Errorf("%s is dialled", addr)
		}
	}
}
