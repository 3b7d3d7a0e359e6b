package handlers

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"
)

// TestClientCertificate looks at connections that are older than what they
// began with.
func TestClientCertificate(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	cert := func(raw string, from, to time.Duration) *x509.Certificate {
		return &x509.Certificate{Raw: []byte(raw), NotBefore: now.Add(from), NotAfter: now.Add(to)}
	}
	leaf, other := cert("leaf", -time.Hour, 0), cert("other", -time.Hour, time.Hour)
	old, early := cert("leaf", -time.Hour, -time.Second), cert("leaf", time.Second, time.Hour)
	root, gone := cert("root", -time.Hour, time.Hour), cert("gone", -time.Hour, -time.Second)
	type chains = [][]*x509.Certificate
	for name, c := range map[string]struct {
		shown  []*x509.Certificate
		chains chains
		want   *x509.Certificate
		good   bool
	}{
		"none":                       {nil, nil, nil, true},
		"a chain to the last second": {[]*x509.Certificate{leaf}, chains{{leaf, root}}, leaf, true},
		"one of two chains":          {[]*x509.Certificate{leaf, gone}, chains{{leaf, gone}, {leaf, root}}, leaf, true},
		"not verified":               {[]*x509.Certificate{leaf}, nil, leaf, false},
		"expired":                    {[]*x509.Certificate{old}, chains{{old, root}}, old, false},
		"early":                      {[]*x509.Certificate{early}, chains{{early, root}}, early, false},
		"an issuer has expired":      {[]*x509.Certificate{leaf}, chains{{leaf, gone}}, leaf, false},
		"the chain of another":       {[]*x509.Certificate{leaf}, chains{{other, root}}, leaf, false},
		"an empty chain":             {[]*x509.Certificate{leaf}, chains{{}}, leaf, false},
	} {
		got, err := clientCertificate(&tls.ConnectionState{PeerCertificates: c.shown, VerifiedChains: c.chains}, now)
		if got != c.want || (err == nil) != c.good {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if got, err := clientCertificate(nil, now); got != nil || err != nil {
		t.Errorf("without TLS: %v, %v", got, err)
	}
}
