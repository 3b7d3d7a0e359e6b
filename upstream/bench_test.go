package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/pprof"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// BenchmarkDo is a call with a small answer, through Caddy's proxy and back;
// its figures include the upstream's, which is in the same process.
func BenchmarkDo(b *testing.B) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"full_name":"octocat/Hello-World"}`)
	}))
	defer up.Close()
	p := newProxy(b)
	svc := compile(b, "svc", up.URL, "")
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "http://localhost/repos/o/r", http.NoBody)
		r.Header.Set("Accept", "*/*")
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
		c, cut := context.WithCancelCause(r.Context())
		refused := p.Do(c, w, r, &vault.Outbound{
			Service: svc, Endpoint: svc.Endpoint("all"), Method: r.Method, Cut: cut, EscapedPath: "/repos/o/r", Header: r.Header,
			Authorize: func(into []vault.Credential) ([]vault.Credential, *refusal.Refusal) {
				return append(into, vault.Credential{Ref: "key", Version: 1, Value: secret}), nil
			},
		}, new(vault.Result))
		cut(nil)
		if refused != nil || w.Code != http.StatusOK {
			b.Fatal(refused, w.Code)
		}
	}
}

// BenchmarkServices makes the proxies of many services, as their first calls
// do, and prints what each takes.
func BenchmarkServices(b *testing.B) {
	const services = 2000
	ctx, err := caddy.ProvisionContext(&caddy.Config{})
	if err != nil {
		b.Fatal(err)
	}
	all := make([]*policy.Compiled, services)
	for i := range all {
		all[i] = compile(b, fmt.Sprint("svc", i), fmt.Sprintf("https://api%d.example.com", i), "")
	}
	measure := func() (memory, goroutines float64) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc + m.StackInuse), float64(runtime.NumGoroutine())
	}
	for b.Loop() {
		p, err := New(ctx, nil)
		if err != nil {
			b.Fatal(err)
		}
		memory, goroutines := measure()
		for _, svc := range all {
			s, err := p.acquire(b.Context(), svc)
			if err != nil {
				b.Fatal(err)
			}
			s.tr.scrubbers.of([]vault.Credential{{Ref: "key", Version: 1, Value: secret}})
			s.release()
		}
		if os.Getenv("HEAP") != "" {
			f, _ := os.Create(os.Getenv("HEAP"))
			runtime.GC()
			_ = pprof.WriteHeapProfile(f)
			f.Close()
		}
		after, more := measure()
		b.ReportMetric((after-memory)/services, "bytes/service")
		b.ReportMetric((more-goroutines)/services, "goroutines/service")
		p.Close()
	}
}
