package handlers

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/caddyvault/caddyvault/identity"
	"github.com/caddyvault/caddyvault/refusal"
)

// Certificates is the means of client certificates that TLS has verified. One
// that was shown and is not good, or is no agent's, is refused: who shows it is
// not asked who else it could be.
type Certificates struct{ Rules identity.CertificateRules }

// Agent implements Means.
func (c Certificates) Agent(ask Asker) (Identity, bool, *refusal.Refusal) {
	cert, err := clientCertificate(ask.TLS, ask.Vault.Now())
	if cert == nil {
		return Identity{}, false, nil
	}
	if err != nil {
		return Identity{}, true, certificateInvalid(err)
	}
	agent, err := c.Rules.Agent(cert)
	if err != nil {
		refused := certificateInvalid(err)
		if errors.Is(err, identity.ErrNoRule) {
			refused = refused.WithHint("an administrator adds a rule for it to the setting certificates, or else connect without it; it has: %s",
				strings.Join(identity.Names(cert), ", "))
		}
		return Identity{}, true, refused
	}
	return Identity{Agent: agent}, true, nil
}

func certificateInvalid(err error) *refusal.Refusal {
	return refusal.New("CERTIFICATE_INVALID", "the client certificate makes nobody known: %s", err).
		WithHint("connect with a certificate of an agent, or with none").
		WithChallenge(`Bearer realm="caddyvault"`)
}

// clientCertificate returns the certificate that the client of a connection has
// shown, nil for none, and why it proves nothing now, if so. A connection may
// be older than the certificate's end.
func clientCertificate(conn *tls.ConnectionState, now time.Time) (*x509.Certificate, error) {
	if conn == nil || len(conn.PeerCertificates) == 0 {
		return nil, nil
	}
	cert := conn.PeerCertificates[0]
	if len(conn.VerifiedChains) == 0 {
		return cert, errors.New("this site asks for one and does not verify it (client_auth mode)")
	}
	outside := func(c *x509.Certificate) bool { return now.Before(c.NotBefore) || now.After(c.NotAfter) }
	if outside(cert) {
		return cert, errors.New("it has expired, or is not valid yet")
	}
	for _, chain := range conn.VerifiedChains {
		if len(chain) > 0 && bytes.Equal(chain[0].Raw, cert.Raw) && !slices.ContainsFunc(chain, outside) {
			return cert, nil
		}
	}
	return cert, errors.New("what it was issued by has expired")
}
