package integration

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// An event is one server-sent event.
type event struct{ id, kind, data string }

// watch opens a stream of audit records and sends its events until it ends,
// and then closes the channel.
func (s *server) watch(ctx context.Context, query string, edits ...edit) (<-chan event, reply) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/vault.audit.stream"+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	for _, e := range edits {
		e(req)
	}
	res, err := (&http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}).Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	out := make(chan event, 10_000)
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		s.t.Fatalf("watch %s: %d %s", query, res.StatusCode, res.Header.Get("Vault-Error"))
	}
	go func() {
		defer close(out)
		defer res.Body.Close()
		var e event
		for in := bufio.NewScanner(res.Body); in.Scan(); {
			name, value, _ := strings.Cut(in.Text(), ": ")
			switch name {
			case "id":
				e.id = value
			case "event":
				e.kind = value
			case "data":
				e.data = value
			case "":
				if e.data != "" {
					out <- e
				}
				e = event{id: e.id}
			}
		}
	}()
	return out, reply{res.StatusCode, res.Header, ""}
}

// take waits for n events.
func take(t testing.TB, events <-chan event, n int) (out []event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for len(out) < n {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("the stream ended after %d of %d events", len(out), n)
			}
			out = append(out, e)
		case <-ctx.Done():
			t.Fatalf("%d of %d events: %v", len(out), n, out)
		}
	}
	return out
}

// ends waits for the end of a stream.
func ends(t testing.TB, events <-chan event) (out []event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return out
			}
			out = append(out, e)
		case <-ctx.Done():
			t.Fatal("the stream does not end")
		}
	}
}

func TestAuditStream(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issue("main", "github", "github:repos:read")
	tony := s.issue("tony", "github", "github:repos:read")
	ctx := t.Context()
	live, head := s.watch(ctx, "?event=proxy.call&agentId=main")
	if head.header.Get("Content-Type") != "text/event-stream" || head.header.Get("Cache-Control") != "no-store" {
		t.Errorf("header %v", head.header)
	}
	const calls = 20
	for range calls {
		for _, token := range []string{tony, token} {
			if r := s.call(token, "github", "public.get", "null"); r.status != 200 {
				t.Fatalf("%d %s", r.status, r.body)
			}
		}
	}
	got := take(t, live, calls)
	// What the log has, byte for byte.
	want := ""
	for line := range strings.Lines(s.read("data/audit.log.jsonl")) {
		if strings.Contains(line, `"event":"proxy.call",`) && strings.Contains(line, `"agentId":"main"`) {
			want += line
		}
	}
	lines := ""
	for _, e := range got {
		lines += e.data + "\n"
		if !strings.Contains(e.data, `"seq":`+e.id+`,`) || e.kind != "" {
			t.Errorf("event %v", e)
		}
	}
	if lines != want {
		t.Errorf("got  %s\nwant %s", lines, want)
	}

	// Again the last ones, as long as they are, and from the middle, by either
	// name.
	for _, c := range []struct {
		name  string
		query string
		edits []edit
		from  int
	}{
		{"last", "?event=proxy.call&agentId=main&last=3", nil, calls - 3},
		{"Last-Event-ID", "?event=proxy.call&agentId=main", []edit{header("Last-Event-ID", got[7].id)}, 8},
		{"after", "?event=proxy.call&agentId=main&after=" + got[11].id, nil, 12},
	} {
		again, _ := s.watch(ctx, c.query, c.edits...)
		if events := take(t, again, calls-c.from); fmt.Sprint(events) != fmt.Sprint(got[c.from:]) {
			t.Errorf("%s: %v", c.name, events)
		}
		s.call(token, "github", "public.get", "null")
		for take(t, again, 1)[0].id == "" { // and then it is live
			t.Errorf("%s", c.name)
		}
	}

	// All there is, and no more.
	all, _ := s.watch(ctx, "?follow=false")
	events := ends(t, all)
	for i, e := range events[:len(events)-1] {
		if e.id != fmt.Sprint(i+1) {
			t.Fatalf("event %d is %v", i, e)
		}
	}
	if last := events[len(events)-1]; last.kind != "end" || len(events) < 4*calls {
		t.Errorf("%d events, the last %v", len(events), last)
	}

	// Who watches is recorded.
	s.barrier()
	records, _ := s.auditLog(0)
	n := 0
	for _, r := range records {
		if r.text("event") == "admin.auditStream" && r.text("client") == "127.0.0.1" {
			n++
		}
	}
	if n != 5 {
		t.Errorf("%d records of 5 watchers", n)
	}
}

