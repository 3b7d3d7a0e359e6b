package integration

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A refusal is a request that must be refused, and how.
type refusal struct {
	name   string
	method string // default POST
	path   string
	body   string
	edits  []edit

	status int
	code   string
	event  string // less ".denied"
}

// refused does a request that must be refused and looks at everything that
// must hold then.
func (s *server) refused(t testing.TB, r refusal) reply {
	t.Helper()
	if r.method == "" {
		r.method = "POST"
	}
	upstreamBefore := s.up.count()
	_, end := s.auditLog(0)

	got, err := s.try(r.method, r.path, r.body, r.edits...)
	if err != nil {
		t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	if got.status != r.status || got.header.Get("Vault-Error") != r.code {
		t.Fatalf("%s %s %s:\ngot  %d %s %s\nwant %d %s", r.method, r.path, tail(r.body, 300), got.status, got.header.Get("Vault-Error"), got.body, r.status, r.code)
	}
	problem := checkProblem(t, r, got)
	s.checkDenied(t, r, problem["requestId"], end)
	if n := s.up.count() - upstreamBefore; n != 0 {
		t.Errorf("the upstream saw %d requests of one that was refused", n)
	}

	for place, text := range map[string]string{
		"the answer's body": got.body,
		"its header":        headerText(got),
		"the configuration": s.caddyConfig(),
		"its own hint":      problem["hint"],
	} {
		s.noSecrets(t, place, text)
	}
	return got
}

func headerText(r reply) string {
	var b strings.Builder
	_ = r.header.Write(&b) // to memory
	return b.String()
}

func (s *server) caddyConfig() string {
	status, body := s.adminAPI("GET", "/config/", nil)
	if status != 200 {
		s.t.Errorf("GET /config/: %d", status)
	}
	return string(body)
}

// checkProblem looks at the problem document and returns its strings.
func checkProblem(t testing.TB, r refusal, got reply) map[string]string {
	t.Helper()
	if ct := got.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("content-type %q", ct)
	}
	if got.header.Get("Cache-Control") != "no-store" || got.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("header %v", got.header)
	}
	for name := range got.header {
		if strings.HasPrefix(name, "Access-Control-") || name == "Set-Cookie" {
			t.Errorf("the answer has the header %s", name)
		}
	}
	if challenge := got.header.Get("WWW-Authenticate"); (got.status == 401) != (challenge != "") {
		t.Errorf("status %d with WWW-Authenticate %q", got.status, challenge)
	}
	spent := r.code == "BUDGET_EXHAUSTED" // for good
	if retry := got.header.Get("Retry-After"); got.status == 429 && (retry == "") != spent {
		t.Errorf("429 with Retry-After %q", retry)
	}
	if retry := got.header.Get("X-Should-Retry"); (retry == "false") != spent && got.status == 429 {
		t.Errorf("X-Should-Retry %q", retry)
	}
	out := map[string]string{}
	if r.method == "HEAD" {
		return out
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(got.body), &doc); err != nil {
		t.Fatalf("problem document: %v: %q", err, got.body)
	}
	for name, v := range doc {
		switch name {
		case "status":
			if v != float64(got.status) {
				t.Errorf("the document says %v, the answer %d", v, got.status)
			}
		case "type", "title", "detail", "error", "requestId", "hint":
			out[name], _ = v.(string)
			if out[name] == "" {
				t.Errorf("%s is %#v", name, v)
			}
		default:
			t.Errorf("the document has an unknown member %s", name)
		}
	}
	for _, name := range []string{"type", "title", "detail", "requestId"} {
		if out[name] == "" {
			t.Errorf("the document lacks %s: %s", name, got.body)
		}
	}
	if out["error"] != r.code {
		t.Errorf("error is %q, want %q", out["error"], r.code)
	}
	return out
}

// checkDenied looks for the one record of a refusal after a place in the log.
func (s *server) checkDenied(t testing.TB, r refusal, requestID string, from int64) {
	t.Helper()
	var denied []record
	deadline := time.Now().Add(patience)
	for {
		records, _ := s.auditLog(from)
		denied = denied[:0]
		for _, rec := range records {
			if strings.HasSuffix(rec.text("event"), ".denied") {
				denied = append(denied, rec)
			}
			// The end of an earlier call may still be on its way to the log.
			if rec.text("event") == "proxy.call.started" {
				t.Errorf("a refused request left %v", rec)
			}
		}
		if len(denied) > 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(time.Millisecond) // the interval of polling
	}
	if len(denied) != 1 {
		t.Fatalf("%d records of one refusal: %v", len(denied), denied)
	}
	rec := denied[0]
	if rec.text("event") != r.event+".denied" || rec.text("error") != r.code {
		t.Errorf("the record is %s %s, want %s.denied %s", rec.text("event"), rec.text("error"), r.event, r.code)
	}
	if requestID != "" && rec.text("requestId") != requestID {
		t.Errorf("the record is of request %q, the answer of %q", rec.text("requestId"), requestID)
	}
}

