package integration

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// seenRequest is what an upstream was asked.
type seenRequest struct {
	method string
	uri    string // as it stood in the request line
	host   string
	header http.Header
	body   string
}

// An upstream stands in for a service's API. It keeps what it was asked.
type upstream struct {
	*httptest.Server

	mu      sync.Mutex
	seen    []seenRequest
	handler http.HandlerFunc // nil for a plain answer
}

func newUpstream(t testing.TB) *upstream {
	u := new(upstream)
	u.Server = httptest.NewServer(http.HandlerFunc(u.serve))
	t.Cleanup(func() {
		u.CloseClientConnections()
		u.Close()
	})
	return u
}

func (u *upstream) serve(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	h := u.handler
	u.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the vault went away
	}
	u.mu.Lock()
	u.seen = append(u.seen, seenRequest{r.Method, r.RequestURI, r.Host, r.Header.Clone(), string(body)})
	u.mu.Unlock()
	if h != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		h(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"full_name":"o/r"}`)
}

// answer sets what is answered from now on.
func (u *upstream) answer(h http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handler = h
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.seen)
}

// last returns the newest request.
func (u *upstream) last(t testing.TB) seenRequest {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.seen) == 0 {
		t.Fatal("the upstream saw nothing")
	}
	return u.seen[len(u.seen)-1]
}
