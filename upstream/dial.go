package upstream

import (
	"context"
	"math/rand/v2"
	"net"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// newDialer returns a dialer with the settings of Caddy's HTTP transport whose
// every attempt the guard is asked about.
func newDialer(t *reverseproxy.HTTPTransport, g guard) (*net.Dialer, error) {
	d := &net.Dialer{
		Timeout:       time.Duration(t.DialTimeout),
		FallbackDelay: time.Duration(t.FallbackDelay),
		Control:       g.control,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable:   t.KeepAlive.ProbeInterval > 0,
			Interval: time.Duration(t.KeepAlive.ProbeInterval),
		},
	}
	if t.LocalAddress != "" {
		addr, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(t.LocalAddress, "0"))
		if err != nil {
			return nil, err
		}
		d.LocalAddr = addr
	}
	if t.Resolver == nil || len(t.Resolver.Addresses) == 0 {
		return d, nil
	}
	var servers []caddy.NetworkAddress
	for _, s := range t.Resolver.Addresses {
		addr, err := caddy.ParseNetworkAddressWithDefaults(s, "udp", 53)
		if err != nil {
			return nil, err
		}
		servers = append(servers, addr)
	}
	ask := net.Dialer{Timeout: time.Duration(t.DialTimeout)}
	d.Resolver = &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			s := servers[rand.IntN(len(servers))]
			return ask.DialContext(ctx, s.Network, s.JoinHostPort(0))
		},
	}
	return d, nil
}
