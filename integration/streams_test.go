package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// streams is an upstream that sends events to many, and the clients that read
// them.
type streams struct {
	t    *testing.T
	up   *httptest.Server
	mu   sync.Mutex
	open map[chan string]bool // at the upstream
}

func newStreams(t *testing.T) *streams {
	st := &streams{t: t, open: map[chan string]bool{}}
	st.up = httptest.NewUnstartedServer(http.HandlerFunc(st.serve))
	st.up.Start()
	t.Cleanup(func() {
		st.up.CloseClientConnections()
		st.up.Close()
	})
	return st
}

func (st *streams) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	if strings.HasSuffix(r.URL.Path, "/flood") { // to somebody who does not read
		for r.Context().Err() == nil {
			if _, err := w.Write(patternText[:64<<10]); err != nil {
				return
			}
		}
		return
	}
	events := make(chan string, 1)
	st.mu.Lock()
	st.open[events] = true
	st.mu.Unlock()
	defer func() {
		st.mu.Lock()
		delete(st.open, events)
		st.mu.Unlock()
	}()
	w.(http.Flusher).Flush()
	for {
		select {
		case e := <-events:
			if _, err := fmt.Fprintf(w, "data: %s\n\n", e); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// send sends an event to all that are open.
func (st *streams) send(event string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for c := range st.open {
		select {
		case c <- event:
		default:
			st.t.Error("a stream stands still at the upstream")
		}
	}
}

func (st *streams) count() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.open)
}

// A listener is one client of a stream.
type listener struct {
	conn   net.Conn
	events chan string // closed when the stream ends
}

// listen opens n streams and returns when their headers are there.
func (st *streams) listen(n int, address, path, token string) []*listener {
	st.t.Helper()
	out := make([]*listener, n)
	var wg sync.WaitGroup
	places := make(chan struct{}, 64)
	for i := range out {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			l, err := openStream(address, path, token)
			if err != nil {
				st.t.Errorf("stream %d: %v", i, err)
				return
			}
			out[i] = l
		})
	}
	wg.Wait()
	if st.t.Failed() {
		st.t.FailNow()
	}
	return out
}

// openStream is a client as small as one can be: there are thousands. Like any
// client it asks again while the vault says that its disk is too busy.
func openStream(address, path, token string) (l *listener, err error) {
	for range 20 {
		if l, err = askStream(address, path, token); !errors.Is(err, errBusy) {
			break
		}
	}
	return l, err
}

var errBusy = errors.New("503")

func askStream(address, path, token string) (_ *listener, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	_ = conn.SetReadDeadline(time.Now().Add(10 * patience)) // a TCP connection has deadlines
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\nAuthorization: Bearer %s\r\n\r\n", path, token); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(conn, 1<<10)
	status, err := r.ReadString('\n')
	switch {
	case err != nil:
		return nil, err
	case strings.HasPrefix(status, "HTTP/1.1 503 "):
		return nil, errBusy
	case !strings.HasPrefix(status, "HTTP/1.1 200 "):
		return nil, errors.New(status)
	}
	for line := ""; line != "\r\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			return nil, err
		}
	}
	l := &listener{conn: conn, events: make(chan string, 8)}
	if strings.HasSuffix(path, "/flood") {
		return l, nil // and does not read on
	}
	go func() {
		defer close(l.events)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if event, ok := strings.CutPrefix(line, "data: "); ok {
				l.events <- strings.TrimSpace(event)
			}
		}
	}()
	return l, nil
}

// hear waits until all have heard the event.
func hear(t *testing.T, all []*listener, event string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	for i, l := range all {
		select {
		case got, ok := <-l.events:
			if got != event {
				t.Fatalf("stream %d: %q %v, want %q", i, got, ok, event)
			}
		case <-ctx.Done():
			t.Fatalf("stream %d stands still", i)
		}
	}
}

func hangUp(all []*listener) {
	for _, l := range all {
		l.conn.Close()
	}
}

