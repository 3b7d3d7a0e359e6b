package integration

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// collector stands in for a collector of OpenTelemetry's, and keeps what it is
// sent as it is.
type collector struct {
	*httptest.Server
	mu  sync.Mutex
	got []byte
}

func newCollector(t *testing.T) *collector {
	c := new(collector)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Encoding") != "" {
			t.Errorf("the collector got %s %v %v", r.URL, r.Header, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.got = append(c.got, b...)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.got)
}

// TestTracing: a trace goes on through the vault, and no token is in a span,
// wherever it came and whatever the span is told to hold.
func TestTracing(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	s := prepare(t, config{
		env: []string{
			"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT=" + c.URL,
			"OTEL_BSP_SCHEDULE_DELAY=20", "OTEL_RESOURCE_ATTRIBUTES=service.name=vault",
		},
		sites: `
http://:$PORT {
	bind 127.0.0.1
	log
	tracing {
		span {http.request.method}
		span_attributes {
			uri {http.request.uri}
			path {http.request.uri.path}
			orig {http.request.orig_uri}
			query {http.request.orig_uri.query}
			key {http.request.uri.query.key}
			piece {http.request.orig_uri.path.2}
			own {http.request.header.Vault-Token}
			theirs {http.request.header.X-Api-Key}
			offered {http.request.header.Sec-WebSocket-Protocol}
			agent {http.auth.user.id}
		}
	}
	vault
}`,
	})
	s.start()
	const telegram = "1234567890:a-key-that-may-stand-in-a-path"
	s.hide(telegram, "the secret in a path")
	add := func(name, members, secret string) string {
		s.addService(name, `{"baseUrl":"`+s.up.URL+`/`+members+`,"secretRef":"`+name+`","allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["x"],
			"endpoints":{"get":{"method":"GET","path":"/*"},"ws":{"method":"GET","path":"/ws","upgrade":"websocket","subprotocols":["chat"]}}}`, secret)
		return s.issueWith(`"service":"` + name + `","scope":["x"],"agentId":"traced"`).Token
	}
	byQuery := add("byquery", `","auth":[{"in":"query","name":"key"}]`, secret)
	byPath := add("bypath", `bot{secret}","auth":[{"in":"path"}]`, telegram)
	byHeader := add("byheader", `","authHeader":"x-api-key"`, secret)
	_, payload, _ := strings.Cut(byQuery, ".")
	bad := "eyJhbGciOiJIUzI1NiJ9." + payload
	s.hide(bad, "a token that is none")
	opaque := "0123456789:" + strings.Repeat("not-a-jwt", 4)
	s.hide(opaque, "a key that is no token")

	var ids [][]byte
	get := func(path string, status int, edits ...edit) {
		t.Helper()
		id := fmt.Sprintf("%032x", 0xfeedface00000+len(ids))
		b, _ := hex.DecodeString(id)
		ids = append(ids, b)
		r := s.do("GET", path, "", append([]edit{header("traceparent", "00-"+id+"-00f067aa0ba902b7-01"), header("baggage", "key=value")}, edits...)...)
		if r.status != status {
			t.Fatalf("%s: %d %s", path, r.status, r.body)
		}
		if status == http.StatusOK {
			seen := s.up.last(t)
			parts := strings.Split(seen.header.Get("Traceparent"), "-")
			if len(parts) != 4 || parts[1] != id || parts[2] == "00f067aa0ba902b7" || seen.header.Get("Baggage") != "" {
				t.Errorf("%s: the upstream got the trace %v", path, seen.header)
			}
		}
	}
	get("/proxy/byquery/a?x=1&key="+byQuery+"&y=2", 200)
	get("/proxy/byquery/a?%6bey="+url.QueryEscape(byQuery), 200)
	get("/proxy/byquery/a?key="+bad, 401)
	get("/proxy/byquery/a?key="+opaque, 401)
	get("/proxy/bypath/bot"+byPath+"/a?b=c", 200)
	get("/proxy/bypath/bot"+bad+"/a", 401)
	get("/proxy/byheader/a", 200, header("X-Api-Key", byHeader))
	get("/proxy/byheader/a", 200, header("Vault-Token", byHeader))
	get("/proxy/nowhere/a?key="+byQuery, 401)
	get("/proxy/byheader/ws", 200, header("Connection", "Upgrade"), header("Upgrade", "websocket"), header("Sec-WebSocket-Version", "13"),
		header("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="), header("Sec-WebSocket-Protocol", "chat, key."+byHeader))
	if offered := s.up.last(t).header["Sec-Websocket-Protocol"]; fmt.Sprint(offered) != "[chat]" {
		t.Errorf("the upstream was offered %q", offered)
	}

	eventually(t, "all spans are exported", func() bool {
		got := c.bytes()
		for _, id := range ids {
			if !bytes.Contains(got, id) {
				return false
			}
		}
		return true
	})
	got := string(c.bytes())
	s.noSecrets(t, "spans", got)
	for _, want := range []string{"traced", "/proxy/byquery/a?x=1&key=REDACTED&y=2", "/proxy/bypath/REDACTED", "REDACTED", "url.path"} {
		if !strings.Contains(got, want) {
			t.Errorf("no span has %q", want)
		}
	}
}
