package policy

import (
	"net/netip"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/refusal"
)

// shape is an allow-list of the keys of an object: nil takes any value, a
// shape holds it to an object of that shape.
type shape map[string]shape

// proxyShape is what a service may set of Caddy's reverse_proxy. Left out is
// whatever could send the request, and the secret in it, to another host,
// follow or handle its answer in the vault's place, trust a certificate that
// nobody signed, or write the request to a log.
var proxyShape = shape{
	"flush_interval":     nil,
	"stream_timeout":     nil,
	"stream_close_delay": nil,
	"stream_buffer_size": nil,
	"load_balancing": {
		"retries":      nil,
		"try_duration": nil,
		"try_interval": nil,
	},
	"health_checks": {
		"active": {
			"uri": nil, "method": nil, "interval": nil, "timeout": nil, "passes": nil, "fails": nil,
			"max_size": nil, "expect_status": nil,
		},
		"passive": {
			"fail_duration": nil, "max_fails": nil, "unhealthy_request_count": nil,
			"unhealthy_status": nil, "unhealthy_latency": nil,
		},
	},
	"transport": {
		"protocol": nil,
		"resolver": {"addresses": nil},
		"tls": {
			"ca": nil, "root_ca_pool": nil, "root_ca_pem_files": nil, "client_certificate_file": nil,
			"client_certificate_key_file": nil, "handshake_timeout": nil, "server_name": nil,
			"renegotiation": nil, "curves": nil,
		},
		"keep_alive": {
			"enabled": nil, "probe_interval": nil, "max_idle_conns": nil, "max_idle_conns_per_host": nil,
			"idle_timeout": nil,
		},
		"compression": nil, "max_conns_per_host": nil, "dial_timeout": nil, "dial_fallback_delay": nil,
		"response_header_timeout": nil, "expect_continue_timeout": nil, "max_response_header_size": nil,
		"write_buffer_size": nil, "read_buffer_size": nil,
		"versions": nil, "local_address": nil,
	},
}

// checkReverseProxy holds a service's reverse_proxy settings to proxyShape
// and refuses every placeholder. The types are Caddy's to check.
func checkReverseProxy(raw jsontext.Value) *refusal.Refusal {
	if len(raw) == 0 || raw.Kind() == 'n' {
		return nil
	}
	if r := checkShape("reverseProxy", raw, proxyShape); r != nil {
		return r
	}
	dec := jsontext.NewDecoder(strings.NewReader(string(raw)))
	for {
		tok, err := dec.ReadToken()
		if err != nil {
			return nil // the value is known to be valid: this is its end
		}
		if tok.Kind() == '"' && strings.ContainsAny(tok.String(), "{}") {
			return invalid("reverseProxy", "reverseProxy has a placeholder at %s", shown(string(dec.StackPointer()))).
				WithHint("write the value itself; placeholders are not expanded in a service")
		}
	}
}

func checkShape(where string, raw jsontext.Value, allowed shape) *refusal.Refusal {
	members, err := readObject(raw)
	if err != nil {
		return invalid("reverseProxy", "%s is not an object", where)
	}
	for _, m := range members {
		inner, ok := allowed[m.name]
		here := where + "." + shown(m.name)
		if !ok {
			return invalid("reverseProxy", "%s may not be set for a service", here)
		}
		if m.name == "protocol" && string(m.raw) != `"http"` {
			return invalid("reverseProxy", "%s must be http", here)
		}
		if inner == nil {
			continue
		}
		if r := checkShape(here, m.raw, inner); r != nil {
			return r
		}
	}
	return nil
}

// checkTransport holds transport.versions to those that the vault can guard:
// HTTP/3 dials by other means, and h2c is HTTP/2 without TLS. Whoever answers
// for names is asked over the network.
func checkTransport(raw jsontext.Value, scheme string) *refusal.Refusal {
	var set struct {
		Transport struct {
			Versions []string `json:"versions"`
			Resolver struct {
				Addresses []string `json:"addresses"`
			} `json:"resolver"`
		} `json:"transport"`
	}
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		return invalid("reverseProxy", "reverseProxy.transport has versions or resolver.addresses that are no lists of strings")
	}
	for _, v := range set.Transport.Versions {
		switch {
		case v == "1.1", v == "2", v == "h2c" && scheme == "http":
		case v == "h2c":
			return invalid("reverseProxy", "reverseProxy.transport.versions has h2c, which is for a baseUrl with http")
		default:
			return invalid("reverseProxy", "reverseProxy.transport.versions takes 1.1, 2 and h2c, not %s", shown(v))
		}
	}
	for _, a := range set.Transport.Resolver.Addresses {
		if !resolverAddress(a) {
			return invalid("reverseProxy", "reverseProxy.transport.resolver.addresses has %s, which is no IP address with or without a port", shown(a)).
				WithHint("write 10.0.0.53, 10.0.0.53:53 or [fd00::53]:53, with udp/ or tcp/ before it if need be")
		}
	}
	return nil
}

func resolverAddress(a string) bool {
	if network, rest, ok := strings.Cut(a, "/"); ok && (network == "udp" || network == "tcp") {
		a = rest
	}
	if ap, err := netip.ParseAddrPort(a); err == nil {
		return ap.Port() != 0
	}
	ip, err := netip.ParseAddr(a)
	return err == nil && ip.Zone() == ""
}
