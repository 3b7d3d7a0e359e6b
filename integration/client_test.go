package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A reply is an answer of the vault.
type reply struct {
	status int
	header http.Header
	body   string
}

// edit changes a request before it is sent.
type edit func(*http.Request)

func header(name string, values ...string) edit {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

func noHeader(name string) edit { return func(r *http.Request) { r.Header.Del(name) } }

func host(h string) edit { return func(r *http.Request) { r.Host = h } }

func bearer(token string) edit { return header("Authorization", "Bearer "+token) }

// chunked hides the length of the body.
func chunked(r *http.Request) { r.ContentLength = -1; r.Body = struct{ io.ReadCloser }{r.Body} }

// try does a request. A path is completed with the server's base URL.
func (s *server) try(method, path, body string, edits ...edit) (reply, error) {
	target := path
	if strings.HasPrefix(path, "/") {
		target = s.base + path
	}
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, target, rd)
	if err != nil {
		return reply{}, err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	if strings.Contains(req.URL.Path, "/vault.admin.") {
		req.Header.Set("Authorization", "Bearer "+adminToken)
	}
	for _, e := range edits {
		e(req)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, string(b)}, err
}

// do does a request that must be answered.
func (s *server) do(method, path, body string, edits ...edit) reply {
	s.t.Helper()
	r, err := s.try(method, path, body, edits...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

// stream begins a GET whose answer goes on, and reads its first event, which
// is that of oneEvent.
func (s *server) stream(target, token string) io.Reader {
	s.t.Helper()
	req, err := http.NewRequest("GET", target, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	bearer(token)(req)
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { res.Body.Close() })
	if _, err := io.ReadFull(res.Body, make([]byte, len(firstEvent))); err != nil {
		s.t.Fatal(err)
	}
	return res.Body
}

const firstEvent = "data: 1\n\n"

// oneEvent is an upstream's stream that sends an event and then nothing, for as
// long as somebody listens.
func oneEvent(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, firstEvent)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func (s *server) post(path, body string, edits ...edit) reply {
	s.t.Helper()
	return s.do(http.MethodPost, path, body, edits...)
}

// ok does a POST that must succeed and decodes the answer into out, which may
// have no field less.
func (s *server) ok(path, body string, out any, edits ...edit) reply {
	s.t.Helper()
	r := s.post(path, body, edits...)
	if r.status != http.StatusOK {
		s.t.Fatalf("POST %s %s: %d %s", path, body, r.status, r.body)
	}
	if out != nil {
		d := json.NewDecoder(strings.NewReader(r.body))
		d.DisallowUnknownFields()
		if err := d.Decode(out); err != nil {
			s.t.Fatalf("POST %s: %v in %s", path, err, r.body)
		}
	}
	return r
}

// same fails unless the answer is the JSON wanted, whatever the order of its
// members.
func (s *server) same(path, body, want string, edits ...edit) {
	s.t.Helper()
	r := s.post(path, body, edits...)
	if r.status != http.StatusOK || canonical(s.t, r.body) != canonical(s.t, want) {
		s.t.Errorf("POST %s %s:\ngot  %d %s\nwant 200 %s", path, body, r.status, r.body, want)
	}
	if ct := r.header.Get("Content-Type"); ct != "application/json" {
		s.t.Errorf("POST %s: content-type %q", path, ct)
	}
}

func canonical(t testing.TB, text string) string {
	t.Helper()
	var v any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("not JSON: %v: %q", err, text)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// quote returns s as a JSON string.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string
	return strings.TrimSpace(b.String())
}

// hide makes sure that a value shows in no log.
func (s *server) hide(value, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[value] = name
}

// issue gets a token. more is further members of the request.
func (s *server) issue(agent, service string, scopes ...string) string {
	s.t.Helper()
	return s.issueWith(fmt.Sprintf(`"agentId":%q,"sessionId":"s1","taskId":"t1","skillId":"k1","service":%q,"scope":["%s"]`,
		agent, service, strings.Join(scopes, `","`))).Token
}

type issued struct {
	TokenID      string `json:"tokenId"`
	Token        string `json:"token"`
	ExpiresInSec int    `json:"expiresInSec"`
}

func (s *server) issueWith(members string, edits ...edit) issued {
	s.t.Helper()
	var out issued
	s.ok("/vault.issueToken", "{"+members+"}", &out, edits...)
	s.hide(out.Token, "an agent's token")
	return out
}

// call makes a call with a token, which need not succeed.
func (s *server) call(token, service, action, params string, edits ...edit) reply {
	s.t.Helper()
	return s.post("/vault.call", fmt.Sprintf(`{"token":%q,"service":%q,"action":%q,"params":%s}`, token, service, action, params), edits...)
}

// addService adds a service through the API; value is its secret, if any.
func (s *server) addService(name, body, value string) {
	s.t.Helper()
	add := fmt.Sprintf(`{"service":%q,`, name)
	if value != "" {
		add += `"masterSecret":` + quote(value) + `,`
	}
	s.ok("/vault.admin.addService", add+strings.TrimPrefix(strings.TrimSpace(body), "{"), nil)
}

// githubService is a service whose base URL is the stand-in, with a path.
func (s *server) githubService() string { return githubService(s.up.URL + "/base") }

func githubService(base string) string {
	return `{
  "baseUrl": "` + base + `",
  "secretRef": "github_pat",
  "headers": {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"},
  "passHeaders": ["X-GitHub-Api-Version"],
  "allowedAgents": ["main", "tony", "steve", "victim"],
  "allowedActions": ["issue", "repo.get", "contents.get", "issues.create", "issue.close", "form.post", "none.get", "raw.put", "thing.delete", "head.get", "archive.get", "public.get", "ghost", "query.post"],
  "allowedScopes": ["github:repos:read", "github:issues:write"],
  "agentScopes": {"steve": ["github:repos:read"]},
  "endpoints": {
    "repo.get": {"method": "GET", "path": "/repos/{owner}/{repo}", "requiredScope": ["github:repos:read"]},
    "contents.get": {"method": "GET", "path": "/repos/{owner}/{repo}/contents/{path...}", "requiredScope": ["github:repos:read"], "range": true},
    "issues.create": {"method": "POST", "path": "/repos/{owner}/{repo}/issues", "requiredScope": ["github:issues:write"]},
    "issue.close": {"method": "PATCH", "path": "/repos/{owner}/{repo}/issues/{number}", "requiredScope": ["github:issues:write", "github:repos:read"]},
    "form.post": {"method": "POST", "path": "/form", "body": "form"},
    "query.post": {"method": "POST", "path": "/query", "body": "query"},
    "none.get": {"method": "GET", "path": "/none", "body": "none"},
    "raw.put": {"method": "PUT", "path": "/things/{id}"},
    "thing.delete": {"method": "DELETE", "path": "/things/{id}"},
    "head.get": {"method": "HEAD", "path": "/things/{id}"},
    "archive.get": {"method": "GET", "path": "/archive/{id}", "passRedirects": true},
    "public.get": {"method": "GET", "path": "/public"},
    "hidden.get": {"method": "GET", "path": "/hidden"}
  }
}`
}

// A record is one line of the audit log.
type record map[string]any

func (r record) text(name string) string {
	v, _ := r[name].(string)
	return v
}

// auditLog returns the records of the log from a byte on, and where they end.
func (s *server) auditLog(from int64) ([]record, int64) {
	s.t.Helper()
	f, err := os.Open(filepath.Join(s.data, "audit.log.jsonl"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, from, 1<<40))
	if err != nil {
		s.t.Fatal(err)
	}
	// What is preallocated, and what is being written, is not a line yet.
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	var out []record
	for line := range bytes.Lines(b) {
		var r record
		d := json.NewDecoder(bytes.NewReader(line))
		d.UseNumber()
		if err := d.Decode(&r); err != nil {
			s.t.Fatalf("audit log: %v: %q", err, line)
		}
		if r.text("event") != "audit.checkpoint" { // which come as time passes
			out = append(out, r)
		}
	}
	return out, from + int64(len(b))
}

// barrier waits until the log has the record of everything answered so far.
func (s *server) barrier() {
	s.t.Helper()
	s.ok("/vault.audit.query", `{"limit":1}`, nil)
}

func decode(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}
