package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An authority issues certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	root := a.issue(func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IsCA, c.BasicConstraintsValid, c.ExtKeyUsage = true, true, nil
		c.KeyUsage = x509.KeyUsageCertSign
	})
	a.key = root.PrivateKey.(*ecdsa.PrivateKey)
	a.cert = root.Leaf
	return a
}

// issue makes a certificate for clients, good for an hour, that edits change.
func (a *authority) issue(edits ...func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, e := range edits {
		e(template)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		leaf = nil // as some are meant to be
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// Tags of names in a certificate (RFC 5280, section 4.2.1.6).
const (
	nameEmail = 1
	nameDNS   = 2
	nameURI   = 6
)

// named gives a certificate a list of names, byte for byte.
func named(t testing.TB, pairs ...any) func(*x509.Certificate) {
	t.Helper()
	var list []asn1.RawValue
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: pairs[i].(int), Bytes: []byte(pairs[i+1].(string))})
	}
	der, err := asn1.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der})
	}
}

func commonName(cn string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: cn} }
}

// certSites is a server with a site for each way to ask for certificates.
type certSites struct {
	*server
	ca    *authority
	roots *x509.CertPool

	given, required, asked string // sites that verify if given, always, never
}

func startCertSites(t testing.TB, more string) *certSites {
	site := func(name, mode string) string {
		pool := "trust_pool file $DIR/agents.pem"
		if mode == "request" {
			pool = ""
		}
		return fmt.Sprintf("https://%s:$PORT2 {\n\tbind 127.0.0.1\n\ttls $DIR/site.pem $DIR/site.key {\n\t\tclient_auth {\n\t\t\tmode %s\n\t\t\t%s\n\t\t}\n\t}\n\tvault\n}\n", name, mode, pool)
	}
	s := &certSites{ca: newAuthority(t, "agents"), roots: x509.NewCertPool()}
	s.server = prepare(t, config{
		vault: more + `
		agents {
			certificates san_uri spiffe://corp/agents/*
			certificates san_dns *.agents.corp
			certificates cn agent-*
			trust none
		}`,
		sites: "http://:$PORT {\n\tbind 127.0.0.1\n\tvault\n}\n" +
			site("localhost", "verify_if_given") + site("required.localhost", "require_and_verify") + site("asked.localhost", "request"),
	})
	own := newAuthority(t, "sites")
	cert := own.issue(func(c *x509.Certificate) {
		c.DNSNames = []string{"localhost", "required.localhost", "asked.localhost"}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	s.roots.AddCert(own.cert)
	s.write(filepath.Join(s.dir, "agents.pem"), s.ca.pem())
	s.write(filepath.Join(s.dir, "site.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	s.write(filepath.Join(s.dir, "site.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	s.start()
	s.addService("github", s.githubService(), secret)
	s.given, s.required, s.asked = "https://localhost:"+s.port2, "https://required.localhost:"+s.port2, "https://asked.localhost:"+s.port2
	return s
}

// as makes what is sent next come from the holder of a certificate, of none
// without one. It is shown whatever the server asks for.
func (s *certSites) as(certs ...tls.Certificate) *http.Transport {
	c := &tls.Config{RootCAs: s.roots, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	if certs != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certs[0], nil }
	}
	s.client.CloseIdleConnections()
	tr := &http.Transport{
		TLSClientConfig: c, ForceAttemptHTTP2: true, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
		},
	}
	s.client = &http.Client{Transport: tr}
	return tr
}

const forGitHub = `"service":"github","scope":["github:repos:read"]`

// issueAs gets a token at a site and returns it with its claims.
func (s *certSites) issueAs(site, members string, edits ...edit) (string, map[string]any) {
	s.t.Helper()
	var out struct {
		issued
		TokenType string `json:"tokenType"`
	}
	s.ok(site+"/vault.issueToken", "{"+forGitHub+members+"}", &out, edits...)
	s.hide(out.Token, "a token had with a certificate")
	return out.Token, payload(s.t, out.Token)
}

func thumbprint(c tls.Certificate) string {
	sum := sha256.Sum256(c.Certificate[0])
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// TestCertificateIdentity knows agents by certificates that Caddy has
// verified, on every kind of site.
func TestCertificateIdentity(t *testing.T) {
	t.Parallel()
	s := startCertSites(t, "issuer https://vault.example.com")
	tony := s.ca.issue(named(t, nameURI, "spiffe://corp/agents/tony"))
	steve := s.ca.issue(named(t, nameDNS, "steve.agents.corp"))
	visitor := s.ca.issue(commonName("Somebody with a browser"))

	s.as(tony)
	for _, site := range []string{s.given, s.required} {
		// Over new and resumed sessions.
		for range 3 {
			if _, claims := s.issueAs(site, ""); claims["sub"] != "tony" {
				t.Errorf("%s: the agent is %v", site, claims["sub"])
			}
		}
	}
	s.issueAs(s.given, `,"agentId":"tony"`)
	s.refused(t, refusal{path: s.given + "/vault.issueToken", event: "token.issue", status: 403, code: "AGENT_MISMATCH", body: `{"agentId":"steve",` + forGitHub + `}`})
	s.as(s.ca.issue(commonName("agent-victim")))
	if _, claims := s.issueAs(s.required, ""); claims["sub"] != "victim" {
		t.Errorf("the agent is %v", claims["sub"])
	}

	// The first means that is present decides.
	var added struct {
		OK       bool   `json:"ok"`
		AgentID  string `json:"agentId"`
		AgentKey string `json:"agentKey"`
	}
	s.ok("/vault.admin.addAgent", `{"agentId":"steve"}`, &added)
	key := added.AgentKey
	s.hide(key, "an agent's key")
	s.as(tony)
	if _, claims := s.issueAs(s.given, "", bearer(key)); claims["sub"] != "tony" {
		t.Errorf("with another agent's key, the agent is %v", claims["sub"])
	}
	s.as()
	if _, claims := s.issueAs(s.given, "", bearer(key)); claims["sub"] != "steve" {
		t.Errorf("without a certificate, the agent is %v", claims["sub"])
	}
	s.as(visitor)
	r := s.refused(t, refusal{path: s.given + "/vault.issueToken", event: "token.issue", status: 401, code: "CERTIFICATE_INVALID", body: `{` + forGitHub + `}`, edits: []edit{bearer(key)}})
	var problem struct{ Hint string }
	decode(t, r.body, &problem)
	if want := "cn Somebody with a browser"; !strings.Contains(problem.Hint, want) || !strings.Contains(problem.Hint, "certificates") {
		t.Errorf("the hint does not teach: %q", problem.Hint)
	}
	s.as()
	s.refused(t, refusal{path: s.given + "/vault.issueToken", event: "token.issue", status: 401, code: "AGENT_UNAUTHENTICATED", body: `{` + forGitHub + `}`})
	if r, err := s.try("POST", s.required+"/vault.issueToken", `{`+forGitHub+`}`); err == nil {
		t.Errorf("a site that requires certificates answers %d without", r.status)
	}

	// A token alone is enough for calls, whoever shows it what; and revoking
	// takes one's own.
	s.as(tony)
	token, _ := s.issueAs(s.given, `,"sessionId":"one"`)
	s.as(visitor)
	if r := s.do("GET", s.given+"/proxy/github/repos/o/r", "", bearer(token)); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	s.refused(t, refusal{path: s.given + "/vault.revoke", event: "token.revoke", status: 401, code: "CERTIFICATE_INVALID", body: `{"sessionId":"one"}`})
	s.refused(t, refusal{path: s.given + "/vault.audit.query", event: "audit.query", status: 401, code: "CERTIFICATE_INVALID", body: `{}`})
	s.as(steve)
	s.ok(s.given+"/vault.revoke", `{"sessionId":"one"}`, nil) // of steve
	s.refused(t, refusal{path: s.given + "/vault.revoke", event: "token.revoke", status: 403, code: "AGENT_MISMATCH", body: `{"agentId":"tony"}`})
	s.as(tony)
	if r := s.do("GET", s.given+"/proxy/github/repos/o/r", "", bearer(token)); r.status != 200 {
		t.Errorf("another agent's revocation holds: %d %s", r.status, r.body)
	}
	s.ok(s.given+"/vault.revoke", `{"sessionId":"one"}`, nil)
	s.refused(t, refusal{method: "GET", path: s.given + "/proxy/github/repos/o/r", event: "proxy.call", status: 401, code: "SESSION_REVOKED", edits: []edit{bearer(token)}})

	// A record's switch holds for whom a certificate names.
	s.as()
	s.ok("/vault.admin.disableAgent", `{"agentId":"steve"}`, nil)
	s.as(steve)
	s.refused(t, refusal{path: s.given + "/vault.issueToken", event: "token.issue", status: 401, code: "AGENT_DISABLED", body: `{` + forGitHub + `}`})
	s.as()
	s.ok("/vault.admin.updateAgent", `{"agentId":"steve","disabled":false}`, nil)

	// The standard endpoint takes a certificate as a client's proof. Whoever
	// offers a secret is known by that, and the certificate says the same.
	form := func(pairs ...string) (string, edit) {
		v := url.Values{"grant_type": {"client_credentials"}, "resource": {"github"}, "scope": {"github:repos:read"}}
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v.Encode(), header("Content-Type", "application/x-www-form-urlencoded")
	}
	s.as(steve)
	for _, c := range []struct {
		pairs  []string
		status int
		code   string
	}{
		{nil, 200, ""},
		{[]string{"client_id", "steve"}, 200, ""},
		{[]string{"client_id", "steve", "client_secret", key}, 200, ""},
		{[]string{"client_id", "tony"}, 401, "AGENT_UNAUTHENTICATED"},
		{[]string{"client_id", "steve", "client_secret", "wrong"}, 401, "AGENT_UNAUTHENTICATED"},
		{[]string{"client_id", "steve", "client_secret", "cva_wrong"}, 401, "AGENT_KEY_INVALID"},
	} {
		body, kind := form(c.pairs...)
		r := s.post(s.given+"/oauth/token", body, kind)
		if r.status != c.status || r.header.Get("Vault-Error") != c.code {
			t.Errorf("%v: %d %s %s", c.pairs, r.status, r.header.Get("Vault-Error"), r.body)
		}
	}
	s.as(tony)
	body, kind := form("client_id", "steve", "client_secret", key)
	if r := s.post(s.given+"/oauth/token", body, kind); r.header.Get("Vault-Error") != "AGENT_MISMATCH" {
		t.Errorf("another's key with an own certificate: %d %s", r.status, r.body)
	}
	if r := s.do("GET", s.given+"/.well-known/oauth-authorization-server", ""); !strings.Contains(r.body, `"tls_client_auth"`) {
		t.Errorf("the metadata do not say it: %s", r.body)
	}
	s.as()
}

// TestHostileCertificates shows certificates that are nobody's.
func TestHostileCertificates(t *testing.T) {
	t.Parallel()
	s := startCertSites(t, "")
	const good = "spiffe://corp/agents/tony"
	names := func(pairs ...any) tls.Certificate { return s.ca.issue(named(t, pairs...)) }
	edited := func(edits ...func(*x509.Certificate)) tls.Certificate {
		return s.ca.issue(append(edits, named(t, nameURI, good))...)
	}
	leaf := edited()
	byLeaf := (&authority{t: t, cert: leaf.Leaf, key: leaf.PrivateKey.(*ecdsa.PrivateKey)}).issue(named(t, nameURI, good))
	byLeaf.Certificate = append(byLeaf.Certificate, leaf.Certificate[0])
	chained := func(ca tls.Certificate) tls.Certificate {
		c := (&authority{t: t, cert: ca.Leaf, key: ca.PrivateKey.(*ecdsa.PrivateKey)}).issue(named(t, nameURI, good))
		c.Certificate = append(c.Certificate, ca.Certificate[0])
		return c
	}
	middle := func(edits ...func(*x509.Certificate)) tls.Certificate {
		return s.ca.issue(append([]func(*x509.Certificate){func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "middle"}
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		}}, edits...)...)
	}

	// That the rest fails for its own reason: these do not.
	for title, cert := range map[string]tls.Certificate{"a good one": names(nameURI, good), "one of an issuer between": chained(middle())} {
		s.as(cert)
		if _, claims := s.issueAs(s.given, ""); claims["sub"] != "tony" {
			t.Fatalf("%s: %v", title, claims["sub"])
		}
	}

	type hostile struct {
		name string
		cert tls.Certificate
	}
	for _, h := range []hostile{ // TLS refuses
		{"expired", edited(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })},
		{"not valid yet", edited(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) })},
		{"another authority", newAuthority(t, "other").issue(named(t, nameURI, good))},
		{"another authority of the same name", newAuthority(t, "agents").issue(named(t, nameURI, good))},
		{"its own authority", (&authority{t: t}).issue(named(t, nameURI, good))},
		{"for servers only", edited(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })},
		{"for mail only", edited(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} })},
		{"issued by an agent", byLeaf},
		{"an issuer that has expired", chained(middle(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }))},
		{"an issuer for other domains", chained(middle(func(c *x509.Certificate) {
			c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"other"}, true
		}))},
		{"an issuer for servers only", chained(middle(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }))},
		{"something critical that nobody knows", edited(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true, Value: []byte{5, 0}})
		})},
		{"another's certificate, without its key", tls.Certificate{Certificate: leaf.Certificate, PrivateKey: s.ca.issue().PrivateKey}},
	} {
		s.as(h.cert)
		sent := s.up.count()
		s.barrierHTTP()
		_, end := s.auditLog(0)
		for _, site := range []string{s.given, s.required} {
			if r, err := s.try("POST", site+"/vault.issueToken", `{`+forGitHub+`}`); err == nil {
				t.Errorf("%s: %d %s", h.name, r.status, r.body)
			}
		}
		s.barrierHTTP()
		if records, _ := s.auditLog(end); s.up.count() != sent || len(records) > 1 {
			t.Errorf("%s: it left %v", h.name, records)
		}
	}

	for _, h := range []hostile{ // the vault refuses
		{"no name", s.ca.issue()},
		{"a name of no rule", names(nameURI, "spiffe://corp/robots/tony")},
		{"another trust domain", names(nameURI, "spiffe://corp.evil/agents/tony")},
		{"two SPIFFE ids", names(nameURI, good, nameURI, "spiffe://corp/agents/steve")},
		{"a SPIFFE id and another URI", names(nameURI, good, nameURI, "https://corp/x")},
		{"two kinds of name, two agents", names(nameURI, good, nameDNS, "steve.agents.corp")},
		{"two hosts", names(nameDNS, "tony.agents.corp", nameDNS, "steve.agents.corp")},
		{"a wildcard", names(nameDNS, "*.agents.corp")},
		{"a wildcard id", names(nameURI, "spiffe://corp/agents/*")},
		{"percent-encoding", names(nameURI, "spiffe://corp/agents/t%6fny")},
		{"a slash, encoded", names(nameURI, "spiffe://corp/agents%2ftony")},
		{"upper-case scheme", names(nameURI, "SPIFFE://corp/agents/tony")},
		{"a trailing slash", names(nameURI, good+"/")},
		{"a user", names(nameURI, "spiffe://tony@corp/agents/tony")},
		{"a query", names(nameURI, good+"?x=1")},
		{"a fragment", names(nameURI, good+"#x")},
		{"dots", names(nameURI, "spiffe://corp/agents/..")},
		{"two slashes", names(nameURI, "spiffe://corp/agents//tony")},
		{"an address for a host", names(nameEmail, "tony.agents.corp@x")},
		{"control characters", s.ca.issue(commonName("agent-tony\x1b[2J"))},
		{"NUL in a common name", s.ca.issue(commonName("agent-tony\x00"))},
		{"a name beyond the longest", s.ca.issue(commonName("agent-" + string(make([]byte, 300))))},
		{"two common names", s.ca.issue(func(c *x509.Certificate) {
			for _, cn := range []string{"agent-tony", "agent-steve"} {
				c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: cn})
			}
		})},
	} {
		s.as(h.cert)
		t.Run(h.name, func(t *testing.T) {
			s.refused(t, refusal{path: s.given + "/vault.issueToken", event: "token.issue", status: 401, code: "CERTIFICATE_INVALID", body: `{` + forGitHub + `}`})
		})
	}

	// NUL in a host name: whoever refuses it.
	s.as(names(nameDNS, "tony\x00.agents.corp"))
	if r, err := s.try("POST", s.given+"/vault.issueToken", `{`+forGitHub+`}`); err == nil && r.header.Get("Vault-Error") != "CERTIFICATE_INVALID" {
		t.Errorf("NUL in a host name: %d %s", r.status, r.body)
	}

	// Where nobody verifies, the best certificate is none.
	for _, cert := range []tls.Certificate{names(nameURI, good), (&authority{t: t}).issue(named(t, nameURI, good))} {
		s.as(cert)
		s.refused(t, refusal{path: s.asked + "/vault.issueToken", event: "token.issue", status: 401, code: "CERTIFICATE_INVALID", body: `{` + forGitHub + `}`})
		s.refused(t, refusal{path: s.asked + "/vault.issueToken", event: "token.issue", status: 401, code: "CERTIFICATE_INVALID", body: `{` + forGitHub + `,"bind":"mtls"}`})
	}
	// A connection to a site that asks for none does not lead to one that does.
	s.as()
	if r := s.post(s.asked+"/vault.issueToken", `{`+forGitHub+`}`, host("required.localhost:"+s.port2)); r.status != 421 {
		t.Errorf("another site's name: %d %s", r.status, r.body)
	}
	s.as()
}

