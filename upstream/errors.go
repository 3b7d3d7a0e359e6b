package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddyvault/caddyvault/refusal"
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
	return strings.HasPrefix(err.Error(), "tls: ")
}

// causeOr returns the refusal that cut a call short, if that is what ended it,
// else err.
func causeOr(ctx context.Context, err error) error {
	if r, ok := errors.AsType[*refusal.Refusal](context.Cause(ctx)); ok {
		return r
	}
	return err
}

// refusalFor turns what went wrong between here and the upstream into the
// refusal a client gets. Only the class of the error is told; its text, which
// may name internal addresses, is for the server's log.
func refusalFor(err error) *refusal.Refusal {
	if r, ok := errors.AsType[*refusal.Refusal](err); ok {
		return r
	}
	if herr, ok := errors.AsType[caddyhttp.HandlerError](err); ok && herr.Err != nil {
		err = herr.Err
	}
	var (
		netErr  net.Error
		dialErr reverseproxy.DialError
	)
	switch {
	case errors.Is(err, errForbidden):
		return refusal.New("UPSTREAM_FORBIDDEN", "the service's host leads to an address that the vault does not connect to").WithCause(err)
	case isTLSError(err):
		return refusal.New("UPSTREAM_TLS", "no trusted TLS connection to the upstream could be made").WithCause(err)
	case errors.As(err, &netErr) && netErr.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return timeoutFor(err, errors.As(err, &dialErr)).WithCause(err)
	case errors.As(err, &dialErr), errors.As(err, &netErr), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return refusal.New("UPSTREAM_UNREACHABLE", "the upstream could not be reached").WithCause(err)
	}
	return refusal.New("UPSTREAM_PROTOCOL", "the upstream's answer could not be understood").WithCause(err)
}

// timeoutFor tells by its kind a wait that the dialer or the transport has
// ended. The types of the transport's own errors are not exported.
func timeoutFor(err error, dialling bool) *refusal.Refusal {
	switch text := err.Error(); {
	case strings.Contains(text, "TLS handshake timeout"):
		return timeout(false, "tls", "the upstream did not finish the TLS handshake in time")
	case dialling:
		return timeout(false, "connect", "the upstream could not be connected to in time")
	case strings.Contains(text, "awaiting response headers"):
		return timeout(false, "first_byte", "the upstream did not begin to answer in time")
	}
	return refusal.New("UPSTREAM_TIMEOUT", "the upstream did not answer in time")
}
