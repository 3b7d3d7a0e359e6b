package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store"
)

// testPair returns a certificate that signs itself, and its key, in PEM.
func testPair(t testing.TB, name string) (cert, key []byte) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func write(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func withTLS(tls string) string { return `{"transport":{"protocol":"http","tls":{` + tls + `}}}` }

// compileTLS returns a service with settings of TLS, as it is loaded.
func compileTLS(t testing.TB, name, upstream, settings string) *policy.Compiled {
	t.Helper()
	svc, err := ParseService(name, fmt.Appendf(nil, `{"baseUrl":%q,"secretRef":"key","allowedAgents":["*"],"allowedActions":["*"],
		"allowedScopes":["s"],"timeouts":{"connect":"20s"},"endpoints":{"all":{"method":"GET","path":"/*"}},"reverseProxy":%s}`, upstream, settings))
	if err != nil {
		t.Fatal(err)
	}
	return svc
}

// TestFilesThatAreOfNoUse: whatever is wrong with one, the answer is the same,
// and nothing waits.
func TestFilesThatAreOfNoUse(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	cert, key := testPair(t, "one")
	_, otherKey := testPair(t, "other")
	goodCert, goodKey := write(t, at("cert.pem"), cert), write(t, at("key.pem"), key)
	bad := map[string]string{
		"missing":       at("nowhere"),
		"no name":       "",
		"directory":     dir,
		"below a file":  goodCert + "/x",
		"device":        "/dev/zero",
		"NUL":           "a\x00b",
		"empty":         write(t, at("empty"), nil),
		"no PEM":        write(t, at("text"), []byte("root:x:0:0:root:/root:/bin/sh\n")),
		"other PEM":     write(t, at("other"), otherKey),
		"damaged":       write(t, at("damaged"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})),
		"half":          write(t, at("half"), append(cert[:len(cert):len(cert)], pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})...)),
		"large":         write(t, at("large"), append(make([]byte, maxFile), cert...)),
		"FIFO":          at("fifo"),
		"link to FIFO":  at("link"),
		"dangling link": at("dangling"),
		"loop":          at("loop"),
	}
	if err := errors.Join(syscall.Mkfifo(at("fifo"), 0o600), os.Symlink(at("fifo"), at("link")),
		os.Symlink(at("nowhere"), at("dangling")), os.Symlink(at("loop"), at("loop"))); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		bad["unreadable"] = write(t, at("unreadable"), cert)
		if err := os.Chmod(bad["unreadable"], 0); err != nil {
			t.Fatal(err)
		}
	}
	quote := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	settings := []struct{ field, what, tls string }{
		{"root_ca_pem_files[1]", "a file of certificates in PEM", `"root_ca_pem_files":[` + quote(goodCert) + `,%s]`},
		{"ca.pem_files[0]", "a file of certificates in PEM", `"ca":{"provider":"file","PEM_files":[%s]}`},
		{"ca.sources[1].pem_files[0]", "a file of certificates in PEM", `"ca":{"provider":"combined","sources":[{"provider":"file","pem_files":[` + quote(goodCert) + `]},{"provider":"file","pem_files":[%s]}]}`},
		{"client_certificate_file", "a file of certificates in PEM", `"client_certificate_key_file":` + quote(goodKey) + `,"client_certificate_file":%s`},
		{"client_certificate_key_file", "the file of the certificate's key in PEM", `"client_certificate_file":` + quote(goodCert) + `,"client_certificate_key_file":%s`},
	}
	for _, s := range settings {
		for name, path := range bad {
			if path == "" && strings.HasPrefix(s.field, "client") {
				continue // the pair is not whole, which is said before
			}
			_, err := ParseService("svc", fileOf(withTLS(fmt.Sprintf(s.tls, quote(path)))))
			r, ok := errors.AsType[*refusal.Refusal](err)
			if !ok {
				t.Errorf("%s %s: got %v", s.field, name, err)
				continue
			}
			want := "reverseProxy.transport.tls." + s.field + " must name " + s.what + ", and " + shownPath(path) + " cannot be used as one"
			if r.Code != "REVERSEPROXY_INVALID" || r.Detail != want || r.Hint == "" {
				t.Errorf("%s:\ngot  %s: %s\nwant %s", name, r.Code, r.Detail, want)
			}
			if !errors.Is(err, store.ErrElsewhere) || store.Cause(err).Error() == "" {
				t.Errorf("%s %s: the log is not told why", s.field, name)
			}
		}
		good := goodCert
		if s.field == "client_certificate_key_file" {
			good = goodKey
		}
		if err := os.Symlink(good, at("good")); err != nil {
			t.Fatal(err)
		}
		if _, err := ParseService("svc", fileOf(withTLS(fmt.Sprintf(s.tls, quote(at("good")))))); err != nil {
			t.Errorf("%s: a link to what is good: %v", s.field, err)
		}
		if err := os.Remove(at("good")); err != nil {
			t.Fatal(err)
		}
	}

	// These have nothing to do with one file.
	for settings, says := range map[string]string{
		`"ca":{"provider":"file"}`:                                       "reverseProxy.transport.tls.ca cannot be used: file has no certificates",
		`"ca":{"provider":"pki_root"}`:                                   "reverseProxy.transport.tls.ca cannot be used: pki_root has no certificates",
		`"ca":{"provider":"combined"}`:                                   "reverseProxy.transport cannot be used: ",
		`"ca":{"provider":"combined","sources":[{"provider":"system"}]}`: "reverseProxy.transport cannot be used: ",
		`"root_ca_pem_files":[` + strings.Repeat(quote(goodCert)+",", maxNamed) + quote(goodCert) + `]`: "reverseProxy.transport.tls names more than 32 files and authorities",
	} {
		_, err := ParseService("svc", fileOf(withTLS(settings)))
		if r, ok := errors.AsType[*refusal.Refusal](err); !ok || !strings.HasPrefix(r.Detail, says) {
			t.Errorf("%s: got %v", settings, err)
		}
	}
}

