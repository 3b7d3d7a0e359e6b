package upstream

import (
	"encoding/base64"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddyvault/caddyvault/refusal"
)

// fileOf returns a service's file with reverse_proxy settings.
func fileOf(settings string) []byte {
	return []byte(`{"baseUrl":"https://api.example.com","secretRef":"key","allowedAgents":["*"],"allowedActions":["*"],
		"allowedScopes":["s"],"endpoints":{"all":{"method":"GET","path":"/*"}},"reverseProxy":` + settings + `}`)
}

func TestSettingsOfTheWrongType(t *testing.T) {
	const durations = `must be a duration such as "10s", or a whole number of nanoseconds, and is `
	const ca, active = "transport.tls.ca", "health_checks.active"
	cert := testCertificate()
	for _, tt := range []struct{ settings, field, says string }{
		// Types.
		{`{"flush_interval":"abc"}`, "flush_interval", durations + "another string"},
		{`{"flush_interval":""}`, "flush_interval", durations + "another string"},
		{`{"flush_interval":"10"}`, "flush_interval", durations + "another string"},
		{`{"flush_interval":true}`, "flush_interval", durations + "true"},
		{`{"flush_interval":1.5}`, "flush_interval", durations + "one with a fraction or out of range"},
		{`{"flush_interval":9223372036854775808}`, "flush_interval", durations + "one with a fraction or out of range"},
		{`{"stream_timeout":["1s"]}`, "stream_timeout", durations + "a list"},
		{`{"stream_close_delay":{}}`, "stream_close_delay", durations + "an object"},
		{`{"stream_buffer_size":"1"}`, "stream_buffer_size", "must be a whole number, and is a string"},
		{`{"stream_buffer_size":1e3}`, "stream_buffer_size", "must be a whole number, and is one with a fraction or out of range"},
		{`{"load_balancing":{"retries":"x"}}`, "load_balancing.retries", "must be a whole number, and is a string"},
		{`{"load_balancing":{"try_duration":"1 s"}}`, "load_balancing.try_duration", durations + "another string"},
		{`{"load_balancing":{"try_interval":false}}`, "load_balancing.try_interval", durations + "false"},
		{`{"health_checks":{"active":{"uri":5}}}`, active + ".uri", "must be a string, and is a number"},
		{`{"health_checks":{"active":{"method":["GET"]}}}`, active + ".method", "must be a string, and is a list"},
		{`{"health_checks":{"active":{"expect_status":"2xx"}}}`, active + ".expect_status", "must be a whole number, and is a string"},
		{`{"health_checks":{"active":{"max_size":{}}}}`, active + ".max_size", "must be a whole number, and is an object"},
		{`{"health_checks":{"passive":{"unhealthy_status":500}}}`, "health_checks.passive.unhealthy_status", "must be a list, and is a number"},
		{`{"health_checks":{"passive":{"unhealthy_status":[500,"5xx"]}}}`, "health_checks.passive.unhealthy_status[1]", "must be a whole number, and is a string"},
		{`{"health_checks":{"passive":{"fail_duration":"1h1"}}}`, "health_checks.passive.fail_duration", durations + "another string"},
		{`{"transport":{"protocol":"http","dial_timeout":{}}}`, "transport.dial_timeout", durations + "an object"},
		{`{"transport":{"protocol":"http","compression":"no"}}`, "transport.compression", "must be true or false, and is a string"},
		{`{"transport":{"protocol":"http","max_conns_per_host":2.5}}`, "transport.max_conns_per_host", "must be a whole number, and is one with a fraction or out of range"},
		{`{"transport":{"protocol":"http","local_address":4}}`, "transport.local_address", "must be a string, and is a number"},
		{`{"transport":{"protocol":"http","keep_alive":{"enabled":1}}}`, "transport.keep_alive.enabled", "must be true or false, and is a number"},
		{`{"transport":{"protocol":"http","keep_alive":{"idle_timeout":"x"}}}`, "transport.keep_alive.idle_timeout", durations + "another string"},
		{`{"transport":{"protocol":"http","tls":{"handshake_timeout":"x"}}}`, "transport.tls.handshake_timeout", durations + "another string"},
		{`{"transport":{"protocol":"http","tls":{"root_ca_pem_files":"ca.pem"}}}`, "transport.tls.root_ca_pem_files", "must be a list, and is a string"},
		{`{"transport":{"protocol":"http","tls":{"curves":[1]}}}`, "transport.tls.curves[0]", "must be a string, and is a number"},

		// Values.
		{`{"stream_buffer_size":67108865}`, "stream_buffer_size", "must be at most 67108864"},
		{`{"health_checks":{"active":{"uri":"/x","interval":"-1s"}}}`, active + ".interval", "must not be negative"},
		{`{"health_checks":{"active":{"uri":"/%zz"}}}`, active + ".uri", "must be a path"},
		{`{"health_checks":{"active":{"uri":"/x","method":"A B"}}}`, active + ".method", "must be a method of HTTP, and is A B"},
		{`{"transport":{"protocol":"http","write_buffer_size":1099511627776}}`, "transport.write_buffer_size", "must be at most 67108864"},
		{`{"transport":{"protocol":"http","read_buffer_size":1099511627776}}`, "transport.read_buffer_size", "must be at most 67108864"},
		{`{"transport":{"protocol":"http","dial_timeout":-1}}`, "transport.dial_timeout", "must not be negative"},
		{`{"transport":{"protocol":"http","max_response_header_size":-1}}`, "transport.max_response_header_size", "must not be negative"},
		{`{"transport":{"protocol":"http","local_address":"localhost"}}`, "transport.local_address", "must be an IP address without a port, and is localhost"},
		{`{"transport":{"protocol":"http","local_address":"127.0.0.1:80"}}`, "transport.local_address", "must be an IP address without a port, and is 127.0.0.1:80"},
		{`{"transport":{"protocol":"http","tls":{"handshake_timeout":"-1s"}}}`, "transport.tls.handshake_timeout", "must not be negative"},
		{`{"transport":{"protocol":"http","tls":{"renegotiation":"always"}}}`, "transport.tls.renegotiation", "must be never, once or freely, and is always"},
		{`{"transport":{"protocol":"http","tls":{"curves":["x25519","p\u0000"]}}}`, "transport.tls.curves[1]", `must be one of secp256r1, secp384r1, secp521r1, x25519, x25519mlkem768, and is p\x00`},
		{`{"transport":{"protocol":"http","tls":{"root_ca_pool":["` + cert + `","eA=="]}}}`, "transport.tls.root_ca_pool[1]", "must be a certificate"},
		{`{"transport":{"protocol":"http","tls":{"client_certificate_file":"c.pem"}}}`, "transport.tls", "has client_certificate_file without"},
		{`{"transport":{"protocol":"http","tls":{"client_certificate_key_file":"k.pem"}}}`, "transport.tls", "has client_certificate_key_file without"},
		{`{"transport":{"protocol":"http","tls":{"root_ca_pool":["` + cert + `"],"ca":{"provider":"inline"}}}}`, "transport.tls", "has ca beside root_ca_pool"},

		// Modules.
		{`{"transport":{"protocol":"http","tls":{"ca":null}}}`, ca + ".provider", "is missing"},
		{`{"transport":{"protocol":"http","tls":{"ca":"inline"}}}`, ca, "must be an object, and is a string"},
		{`{"transport":{"protocol":"http","tls":{"ca":{}}}}`, ca + ".provider", "is missing"},
		{`{"transport":{"protocol":"http","tls":{"ca":{"provider":7}}}}`, ca + ".provider", "must be a string, and is a number"},
		{`{"transport":{"protocol":"http","tls":{"ca":{"provider":"nothing"}}}}`, ca + ".provider", "is nothing, of which this build has no module"},
		{`{"transport":{"protocol":"http","tls":{"ca":{"provider":"http","endpoints":["http://169.254.169.254/"]}}}}`, ca + ".provider", "may not be http"},
		{`{"transport":{"protocol":"http","tls":{"ca":{"provider":"combined","sources":[{"provider":"http"}]}}}}`, ca + ".sources[0].provider", "may not be http"},
		{`{"transport":{"protocol":"http","tls":{"ca":{"provider":"inline","certs":[]}}}}`, ca + ".certs", "is no setting of Caddy's"},
		{`{"transport":{"protocol":"http","tls":{"ca":{"provider":"system","x":1}}}}`, ca, "has something that Caddy does not take"},
		{`{"transport":{"protocol":"http","tls":{"ca":{"provider":"inline","trusted_ca_certs":"x"}}}}`, ca + ".trusted_ca_certs", "must be a list, and is a string"},
		{`{"transport":{"protocol":"http","tls":{"ca":{"provider":"inline","trusted_ca_certs":["x"]}}}}`, ca + ".trusted_ca_certs[0]", "must be a certificate"},
		{`{"transport":{"protocol":"http","tls":{"ca":{"provider":"file","pem_files":[5]}}}}`, ca + ".pem_files[0]", "must be a string, and is a number"},
		{`{"transport":{"protocol":"http","tls":{"ca":{"provider":"combined","sources":[{"provider":"file"},{"provider":"none"}]}}}}`, ca + ".sources[1].provider", "is none, of which this build has no module"},
		{`{"transport":{"protocol":"http","tls":{"ca":{"provider":"storage","storage":{"module":"file_system","root":1},"pem_keys":["k"]}}}}`, ca + ".storage.root", "must be a string, and is a number"},
	} {
		_, err := ParseService("svc", fileOf(tt.settings))
		r, ok := errors.AsType[*refusal.Refusal](err)
		if !ok {
			t.Errorf("%s: got %v", tt.settings, err)
			continue
		}
		if want := "reverseProxy." + tt.field + " " + tt.says; r.Code != "REVERSEPROXY_INVALID" || r.Status != 400 || !strings.HasPrefix(r.Detail, want) {
			t.Errorf("%s:\ngot  %d %s: %s\nwant %s", tt.settings, r.Status, r.Code, r.Detail, want)
		}
	}
}

