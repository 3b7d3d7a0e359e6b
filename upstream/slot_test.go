package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// slowPool is a module of which nobody here knows what it does.
type slowPool struct {
	Name string `json:"name"`
}

// slow has what modules do that are provisioned, in turn.
var slow = make(chan func(caddy.Context) error)

func init() { caddy.RegisterModule(slowPool{}) }

func (slowPool) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.ca_pool.source.slow_test", New: func() caddy.Module { return new(slowPool) }}
}

func (slowPool) CertPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(&x509.Certificate{Raw: []byte("any")})
	return pool
}

func (slowPool) Provision(ctx caddy.Context) error { return (<-slow)(ctx) }

const slowSettings = `{"transport":{"protocol":"http","tls":{"ca":{"provider":"slow_test"}}}}`

// module is one that is being provisioned.
type module struct {
	ctx context.Context // the service's own, which ends with it
	end chan error
}

// began waits for a module to be provisioned.
func began() module {
	ctx, end := make(chan context.Context), make(chan error)
	slow <- func(c caddy.Context) error { ctx <- c.Context; return <-end }
	return module{<-ctx, end}
}

type acquired struct {
	s   *service
	err error
}

func acquireIn(ctx context.Context, p *Proxy, svc *policy.Compiled) chan acquired {
	got := make(chan acquired, 1)
	go func() {
		s, err := p.acquire(ctx, svc)
		got <- acquired{s, err}
	}()
	return got
}

// TestServicesWaitForNoOther: what one service waits for holds up nothing else.
func TestServicesWaitForNoOther(t *testing.T) {
	p := newProxy(t)
	const origin = "https://api.example.com"
	svc := compileTLS(t, "slow", origin, slowSettings)
	first := acquireIn(t.Context(), p, svc)
	m := began()

	others := []*policy.Compiled{
		compile(t, "plain", origin, ""),
		compileTLS(t, "inline", origin, `{"transport":{"protocol":"http","tls":{"root_ca_pool":["`+testCertificate()+`"]}}}`),
	}
	for range 2 { // the second time to a proxy that is there
		for _, other := range others {
			s, err := p.acquire(t.Context(), other)
			if err != nil {
				t.Fatal(err)
			}
			s.release()
		}
	}
	p.Forget("plain")
	another := acquireIn(t.Context(), p, compileTLS(t, "other", origin, slowSettings))
	m2 := began() // though the first is not there yet
	m2.end <- nil
	got := <-another
	if got.err != nil {
		t.Fatal(got.err)
	}
	got.s.release()

	// Who waits leaves when its call is over, with the reason.
	ctx, cancel := context.WithCancel(t.Context())
	waits := acquireIn(ctx, p, svc)
	cancel()
	if got := <-waits; !errors.Is(got.err, context.Canceled) {
		t.Errorf("a client that left: %v", got.err)
	}
	ctx, cut := context.WithCancelCause(t.Context())
	waits = acquireIn(ctx, p, svc)
	cut(refusal.New("TOKEN_REVOKED", "the token was revoked"))
	if r, ok := errors.AsType[*refusal.Refusal]((<-waits).err); !ok || r.Code != "TOKEN_REVOKED" {
		t.Errorf("a call that was cut: %v", r)
	}

	m.end <- nil
	if got = <-first; got.err != nil {
		t.Fatal(got.err)
	}
	again, err := p.acquire(t.Context(), svc)
	if err != nil || again != got.s {
		t.Fatal("it is made twice", err)
	}
	again.release()
	p.Forget("slow")
	if m.ctx.Err() != nil {
		t.Error("the service ended under a call")
	}
	got.s.release()
	<-m.ctx.Done()
}

// TestLateServices: nobody waits for ever, and nothing is left of a service
// that nobody waits for.
func TestLateServices(t *testing.T) {
	p := newProxy(t)
	load := func(connect string) *policy.Compiled {
		svc, err := ParseService("late", []byte(`{"baseUrl":"https://api.example.com","allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["s"],
			"timeouts":{"connect":"`+connect+`"},"endpoints":{"all":{"method":"GET","path":"/*"}},"reverseProxy":`+slowSettings+`}`))
		if err != nil {
			t.Fatal(err)
		}
		return svc
	}
	svc := load("1ms")
	waits := acquireIn(t.Context(), p, svc)
	m := began()
	for range 2 {
		if r, ok := errors.AsType[*refusal.Refusal]((<-waits).err); !ok || r.Code != "UPSTREAM_TIMEOUT:connect" || r.Status != 504 {
			t.Errorf("got %v", r)
		}
		waits = acquireIn(t.Context(), p, svc)
	}
	<-waits
	m.end <- nil
	sl, fresh := p.slot(svc, false)
	<-sl.made
	if fresh || sl.service == nil {
		t.Fatal("what was late is not used", sl.err)
	}
	p.Forget("late")
	<-m.ctx.Done()

	// Dropped while it is made, by another version and with the configuration.
	svc = load("20s")
	waits = acquireIn(t.Context(), p, svc)
	m = began()
	p.Prepare(load("20s"))
	m2 := began()
	m.end <- nil
	got := <-waits
	if got.err != nil {
		t.Fatal("a call under the version before:", got.err)
	}
	got.s.release()
	<-m.ctx.Done()
	p.Close()
	m2.end <- nil
	<-m2.ctx.Done()

	// A call that comes in late is served, and nothing is left.
	waits = acquireIn(t.Context(), p, svc)
	m = began()
	m.end <- nil
	if got = <-waits; got.err != nil {
		t.Fatal(got.err)
	}
	got.s.release()
	<-m.ctx.Done()
	p.services.Range(func(name, _ any) bool {
		t.Errorf("%v is left", name)
		return true
	})
}

