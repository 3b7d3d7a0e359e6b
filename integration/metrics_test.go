package integration

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// scrape returns the vault's metrics, by name and labels.
func (s *server) scrape() map[string]float64 {
	s.t.Helper()
	status, body := s.adminAPI("GET", "/metrics", nil)
	if status != http.StatusOK {
		s.t.Fatalf("metrics: %d %s", status, body)
	}
	s.noSecrets(s.t, "the metrics", string(body))
	out := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if i := strings.LastIndexByte(strings.TrimSpace(line), '}'); i >= 0 {
			name, value = line[:i+1], strings.TrimSpace(line[i+1:])
		}
		if !strings.HasPrefix(name, "caddyvault_") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		out[name] = v
	}
	return out
}

// TestMetrics is about what Caddy's /metrics tells of the vault.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issueWith(`"agentId":"tony","service":"github","scope":["github:repos:read"]`)
	get := `{"owner":"o","repo":"r"}`
	for range 3 {
		s.call(token.Token, "github", "repo.get", get)
	}
	s.up.answer(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(r.Header.Get("Authorization")))
	})
	s.do("GET", "/proxy/github/repos/o/r", "", bearer(token.Token))
	s.call(token.Token, "github", "issues.create", `{}`)
	s.call(token.Token, "no-such-service", "x", `{}`)
	s.do("GET", "/proxy/who-knows/x", "", bearer("nonsense"))

	want := map[string]float64{
		`caddyvault_calls_total{outcome="success",service="github"}`:      3,
		`caddyvault_calls_total{outcome="client_error",service="github"}`: 1,
		`caddyvault_calls_total{outcome="failed",service="github"}`:       0,
		`caddyvault_upstream_latency_seconds_count{service="github"}`:     4,
		`caddyvault_added_latency_seconds_count`:                          4,
		`caddyvault_redactions_total{service="github"}`:                   1,
		`caddyvault_refusals_total{code="INSUFFICIENT_SCOPE"}`:            1,
		`caddyvault_refusals_total{code="UNKNOWN_SERVICE"}`:               1,
		`caddyvault_refusals_total{code="TOKEN_INVALID"}`:                 1,
		`caddyvault_token_cache_total{result="miss"}`:                     1,
		`caddyvault_token_cache_total{result="hit"}`:                      5,
		`caddyvault_streams_open`:                                         0,
	}
	check := func(when string) map[string]float64 {
		t.Helper()
		got := s.scrape()
		for name, v := range want {
			if g, ok := got[name]; !ok || g != v {
				t.Errorf("%s: %s is %v (%v), want %v", when, name, g, ok, v)
			}
		}
		return got
	}
	got := check("after calls")
	label := regexp.MustCompile(`(\w+)="([^"]*)"`)
	for name := range got {
		for _, l := range label.FindAllStringSubmatch(name, -1) {
			if l[1] == "service" && l[2] != "github" || strings.Contains(l[2], "tony") || strings.Contains(l[2], token.TokenID) {
				t.Errorf("a label holds what it should not: %s", name)
			}
		}
	}

	// Another configuration counts on.
	_, conf := s.adminAPI("GET", "/config/", nil)
	conf = []byte(strings.Replace(string(conf), `"admin":{`, `"admin":{"origins":["127.0.0.1"],`, 1))
	if status, body := s.adminAPI("POST", "/load", strings.NewReader(string(conf))); status != http.StatusOK {
		t.Fatalf("reload: %d %s", status, body)
	}
	check("after a reload")
	s.up.answer(nil)
	s.call(token.Token, "github", "repo.get", get)
	want[`caddyvault_calls_total{outcome="success",service="github"}`]++
	want[`caddyvault_upstream_latency_seconds_count{service="github"}`]++
	want[`caddyvault_added_latency_seconds_count`]++
	delete(want, `caddyvault_token_cache_total{result="miss"}`) // the cache was the old configuration's
	delete(want, `caddyvault_token_cache_total{result="hit"}`)
	check("under the new one")

	s.ok("/vault.admin.removeService", `{"service":"github"}`, nil)
	for name := range s.scrape() {
		if strings.Contains(name, `service="github"`) {
			t.Errorf("the service is gone, and %s is there", name)
		}
	}
}

