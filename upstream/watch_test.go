package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// TestWatch is who is waited for, and for how long, on a clock of its own.
func TestWatch(t *testing.T) {
	limits := policy.Timeouts{
		Idle: policy.Duration(time.Minute), FirstByte: policy.Duration(2 * time.Minute), Total: policy.Duration(20 * time.Minute),
	}
	const never = 1000 * time.Hour
	tests := []struct {
		name    string
		run     func(w *watch)
		expires time.Duration
		code    string
		from    time.Duration // the earliest that it may be cut
		to      time.Duration // and the latest
	}{
		{"a connection is none of the watch's business, but in total", func(*watch) {}, never, "UPSTREAM_TIMEOUT:total", 20 * time.Minute, 21 * time.Minute},
		{"the upstream takes nothing", func(w *watch) { w.advance(sending) }, never, "UPSTREAM_TIMEOUT:idle", time.Minute, 80 * time.Second},
		{"the client sends nothing", func(w *watch) { w.advance(sending); w.inBody.Store(true) }, never, "CLIENT_TIMEOUT:idle", time.Minute, 80 * time.Second},
		{"no first byte", func(w *watch) { w.advance(waiting) }, never, "UPSTREAM_TIMEOUT:first_byte", 2 * time.Minute, 140 * time.Second},
		{"silence", func(w *watch) { w.answered(context.Background(), true, false); w.inAnswer.Store(true) }, never, "UPSTREAM_TIMEOUT:idle", time.Minute, 80 * time.Second},
		{"a client that takes nothing", func(w *watch) { w.answered(context.Background(), true, false) }, never, "CLIENT_TIMEOUT:idle", time.Minute, 80 * time.Second},
		{"bytes go on, but not for ever", func(w *watch) {
			w.answered(context.Background(), false, false)
			w.inAnswer.Store(true)
			for range 1000 {
				time.Sleep(55 * time.Second)
				w.result.ResponseBytes.Add(1)
			}
		}, never, "UPSTREAM_TIMEOUT:total", 20 * time.Minute, 21 * time.Minute},
		{"a client that is slow for all of it", func(w *watch) {
			w.answered(context.Background(), false, false)
			for range 1000 {
				time.Sleep(55 * time.Second)
				w.result.ResponseBytes.Add(1)
			}
		}, never, "CLIENT_TIMEOUT:total", 20 * time.Minute, 21 * time.Minute},
		{"a stream goes on and ends with its token", func(w *watch) {
			w.answered(context.Background(), true, false)
			w.long.Store(true)
			w.inAnswer.Store(true)
			for range 1000 {
				time.Sleep(55 * time.Second)
				w.result.ResponseBytes.Add(1)
			}
		}, 5 * time.Hour, "TOKEN_EXPIRED", 5 * time.Hour, 5*time.Hour + time.Second},
		{"an upload ends with its token", func(w *watch) {
			w.advance(sending)
			for range 1000 {
				time.Sleep(55 * time.Second)
				w.result.RequestBytes.Add(1)
			}
		}, time.Minute + time.Second, "TOKEN_EXPIRED", 61 * time.Second, 62 * time.Second},
		{"an answer that begins after its token's end has a moment", func(w *watch) {
			w.advance(waiting)
			time.Sleep(time.Minute)
			w.answered(context.Background(), false, true)
			w.inAnswer.Store(true)
			for range 1000 {
				time.Sleep(time.Second)
				w.result.ResponseBytes.Add(1)
			}
		}, time.Second, "TOKEN_EXPIRED", 70 * time.Second, 71 * time.Second},
		{"what is asked is answered, though the token has expired", func(w *watch) { w.advance(waiting) }, time.Second, "UPSTREAM_TIMEOUT:first_byte", 2 * time.Minute, 140 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cut := context.WithCancelCause(context.Background())
				start := time.Now()
				w := &watch{limits: limits, expires: start.Add(tt.expires), result: new(vault.Result), cut: cut, client: httptest.NewRecorder()}
				w.begin()
				go tt.run(w)
				<-ctx.Done()
				r, ok := errors.AsType[*refusal.Refusal](context.Cause(ctx))
				if took := time.Since(start); !ok || r.Code != tt.code || took < tt.from || took > tt.to {
					t.Errorf("cut after %v with %v, want %s after %v to %v", took, context.Cause(ctx), tt.code, tt.from, tt.to)
				}
				w.end()
				time.Sleep(24 * time.Hour) // until the sender is done
			})
		})
	}
}

// TestAnExpiredTokenOpensNoStream: a stream whose upstream has thought for
// longer than the token lives is not begun.
func TestAnExpiredTokenOpensNoStream(t *testing.T) {
	w := &watch{limits: policy.DefaultTimeouts, expires: time.Now().Add(-time.Second), result: new(vault.Result), client: httptest.NewRecorder()}
	w.begin()
	defer w.end()
	if r := w.answered(t.Context(), false, false); r != nil {
		t.Errorf("an answer that is ready: %v", r)
	}
	if r := w.answered(t.Context(), false, true); r != nil {
		t.Errorf("an answer of unknown length: %v", r)
	}
	w.expires = time.Now().Add(-time.Second)
	if r := w.answered(t.Context(), true, true); r == nil || r.Code != "TOKEN_EXPIRED" {
		t.Errorf("a stream: %v", r)
	}
}

