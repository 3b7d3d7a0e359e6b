package upstream

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// errForbidden is returned for an address that the guard does not let anyone
// dial. Callers turn it into UPSTREAM_FORBIDDEN.
var errForbidden = errors.New("the vault does not connect to this address")

// A guard decides which addresses a service's transport may dial. It is asked
// with the address of each connection attempt, after name resolution and right
// before connect(2), so a name that resolves to something else the second time
// gains nothing (security.md, "Upstream").
type guard struct {
	// host is the service's own host if that is an address, so that a
	// service may be on a private or loopback address by saying so.
	host netip.Addr

	// loopback is set for the host name localhost, which may be any loopback
	// address and nothing else.
	loopback bool

	// allowed are private ranges that the operator has listed.
	allowed []netip.Prefix
}

// newGuard returns the guard of a service whose base URL has this host name
// (no port, no brackets).
func newGuard(hostname string, allowed []netip.Prefix) guard {
	g := guard{allowed: allowed, loopback: hostname == "localhost"}
	if addr, err := netip.ParseAddr(hostname); err == nil {
		g.host = addr.Unmap()
	}
	return g
}

// never are ranges and hosts no service may be on, not even by its own name:
// link-local ranges hold the metadata services of the cloud providers, and the
// single addresses are such services elsewhere.
var never = prefixes(
	"0.0.0.0/8",          // this network
	"169.254.0.0/16",     // link-local, metadata of AWS, Azure, GCP and others
	"100.100.100.200/32", // metadata of Alibaba Cloud
	"168.63.129.16/32",   // Azure's wire server
	"192.0.0.192/32",     // metadata of Oracle Cloud
	"224.0.0.0/4",        // multicast
	"255.255.255.255/32",
	"::/128",
	"fe80::/10",        // link-local
	"ff00::/8",         // multicast
	"fd00:ec2::/32",    // metadata of AWS
	"fd20:ce::254/128", // metadata of GCP
	"fd00:42::42/128",  // metadata of Scaleway
	"100::/64",         // discard
	"2001:db8::/32",    // documentation
	"240.0.0.0/4",      // reserved
	"192.0.0.0/29",     // DS-Lite
	"198.18.0.0/15",    // benchmarking
	"::ffff:0:0:0/96",  // translated, RFC 2765
)

// private are ranges that only a service whose own host is such an address, or
// an operator's setting, makes legal.
var private = prefixes(
	"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", // RFC 1918
	"100.64.0.0/10", // shared address space, RFC 6598
	"127.0.0.0/8", "::1/128",
	"fc00::/7",  // unique local, RFC 4193
	"fec0::/10", // site-local, RFC 3879
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// check returns an error that wraps errForbidden if addr may not be dialled.
func (g guard) check(addr netip.Addr) error {
	plain := addr.Unmap().WithZone("")
	// An IPv6 address that carries an IPv4 address leads to that one.
	for _, a := range append(embedded(plain), plain) {
		if contains(never, a) {
			return fmt.Errorf("%w: %s is a link-local, metadata or reserved address", errForbidden, addr)
		}
		if contains(private, a) && !g.mayBePrivate(a) {
			return fmt.Errorf("%w: %s is a private address and the service's base URL does not name it", errForbidden, addr)
		}
	}
	return nil
}

func (g guard) mayBePrivate(a netip.Addr) bool {
	switch {
	case g.host.IsValid() && g.host == a:
		return true
	case g.loopback && a.IsLoopback():
		return true
	}
	return contains(g.allowed, a)
}

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	sixToFour  = netip.MustParsePrefix("2002::/16")      // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32")      // RFC 4380
	compatible = netip.MustParsePrefix("::/96")          // RFC 4291, deprecated
)

// embedded returns the IPv4 addresses that an IPv6 address carries by one of
// the transition mechanisms.
func embedded(a netip.Addr) []netip.Addr {
	if !a.Is6() || a.IsLoopback() || a.IsUnspecified() {
		return nil
	}
	b := a.As16()
	v4 := func(p []byte) netip.Addr { return netip.AddrFrom4([4]byte(p)) }
	switch {
	case nat64.Contains(a), compatible.Contains(a):
		return []netip.Addr{v4(b[12:16])}
	case nat64Local.Contains(a):
		// The operator chooses a prefix length of 48 to 96 bits, so the
		// address may stand in any of these places (RFC 6052, section 2.2).
		all := []netip.Addr{
			v4(b[12:16]),
			v4([]byte{b[6], b[7], b[9], b[10]}),
			v4([]byte{b[7], b[9], b[10], b[11]}),
			v4(b[9:13]),
		}
		return slices.DeleteFunc(all, func(a netip.Addr) bool { return a.As4()[0] == 0 })
	case sixToFour.Contains(a):
		return []netip.Addr{v4(b[2:6])}
	case teredo.Contains(a):
		return []netip.Addr{v4(b[4:8]), v4([]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	}
	return nil
}

// control is a net.Dialer's hook: it sees the address of every attempt as it
// is about to be connected.
func (g guard) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %q is not an address", errForbidden, address)
	}
	return g.check(ap.Addr())
}

// Control is a net.Dialer's hook that refuses addresses.
type Control func(network, address string, c syscall.RawConn) error

// GuardFor returns the hook for connections to a host that an operator has
// named, under the same rules as a service's.
func GuardFor(hostname string, allowed []netip.Prefix) Control {
	return newGuard(hostname, allowed).control
}

// everywhere stands for all addresses that are not forbidden to everybody.
var everywhere = prefixes("0.0.0.0/0", "::/0")

// IssuerGuard returns the hooks for connections to an issuer of JWTs. The
// operator may name a host that is inside; the issuer may send the vault to
// another one only if that is public or allowed.
func IssuerGuard(allowed []netip.Prefix) func(hostname string, named bool) func(network, address string, c syscall.RawConn) error {
	return func(hostname string, named bool) func(network, address string, c syscall.RawConn) error {
		if named {
			return newGuard(hostname, everywhere).control
		}
		return newGuard("", allowed).control
	}
}
