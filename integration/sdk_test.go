package integration

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/internal/need"
)

var update = flag.Bool("update", false, "write the golden files anew")

// An sdk is a vendor's own library that is run against a service made of the
// built-in template.
type sdk struct {
	name     string // of the template and of the script in sdk/
	base     string // path of the template's base URL, at the stand-in
	auth     string // header in which the key must arrive
	scheme   string // before the key
	scopes   []string
	sites    string // of the server, if not the usual one
	standIn  func(st *standIn) http.HandlerFunc
	env      func(s *server) []string // base URL; the key is added
	keyNames []string                 // variables that hold what the library takes for its key
	givesUp  bool                     // the script leaves a stream before its end
	want     string                   // what the script prints
}

// A standIn answers as a vendor does. It sends the next piece of a stream only
// when the client has said that the last one arrived.
type standIn struct {
	t     *testing.T
	url   func() string // of the stand-in itself
	steps chan struct{}
	gone  chan struct{} // a stream was given up by its client
}

// next waits for the client. It returns false if the client is gone.
func (st *standIn) next(r *http.Request) bool {
	select {
	case <-st.steps:
		return true
	case <-r.Context().Done():
		close(st.gone) // twice would be a mistake
		return false
	case <-time.After(patience):
		st.t.Error("what was sent does not arrive at the client")
		return false
	}
}

// events sends a stream of server-sent events.
func (st *standIn) events(w http.ResponseWriter, r *http.Request, events ...string) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	for _, e := range events {
		if _, err := fmt.Fprintf(w, "%s\n\n", e); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		// Comments, pings and what ends a stream are not shown to programs.
		if strings.HasPrefix(e, ":") || strings.HasSuffix(e, "[DONE]") || strings.HasPrefix(e, "event: ping") {
			continue
		}
		if !st.next(r) {
			return
		}
	}
}

func answerJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // the client's loss
}

// sdkRun runs the library's script and looks at everything that must hold.
func sdkRun(t *testing.T, k sdk) {
	t.Parallel()
	needModules(t)
	s := prepare(t, config{sites: k.sites})
	s.start()
	s.ok("/vault.admin.loadTemplate", fmt.Sprintf(`{"template":%q,"masterSecret":%s}`, k.name, quote(secret)), nil)
	s.ok("/vault.admin.updateService", fmt.Sprintf(`{"service":%q,"baseUrl":%q}`, k.name, s.up.URL+k.base), nil)
	token := s.issue("main", k.name, k.scopes...)

	st := &standIn{t: t, url: func() string { return s.up.URL }, steps: make(chan struct{}), gone: make(chan struct{})}
	s.up.answer(k.standIn(st))
	stepper := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case st.steps <- struct{}{}:
		case <-r.Context().Done():
		}
	}))
	defer stepper.Close()

	cmd := exec.CommandContext(t.Context(), "node", k.name+".mjs")
	cmd.Dir = "sdk"
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "STANDIN_STEP=" + stepper.URL}, k.env(s)...)
	for _, name := range k.keyNames {
		cmd.Env = append(cmd.Env, name+"="+token)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, stderr.String())
	}
	compareResults(t, string(out), k.want)
	if k.givesUp {
		select {
		case <-st.gone:
		case <-time.After(patience):
			t.Error("the upstream goes on with a stream that its client has left")
		}
	}

	s.up.mu.Lock()
	seen := slices.Clone(s.up.seen)
	s.up.mu.Unlock()
	for _, r := range seen {
		k.checkRequest(t, r, token)
	}
	golden(t, filepath.Join("testdata", "wire", k.name+".golden"), wireText(seen))
}

// needModules skips the test where the libraries are not installed.
func needModules(t *testing.T) {
	t.Helper()
	need.Programs(t, "node")
	if _, err := os.Stat("sdk/node_modules"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("NOT TESTED: run npm ci in integration/sdk")
	}
}

