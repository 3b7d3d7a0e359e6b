package integration

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// namedFiles is a server, and an upstream that wants a client certificate and
// answers with the name in it.
type namedFiles struct {
	*server
	up   *httptest.Server
	ca   *authority // of the clients
	cert string     // paths
	key  string
	root string // of the upstream's certificate
}

func startNamedFiles(t *testing.T, c config) *namedFiles {
	t.Helper()
	n := &namedFiles{server: start(t, c), ca: newAuthority(t, "clients")}
	n.cert, n.key, n.root = filepath.Join(n.dir, "client.pem"), filepath.Join(n.dir, "client.key"), filepath.Join(n.dir, "root.pem")
	servers := newAuthority(t, "servers")
	pool := x509.NewCertPool()
	pool.AddCert(n.ca.cert)
	n.up = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	n.up.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, Certificates: []tls.Certificate{servers.issue(func(c *x509.Certificate) {
		c.ExtKeyUsage, c.IPAddresses = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []net.IP{net.IPv4(127, 0, 0, 1)}
	})}}
	n.up.StartTLS()
	t.Cleanup(n.up.Close)
	n.write(n.root, servers.pem())
	n.client509("first")
	return n
}

// client509 writes a client's certificate and key.
func (n *namedFiles) client509(name string) {
	n.t.Helper()
	pair := n.ca.issue(commonName(name))
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		n.t.Fatal(err)
	}
	n.write(n.cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})))
	n.write(n.key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
}

func (n *namedFiles) service(tls string) string {
	return service(`"reverseProxy":{"transport":{"protocol":"http","tls":{`+tls+`}}}`, "baseUrl", quote(n.up.URL))
}

func (n *namedFiles) mutual(root string) string {
	return n.service(`"client_certificate_file":` + quote(n.cert) + `,"client_certificate_key_file":` + quote(n.key) + `,"ca":{"provider":"file","pem_files":[` + quote(root) + `]}`)
}

// fifo puts one where a file was.
func (n *namedFiles) fifo(path string) {
	n.t.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		n.t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *namedFiles) errors() map[string]string {
	var list struct {
		Services []struct{ Service, Error string }
	}
	decode(n.t, n.post("/vault.admin.listServices", "{}").body, &list)
	out := map[string]string{}
	for _, svc := range list.Services {
		out[svc.Service] = svc.Error
	}
	return out
}

