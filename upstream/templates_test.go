package upstream

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/templates"
	"github.com/caddyvault/caddyvault/vault"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestTemplatesOnTheWire sends calls of every template to a stand-in of its
// vendor, through the transport with its secrets, and holds every byte that
// arrives to a golden file: one call for each method and kind of body.
func TestTemplatesOnTheWire(t *testing.T) {
	for _, name := range templates.Names() {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, nil)
			svc := standIn(t, name, w.addr)
			p := newProxy(t)
			var got strings.Builder
			seen := map[string]bool{}
			for _, action := range svc.Actions() {
				e := svc.Endpoint(action)
				if kind := e.Method + e.Body; seen[kind] {
					continue
				} else {
					seen[kind] = true
				}
				fmt.Fprintf(&got, "--- %s\n%s\n", action, strings.ReplaceAll(sendPlan(t, p, svc, e, w), w.addr, "HOST"))
			}
			goldenWire(t, name, strings.ReplaceAll(got.String(), "\r\n", "\n"))
		})
	}
}

// standIn is a template's service with the stand-in for the vendor's host.
func standIn(t *testing.T, name, addr string) *policy.Compiled {
	t.Helper()
	tmpl, _ := templates.Get(name)
	vars := map[string]string{}
	for v, d := range tmpl.Variables {
		if d.Default == "" {
			vars[v] = d.Example
		}
	}
	data, err := tmpl.Instantiate(vars)
	if err != nil {
		t.Fatal(err)
	}
	data = regexp.MustCompile(`"baseUrl": "https://[^/"]*`).ReplaceAll(data, []byte(`"baseUrl": "http://`+addr))
	svc, err := policy.ParseService(name, data)
	if err != nil {
		t.Fatal(err)
	}
	return svc
}

var wireParam = regexp.MustCompile(`\{([a-z_]+)(\.\.\.)?\}`)

// sendPlan makes a call of an action and returns what reached the wire.
func sendPlan(t *testing.T, p *Proxy, svc *policy.Compiled, e *policy.CompiledEndpoint, w *wire) string {
	t.Helper()
	params := []string{}
	for _, m := range wireParam.FindAllStringSubmatch(e.Path, -1) {
		params = append(params, fmt.Sprintf("%q:%q", m[1], "a "+m[1]))
	}
	if e.Body != policy.BodyNone {
		params = append(params, `"text":"b c"`)
	}
	plan, refused := e.Plan([]byte("{" + strings.Join(params, ",") + "}"))
	if refused != nil {
		t.Fatal(refused)
	}
	rec := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/vault.call", nil)
	r.Header.Set("User-Agent", "agent/1.0")
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), rec, &caddyhttp.Server{})
	out := &vault.Outbound{
		Service: svc, Endpoint: e, Method: plan.Method, EscapedPath: plan.EscapedPath, RawQuery: plan.RawQuery,
		Header: r.Header, ContentType: plan.ContentType, Prefix: "/proxy/" + svc.Name,
		Authorize: func(into []vault.Credential) ([]vault.Credential, *refusal.Refusal) {
			for i := range svc.Secrets() {
				ref := svc.SecretFor(i, "main")
				into = append(into, vault.Credential{Ref: ref, Version: 1, Value: "<" + ref + "/0123>"})
			}
			return into, nil
		},
	}
	if plan.Body != nil {
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(plan.Body)), int64(len(plan.Body))
	}
	if refused := p.Do(r.Context(), rec, r, out, new(vault.Result)); refused != nil {
		t.Fatal(refused, refused.Cause)
	}
	return <-w.requests
}

func goldenWire(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "wire", name+".golden")
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs from what is sent; look, then run with -update:\n%s", file, got)
	}
}