// compareResults compares two JSON objects, member by member.
func compareResults(t *testing.T, got, want string) {
	t.Helper()
	var g, w map[string]json.RawMessage
	decode(t, got, &g)
	decode(t, want, &w)
	for name := range w {
		if g[name] == nil {
			t.Errorf("%s: nothing", name)
		}
	}
	for name, value := range g {
		if w[name] == nil {
			t.Errorf("%s is not expected: %s", name, value)
		} else if canonical(t, string(value)) != canonical(t, string(w[name])) {
			t.Errorf("%s:\ngot  %s\nwant %s", name, value, w[name])
		}
	}
}

// checkRequest looks at what left for the upstream: the key in its place and
// nowhere else, and the vault's token nowhere.
func (k sdk) checkRequest(t *testing.T, r seenRequest, token string) {
	t.Helper()
	key := secret
	if k.scheme != "" {
		key = k.scheme + " " + key
	}
	if got := r.header[k.auth]; len(got) != 1 || got[0] != key {
		t.Errorf("%s %s: %s is %q", r.method, r.uri, k.auth, got)
	}
	rest := r.header.Clone()
	delete(rest, k.auth)
	var header strings.Builder
	_ = rest.Write(&header) // to memory
	for place, text := range map[string]string{"path": r.uri, "header": header.String(), "body": r.body} {
		h := newHaystack(text)
		if how := h.holds(token); how != "" {
			t.Errorf("%s %s: the vault's token is in the %s (%s)", r.method, r.uri, place, how)
		}
		if how := h.holds(secret); how != "" {
			t.Errorf("%s %s: the key is in the %s (%s)", r.method, r.uri, place, how)
		}
	}
}

// unsteady is what differs between two runs or two machines, and what stands
// for it.
var unsteady = []struct {
	is *regexp.Regexp
	by string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "upstream"},
	{regexp.MustCompile(`-+(?:Webkit)?FormBoundary[0-9A-Za-z]+|-+formdata-undici-\d+`), "BOUNDARY"},
	{regexp.MustCompile(`stainless-node-retry-[0-9a-f-]+`), "stainless-node-retry-UUID"},
	{regexp.MustCompile(`(X-Stainless-(?:Arch|Os|Runtime-Version)): .*`), "$1: …"},
	{regexp.MustCompile(`(Accept-Encoding): .*`), "$1: …"},
	{regexp.MustCompile(`Node\.js/\S+ \(.*\)`), "Node.js/…"},
	{regexp.MustCompile(regexp.QuoteMeta(secret)), "<key>"},
	{regexp.MustCompile(`(Idempotency-Key): stripe-node-retry-.*`), "$1: stripe-node-retry-UUID"},
}

// wireText spells out requests as they stood on the wire.
func wireText(seen []seenRequest) string {
	var b strings.Builder
	for _, r := range seen {
		fmt.Fprintf(&b, "%s %s\nHost: %s\n", r.method, r.uri, r.host)
		var header strings.Builder
		_ = r.header.Write(&header) // to memory, sorted
		b.WriteString(strings.ReplaceAll(header.String(), "\r\n", "\n"))
		if r.body != "" {
			b.WriteString("\n" + strings.ReplaceAll(r.body, "\r\n", "\n"))
		}
		b.WriteString("\n\n")
	}
	text := b.String()
	for _, u := range unsteady {
		text = u.is.ReplaceAllString(text, u.by)
	}
	return strings.TrimRight(text, "\n") + "\n"
}

// golden compares text with a file that is in the repository.
func golden(t *testing.T, file, text string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("what is on the wire is not that of %s (-update writes it anew):\n%s", file, text)
	}
}

// proxyURL is the base URL that a library is given for a service.
func (s *server) proxyURL(service string) string {
	u, err := url.JoinPath(s.base, "proxy", service)
	if err != nil {
		s.t.Fatal(err)
	}
	return u
}