// TestMetricsOfTwo is about two sites, which count together, and about a
// configuration on another data directory, whose services are others.
func TestMetricsOfTwo(t *testing.T) {
	t.Parallel()
	s := start(t, config{sites: `
http://:$PORT {
	bind 127.0.0.1
	vault
}
http://:$PORT2 {
	bind 127.0.0.1
	vault
	metrics /metrics
}`})
	const calls = `caddyvault_calls_total{outcome="success",service="github"}`
	token := s.issue("tony", "github", "github:repos:read")
	for _, base := range []string{s.base, "http://127.0.0.1:" + s.port2} {
		if r := s.do("GET", base+"/proxy/github/repos/o/r", "", bearer(token)); r.status != http.StatusOK {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	if n := s.scrape()[calls]; n != 2 {
		t.Errorf("%v calls on two sites", n)
	}

	_, first := s.adminAPI("GET", "/config/", nil)
	other := strings.NewReplacer(s.data+`"`, s.data+`2"`, s.services+`"`, s.services+`2"`).Replace(string(first))
	load := func(conf string) {
		t.Helper()
		if status, body := s.adminAPI("POST", "/load", strings.NewReader(conf)); status != http.StatusOK {
			t.Fatalf("reload: %d %s", status, body)
		}
	}
	series := func() (n int) {
		for name := range s.scrape() {
			if strings.Contains(name, `service="github"`) {
				n++
			}
		}
		return n
	}
	load(other)
	eventually(t, "the services of the other directory are gone", func() bool { return series() == 0 })
	load(string(first))
	if r := s.do("GET", "/proxy/github/repos/o/r", "", bearer(token)); r.status != http.StatusOK {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if n := s.scrape()[calls]; n != 1 {
		t.Errorf("%v calls after that", n)
	}
}

// TestOpenStreams is about a stream that is counted while it runs.
func TestOpenStreams(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issue("tony", "github", "github:repos:read")
	began, end := make(chan struct{}), make(chan struct{})
	s.up.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte("data: 1\n\n"))
		_ = http.NewResponseController(w).Flush()
		close(began)
		<-end
	})
	done := make(chan reply)
	go func() {
		r, _ := s.try("GET", "/proxy/github/repos/o/r", "", bearer(token))
		done <- r
	}()
	<-began
	eventually(t, "the stream is counted", func() bool { return s.scrape()["caddyvault_streams_open"] == 1 })
	close(end)
	if r := <-done; r.status != http.StatusOK {
		t.Errorf("%d %s", r.status, r.body)
	}
	eventually(t, "the stream is over", func() bool { return s.scrape()["caddyvault_streams_open"] == 0 })
}

var traceparent = regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$`)

// TestTraceparent is about the trace that a call belongs to: the client's, and
// behind Caddy's tracing a span of it that is Caddy's own.
func TestTraceparent(t *testing.T) {
	t.Parallel()
	s := start(t, config{
		// Spans go nowhere: nobody listens there, and nobody asks.
		env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_TRACES_SAMPLER=always_on", "OTEL_BSP_SCHEDULE_DELAY=3600000"},
		sites: `
http://:$PORT {
	bind 127.0.0.1
	vault
}
http://:$PORT2 {
	bind 127.0.0.1
	tracing {
		span vault
	}
	vault
}`,
	})
	token := s.issue("tony", "github", "github:repos:read")
	const trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	parent := header("Traceparent", "00-"+trace+"-"+span+"-01")
	for _, base := range []string{s.base, "http://127.0.0.1:" + s.port2} {
		for _, send := range []func() reply{
			func() reply { return s.do("GET", base+"/proxy/github/repos/o/r", "", bearer(token), parent) },
			func() reply {
				return s.do("POST", base+"/vault.call", `{"token":"`+token+`","service":"github","action":"repo.get","params":{"owner":"o","repo":"r"}}`, parent)
			},
		} {
			if r := send(); r.status != http.StatusOK {
				t.Fatalf("%d %s", r.status, r.body)
			}
			got := traceparent.FindStringSubmatch(s.up.last(t).header.Get("Traceparent"))
			if got == nil || got[1] != trace {
				t.Fatalf("the upstream's trace is %q", s.up.last(t).header["Traceparent"])
			}
			if traced := base != s.base; (got[2] != span) != traced {
				t.Errorf("traced %v: the upstream's parent is %s, the client's was %s", traced, got[2], span)
			}
		}
	}
}

// TestAccessLog is about the entry that a call leaves in Caddy's access log:
// once, with the agent, without the token, wherever it stood.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issue("tony", "github", "github:repos:read")
	for _, tt := range []struct {
		name string
		send func() reply
		uri  string
	}{
		{"call", func() reply { return s.call(token, "github", "repo.get", `{"owner":"o","repo":"call"}`) }, "/vault.call"},
		{"proxy", func() reply { return s.do("GET", "/proxy/github/repos/o/a", "", bearer(token)) }, "/proxy/github/repos/o/a"},
		{"proxy, Vault-Token", func() reply {
			return s.do("GET", "/proxy/github/repos/o/b", "", header("Vault-Token", token))
		}, "/proxy/github/repos/o/b"},
	} {
		if r := tt.send(); r.status != http.StatusOK {
			t.Fatalf("%s: %d %s", tt.name, r.status, r.body)
		}
		type entry struct {
			Logger string
			Msg    string
			UserID string `json:"user_id"`
			Status int
			Size   int
			Req    struct {
				Method, URI string
				Headers     map[string][]string
			} `json:"request"`
			Duration float64
		}
		var found []entry
		eventually(t, "the entry of "+tt.name, func() bool {
			found = nil
			for line := range strings.Lines(s.read("caddy.log")) {
				var e entry
				if json.Unmarshal([]byte(line), &e) == nil && strings.HasPrefix(e.Logger, "http.log.access") && e.Req.URI == tt.uri {
					found = append(found, e)
				}
			}
			return len(found) > 0
		})
		if len(found) != 1 {
			t.Errorf("%s: %d entries", tt.name, len(found))
		}
		e := found[0]
		if e.UserID != "tony" || e.Status != 200 || e.Size != len(`{"full_name":"o/r"}`) || e.Msg != "handled request" || e.Duration <= 0 {
			t.Errorf("%s: %+v", tt.name, e)
		}
		for name, values := range e.Req.Headers {
			if (name == "Vault-Token" || name == "Authorization") && (len(values) != 1 || values[0] != "REDACTED") {
				t.Errorf("%s: the header %s is logged", tt.name, name)
			}
		}
	}
}
