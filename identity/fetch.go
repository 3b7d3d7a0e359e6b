package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/token/strict"
)

const discoveryPath = "/.well-known/openid-configuration"

// A Place is where the keys of an issuer are.
type Place struct {
	Issuer string

	// Keys is the URL or the file of the key set; "" for discovery.
	Keys string

	// Roots is a file with the certificates that the issuer's server is to be
	// trusted by, instead of the system's.
	Roots string

	// Control returns the hook that refuses addresses, for connections to a
	// host. It may be more liberal to one that the operator has named than to
	// one that the issuer has.
	Control func(host string, named bool) func(network, address string, c syscall.RawConn) error
}

// NewSource returns a source of the keys of an issuer. It opens nothing yet.
func NewSource(p Place) (*Source, error) {
	f := &fetcher{Place: p}
	switch {
	case p.Issuer == "" || strings.ContainsFunc(p.Issuer, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return nil, errors.New("an issuer has a name, without spaces")
	case isURL(p.Keys):
		u, err := checkURL(p.Keys, true)
		if err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
		f.named = u
		return newSource(p.Issuer, f.direct), nil
	case p.Keys != "":
		if p.Roots != "" {
			return nil, errors.New("tls_ca: the keys are in a file")
		}
		s := newSource(p.Issuer, f.file)
		s.local = true
		return s, nil
	}
	u, err := checkURL(p.Issuer, true)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w; keys names where its keys are, if it is no URL", err)
	}
	if u.RawQuery != "" {
		return nil, errors.New("issuer: a URL with a query; keys names where its keys are")
	}
	f.named = u
	return newSource(p.Issuer, f.discover), nil
}

func isURL(s string) bool {
	s = strings.ToLower(s)
	return strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://")
}

// checkURL reads a URL that keys may come from: over TLS, or from this machine.
func checkURL(s string, local bool) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("is not a URL such as https://issuer.example.com")
	case u.User != nil || u.Fragment != "":
		return nil, errors.New("the URL has a user or a fragment")
	case u.Scheme == "http" && local && isLoopback(u.Hostname()):
	case u.Scheme != "https":
		return nil, errors.New("the URL does not begin with https:// (http:// is for this machine alone)")
	}
	return u, nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// fetcher gets the keys of an issuer.
type fetcher struct {
	Place
	named *url.URL // that the operator has named
}

// direct fetches a key set from its URL.
func (f *fetcher) direct(ctx context.Context) (*keySet, time.Duration, error) {
	return f.keys(ctx, f.named)
}

// discover finds the key set as OpenID Connect Discovery has it.
func (f *fetcher) discover(ctx context.Context) (*keySet, time.Duration, error) {
	data, _, err := f.get(ctx, f.named.JoinPath(discoveryPath))
	if err != nil {
		return nil, 0, fmt.Errorf("discovery: %w", err)
	}
	var issuer, jwks string
	err = strict.Whole(data, func(d *jsontext.Decoder, name string) error {
		var ok bool
		switch name {
		case "issuer":
			issuer, ok = strict.Text(d)
		case "jwks_uri":
			jwks, ok = strict.Text(d)
		default:
			return d.SkipValue()
		}
		if !ok {
			return strict.ErrForm
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, 0, errors.New("discovery: the answer is no JSON object with an issuer and a jwks_uri")
	case issuer != f.Issuer:
		return nil, 0, fmt.Errorf("discovery: it is of the issuer %q, not %q", clip(issuer), f.Issuer)
	}
	u, err := checkURL(jwks, f.named.Scheme == "http")
	if err != nil {
		return nil, 0, fmt.Errorf("discovery: jwks_uri: %w", err)
	}
	return f.keys(ctx, u)
}

func (f *fetcher) keys(ctx context.Context, u *url.URL) (*keySet, time.Duration, error) {
	data, header, err := f.get(ctx, u)
	if err != nil {
		return nil, 0, fmt.Errorf("key set: %w", err)
	}
	set, err := parseKeySet(data)
	return set, maxAge(header), err
}

// file reads a key set from a file, often, as somebody may write another.
func (f *fetcher) file(context.Context) (*keySet, time.Duration, error) {
	info, err := os.Stat(f.Keys)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		return nil, 0, fmt.Errorf("key set %s: %w", f.Keys, err)
	}
	in, err := os.Open(f.Keys)
	if err != nil {
		return nil, 0, fmt.Errorf("key set: %w", err)
	}
	defer in.Close()
	data, err := readBounded(in)
	if err != nil {
		return nil, 0, fmt.Errorf("key set %s: %w", f.Keys, err)
	}
	set, err := parseKeySet(data)
	return set, refreshLeast, err
}

// get fetches one document. Each has a connection of its own: they are far
// apart, and the file of roots may change.
func (f *fetcher) get(ctx context.Context, u *url.URL) ([]byte, http.Header, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.Roots != "" && u.Scheme == "https" {
		pem, err := os.ReadFile(f.Roots)
		if err != nil {
			return nil, nil, fmt.Errorf("tls_ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("tls_ca: %s has no certificate", f.Roots)
		}
	}
	dialer := &net.Dialer{Timeout: fetchTimeout}
	if f.Control != nil {
		named := u.Hostname() == f.named.Hostname() || isLoopback(u.Hostname()) && isLoopback(f.named.Hostname())
		dialer.Control = f.Control(u.Hostname(), named)
	}
	transport := &http.Transport{ // no proxy of the environment
		DialContext: dialer.DialContext, TLSClientConfig: conf, TLSHandshakeTimeout: fetchTimeout,
		MaxResponseHeaderBytes: 64 << 10, DisableKeepAlives: true, DisableCompression: true,
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	// A Kubernetes API server gives its key set as nothing but this type.
	req.Header.Set("Accept", "application/jwk-set+json, application/json, */*;q=0.5")
	req.Header.Set("User-Agent", "caddyvault")
	// The transport follows no redirects.
	res, err := transport.RoundTrip(req)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", u.Redacted(), err)
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode >= 300 && res.StatusCode <= 399:
		return nil, nil, fmt.Errorf("%s redirects, which is not followed", u.Redacted())
	case res.StatusCode != http.StatusOK:
		return nil, nil, fmt.Errorf("%s answers with status %d", u.Redacted(), res.StatusCode)
	}
	data, err := readBounded(res.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", u.Redacted(), err)
	}
	return data, res.Header, nil
}

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err == nil && len(data) > maxDocument {
		err = fmt.Errorf("more than %d bytes", maxDocument)
	}
	return data, err
}

// maxAge returns for how long an answer says that it is fresh, 0 if it does not
// say.
func maxAge(h http.Header) time.Duration {
	for part := range strings.SplitSeq(strings.Join(h["Cache-Control"], ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(part)), "=")
		if name != "max-age" {
			continue
		}
		if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
			return max(time.Duration(n)*time.Second, refreshLeast)
		}
	}
	return 0
}
