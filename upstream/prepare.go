package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddypki"
	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
)

// transport returns the transport of a service, with what its settings name
// outside of them. It asks nobody, unless a foreign module does, whose time is
// bounded by cancel, which is that of ctx.
func (p *Proxy) transport(ctx caddy.Context, cancel context.CancelFunc, t *reverseproxy.HTTPTransport, svc *policy.Compiled) (*transport, error) {
	o := outsideOf(svc)
	if o == nil {
		return newTransport(ctx, t, svc, p.allowed)
	}
	client, err := o.settle(t.TLS, p.authority)
	if err != nil {
		return nil, err
	}
	var tr *transport
	if o.foreign {
		tr, err = p.foreignTransport(ctx, cancel, t, svc)
	} else {
		tr, err = newTransport(ctx, t, svc, p.allowed)
	}
	if err != nil {
		return nil, err
	}
	if client != nil {
		if tr.Transport.TLSClientConfig == nil {
			tr.Transport.TLSClientConfig = new(tls.Config)
		}
		tr.Transport.TLSClientConfig.Certificates = []tls.Certificate{*client}
	}
	return tr, nil
}

// foreigners are the foreign modules that are being provisioned, also those
// that do not come back.
var foreigners = make(chan struct{}, 32)

var (
	errLate = errors.New("the module did not get its certificates in time")
	errBusy = fmt.Errorf("%d modules are getting their certificates already", cap(foreigners))
	errNone = errors.New("the module has no certificates")
)

// foreignTransport is newTransport for a service with a foreign module.
func (p *Proxy) foreignTransport(ctx caddy.Context, cancel context.CancelFunc, t *reverseproxy.HTTPTransport, svc *policy.Compiled) (*transport, error) {
	select {
	case foreigners <- struct{}{}:
		defer func() { <-foreigners }()
	default:
		return nil, errBusy
	}
	timer := time.AfterFunc(makeWait, cancel)
	tr, err := newTransport(ctx, t, svc, p.allowed)
	if !timer.Stop() && err == nil {
		err = errLate
	}
	if err != nil {
		return nil, err
	}
	// A file without certificates must look like one that is not there.
	if c := tr.Transport.TLSClientConfig; c == nil || c.RootCAs == nil || c.RootCAs.Equal(x509.NewCertPool()) {
		return nil, errNone
	}
	return tr, nil
}

// caught makes an error of a panic: a foreign module runs where nobody else
// would, and calls wait for what becomes of it.
func caught(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v", r)
	}
}

// configuredCAs returns the authorities of Caddy's configuration, all of which
// is provisioned by the time a service is looked at.
func (p *Proxy) configuredCAs() map[string]*caddypki.CA {
	app, err := p.ctx.AppIfConfigured("pki")
	if err != nil {
		return nil
	}
	return maps.Clone(app.(*caddypki.PKI).CAs)
}

// authority implements authorities, from memory.
func (p *Proxy) authority(name string, intermediate bool) ([]*x509.Certificate, error) {
	ca := p.cas()[name]
	if ca == nil {
		return nil, fmt.Errorf("%s is no certificate authority of this server's", shown(name))
	}
	if intermediate {
		return ca.IntermediateCertificateChain(), nil
	}
	return []*x509.Certificate{ca.RootCertificate()}, nil
}

// Check finds what would keep the proxy of a service from being made under
// this configuration: what ParseService cannot know.
func (p *Proxy) Check(ctx context.Context, svc *policy.Compiled) *refusal.Refusal {
	o := outsideOf(svc)
	if o == nil {
		return nil
	}
	if r := p.checkAuthorities(o); r != nil || !o.foreign {
		return r
	}
	tried := make(chan error, 1)
	go func() { tried <- p.try(svc) }()
	timer := time.NewTimer(fileWait)
	defer timer.Stop()
	var err error
	select {
	case err = <-tried:
	case <-timer.C:
		err = errLate
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return wrong("reverseProxy.transport.tls.ca names a module that has no certificates").
			WithHint("the server's log says why").WithCause(outsideError{err})
	}
	return nil
}

func (p *Proxy) checkAuthorities(o *outside) *refusal.Refusal {
	for _, a := range o.authorities {
		if p.cas()[a.name] == nil {
			return wrong("%s must name a certificate authority of this server's, and is %s", a.where, shown(a.name)).
				WithHint("those are the certificate_authorities of the app pki in Caddy's configuration")
		}
	}
	return nil
}

// try makes a service's transport and throws it away.
func (p *Proxy) try(svc *policy.Compiled) (err error) {
	defer caught(&err)
	t := new(reverseproxy.HTTPTransport)
	if r := decodeSettings(svc.ReverseProxy, new(reverseproxy.Handler), t); r != nil {
		return r
	}
	ctx, cancel := caddy.NewContext(p.ctx)
	defer cancel()
	tr, err := p.transport(ctx, cancel, t, svc)
	if err != nil {
		return err
	}
	return tr.Cleanup()
}

// Prepare begins what a service's first call would have to wait for, and tells
// the log of what is missing. It does not wait.
func (p *Proxy) Prepare(svc *policy.Compiled) {
	o := outsideOf(svc)
	if o == nil || p.closed.Load() {
		return
	}
	if r := p.checkAuthorities(o); r != nil {
		p.logger.Error("service cannot be proxied to", zap.String("service", svc.Name), zap.Error(r))
		return
	}
	if o.foreign {
		p.slot(svc, false)
	}
}

// Refresh reads the files that services name again, as it is due when a
// configuration starts. What is no longer good is told to the log, and what
// was good before stays in use.
func (p *Proxy) Refresh(services []*policy.Compiled) {
	p.cas()
	for _, svc := range services {
		p.Prepare(svc)
	}
	for _, svc := range services {
		o := outsideOf(svc)
		if o == nil || !o.hasFiles() {
			continue
		}
		if p.closed.Load() {
			return
		}
		now, r := o.read(files)
		if r != nil {
			p.logger.Error("a file that a service names cannot be used; what was read before stays in use",
				zap.String("service", svc.Name), zap.Error(r), zap.NamedError("cause", r.Cause))
			continue
		}
		if before := o.kept.Swap(now); before.sum != now.sum {
			p.Forget(svc.Name)
			p.logger.Info("files that a service names have changed", zap.String("service", svc.Name))
		}
	}
}