// noSecrets fails if text holds any secret in any spelling.
func (s *server) noSecrets(t testing.TB, place, text string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := newHaystack(text)
	for value, name := range s.secrets {
		if how := h.holds(value); how != "" {
			t.Errorf("%s shows %s (%s)", place, name, how)
		}
	}
}

// checkLogs looks for secrets in everything that a server has written. It runs
// after the server has ended.
func (s *server) checkLogs() {
	s.t.Helper()
	s.noSecrets(s.t, "what the server printed", s.output.String())
	s.noSecrets(s.t, "the server's log", s.read("caddy.log"))
	files, err := filepath.Glob(filepath.Join(s.data, "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil || info.IsDir() {
			continue
		}
		switch filepath.Base(f) {
		case "admin.token":
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			s.t.Fatal(err)
		}
		s.noSecrets(s.t, filepath.Base(f), string(b))
	}
}

// A haystack is a text in the readings that a secret may hide in.
type haystack struct {
	plain, lower string
	unescaped    []string // JSON and percent escapes undone, once and twice
}

var (
	percentEscape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
	jsonEscape    = regexp.MustCompile(`\\(?:u[0-9A-Fa-f]{4}|["\\/bfnrt])`)
)

func newHaystack(text string) haystack {
	h := haystack{plain: text, lower: strings.ToLower(text)}
	percent := func(s string) string {
		return percentEscape.ReplaceAllStringFunc(s, func(e string) string {
			b, _ := hex.DecodeString(e[1:])
			return string(b)
		})
	}
	escapes := func(s string) string {
		return jsonEscape.ReplaceAllStringFunc(s, func(e string) string {
			if e[1] == 'u' {
				n, _ := strconv.ParseUint(e[2:], 16, 32)
				return string(rune(n))
			}
			return map[byte]string{'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t"}[e[1]] + strings.Trim(e[1:], "bfnrt")
		})
	}
	once := escapes(text)
	h.unescaped = []string{percent(text), once, escapes(once), percent(once)}
	return h
}

// holds says in which spelling the value is in the text, "" for none.
func (h haystack) holds(value string) string {
	if strings.Contains(h.plain, value) {
		return "plain"
	}
	for _, u := range h.unescaped {
		if strings.Contains(u, value) {
			return "escaped"
		}
	}
	if strings.Contains(h.plain, url.QueryEscape(value)) {
		return "query"
	}
	if strings.Contains(h.lower, hex.EncodeToString([]byte(value))) {
		return "hex"
	}
	for shift := range 3 {
		// What stands before and after changes the first and the last
		// characters; those between are the value's own.
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := e.EncodeToString([]byte("\x00\x00\x00"[:shift] + value))
			from := (shift*8 + 5) / 6
			to := (shift + len(value)) * 8 / 6
			if strings.Contains(h.plain, text[from:to]) {
				return "base64 " + strconv.Itoa(shift)
			}
		}
	}
	return ""
}

// TestHaystack makes sure that what every other test leans on finds things.
func TestHaystack(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"plain":    "x" + secret + "y",
		"base64 0": base64.StdEncoding.EncodeToString([]byte(secret + "abc")),
		"base64 1": base64.URLEncoding.EncodeToString([]byte("a" + secret)),
		"base64 2": base64.StdEncoding.EncodeToString([]byte("ab" + secret + "z")),
		"hex":      strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"percent":  url.PathEscape(secret),
		"query":    url.QueryEscape(secret),
		"quoted":   quote(secret),
		"json": func() string {
			var b strings.Builder
			for _, c := range secret {
				b.WriteString(`\u00` + hex.EncodeToString([]byte(string(c))))
			}
			return b.String()
		}(),
	} {
		if newHaystack("before "+text+" after").holds(secret) == "" {
			t.Errorf("%s: not found in %s", name, text)
		}
	}
	if how := newHaystack("nothing here").holds(secret); how != "" {
		t.Errorf("found in nothing: %s", how)
	}
}