// TestServicesThatCannotBe have an error, for a while.
func TestServicesThatCannotBe(t *testing.T) {
	p := newProxy(t)
	svc := compileTLS(t, "svc", "https://api.example.com", slowSettings)
	for name, end := range map[string]func(caddy.Context) error{
		"error":    func(caddy.Context) error { return errors.New("no") },
		"canceled": func(caddy.Context) error { return context.Canceled },
		"panic":    func(caddy.Context) error { panic("no") },
	} {
		waits := acquireIn(t.Context(), p, svc)
		slow <- end
		err := (<-waits).err
		for range 2 { // then the module is not asked again
			if r, ok := errors.AsType[*refusal.Refusal](err); !ok || r.Code != refusal.Internal || r.Cause == nil {
				t.Errorf("%s: %v", name, err)
			}
			_, err = p.acquire(t.Context(), svc)
		}
		sl, _ := p.slot(svc, false)
		p.clear(sl) // as it is after remakeAfter
	}
	waits := acquireIn(t.Context(), p, svc)
	m := began()
	m.end <- nil
	if got := <-waits; got.err != nil {
		t.Fatal(got.err)
	} else {
		got.s.release()
	}

	// A client sees the code, and an administrator is told when adding one.
	g := &gateway{t: t, proxy: p, service: compileTLS(t, "other", "https://api.example.com", slowSettings), results: make(chan *vault.Result, 1), refused: make(chan *refusal.Refusal, 1)}
	rec := httptest.NewRecorder()
	done := make(chan struct{})
	go func() { defer close(done); g.ServeHTTP(rec, httptest.NewRequest("GET", "/", nil)) }()
	slow <- func(caddy.Context) error { return errors.New("no") }
	<-done
	if r := <-g.refused; r.Code != refusal.Internal || rec.Code != 500 {
		t.Errorf("%d %v", rec.Code, r)
	}
	checked := make(chan *refusal.Refusal)
	go func() { checked <- p.Check(t.Context(), g.service) }()
	slow <- func(caddy.Context) error { return errors.New("no") }
	if r := <-checked; r == nil || r.Code != "REVERSEPROXY_INVALID" || r.Cause == nil {
		t.Errorf("%v", r)
	}
	go func() { checked <- p.Check(t.Context(), g.service) }()
	m = began()
	m.end <- nil
	if r := <-checked; r != nil {
		t.Errorf("%v", r)
	}
	<-m.ctx.Done()
}

// TestForeignModulesThatStay: so many, and no more, may never come back.
func TestForeignModulesThatStay(t *testing.T) {
	p := newProxy(t)
	for range cap(foreigners) {
		foreigners <- struct{}{}
	}
	svc := compileTLS(t, "svc", "https://api.example.com", slowSettings)
	_, err := p.acquire(t.Context(), svc)
	if r := p.Check(t.Context(), svc); !errors.Is(err, errBusy) || r == nil || !errors.Is(r, errBusy) {
		t.Errorf("%v, %v", err, r)
	}
	for range cap(foreigners) {
		<-foreigners
	}
}

// TestStorage: what is wrong with a file in a storage shows no more than with
// another.
func TestStorage(t *testing.T) {
	p := newProxy(t)
	dir := t.TempDir()
	cert, _ := testPair(t, "one")
	write(t, filepath.Join(dir, "cert"), cert)
	write(t, filepath.Join(dir, "text"), []byte("root:x:0:0\n"))
	check := func(key string) *refusal.Refusal {
		return p.Check(t.Context(), compileTLS(t, "svc", "https://api.example.com",
			withTLS(fmt.Sprintf(`"ca":{"provider":"storage","storage":{"module":"file_system","root":%q},"pem_keys":[%q]}`, dir, key))))
	}
	if r := check("cert"); r != nil {
		t.Error(r)
	}
	missing, text := check("missing"), check("text")
	if missing == nil || text == nil || missing.Error() != text.Error() || missing.Hint != text.Hint {
		t.Errorf("%v, %v", missing, text)
	}
}
