package caddyvault

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

// BenchmarkCall is everything that a call costs between Caddy's server and the
// upstream's connection, beside bare Caddy's proxy: one at a time, against an
// upstream in this process that costs next to nothing. Compare the allocations
// above all.
func BenchmarkCall(b *testing.B) {
	for _, durability := range []string{"async", "sync"} {
		for _, kind := range []string{"call", "proxy", "issue"} {
			b.Run(kind+"/"+durability, func(b *testing.B) {
				dir, up := filepath.Join(b.TempDir(), "data"), cheapUpstream(b)
				serve := benchServer(b, fmt.Sprintf("{\n\tvault {\n\t\tdata_dir %s\n\t\tagents {\n\t\t\ttrust all\n\t\t}\n\t\taudit {\n\t\t\tdurability %s\n\t\t}\n\t}\n}\nhttp://localhost {\n\tvault\n}\n", dir, durability))
				ask := func(method, path, body, authorization string) []byte {
					w := httptest.NewRecorder()
					serve.ServeHTTP(w, benchRequest(method, path, body, authorization))
					if w.Code != http.StatusOK {
						b.Fatal(w.Code, w.Body)
					}
					return w.Body.Bytes()
				}
				ask(http.MethodGet, "/health", "", "") // opens
				admin, err := os.ReadFile(filepath.Join(dir, "admin.token"))
				if err != nil {
					b.Fatal(err)
				}
				ask(http.MethodPost, "/vault.admin.addService", fmt.Sprintf(`{"service":"svc","baseUrl":"http://%s","allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["s"],
					"endpoints":{"small":{"method":"GET","path":"/repos/{owner}/{repo}","requiredScope":["s"]}},"masterSecret":"secret-0123456789abcdefghijklmnopqrstuvwxyz"}`, up), "Bearer "+strings.TrimSpace(string(admin)))
				var issued struct{ Token string }
				const issue = `{"service":"svc","scope":["s"]}`
				if err := json.Unmarshal(ask(http.MethodPost, "/vault.issueToken", issue, ""), &issued); err != nil {
					b.Fatal(err)
				}
				switch kind {
				case "call":
					benchServe(b, serve, http.MethodPost, "/vault.call", fmt.Sprintf(`{"token":%q,"service":"svc","action":"small","params":{"owner":"octocat","repo":"hello"}}`, issued.Token), "")
				case "proxy":
					benchServe(b, serve, http.MethodGet, "/proxy/svc/repos/octocat/hello", "", "Bearer "+issued.Token)
				case "issue":
					benchServe(b, serve, http.MethodPost, "/vault.issueToken", issue, "")
				}
			})
		}
	}
	b.Run("bare", func(b *testing.B) {
		serve := benchServer(b, fmt.Sprintf("http://localhost {\n\treverse_proxy %s {\n\t\theader_up Authorization \"Bearer secret-0123456789abcdefghijklmnopqrstuvwxyz\"\n\t}\n}\n", cheapUpstream(b)))
		benchServe(b, serve, http.MethodGet, "/repos/octocat/hello", "", "")
	})
}

func benchServer(b *testing.B, caddyfile string) http.Handler {
	b.Helper()
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		b.Fatal(err)
	}
	var cfg caddy.Config
	if err := json.Unmarshal(adapted, &cfg); err != nil {
		b.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(&cfg)
	if err != nil {
		b.Fatal(err)
	}
	app, err := ctx.App("http")
	if err != nil {
		b.Fatal(err)
	}
	for _, server := range app.(*caddyhttp.App).Servers {
		return server
	}
	b.Fatal("no server")
	return nil
}

func benchRequest(method, path, body, authorization string) *http.Request {
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	r.RequestURI = path
	r.RemoteAddr = "127.0.0.1:1234"
	r.Header.Set("User-Agent", "Go-http-client/1.1")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	return r
}

// discard is a ResponseWriter that keeps nothing but the status.
type discard struct {
	h      http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

func benchServe(b *testing.B, serve http.Handler, method, path, body, authorization string) {
	b.Helper()
	template := benchRequest(method, path, body, authorization)
	w := &discard{h: make(http.Header)}
	reader := bytes.NewReader(nil)
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset([]byte(body))
		r := *template
		url := *template.URL
		r.URL, r.Body, r.Header = &url, io.NopCloser(reader), template.Header.Clone()
		clear(w.h)
		serve.ServeHTTP(w, &r)
		if w.status != http.StatusOK {
			b.Fatal(w.status)
		}
	}
}

// cheapUpstream answers every request without a body with the same bytes.
func cheapUpstream(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Tue, 24 Nov 2026 20:00:00 GMT\r\nContent-Length: 35\r\n\r\n" + `{"full_name":"octocat/Hello-World"}`)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					line, err := in.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) > 2 {
						continue
					}
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}