// mutual is an upstream that wants a client certificate, and says whose it got.
func mutual(t *testing.T) (srv *httptest.Server, cert []byte) {
	t.Helper()
	cert, key := testPair(t, "server")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	srv = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv, cert
}

// TestCallsReadNoFile: what a service's files held when it was loaded is what
// calls use, until a configuration starts.
func TestCallsReadNoFile(t *testing.T) {
	srv, serverCert := mutual(t)
	dir := t.TempDir()
	ca, certFile, keyFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pair := func(name string) {
		cert, key := testPair(t, name)
		write(t, certFile, cert)
		write(t, keyFile, key)
	}
	for name, trust := range map[string]string{
		"root_ca_pem_files": fmt.Sprintf(`"root_ca_pem_files":[%q]`, ca),
		"file":              fmt.Sprintf(`"ca":{"provider":"file","pem_files":[%q]}`, ca),
		"combined":          fmt.Sprintf(`"ca":{"provider":"combined","sources":[{"provider":"file","pem_files":[%q]}]}`, ca),
	} {
		t.Run(name, func(t *testing.T) {
			write(t, ca, serverCert)
			pair("first")
			g, site := newGateway(t, srv.URL, "")
			g.service = compileTLS(t, "svc", srv.URL, withTLS(fmt.Sprintf(`%s,"client_certificate_file":%q,"client_certificate_key_file":%q`, trust, certFile, keyFile)))
			get := func() string {
				t.Helper()
				res, err := http.Get(site.URL)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				b, _ := io.ReadAll(res.Body)
				return string(b)
			}

			// Gone, or what nobody could read, when the first call comes.
			if err := errors.Join(os.Remove(keyFile), os.Remove(ca), syscall.Mkfifo(ca, 0o600)); err != nil {
				t.Fatal(err)
			}
			if got := get(); got != "first" {
				t.Fatalf("got %q", got)
			}

			// What is broken when a configuration starts leaves it as it was.
			g.proxy.Refresh([]*policy.Compiled{g.service})
			if got := get(); got != "first" {
				t.Fatalf("after files broke: %q", got)
			}
			if err := os.Remove(ca); err != nil {
				t.Fatal(err)
			}
			write(t, ca, serverCert)
			pair("second")
			if got := get(); got != "first" {
				t.Fatalf("after files changed: %q", got)
			}
			g.proxy.Refresh([]*policy.Compiled{g.service})
			if got := get(); got != "second" {
				t.Fatalf("after a configuration started: %q", got)
			}
			g.proxy.Refresh([]*policy.Compiled{g.service})
			if got := get(); got != "second" {
				t.Fatalf("after nothing changed: %q", got)
			}

			// Trusted is what the file has, and nobody else.
			other, _ := testPair(t, "other")
			write(t, ca, other)
			g.proxy.Refresh([]*policy.Compiled{g.service})
			if got := get(); got != "UPSTREAM_TLS\n" {
				t.Fatalf("a server that the file does not have: %q", got)
			}
		})
	}
}

// TestAuthorities is about those of Caddy's own.
func TestAuthorities(t *testing.T) {
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		StorageRaw: fmt.Appendf(nil, `{"module":"file_system","root":%q}`, t.TempDir()),
		AppsRaw:    caddy.ModuleMap{"pki": json.RawMessage(`{"certificate_authorities":{"corp":{"install_trust":false}}}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, tt := range []struct{ settings, refused string }{
		{`"ca":{"provider":"pki_root","authority":["corp"]}`, ""},
		{`"ca":{"provider":"pki_intermediate","authority":["corp"]}`, ""},
		{`"ca":{"provider":"combined","sources":[{"provider":"pki_root","authority":["corp"]}]}`, ""},
		{`"ca":{"provider":"pki_root","authority":["corp","nobody"]}`, "authority[1] must name a certificate authority of this server's, and is nobody"},
		{`"ca":{"provider":"pki_intermediate","authority":["local"]}`, "authority[0] must name a certificate authority of this server's, and is local"},
	} {
		svc := compileTLS(t, "svc", "https://api.example.com", withTLS(tt.settings))
		refused := p.Check(t.Context(), svc)
		if tt.refused == "" && refused != nil || tt.refused != "" &&
			(refused == nil || refused.Code != "REVERSEPROXY_INVALID" || refused.Detail != "reverseProxy.transport.tls.ca."+tt.refused) {
			t.Errorf("%s: %v", tt.settings, refused)
		}
		s, err := p.acquire(t.Context(), svc)
		if tt.refused != "" {
			if r, ok := errors.AsType[*refusal.Refusal](err); !ok || r.Code != refusal.Internal {
				t.Errorf("%s: %v", tt.settings, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.settings, err)
			continue
		}
		want := x509.NewCertPool()
		certs, err := p.authority("corp", strings.Contains(tt.settings, "intermediate"))
		if err != nil || len(certs) == 0 {
			t.Fatal(certs, err)
		}
		for _, cert := range certs {
			want.AddCert(cert)
		}
		if !s.tr.Transport.TLSClientConfig.RootCAs.Equal(want) {
			t.Errorf("%s: others are trusted", tt.settings)
		}
		s.release()
	}
}