// TestTimeouts is each kind of wait over real connections.
func TestTimeouts(t *testing.T) {
	wait := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	silent := func(t *testing.T) string { // takes connections and does nothing with them
		return listen(t, func(c net.Conn) { t.Cleanup(func() { c.Close() }) })
	}
	serve := func(h http.HandlerFunc) func(t *testing.T) string {
		return func(t *testing.T) string {
			s := httptest.NewServer(h)
			t.Cleanup(s.Close)
			return strings.TrimPrefix(s.URL, "http://")
		}
	}
	drip := func(kind string, n int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			for i := 0; i < n && r.Context().Err() == nil; i++ {
				_, _ = io.WriteString(w, "{}\n")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Millisecond) // the pace of the stand-in
			}
		}
	}
	tests := []struct {
		name, scheme string
		upstream     func(t *testing.T) string
		timeouts     string
		body         func() io.Reader
		deaf         bool // the client does not read its answer

		status int
		code   string // of the refusal, or of the end of the answer
	}{
		{name: "connect", scheme: "http", upstream: silent, timeouts: `"connect":"1ns"`, status: 504, code: "UPSTREAM_TIMEOUT:connect"},
		{name: "tls", scheme: "https", upstream: silent, timeouts: `"tls":"50ms"`, status: 504, code: "UPSTREAM_TIMEOUT:tls"},
		{name: "first byte", scheme: "http", upstream: serve(wait), timeouts: `"firstByte":"50ms"`, status: 504, code: "UPSTREAM_TIMEOUT:first_byte"},
		{name: "first byte after a body", scheme: "http", upstream: serve(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			wait(w, r)
		}), timeouts: `"firstByte":"50ms"`, body: func() io.Reader { return strings.NewReader("x") }, status: 504, code: "UPSTREAM_TIMEOUT:first_byte"},
		{name: "idle", scheme: "http", upstream: serve(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			wait(w, r)
		}), timeouts: `"idle":"100ms"`, status: 200, code: "UPSTREAM_TIMEOUT:idle"},
		{name: "idle in an answer of known length", scheme: "http", upstream: serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			wait(w, r)
		}), timeouts: `"idle":"100ms"`, status: 504, code: "UPSTREAM_TIMEOUT:idle"},
		{
			name: "an upstream that takes no body", scheme: "http", upstream: silent, timeouts: `"idle":"200ms"`,
			body: func() io.Reader { return io.LimitReader(zeros{}, 1<<30) }, status: 504, code: "UPSTREAM_TIMEOUT:idle",
		},
		{
			name: "a client that sends no body", scheme: "http", upstream: serve(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
			}), timeouts: `"idle":"200ms"`,
			body: func() io.Reader { r, w := io.Pipe(); go w.Write([]byte("x")); return r }, status: 408, code: "CLIENT_TIMEOUT:idle",
		},
		{name: "a client that takes no answer", scheme: "http", upstream: serve(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, io.LimitReader(zeros{}, 1<<30))
		}), timeouts: `"idle":"200ms"`, deaf: true, status: 200, code: "CLIENT_TIMEOUT:idle"},
		{name: "total", scheme: "http", upstream: serve(drip("application/json", 1<<30)), timeouts: `"total":"100ms"`, status: 200, code: "UPSTREAM_TIMEOUT:total"},
		{name: "a stream has no total", scheme: "http", upstream: serve(drip("application/x-ndjson; charset=utf-8", 150)), timeouts: `"total":"50ms"`, status: 200, code: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g, site := newGateway(t, tt.scheme+"://"+tt.upstream(t), `,"timeouts":{`+tt.timeouts+`}`)
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			method := http.MethodGet
			var body io.Reader
			if tt.body != nil {
				method, body = http.MethodPost, tt.body()
			}
			req, err := http.NewRequestWithContext(t.Context(), method, site.URL+"/x", body)
			if err != nil {
				t.Fatal(err)
			}
			res, err := client.Do(req)
			if err != nil && tt.status == 504 && tt.body != nil {
				// Who is still sending may learn of the end before the answer.
				if r := <-g.refused; r.Code != tt.code {
					t.Errorf("%q, want %q", r.Code, tt.code)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != tt.status {
				t.Errorf("status %d, want %d", res.StatusCode, tt.status)
			}
			if !tt.deaf {
				if _, err := io.Copy(io.Discard, res.Body); (err != nil) != (tt.status == 200 && tt.code != "") {
					t.Errorf("the answer ends with %v", err)
				}
			}
			result := <-g.results
			code := result.Code
			if tt.status != 200 {
				code = (<-g.refused).Code
			}
			if code != tt.code {
				t.Errorf("%q, want %q", code, tt.code)
			}
		})
	}
}

// zeros never end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
