package integration

import (
	"strings"
	"testing"
)

// TestReverseProxySettings is about values in a service's reverseProxy that
// Caddy does not take: they are refused where they are given, not by calls.
func TestReverseProxySettings(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	with := func(settings string) string {
		return service(`"secretRef":"fresh","reverseProxy":`+settings, "baseUrl", quote(s.up.URL))
	}
	plain := func(settings string) string { return service(`"reverseProxy":`+settings, "baseUrl", quote(s.up.URL)) }
	s.addService("held", plain(`{"flush_interval":"1s"}`), "")
	s.writeService("byhand", plain(`{"flush_interval":"1s"}`))
	listed := func() string { return s.post("/vault.admin.listServices", "{}").body }
	eventually(t, "the file is served", func() bool { return strings.Contains(listed(), `"byhand"`) })
	held, byhand := s.issue("tony", "held", "x"), s.issue("tony", "byhand", "x")
	works := func() {
		t.Helper()
		for token, name := range map[string]string{held: "held", byhand: "byhand"} {
			if r := s.call(token, name, "e", "null"); r.status != 200 {
				t.Errorf("%s: %d %s", name, r.status, r.body)
			}
		}
	}
	works()
	state := func() string {
		return listed() + s.post("/vault.admin.getService", `{"service":"held"}`).body + s.post("/vault.admin.listSecrets", "{}").body
	}

	before := state()
	for field, settings := range map[string]string{
		"flush_interval":                     `{"flush_interval":"abc"}`,
		"load_balancing.retries":             `{"load_balancing":{"retries":[]}}`,
		"transport.dial_timeout":             `{"transport":{"protocol":"http","dial_timeout":{}}}`,
		"transport.tls.ca.provider":          `{"transport":{"protocol":"http","tls":{"ca":{"provider":"nothing"}}}}`,
		"transport.tls.ca.trusted_ca_certs":  `{"transport":{"protocol":"http","tls":{"ca":{"provider":"inline","trusted_ca_certs":"x"}}}}`,
		"health_checks.active.expect_status": `{"health_checks":{"active":{"expect_status":"ok"}}}`,
	} {
		for name, body := range map[string]string{
			"addService":    strings.Replace(with(settings), "{", `{"service":"new","masterSecret":"0123456789-fresh",`, 1),
			"updateService": `{"service":"held","reverseProxy":` + settings + `}`,
		} {
			r := s.refused(t, refusal{path: "/vault.admin." + name, body: body, status: 400, code: "REVERSEPROXY_INVALID", event: "admin." + name})
			var problem struct{ Detail string }
			decode(t, r.body, &problem)
			if !strings.HasPrefix(problem.Detail, "reverseProxy."+field+" ") {
				t.Errorf("%s %s: %s", name, settings, problem.Detail)
			}
		}
	}
	if after := state(); after != before {
		t.Errorf("refused requests changed\n%s\nto\n%s", before, after)
	}
	works()

	// By hand, the last good version goes on, and one that never was good is
	// no service.
	const fault = "REVERSEPROXY_INVALID: reverseProxy.transport.dial_timeout must be a duration"
	broken := plain(`{"transport":{"protocol":"http","dial_timeout":{}}}`)
	s.writeService("byhand", broken)
	s.writeService("never", broken)
	eventually(t, "both errors are shown", func() bool { return strings.Count(listed(), fault) == 2 })
	never := refusal{path: "/vault.issueToken", body: `{"service":"never","scope":["x"]}`, status: 404, code: "UNKNOWN_SERVICE", event: "token.issue"}
	works()
	s.refused(t, never)
	s.reload(t)
	works()
	s.refused(t, never)
	s.barrier()
	seen := map[string]bool{}
	records, _ := s.auditLog(0)
	for _, r := range records {
		if r.text("event") == "service.changed" && r.text("error") == "SERVICE_INVALID" && strings.HasPrefix(r.text("reason"), fault) {
			seen[r.text("service")] = true
		}
	}
	if !seen["byhand"] || !seen["never"] {
		t.Errorf("recorded: %v", seen)
	}

	// After a start there is no last good version of either.
	s.stop()
	s.start()
	if n := strings.Count(listed(), fault); n != 2 {
		t.Errorf("%d errors are shown: %s", n, listed())
	}
	s.refused(t, never)
	s.refused(t, refusal{path: "/vault.call", body: `{"token":"` + byhand + `","service":"byhand","action":"e"}`, status: 404, code: "UNKNOWN_SERVICE", event: "proxy.call"})
	if r := s.call(held, "held", "e", "null"); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}

	// Mended, it is served.
	s.writeService("never", plain(`{"transport":{"protocol":"http","dial_timeout":"3s"}}`))
	eventually(t, "the error goes", func() bool { return strings.Count(listed(), fault) == 1 })
	if r := s.call(s.issue("tony", "never", "x"), "never", "e", "null"); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}
