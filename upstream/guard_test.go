package upstream

import (
	"errors"
	"net/netip"
	"testing"
)

func TestGuard(t *testing.T) {
	tests := []struct {
		host, addr string
		allowed    string
		ok         bool
	}{
		// public addresses
		{host: "api.github.com", addr: "140.82.112.6", ok: true},
		{host: "api.github.com", addr: "2606:50c0:8000::153", ok: true},
		{host: "api.github.com", addr: "::ffff:140.82.112.6", ok: true},
		{host: "api.github.com", addr: "64:ff9b::8c52:7006", ok: true},
		{host: "api.github.com", addr: "64:ff9b:1::8c52:7006", ok: true},
		{host: "api.github.com", addr: "2002:8c52:7006::1", ok: true},

		// a public name that leads inside
		{host: "rebind.example", addr: "127.0.0.1"},
		{host: "rebind.example", addr: "127.8.8.8"},
		{host: "rebind.example", addr: "::1"},
		{host: "rebind.example", addr: "10.1.2.3"},
		{host: "rebind.example", addr: "172.16.0.1"},
		{host: "rebind.example", addr: "172.31.255.255"},
		{host: "rebind.example", addr: "192.168.1.1"},
		{host: "rebind.example", addr: "100.64.0.1"},
		{host: "rebind.example", addr: "fd12::1"},
		{host: "rebind.example", addr: "::ffff:10.1.2.3"},
		{host: "rebind.example", addr: "::ffff:127.0.0.1"},
		{host: "rebind.example", addr: "::10.1.2.3"},
		{host: "rebind.example", addr: "64:ff9b::a01:203"},
		{host: "rebind.example", addr: "64:ff9b:1::a01:203"},
		{host: "rebind.example", addr: "64:ff9b:1:a01:2:300::"},
		{host: "rebind.example", addr: "2002:a01:203::1"},
		{host: "rebind.example", addr: "2001:0:a01:203::1"},
		{host: "rebind.example", addr: "2001:0:102:304::f5fe:fdfc"}, // Teredo, 10.1.2.3 inverted
		{host: "rebind.example", addr: "fe80::1%eth0"},

		// metadata, whatever the service says
		{host: "rebind.example", addr: "169.254.169.254"},
		{host: "169.254.169.254", addr: "169.254.169.254"},
		{host: "fd00:ec2::254", addr: "fd00:ec2::254"},
		{host: "100.100.100.200", addr: "100.100.100.200"},
		{host: "rebind.example", addr: "168.63.129.16"},
		{host: "rebind.example", addr: "::ffff:169.254.169.254"},
		{host: "rebind.example", addr: "64:ff9b::a9fe:a9fe"},
		{host: "rebind.example", addr: "2002:a9fe:a9fe::1"},
		{host: "rebind.example", addr: "169.254.169.254", allowed: "0.0.0.0/0"},
		{host: "rebind.example", addr: "0.0.0.0"},
		{host: "rebind.example", addr: "::"},
		{host: "rebind.example", addr: "224.0.0.1"},
		{host: "rebind.example", addr: "255.255.255.255"},

		// a service that is inside and says so
		{host: "127.0.0.1", addr: "127.0.0.1", ok: true},
		{host: "127.0.0.1", addr: "127.0.0.2"},
		{host: "127.0.0.1", addr: "10.0.0.1"},
		{host: "::1", addr: "::1", ok: true},
		{host: "localhost", addr: "127.0.0.1", ok: true},
		{host: "localhost", addr: "::1", ok: true},
		{host: "localhost", addr: "10.0.0.1"},
		{host: "10.1.2.3", addr: "10.1.2.3", ok: true},
		{host: "10.1.2.3", addr: "10.1.2.4"},
		{host: "git.corp.example", addr: "10.1.2.3", allowed: "10.0.0.0/8", ok: true},
		{host: "git.corp.example", addr: "::ffff:10.1.2.3", allowed: "10.0.0.0/8", ok: true},
		{host: "git.corp.example", addr: "192.168.0.1", allowed: "10.0.0.0/8"},
	}
	for _, tt := range tests {
		t.Run(tt.host+" at "+tt.addr, func(t *testing.T) {
			var allowed []netip.Prefix
			if tt.allowed != "" {
				allowed = append(allowed, netip.MustParsePrefix(tt.allowed))
			}
			g := newGuard(tt.host, allowed)
			err := g.check(netip.MustParseAddr(tt.addr))
			if ok := err == nil; ok != tt.ok {
				t.Fatalf("check = %v, want ok %v", err, tt.ok)
			}
			if err != nil && !errors.Is(err, errForbidden) {
				t.Fatalf("error %v is not errForbidden", err)
			}
			viaDialer := g.control("tcp", netip.AddrPortFrom(netip.MustParseAddr(tt.addr), 443).String(), nil)
			if (viaDialer == nil) != tt.ok {
				t.Fatalf("control = %v, want ok %v", viaDialer, tt.ok)
			}
		})
	}
}

func TestGuardRefusesWhatIsNoAddress(t *testing.T) {
	g := newGuard("localhost", nil)
	for _, s := range []string{"", "localhost:80", "/run/x.sock", "127.0.0.1"} {
		if err := g.control("tcp", s, nil); !errors.Is(err, errForbidden) {
			t.Errorf("control(%q) = %v", s, err)
		}
	}
}

func TestIssuerGuard(t *testing.T) {
	hooks := IssuerGuard([]netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")})
	for _, tt := range []struct {
		named   bool
		address string
		ok      bool
	}{
		{true, "140.82.112.6:443", true},
		{true, "10.9.9.9:443", true},
		{true, "127.0.0.1:443", true},
		{true, "[fc00::1]:443", true},
		{true, "169.254.169.254:443", false},
		{true, "[fd00:ec2::254]:443", false},
		{true, "[fe80::1]:443", false},
		{true, "0.0.0.0:443", false},
		{false, "140.82.112.6:443", true},
		{false, "10.1.2.3:443", true},
		{false, "10.9.9.9:443", false},
		{false, "127.0.0.1:443", false},
		{false, "169.254.169.254:443", false},
	} {
		// A host that is an address gets no more than one that is not.
		for _, host := range []string{"issuer.example", "10.9.9.9", "localhost"} {
			if err := hooks(host, tt.named)("tcp", tt.address, nil); (err == nil) != tt.ok {
				t.Errorf("%s, named %v, at %s: %v", host, tt.named, tt.address, err)
			}
		}
	}
}