// barrierHTTP is barrier over the site without TLS, whoever the client is.
func (s *certSites) barrierHTTP() {
	s.t.Helper()
	s.ok("/vault.audit.query", `{"limit":1}`, nil, bearer(adminToken))
}

// TestBindingDemanded has agents whose records demand that their tokens are
// bound, by whatever means they are known.
func TestBindingDemanded(t *testing.T) {
	t.Parallel()
	s := startCertSites(t, "")
	cert := func(name string) tls.Certificate { return s.ca.issue(named(t, nameURI, "spiffe://corp/agents/"+name)) }
	tony, again, steve := cert("tony"), cert("tony"), cert("steve")
	call := refusal{method: "GET", path: s.given + "/proxy/github/repos/o/r", event: "proxy.call", status: 401, code: "TOKEN_BINDING_REQUIRED"}
	issue := refusal{path: s.given + "/vault.issueToken", event: "token.issue", status: 401, code: "TOKEN_BINDING_REQUIRED", body: `{` + forGitHub + `}`}
	works := func(token string, edits ...edit) {
		t.Helper()
		if r := s.do("GET", call.path, "", append(edits, bearer(token))...); r.status != 200 {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	refused := func(token string, edits ...edit) {
		t.Helper()
		r := call
		r.edits = append(edits, bearer(token))
		s.refused(t, r)
	}

	s.as(tony)
	free, claims := s.issueAs(s.given, "")
	if claims["cnf"] != nil {
		t.Errorf("nobody asked for %v", claims["cnf"])
	}
	works(free)
	var added struct {
		OK       bool   `json:"ok"`
		AgentID  string `json:"agentId"`
		AgentKey string `json:"agentKey"`
	}
	s.ok("/vault.admin.addAgent", `{"agentId":"tony","binding":"mtls"}`, &added)
	s.hide(added.AgentKey, "an agent's key")
	refused(free) // what was issued before the demand ends with it

	// mtls: bound without asking, and good with that certificate alone.
	bound, claims := s.issueAs(s.given, "")
	if cnf, _ := claims["cnf"].(map[string]any); cnf["x5t#S256"] != thumbprint(tony) {
		t.Errorf("cnf %v", claims["cnf"])
	}
	works(bound)
	for _, other := range [][]tls.Certificate{{again}, {steve}, nil} {
		s.as(other...)
		refused(bound)
		s.refused(t, refusal{
			path: s.given + "/vault.call", event: "proxy.call", status: 401, code: "TOKEN_BINDING_REQUIRED",
			body: `{"token":"` + bound + `","service":"github","action":"repo.get","params":{"owner":"o","repo":"r"}}`,
		})
		s.refused(t, refusal{
			path: s.given + "/vault.delegateToken", event: "token.delegate", status: 401, code: map[bool]string{true: "TOKEN_BINDING_REQUIRED", false: "AGENT_UNAUTHENTICATED"}[other != nil],
			body: `{"token":"` + bound + `"}`,
		})
	}
	s.as()
	plain := call
	plain.path, plain.edits = "/proxy/github/repos/o/r", []edit{bearer(bound)}
	s.refused(t, plain) // without TLS
	issue.edits = []edit{bearer(added.AgentKey)}
	s.refused(t, issue) // known by key, but nothing to bind to
	issue.edits = nil
	proof := newProofs(t, "")
	s.as(tony)
	issue.edits = []edit{proof("POST", issue.path, ""), bearer(added.AgentKey)}
	if token, claims := s.issueAs(s.given, "", issue.edits...); claims["cnf"].(map[string]any)["jkt"] != nil {
		t.Errorf("a proof binds %v where a certificate is demanded", payload(t, token)["cnf"])
	}

	// dpop: a certificate does not do.
	s.ok("/vault.admin.updateAgent", `{"agentId":"tony","binding":"dpop"}`, nil)
	refused(bound)
	issue.edits = nil
	s.refused(t, issue)
	issue.body = `{` + forGitHub + `,"bind":"mtls"}`
	s.refused(t, issue)
	byKey, claims := s.issueAs(s.given, "", proof("POST", issue.path, ""))
	if cnf, _ := claims["cnf"].(map[string]any); cnf["jkt"] == nil || cnf["x5t#S256"] != nil {
		t.Errorf("cnf %v", claims["cnf"])
	}
	works(byKey, proof("GET", call.path, byKey))
	refused(byKey)

	// any: either, and what is bound in either way goes on.
	s.ok("/vault.admin.updateAgent", `{"agentId":"tony","binding":"any"}`, nil)
	works(bound)
	works(byKey, proof("GET", call.path, byKey))
	if _, claims := s.issueAs(s.given, ""); claims["cnf"].(map[string]any)["x5t#S256"] != thumbprint(tony) {
		t.Errorf("cnf %v", claims["cnf"])
	}
	if _, claims := s.issueAs(s.given, "", proof("POST", issue.path, "")); claims["cnf"].(map[string]any)["jkt"] == nil {
		t.Errorf("cnf %v", claims["cnf"])
	}
	refused(free)
	s.as()
	issue.body, issue.edits = `{`+forGitHub+`}`, []edit{bearer(added.AgentKey)}
	s.refused(t, issue)

	// Nothing any more.
	s.ok("/vault.admin.updateAgent", `{"agentId":"tony","binding":"none"}`, nil)
	works(free)
	refused(bound) // as it was bound, whatever the record says
}

// TestCertificateEnds keeps a connection open beyond the end of its
// certificate.
func TestCertificateEnds(t *testing.T) {
	t.Parallel()
	s := startCertSites(t, "")
	for life := 3 * time.Second; ; life *= 2 {
		until := time.Now().Add(life).Truncate(time.Second)
		cert := s.ca.issue(named(t, nameURI, "spiffe://corp/agents/tony"), func(c *x509.Certificate) { c.NotAfter = until })
		s.as(cert).DisableKeepAlives = false
		var got struct {
			issued
		}
		r, err := s.try("POST", s.given+"/vault.issueToken", `{`+forGitHub+`,"bind":"mtls"}`)
		if !time.Now().Before(until) && life < time.Minute {
			continue // a busy machine
		}
		if err != nil || r.status != 200 {
			t.Fatalf("%v, %d %s", err, r.status, r.body)
		}
		decode(t, r.body, &got)
		s.hide(got.Token, "a bound token")
		eventually(t, "the certificate ends", func() bool { return time.Now().After(until) })
		s.refused(t, refusal{path: s.given + "/vault.issueToken", event: "token.issue", status: 401, code: "CERTIFICATE_INVALID", body: `{` + forGitHub + `}`})
		s.refused(t, refusal{method: "GET", path: s.given + "/proxy/github/repos/o/r", event: "proxy.call", status: 401, code: "TOKEN_BINDING_REQUIRED", edits: []edit{bearer(got.Token)}})
		s.as()
		return
	}
}