// TestNamedFiles is about files that a service's reverseProxy names.
func TestNamedFiles(t *testing.T) {
	t.Parallel()
	n := startNamedFiles(t, config{})
	at := func(name string) string { return filepath.Join(n.dir, name) }
	hello := func(token, name string) string {
		t.Helper()
		r := n.call(token, name, "e", "null")
		return strings.TrimSpace(r.header.Get("Vault-Error") + " " + r.body)
	}
	works := func(name, want string) {
		t.Helper()
		if got := hello(n.issue("tony", name, "x"), name); !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}

	// Whatever is wrong with a file, the answer is the same, and says nothing
	// of it that the request did not.
	n.fifo(at("fifo"))
	n.write(at("text"), "SECRET-LINE of another program\n")
	before := n.post("/vault.admin.listServices", "{}").body + n.post("/vault.admin.listSecrets", "{}").body
	for _, name := range []string{"fifo", "text", "missing", "", "root.pem/x"} {
		r := n.refused(t, refusal{
			path: "/vault.admin.addService", status: 400, code: "REVERSEPROXY_INVALID", event: "admin.addService",
			body: strings.Replace(n.mutual(at(name)), "{", `{"service":"new","secretRef":"fresh","masterSecret":"0123456789-fresh",`, 1),
		})
		var problem struct{ Detail, Hint string }
		decode(t, r.body, &problem)
		if want := "reverseProxy.transport.tls.ca.pem_files[0] must name a file of certificates in PEM, and " + at(name) + " cannot be used as one"; problem.Detail != want ||
			!strings.HasPrefix(problem.Hint, "the server's log says why") {
			t.Errorf("%s: %s", name, r.body)
		}
	}
	if after := n.post("/vault.admin.listServices", "{}").body + n.post("/vault.admin.listSecrets", "{}").body; after != before {
		t.Errorf("refused requests changed\n%s\nto\n%s", before, after)
	}
	log := n.read("caddy.log")
	for _, why := range []string{"fifo is not a regular file", "text has no certificate in PEM", "no such file", "is not a regular file (d", "not a directory"} {
		if !strings.Contains(log, why) {
			t.Errorf("the log does not say: %s", why)
		}
	}
	if strings.Contains(log, "SECRET-LINE") {
		t.Error("the log shows a line of a file")
	}

	// By hand, one whose files are not there keeps no other from being served,
	// and is served when they are, without being touched.
	n.writeService("byhand", n.mutual(at("later.pem")))
	n.writeService("pipe", n.mutual(at("fifo")))
	n.writeService("other", service("", "baseUrl", quote(n.server.up.URL)))
	eventually(t, "the faults are shown", func() bool {
		e := n.errors()
		_, other := e["other"]
		return other && strings.Contains(e["byhand"], "later.pem cannot be used as one") && strings.Contains(e["pipe"], "fifo cannot be used as one")
	})
	works("other", "full_name")
	n.refused(t, refusal{path: "/vault.issueToken", body: `{"service":"pipe","scope":["x"]}`, status: 404, code: "UNKNOWN_SERVICE", event: "token.issue"})
	n.write(at("later.pem"), n.read("root.pem"))

	// What was good when the service was loaded is good for the first call,
	// and a FIFO in its place holds up nobody's.
	n.addService("mutual", n.mutual(n.root), "")
	root := n.read("root.pem")
	n.fifo(n.root)
	works("mutual", "first")

	n.reload(t)
	works("other", "full_name")
	works("mutual", "first")
	eventually(t, "the log tells of the file", func() bool {
		return strings.Contains(n.read("caddy.log"), "root.pem is not a regular file")
	})

	// New files are read when a configuration starts, or the service is
	// changed, and not before.
	if err := os.Remove(n.root); err != nil {
		t.Fatal(err)
	}
	n.write(n.root, root)
	n.client509("second")
	works("mutual", "first")
	n.reload(t)
	eventually(t, "the new certificate is shown", func() bool {
		return strings.Contains(hello(n.issue("tony", "mutual", "x"), "mutual"), "second")
	})
	n.client509("third")
	n.ok("/vault.admin.updateService", `{"service":"mutual"}`, nil)
	works("mutual", "third")
	eventually(t, "what was mended is served", func() bool { return n.errors()["byhand"] == "" })
	if r := n.call(n.issue("tony", "byhand", "x"), "byhand", "e", "null"); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}

	// After a start, a service without its files is the only one that is not
	// there.
	if err := os.Remove(at("later.pem")); err != nil {
		t.Fatal(err)
	}
	n.stop()
	n.start()
	works("mutual", "third")
	works("other", "full_name")
	if e := n.errors()["byhand"]; !strings.Contains(e, "later.pem cannot be used as one") {
		t.Errorf("the error is %q", e)
	}
}

// TestNamedAuthorities is about authorities of Caddy's that a service names.
func TestNamedAuthorities(t *testing.T) {
	t.Parallel()
	n := startNamedFiles(t, config{global: `
	pki {
		ca corp {
			name corp
		}
	}
	skip_install_trust
`})
	ca := func(name string) string {
		return n.service(`"ca":{"provider":"pki_root","authority":["` + name + `"]}`)
	}
	r := n.refused(t, refusal{
		path: "/vault.admin.addService", status: 400, code: "REVERSEPROXY_INVALID", event: "admin.addService",
		body: strings.Replace(ca("nobody"), "{", `{"service":"new",`, 1),
	})
	if !strings.Contains(r.body, "reverseProxy.transport.tls.ca.authority[0] must name a certificate authority of this server's, and is nobody") {
		t.Error(r.body)
	}
	n.addService("corp", ca("corp"), "") // which has not issued the upstream's certificate
	for _, tt := range []struct{ name, code string }{{"corp", "UPSTREAM_TLS"}, {"byhand", "INTERNAL"}} {
		if tt.name == "byhand" {
			n.writeService("byhand", ca("nobody"))
			eventually(t, "the file is served", func() bool { _, ok := n.errors()["byhand"]; return ok })
		}
		if r := n.call(n.issue("tony", tt.name, "x"), tt.name, "e", "null"); r.header.Get("Vault-Error") != tt.code {
			t.Errorf("%s: %d %s", tt.name, r.status, r.body)
		}
	}
	if !strings.Contains(n.read("caddy.log"), "and is nobody") {
		t.Error("the log does not say which authority there is not")
	}
}
