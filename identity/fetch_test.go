package identity

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestDiscovery shows a vault an issuer that lies in every way.
func TestDiscovery(t *testing.T) {
	defer goleak.VerifyNone(t)
	var discovery, keys http.HandlerFunc
	mux := http.NewServeMux()
	mux.HandleFunc("/tenant"+discoveryPath, func(w http.ResponseWriter, r *http.Request) { discovery(w, r) })
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) { keys(w, r) })
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	roots := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	issuer := srv.URL + "/tenant"
	says := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
	}
	document := func(iss, jwks string) string {
		return `{"issuer":"` + iss + `","jwks_uri":"` + jwks + `","more":{"a":[1]}}`
	}
	good, set := says(document(issuer, srv.URL+"/keys")), says(jwksOf("ed"))
	megabyte := func(w http.ResponseWriter, _ *http.Request) {
		for range 1 << 10 {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	}
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	status := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) }
	}
	for name, tt := range map[string]struct {
		discovery, keys http.HandlerFunc
		want            string // in the error; "" for none
	}{
		"good":                     {good, set, ""},
		"another issuer":           {says(document("https://attacker.example", srv.URL+"/keys")), set, "it is of the issuer"},
		"issuer with a slash":      {says(document(issuer+"/", srv.URL+"/keys")), set, "it is of the issuer"},
		"no issuer":                {says(`{"jwks_uri":"` + srv.URL + `/keys"}`), set, "it is of the issuer"},
		"issuer twice":             {says(`{"issuer":"` + issuer + `","issuer":"` + issuer + `","jwks_uri":"` + srv.URL + `/keys"}`), set, "no JSON object"},
		"no jwks_uri":              {says(`{"issuer":"` + issuer + `"}`), set, "jwks_uri"},
		"jwks_uri a file":          {says(document(issuer, "file:///etc/passwd")), set, "https://"},
		"jwks_uri in the clear":    {says(document(issuer, strings.Replace(srv.URL, "https", "http", 1)+"/keys")), set, "https://"},
		"jwks_uri with a user":     {says(document(issuer, strings.Replace(srv.URL, "https://", "https://a:b@", 1)+"/keys")), set, "user"},
		"jwks_uri at the metadata": {says(document(issuer, "https://169.254.169.254/keys")), set, "refused 169.254.169.254:443"},
		"jwks_uri inside":          {says(document(issuer, "https://10.0.0.1/keys")), set, "refused 10.0.0.1:443"},
		"no JSON":                  {says("<html>"), set, "no JSON object"},
		"a megabyte":               {megabyte, set, "more than 262144 bytes"},
		"a redirect":               {redirect(srv.URL + "/keys"), set, "redirects"},
		"404":                      {status(404), set, "status 404"},
		"500":                      {status(500), set, "status 500"},
		"204":                      {status(204), set, "status 204"},
		"keys: a megabyte":         {good, megabyte, "more than 262144 bytes"},
		"keys: a redirect":         {good, redirect("https://attacker.example/"), "redirects"},
		"keys: no set":             {good, says(`{}`), "no JWK set"},
		"keys: the document again": {good, good, "no JWK set"},
		"keys: 503":                {good, status(503), "status 503"},
		"keys: cut": {good, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "{")
		}, "EOF"},
		"keys: a header without end": {good, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 100<<10))
			_, _ = io.WriteString(w, jwksOf("ed"))
		}, "header"},
	} {
		discovery, keys = tt.discovery, tt.keys
		s, err := NewSource(Place{Issuer: issuer, Roots: roots, Control: func(_ string, named bool) func(string, string, syscall.RawConn) error {
			return func(_, address string, _ syscall.RawConn) error {
				if named {
					return nil
				}
				return errors.New("refused " + address)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		n, err := s.Check(t.Context())
		_ = s.Destruct()
		if tt.want == "" && (err != nil || n != 1) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %d keys, %v; want %q", name, n, err, tt.want)
		}
	}

	// A certificate that is not the issuer's.
	discovery, keys = good, set
	plain, err := NewSource(Place{Issuer: issuer})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := plain.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%d keys, %v", n, err)
	}
	// An issuer that hangs, and a caller that has left.
	begun := make(chan struct{})
	discovery = func(_ http.ResponseWriter, r *http.Request) { close(begun); <-r.Context().Done() }
	s, err := NewSource(Place{Issuer: issuer, Roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if _, err := s.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestPlaces(t *testing.T) {
	for name, p := range map[string]Place{
		"in the clear":          {Issuer: "http://issuer.example"},
		"no URL":                {Issuer: "kubernetes/serviceaccount"},
		"nothing":               {Issuer: "", Keys: "https://issuer.example/keys"},
		"a space":               {Issuer: "a b", Keys: "https://issuer.example/keys"},
		"a query":               {Issuer: "https://issuer.example?x=1"},
		"a user":                {Issuer: "https://a:b@issuer.example"},
		"a fragment":            {Issuer: "https://issuer.example#x"},
		"keys in the clear":     {Issuer: testIssuer, Keys: "http://issuer.example/keys"},
		"keys with a user":      {Issuer: testIssuer, Keys: "https://a:b@issuer.example/keys"},
		"a file and tls_ca":     {Issuer: testIssuer, Keys: "/keys.json", Roots: "/ca.pem"},
		"loopback by a suffix":  {Issuer: "http://127.0.0.1.attacker.example"},
		"loopback by user info": {Issuer: "http://127.0.0.1@attacker.example"},
	} {
		if _, err := NewSource(p); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for _, p := range []Place{
		{Issuer: testIssuer},
		{Issuer: "http://127.0.0.1:8080/realms/x"},
		{Issuer: "http://localhost"},
		{Issuer: "http://[::1]:1"},
		{Issuer: "kubernetes/serviceaccount", Keys: "/keys.json"},
		{Issuer: "accounts.google.com", Keys: "https://www.googleapis.com/oauth2/v3/certs?x=1"},
	} {
		if _, err := NewSource(p); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.json")
	s, err := NewSource(Place{Issuer: testIssuer, Keys: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Check(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for text, want := range map[string]string{jwksOf("ed"): "", "{}": "no JWK set", strings.Repeat(" ", 1<<20): "more than"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Check(t.Context()); want == "" && (n != 1 || err != nil) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.20s: %d, %v", text, n, err)
		}
	}
	s, _ = NewSource(Place{Issuer: testIssuer, Keys: dir})
	if _, err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Error(err)
	}
}

func TestMaxAge(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "no-store": 0, "max-age=x": 0, "max-age=-1": 0, "max-age=99999999999999999999": 0,
		"max-age=0": refreshLeast, "public, max-age=600": 10 * time.Minute, `MAX-AGE="3600", private`: time.Hour, "s-maxage=1, max-age=120": 2 * time.Minute,
	} {
		if got := maxAge(http.Header{"Cache-Control": {value}}); got != want {
			t.Errorf("%q: %s", value, got)
		}
	}
}