// testCertificate returns a certificate as Caddy's JSON has it.
func testCertificate() string {
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	return base64.StdEncoding.EncodeToString(srv.Certificate().Raw)
}

// TestSettingsThatHold makes the proxies of services that are let through.
func TestSettingsThatHold(t *testing.T) {
	p := newProxy(t)
	cert := testCertificate()
	for _, settings := range []string{
		`{}`,
		`{"flush_interval":-1,"stream_timeout":"1d","stream_close_delay":null,"stream_buffer_size":4096}`,
		`{"load_balancing":{"retries":2,"try_duration":"5s","try_interval":250000000}}`,
		`{"health_checks":{"passive":{"fail_duration":"30s","max_fails":3,"unhealthy_request_count":9,"unhealthy_status":[500,503],"unhealthy_latency":"2s"}}}`,
		`{"health_checks":{"active":{"method":"HEAD","interval":"1h","timeout":"2s","passes":1,"fails":2,"max_size":1024,"expect_status":2}}}`,
		`{"transport":{"protocol":"http"}}`,
		`{"transport":{"compression":false,"max_conns_per_host":-1,"dial_timeout":"3s","dial_fallback_delay":-1,"response_header_timeout":"1m","expect_continue_timeout":"2s"}}`,
		`{"transport":{"protocol":"http","max_response_header_size":1024,"write_buffer_size":-1,"read_buffer_size":8192,"versions":["1.1","2"],"local_address":"127.0.0.1"}}`,
		`{"transport":{"protocol":"http","local_address":"::1"}}`,
		`{"transport":{"protocol":"http","resolver":{"addresses":["10.0.0.53","tcp/10.0.0.53:5353","[fd00::53]:53","fd00::53"]}}}`,
		`{"transport":{"protocol":"http","keep_alive":{"enabled":null,"probe_interval":-1,"max_idle_conns":5,"max_idle_conns_per_host":6,"idle_timeout":"1m"}}}`,
		`{"transport":{"protocol":"http","tls":{"handshake_timeout":"5s","server_name":"x.example","renegotiation":"once","curves":["x25519","secp256r1"],"root_ca_pool":["` + cert + `"]}}}`,
		`{"transport":{"protocol":"http","tls":{"ca":{"provider":"inline","Trusted_CA_Certs":["` + cert + `"]}}}}`,
		`{"transport":{"protocol":"http","tls":{"ca":{"provider":"combined","sources":[{"provider":"inline","trusted_ca_certs":["` + cert + `"]}]}}}}`,
		`{"transport":{"protocol":"http","tls":{"ca":{"provider":"system"}}}}`,
	} {
		svc, err := ParseService("svc", fileOf(settings))
		if err != nil {
			t.Errorf("%s: %v", settings, err)
			continue
		}
		s, err := p.acquire(t.Context(), svc)
		if err != nil {
			t.Errorf("%s: %v", settings, err)
			continue
		}
		s.release()
	}
}