// TestManyStreams opens thousands of event streams, beside as many through
// Caddy alone, and then cuts some of them.
func TestManyStreams(t *testing.T) {
	onLinux(t)
	n := 5000
	if raced {
		n = 500
	}
	// Both ends of this process, and a few.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if need := uint64(2*n + 1000); limit.Cur < need {
		limit.Cur, limit.Max = need, max(limit.Max, need)
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatalf("%d open files are needed (ulimit -n): %v", need, err)
		}
	}
	cut := n / 5
	const stuck = 20

	st := newStreams(t)
	plain := prepare(t, config{sites: `
http://:$PORT {
	bind 127.0.0.1
	respond /health 200
	reverse_proxy ` + strings.TrimPrefix(st.up.URL, "http://") + ` {
		header_up Authorization "Bearer key"
	}
}`})
	plain.start()
	s := prepare(t, config{})
	s.start()
	s.ok("/vault.admin.addService", fmt.Sprintf(`{"service":"sse","baseUrl":%q,"masterSecret":%s,"allowedAgents":["*"],"allowedActions":["*"],
		"allowedScopes":["x"],"endpoints":{"get":{"method":"GET","path":"/*"}}}`, st.up.URL, quote(secret)), nil)

	// Caddy alone.
	first := st.listen(1, "127.0.0.1:"+plain.port, "/events", "x")
	before := plain.memory("VmRSS")
	all := st.listen(n-1, "127.0.0.1:"+plain.port, "/events", "x")
	all = append(all, first...)
	st.send("0")
	hear(t, all, "0")
	bare := plain.memory("VmRSS") - before
	hangUp(all)
	plain.stop()
	eventually(t, "the upstream's streams have ended", func() bool { return st.count() == 0 })

	// The vault.
	keep := s.issueWith(`"service":"sse","scope":["x"],"sessionId":"keep"`).Token
	lost := s.issueWith(`"service":"sse","scope":["x"],"sessionId":"lost"`).Token
	address := "127.0.0.1:" + s.port
	first = st.listen(1, address, "/proxy/sse/events", keep)
	before = s.memory("VmRSS")
	start := time.Now()
	kept := append(first, st.listen(n-cut-1, address, "/proxy/sse/events", keep)...)
	gone := st.listen(cut, address, "/proxy/sse/events", lost)
	opened := time.Since(start)
	defer hangUp(kept)
	defer hangUp(gone)
	st.send("1")
	hear(t, kept, "1")
	hear(t, gone, "1")
	own := s.memory("VmRSS") - before
	t.Logf("%d event streams, opened in %.1f s: %.1f KiB each; through Caddy alone %.1f KiB; ratio %.2f",
		n, opened.Seconds(), float64(own)/float64(n), float64(bare)/float64(n), float64(own)/float64(bare))

	// Some do not read what is sent to them.
	flooded := st.listen(stuck, address, "/proxy/sse/flood", keep)
	defer hangUp(flooded)
	start = time.Now()
	st.send("2")
	hear(t, kept, "2")
	hear(t, gone, "2")
	t.Logf("an event to all of them beside %d that do not read: %.0f ms", stuck, time.Since(start).Seconds()*1000)

	_, end := s.auditLog(0)
	start = time.Now()
	s.ok("/vault.revoke", `{"sessionId":"lost"}`, nil)
	answered := time.Since(start)
	for i, l := range gone {
		select {
		case e, ok := <-l.events:
			if ok {
				t.Fatalf("stream %d: %q", i, e)
			}
		case <-time.After(patience):
			t.Fatalf("stream %d of those cut goes on", i)
		}
	}
	t.Logf("a revocation of %d of %d streams: answered after %.0f ms, the last ended after %.0f ms",
		cut, n, answered.Seconds()*1000, time.Since(start).Seconds()*1000)
	st.send("3")
	hear(t, kept, "3")

	ended := map[string]bool{}
	eventually(t, "every stream that was cut has its end in the log", func() bool {
		records, at := s.auditLog(end)
		end = at
		for _, r := range records {
			if r.text("event") == "proxy.call" && r.text("error") == "SESSION_REVOKED" {
				if id := r.text("callId"); ended[id] {
					t.Errorf("two ends of call %s", id)
				} else {
					ended[id] = true
				}
			}
		}
		return len(ended) >= cut
	})
	if len(ended) != cut {
		t.Errorf("%d ends of %d streams", len(ended), cut)
	}
	var said struct {
		Calls int
		Took  float64
	}
	_, line, _ := strings.Cut(s.read("caddy.log"), `"msg":"a revocation cut calls",`)
	line, _, _ = strings.Cut(line, "\n")
	if err := json.Unmarshal([]byte("{"+line), &said); err != nil || said.Calls != cut {
		t.Errorf("the server's log: %q %v", line, err)
	}
	t.Logf("the vault had closed all of their connections after %.0f ms", said.Took*1000)
}
