package integration

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// clientCertificate makes a certificate of an agent, its own authority.
func clientCertificate(t testing.TB, name string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestMutualTLS binds tokens to client certificates.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	s := prepare(t, config{sites: `
http://:$PORT {
	bind 127.0.0.1
	vault
}
https://localhost:$PORT2 {
	bind 127.0.0.1
	tls $DIR/cert.pem $DIR/key.pem {
		client_auth {
			mode verify_if_given
			trust_pool file $DIR/agents.pem
		}
	}
	vault
}`})
	writeCertificate(t, s.dir)
	own, ownPEM := clientCertificate(t, "tony")
	other, otherPEM := clientCertificate(t, "steve")
	stranger, _ := clientCertificate(t, "stranger")
	s.write(filepath.Join(s.dir, "agents.pem"), string(bytes.Join([][]byte{ownPEM, otherPEM}, nil)))
	s.start()
	s.addService("github", s.githubService(), secret)
	site := "https://localhost:" + s.port2
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.read("cert.pem")))
	as := func(certs ...tls.Certificate) {
		c := &tls.Config{RootCAs: roots}
		if certs != nil { // shown whatever the server asks for
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certs[0], nil }
		}
		s.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: c}}
	}

	as(own)
	var got issued
	s.ok(site+"/vault.issueToken", "{"+forTony+`"bind":"mtls"}`, &got)
	s.hide(got.Token, "a bound token")
	sum := sha256.Sum256(own.Certificate[0])
	if cnf, _ := payload(t, got.Token)["cnf"].(map[string]any); cnf["x5t#S256"] != base64.RawURLEncoding.EncodeToString(sum[:]) {
		t.Errorf("cnf %v", cnf)
	}
	child := s.delegateAt(site, got.Token)
	for _, token := range []string{got.Token, child} {
		if r := s.do("GET", site+"/proxy/github/repos/o/r", "", bearer(token)); r.status != 200 {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	bad := refusal{method: "GET", path: site + "/proxy/github/repos/o/r", event: "proxy.call", status: 401, code: "TOKEN_BINDING_REQUIRED", edits: []edit{bearer(child)}}
	as(other)
	s.refused(t, bad)
	as()
	s.refused(t, bad)
	s.refused(t, refusal{path: site + "/vault.issueToken", event: "token.issue", status: 401, code: "TOKEN_BINDING_REQUIRED", body: "{" + forTony + `"bind":"mtls"}`})
	bad.path = "/proxy/github/repos/o/r" // without TLS
	s.refused(t, bad)
	as(stranger)
	if r, err := s.try("GET", site+"/health", ""); err == nil {
		t.Errorf("a certificate of nobody: %d", r.status)
	}
	as()
}

func (s *server) delegateAt(site, token string) string {
	s.t.Helper()
	var out delegated
	s.ok(site+"/vault.delegateToken", `{"token":"`+token+`"}`, &out)
	s.hide(out.Token, "a child token")
	return out.Token
}

// newProofs makes a key and returns what makes proofs with it (RFC 9449) for
// requests to URLs that begin with base.
func newProofs(t testing.TB, base string) func(method, path, token string) edit {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	return func(method, path, token string) edit {
		claims := map[string]any{"jti": uuid.NewString(), "htm": method, "htu": base + path, "iat": time.Now().Unix()}
		if token != "" {
			sum := sha256.Sum256([]byte(token))
			claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
		}
		text := part(map[string]any{"typ": "dpop+jwt", "alg": "EdDSA", "jwk": map[string]string{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(pub)}}) + "." + part(claims)
		return header("DPoP", text+"."+base64.RawURLEncoding.EncodeToString(ed25519.Sign(priv, []byte(text))))
	}
}

// TestDPoP binds tokens to keys, over the network.
func TestDPoP(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	proof := newProofs(t, s.base)
	var got struct {
		issued
		TokenType string `json:"tokenType"`
	}
	s.ok("/vault.issueToken", "{"+forTony+`"ttl":300}`, &got, proof("POST", "/vault.issueToken", ""))
	s.hide(got.Token, "a bound token")
	if got.TokenType != "DPoP" {
		t.Errorf("the type is %q", got.TokenType)
	}
	const call = `,"service":"github","action":"repo.get","params":{"owner":"o","repo":"r"}}`
	scheme := header("Authorization", "DPoP "+got.Token)
	for _, r := range []reply{
		s.post("/vault.call", `{"token":"`+got.Token+`"`+call, proof("POST", "/vault.call", got.Token)),
		s.post("/vault.call", `{"x":1`+call, scheme, proof("POST", "/vault.call", got.Token)),
		s.do("GET", "/proxy/github/repos/o/r?page=2", "", scheme, proof("GET", "/proxy/github/repos/o/r", got.Token)),
		s.do("GET", "/proxy/github/repos/o/r", "", header("Vault-Token", got.Token), proof("GET", "/proxy/github/repos/o/r", got.Token)),
	} {
		if r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		if s.up.last(t).header["Dpop"] != nil {
			t.Error("the proof reaches the service")
		}
	}

	body := `{"token":"` + got.Token + `"` + call
	once := proof("POST", "/vault.call", got.Token)
	if r := s.post("/vault.call", body, once); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	bad := func(code string, edits ...edit) {
		t.Helper()
		r := s.refused(t, refusal{path: "/vault.call", event: "proxy.call", status: 401, code: code, body: body, edits: edits})
		if c := r.header.Get("WWW-Authenticate"); !strings.HasPrefix(c, `DPoP error="`) {
			t.Errorf("challenge %q", c)
		}
	}
	bad("TOKEN_BINDING_REQUIRED")
	bad("TOKEN_BINDING_REQUIRED", header("Authorization", "Bearer "+got.Token))
	bad("DPOP_PROOF_INVALID", once)
	bad("DPOP_PROOF_INVALID", proof("POST", "/vault.call", ""))
	bad("DPOP_PROOF_INVALID", proof("GET", "/vault.call", got.Token))
	bad("DPOP_PROOF_INVALID", proof("POST", "/vault.delegateToken", got.Token))
	bad("DPOP_PROOF_INVALID", func(r *http.Request) {
		proof("POST", "/vault.call", got.Token)(r)
		r.Header["Dpop"] = append(r.Header["Dpop"], r.Header["Dpop"][0])
	})
	s.refused(t, refusal{path: "/vault.delegateToken", event: "token.delegate", status: 401, code: "TOKEN_BINDING_REQUIRED", body: `{"token":"` + got.Token + `"}`})
	unbound := s.issue("tony", "github", "github:repos:read")
	s.refused(t, refusal{path: "/vault.call", event: "proxy.call", status: 401, code: "TOKEN_INVALID", body: `{"x":1` + call, edits: []edit{header("Authorization", "DPoP "+unbound), proof("POST", "/vault.call", unbound)}})
	var child struct {
		delegated
		TokenType string `json:"tokenType"`
	}
	s.ok("/vault.delegateToken", `{"token":"`+got.Token+`"}`, &child, proof("POST", "/vault.delegateToken", got.Token))
	s.hide(child.Token, "a bound child")
	s.refused(t, refusal{path: "/vault.call", event: "proxy.call", status: 401, code: "TOKEN_BINDING_REQUIRED", body: `{"token":"` + child.Token + `"` + call})
}
