package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
)

// isTLSError reports whether err came from making a TLS connection: a
// certificate that does not hold, an alert, or something that is not TLS.
func isTLSError(err error) bool {
	var (
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
		alert  tls.AlertError
		auth   x509.UnknownAuthorityError
		host   x509.HostnameError
		bad    x509.CertificateInvalidError
		op     *net.OpError
	)
	switch {
	case errors.As(err, &cert), errors.As(err, &record), errors.As(err, &alert),
		errors.As(err, &auth), errors.As(err, &host), errors.As(err, &bad):
		return true
	case errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error"): // crypto/tls, an alert
		return true
	}
	return strings.Contains(err.Error(), "TLS handshake timeout") || strings.HasPrefix(err.Error(), "tls: ")
}