// FuzzSettings: what is let through is read by the call, and what is not is
// refused by name.
func FuzzSettings(f *testing.F) {
	for _, settings := range []string{
		`{}`, `{"flush_interval":"1s","load_balancing":{"retries":1}}`, `{"health_checks":{"active":{"uri":"/","method":"GET","expect_status":200}}}`,
		`{"transport":{"protocol":"http","local_address":"::1","resolver":{"addresses":["10.0.0.1"]},"keep_alive":{"enabled":true},"versions":["1.1"]}}`,
		`{"transport":{"protocol":"http","tls":{"curves":["x25519"],"ca":{"provider":"combined","sources":[{"provider":"inline","trusted_ca_certs":["eA=="]}]}}}}`,
		`{"transport":{"protocol":"http","tls":{"ca":{"provider":"storage","storage":{"module":"file_system","root":"/x"},"pem_keys":["k"]}}}}`,
	} {
		f.Add(settings)
	}
	f.Fuzz(func(t *testing.T, settings string) {
		svc, err := ParseService("svc", fileOf(settings))
		if err != nil {
			if r, ok := errors.AsType[*refusal.Refusal](err); !ok || r.Status != 400 || len(r.Detail) > 1024 {
				t.Fatalf("%#v", err)
			}
			return
		}
		if r := decodeSettings(svc.ReverseProxy, new(reverseproxy.Handler), new(reverseproxy.HTTPTransport)); r != nil {
			t.Fatal(r)
		}
	})
}
