package upstream

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store"
)

// outside is what a service's settings name that is not in them. Files are
// read when the service is loaded, and kept; a call reads none.
type outside struct {
	trusted     []named // files of certificates
	certificate named   // of the client, with its key
	key         named
	authorities []named // of Caddy's own

	// foreign says that a module is among them of which nobody knows what it
	// does to get its certificates, and how long that takes.
	foreign bool

	// kept is what was last read of the files, and good.
	kept atomic.Pointer[contents]
}

// named is a name, and the setting that has it.
type named struct{ where, name string }

// maxNamed is how many files, and authorities, a service may name.
const maxNamed = 32

// contents are what files hold.
type contents struct {
	sum     [sha256.Size]byte
	trusted map[string][]string // path → certificates, as Caddy's JSON has them
	client  *tls.Certificate    // nil for none
}

// outsideOf returns what a service names, nil for nothing.
func outsideOf(svc *policy.Compiled) *outside {
	o, _ := svc.Outside.(*outside)
	return o
}

func (o *outside) empty() bool {
	return len(o.trusted)+len(o.authorities) == 0 && o.certificate.name == "" && !o.foreign
}

// hasFiles reports whether there is something to read.
func (o *outside) hasFiles() bool { return len(o.trusted) > 0 || o.certificate.name != "" }

// read reads the files. What is wrong with one is told to the server's log:
// an administrator from elsewhere may name any file, and learns of none more
// than whether it is of use.
func (o *outside) read(from *fileReader) (*contents, *refusal.Refusal) {
	if len(o.trusted)+len(o.authorities) > maxNamed {
		return nil, wrong("reverseProxy.transport.tls names more than %d files and authorities", maxNamed)
	}
	c := &contents{trusted: map[string][]string{}}
	digest := sha256.New()
	deadline := time.Now().Add(fileWait)
	read := func(path string) ([]byte, error) {
		data, err := from.until(deadline, path)
		sum := sha256.Sum256(data)
		_, _ = digest.Write(sum[:])
		return data, err
	}
	for _, f := range o.trusted {
		data, err := read(f.name)
		if err == nil {
			c.trusted[f.name], err = certificatesOf(f.name, data)
		}
		if err != nil {
			return nil, unusable(f, "a file of certificates in PEM", err)
		}
	}
	if o.certificate.name != "" {
		cert, err := read(o.certificate.name)
		if err == nil {
			_, err = certificatesOf(o.certificate.name, cert)
		}
		if err != nil {
			return nil, unusable(o.certificate, "a file of certificates in PEM", err)
		}
		key, err := read(o.key.name)
		if err == nil {
			var pair tls.Certificate
			if pair, err = tls.X509KeyPair(cert, key); err == nil {
				c.client = &pair
			}
		}
		if err != nil {
			return nil, unusable(o.key, "the file of the certificate's key in PEM", err)
		}
	}
	digest.Sum(c.sum[:0])
	return c, nil
}

// unusable refuses a service for a file, of which every fault looks the same
// from elsewhere.
func unusable(f named, what string, cause error) *refusal.Refusal {
	return wrong("%s must name %s, and %s cannot be used as one", f.where, what, shownPath(f.name)).
		WithHint("the server's log says why; the file is on the server, regular, of at most 1 MiB, and readable by the vault").
		WithCause(outsideError{cause})
}

func shownPath(path string) string {
	quoted := fmt.Sprintf("%.256q", path)
	return quoted[1 : len(quoted)-1]
}

// outsideError is about something that a service names: it may be mended
// without the service's own file being touched.
type outsideError struct{ error }

func (e outsideError) Unwrap() []error { return []error{e.error, store.ErrElsewhere} }

// certificatesOf returns the certificates in a PEM file, of which there must
// be one.
func certificatesOf(path string, data []byte) ([]string, error) {
	var certs []string
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("certificate %d in %s: %w", len(certs)+1, path, err)
		}
		certs = append(certs, base64.StdEncoding.EncodeToString(block.Bytes))
	}
	if certs == nil {
		return nil, fmt.Errorf("%s has no certificate in PEM", path)
	}
	return certs, nil
}

// settle takes files and authorities out of settings and puts in what they
// hold. It returns the client's certificate, which Caddy takes from files
// alone.
func (o *outside) settle(t *reverseproxy.TLSConfig, authority authorities) (*tls.Certificate, error) {
	kept := o.kept.Load()
	if kept == nil {
		kept = new(contents) // nothing is named
	}
	//nolint:staticcheck // a service may set what Caddy has named anew
	for _, path := range t.RootCAPEMFiles {
		t.RootCAPool = append(t.RootCAPool, kept.trusted[path]...)
	}
	t.RootCAPEMFiles = nil //nolint:staticcheck // see above
	t.ClientCertificateFile, t.ClientCertificateKeyFile = "", ""
	var err error
	t.CARaw, err = kept.inline(t.CARaw, authority)
	return kept.client, err
}

// authorities returns the certificates of one of Caddy's own.
type authorities func(name string, intermediate bool) ([]*x509.Certificate, error)

// inline returns the settings of a module of certificates with those in place
// of files and authorities.
func (c *contents) inline(raw json.RawMessage, authority authorities) (json.RawMessage, error) {
	if raw == nil {
		return nil, nil
	}
	var fields map[string]json.RawMessage
	var provider string
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(fields["provider"], &provider); err != nil {
		return nil, err
	}
	delete(fields, "provider")
	rest, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	var certs []string
	add := func(names []string, intermediate bool) error {
		for _, name := range names {
			have, err := authority(name, intermediate)
			if err != nil {
				return err
			}
			for _, cert := range have {
				certs = append(certs, base64.StdEncoding.EncodeToString(cert.Raw))
			}
		}
		return nil
	}
	switch provider {
	case "file":
		var m caddytls.FileCAPool
		if err := caddy.StrictUnmarshalJSON(rest, &m); err != nil {
			return nil, err
		}
		for _, path := range m.TrustedCACertPEMFiles {
			certs = append(certs, c.trusted[path]...)
		}
	case "pki_root":
		var m caddytls.PKIRootCAPool
		if err := caddy.StrictUnmarshalJSON(rest, &m); err != nil {
			return nil, err
		}
		if err := add(m.Authority, false); err != nil {
			return nil, err
		}
	case "pki_intermediate":
		var m caddytls.PKIIntermediateCAPool
		if err := caddy.StrictUnmarshalJSON(rest, &m); err != nil {
			return nil, err
		}
		if err := add(m.Authority, true); err != nil {
			return nil, err
		}
	case "combined":
		var m caddytls.CombinedCAPool
		if err := caddy.StrictUnmarshalJSON(rest, &m); err != nil {
			return nil, err
		}
		for i := range m.SourcesRaw {
			if m.SourcesRaw[i], err = c.inline(m.SourcesRaw[i], authority); err != nil {
				return nil, err
			}
		}
		return json.Marshal(map[string]any{"provider": provider, "sources": m.SourcesRaw})
	default:
		return raw, nil
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s has no certificates", provider)
	}
	return json.Marshal(map[string]any{"provider": "inline", "trusted_ca_certs": certs})
}
