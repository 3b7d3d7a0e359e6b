package upstream

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

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
	ctx, err := caddy.ProvisionContext(&caddy.Config{})
	if err != nil {
		b.Fatal(err)
	}
	p, err := New(ctx, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
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