func TestAuditStreamRefused(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	for _, r := range []refusal{
		{name: "no token", status: 401, code: "ADMIN_UNAUTHORIZED"},
		{name: "an agent's token", edits: []edit{bearer(s.issue("main", "github", "github:repos:read"))}, status: 401, code: "ADMIN_UNAUTHORIZED"},
		{name: "no field", path: "?context.agentId=x", status: 400, code: "FILTERS_INVALID"},
		{name: "a name too long", path: "?" + strings.Repeat("a", 65) + "=x", status: 400, code: "FILTERS_INVALID"},
		{name: "twice", path: "?event=a&event=b", status: 400, code: "QUERY_INVALID"},
		{name: "malformed", path: "?event=%zz", status: 400, code: "QUERY_INVALID"},
		{name: "since", path: "?since=-1", status: 400, code: "SINCE_INVALID"},
		{name: "until", path: "?until=1e3", status: 400, code: "UNTIL_INVALID"},
		{name: "after", path: "?after=01", status: 400, code: "AFTER_INVALID"},
		{name: "last", path: "?last=1001", status: 400, code: "LAST_INVALID"},
		{name: "follow", path: "?follow=1", status: 400, code: "FOLLOW_INVALID"},
		{name: "Last-Event-ID", edits: []edit{header("Last-Event-ID", "x")}, status: 400, code: "LASTEVENTID_INVALID"},
		{name: "HEAD", method: "HEAD", status: 405, code: "METHOD_NOT_ALLOWED"},
	} {
		t.Run(r.name, func(t *testing.T) {
			if r.method == "" {
				r.method = "GET"
			}
			if r.status != 401 {
				r.edits = append(r.edits, bearer(adminToken))
			}
			r.path, r.event = "/vault.audit.stream"+r.path, "admin.auditStream"
			s.refused(t, r)
		})
	}
	s.refused(t, refusal{path: "/vault.audit.stream", status: 405, code: "METHOD_NOT_ALLOWED", event: "request"})
}

// TestAuditStreamWatchers has a hundred watchers while calls are made, of
// which some read nothing; a reload that cuts none, one with another admin
// token that cuts all, and an end of the server that waits for none.
func TestAuditStreamWatchers(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issue("main", "github", "github:repos:read")
	var all []<-chan event
	for range 100 {
		events, _ := s.watch(t.Context(), "?event=proxy.call")
		all = append(all, events)
	}
	const calls = 60
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range calls / 4 {
				if r, err := s.try("POST", "/vault.call", fmt.Sprintf(`{"token":%q,"service":"github","action":"public.get"}`, token)); err != nil || r.status != 200 {
					t.Errorf("%d %s %v", r.status, r.body, err)
				}
			}
		})
	}
	wg.Wait()
	first := take(t, all[0], calls)
	for i, events := range all[1:] {
		if got := take(t, events, calls); fmt.Sprint(got) != fmt.Sprint(first) {
			t.Fatalf("watcher %d saw something else", i+1)
		}
	}
	s.reload(t)
	s.call(token, "github", "public.get", "null")
	for _, events := range all {
		take(t, events, 1)
	}
	s.stop() // which fails the test if it does not end
	for _, events := range all {
		ends(t, events)
	}
}

// TestAuditStreamOfOldToken changes the admin token: who watches with the old
// one does so no longer.
func TestAuditStreamOfOldToken(t *testing.T) {
	t.Parallel()
	s := start(t, config{env: []string{"VAULT_NEXT_TOKEN=next-" + adminToken}})
	events, _ := s.watch(t.Context(), "")
	s.write(s.file, strings.Replace(s.read("Caddyfile"), "{env.VAULT_ADMIN_TOKEN}", "{env.VAULT_NEXT_TOKEN}", 1))
	s.reload(t)
	ends(t, events)
}
