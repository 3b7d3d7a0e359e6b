package shell

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

const (
	adminToken = "admin-token-of-the-stand-in-0123456789"
	agentKey   = "cva_0123456789abcdef_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	tokenID    = "2f1d7c1e-8f0b-4f7a-9d52-0f6f2f0a5c11"
)

// agentToken is shaped like the vault's own: three parts, of which the second
// is a JSON object in base64url without padding, and says its id. The ">?>"
// makes that encoding contain a "-" and a "_".
var agentToken = "eyJhbGciOiJIUzI1NiJ9." +
	base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"a>?>?>~~","jti":"`+tokenID+`"}`)) + ".c2lnbmF0dXJl"

// A request is what the stand-in was asked.
type request struct {
	method, path string
	header       http.Header
	body         []byte
}

// field returns the raw JSON of a top-level field of the body.
func (r request) field(t *testing.T, name string) string {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(r.body, &fields); err != nil {
		t.Fatalf("body of %s is not a JSON object: %v\n%q", r.path, err, r.body)
	}
	return string(fields[name])
}

// A standIn answers as a vault with one service does. What a test sets in
// answers takes the place of the usual answer of that path.
type standIn struct {
	*httptest.Server

	mu       sync.Mutex
	requests []request
	answers  map[string]http.HandlerFunc
}

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	s := &standIn{answers: make(map[string]http.HandlerFunc)}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *standIn) answer(path string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[path] = h
}

// seen returns what was asked so far.
func (s *standIn) seen() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.requests...)
}

// keyed returns how many requests carried the agent's key and nothing else.
func (s *standIn) keyed() (n int) {
	for _, r := range s.seen() {
		if a := r.header["Authorization"]; len(a) == 1 && a[0] == "Bearer "+agentKey {
			n++
		}
	}
	return n
}

// only returns the one request there was.
func (s *standIn) only(t *testing.T) request {
	t.Helper()
	seen := s.seen()
	if len(seen) != 1 {
		t.Fatalf("the vault was asked %d times, want once", len(seen))
	}
	return seen[0]
}

func (s *standIn) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away
	}
	s.mu.Lock()
	s.requests = append(s.requests, request{r.Method, r.URL.Path, r.Header.Clone(), body})
	h := s.answers[r.URL.Path]
	s.mu.Unlock()

	if want := "POST"; r.URL.Path != "/health" {
		if r.Method != want {
			refuse(w, 405, "METHOD_NOT_ALLOWED", "only POST", "")
			return
		}
		if r.Header.Get("Content-Type") != "application/json" || !json.Valid(body) {
			refuse(w, 400, "JSON_INVALID", "not JSON", "")
			return
		}
	}
	if h != nil {
		h(w, r)
		return
	}
	switch r.URL.Path {
	case "/health":
		reply(w, 200, `{"ok":true}`)
	case "/vault.issueToken":
		reply(w, 200, fmt.Sprintf(`{"tokenId":%q,"token":%q,"expiresInSec":300}`, tokenID, agentToken))
	case "/vault.call":
		var in struct{ Token string }
		_ = json.Unmarshal(body, &in)
		if in.Token != agentToken {
			refuse(w, 401, "TOKEN_INVALID", "the token is not one of this vault", "ask for a new one")
			return
		}
		reply(w, 200, `{"full_name":"o/r"}`)
	case "/vault.delegateToken":
		reply(w, 200, fmt.Sprintf(`{"tokenId":%q,"token":%q,"expiresInSec":300,"parentId":"p"}`, tokenID, agentToken))
	case "/vault.introspectToken":
		reply(w, 200, `{"active":true,"callsLeft":3}`)
	case "/vault.revoke":
		reply(w, 200, `{"ok":true,"revoked":{}}`)
	case "/vault.audit.query":
		reply(w, 200, `[{"seq":1,"event":"token.issued"}, {"seq":2,"event":"proxy.call"}]`)
	case "/vault.admin.listServices":
		if r.Header.Get("Authorization") != "Bearer "+adminToken {
			refuse(w, 401, "ADMIN_UNAUTHORIZED", "not the admin token", "")
			return
		}
		reply(w, 200, `{"services":[{"service":"github"},{"service":"stripe"}]}`)
	default:
		refuse(w, 404, "NOT_FOUND", "no such route", "")
	}
}

func reply(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// refuse answers as the vault does: a problem document, and its own header.
func refuse(w http.ResponseWriter, status int, code, detail, hint string) {
	doc := map[string]any{
		"type": "about:blank", "title": http.StatusText(status), "status": status,
		"detail": detail, "error": code, "requestId": "r1",
	}
	if hint != "" {
		doc["hint"] = hint
	}
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Vault-Error", code)
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

func refusing(status int, code, detail, hint string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { refuse(w, status, code, detail, hint) }
}
