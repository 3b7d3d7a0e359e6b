package integration

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestRequestOnTheWire is about what reaches the upstream.
func TestRequestOnTheWire(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issue("main", "github", "github:repos:read", "github:issues:write")
	repo := func(owner, name string) string { return fmt.Sprintf(`{"owner":%s,"repo":%s}`, owner, name) }
	for _, c := range []struct {
		action, params string
		method, uri    string
		contentType    string
		body           string
	}{
		{"repo.get", repo(`"o"`, `"r"`), "GET", "/base/repos/o/r", "", ""},
		{"repo.get", repo(`"o/p"`, `"r s?#%;&=+"`), "GET", "/base/repos/o%2Fp/r%20s%3F%23%25%3B%26%3D%2B", "", ""},
		{"repo.get", repo(`"ü"`, `"😀"`), "GET", "/base/repos/%C3%BC/%F0%9F%98%80", "", ""},
		{"repo.get", repo(`"..."`, `".git"`), "GET", "/base/repos/.../.git", "", ""},
		{"repo.get", repo(`"{env.HOME}"`, `"{http.request.host}"`), "GET", "/base/repos/%7Benv.HOME%7D/%7Bhttp.request.host%7D", "", ""},
		{"repo.get", repo(`12345678901234567890`, `1e3`), "GET", "/base/repos/12345678901234567890/1e3", "", ""},
		{
			"repo.get", `{"owner":"o","repo":"r","page":2,"big":12345678901234567890,"f":1.50,"e":1E5,"t":true,"n":null,"s":"a b&c","list":[1,"x",null,2.0]}`, "GET",
			"/base/repos/o/r?page=2&big=12345678901234567890&f=1.50&e=1E5&t=true&s=a%20b%26c&list=1&list=x&list=2.0", "", "",
		},
		{"contents.get", `{"owner":"o","repo":"r","path":"a dir/b%/c"}`, "GET", "/base/repos/o/r/contents/a%20dir/b%25/c", "", ""},
		{
			"issues.create", `{"owner":"o","repo":"r","title":"T","n":12345678901234567890,"f":1.50,"o":{"z":1,"a":[null]},"html":"<&>"}`, "POST", "/base/repos/o/r/issues", "application/json",
			`{"title":"T","n":12345678901234567890,"f":1.50,"o":{"z":1,"a":[null]},"html":"<&>"}`,
		},
		{"issues.create", repo(`"o"`, `"r"`), "POST", "/base/repos/o/r/issues", "application/json", "{}"},
		{"issue.close", `{"owner":"o","repo":"r","number":7}`, "PATCH", "/base/repos/o/r/issues/7", "application/json", "{}"},
		{"raw.put", `{"id":"x"}`, "PUT", "/base/things/x", "application/json", "{}"},
		{"thing.delete", `{"id":"x"}`, "DELETE", "/base/things/x", "", ""},
		{"thing.delete", `{"id":"x","sha":"y"}`, "DELETE", "/base/things/x", "application/json", `{"sha":"y"}`},
		{
			"form.post", `{"amount":100,"meta":{"a":"b c","n":{"d":1}},"items":[{"p":1},{"p":2}],"tags":["x","y"],"none":null}`, "POST", "/base/form", "application/x-www-form-urlencoded",
			"amount=100&meta%5Ba%5D=b%20c&meta%5Bn%5D%5Bd%5D=1&items%5B0%5D%5Bp%5D=1&items%5B1%5D%5Bp%5D=2&tags=x&tags=y",
		},
		{"query.post", `{"a":1}`, "POST", "/base/query?a=1", "", ""},
		{"none.get", `{}`, "GET", "/base/none", "", ""},
		{"public.get", `null`, "GET", "/base/public", "", ""},
	} {
		r := s.call(token, "github", c.action, c.params)
		if r.status != 200 {
			t.Errorf("%s %s: %d %s", c.action, c.params, r.status, r.body)
			continue
		}
		got := s.up.last(t)
		if got.method != c.method || got.uri != c.uri || got.header.Get("Content-Type") != c.contentType || strings.TrimSpace(got.body) != c.body {
			t.Errorf("%s %s:\ngot  %s %s %q %s\nwant %s %s %q %s", c.action, c.params, got.method, got.uri, got.header.Get("Content-Type"), got.body, c.method, c.uri, c.contentType, c.body)
		}
	}
	if r := s.call(token, "github", "head.get", `{"id":"x"}`); r.status != 200 || r.body != "" || s.up.last(t).method != "HEAD" {
		t.Errorf("HEAD: %d %q", r.status, r.body)
	}
	big := strings.Repeat("x", 1000_000)
	if r := s.call(token, "github", "issues.create", `{"owner":"o","repo":"r","body":"`+big+`"}`); r.status != 200 || s.up.last(t).body != `{"body":"`+big+`"}` {
		t.Errorf("a large body: %d", r.status)
	}
}

// TestHeaders is about which headers pass, both ways.
func TestHeaders(t *testing.T) {
	t.Parallel()
	s := start(t, config{env: []string{
		"HTTP_PROXY=http://127.0.0.1:1", "HTTPS_PROXY=http://127.0.0.1:1", "ALL_PROXY=http://127.0.0.1:1", "http_proxy=http://127.0.0.1:1", "all_proxy=socks5://127.0.0.1:1",
	}})
	token := s.issue("main", "github", "github:repos:read")
	s.up.answer(func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range map[string]string{
			"Set-Cookie": "a=b", "Vault-Error": "FAKE", "Alt-Svc": "h3=\":443\"", "Strict-Transport-Security": "max-age=1", "Access-Control-Allow-Origin": "*", "Clear-Site-Data": "*",
			"Server": "theirs", "Proxy-Authenticate": "x", "Content-Security-Policy": "none", "X-Hop": "1", "Connection": "X-Hop", "Www-Authenticate": "Bearer theirs",
			"X-Ratelimit-Remaining": "59", "Etag": `"e"`, "Link": `<https://elsewhere.example/>; rel="next"`, "Content-Type": "text/html",
		} {
			w.Header().Set(name, value)
		}
		w.WriteHeader(418)
		_, _ = io.WriteString(w, "<script>")
	})
	var edits []edit
	for name, value := range map[string]string{
		"Accept": "text/plain", "Accept-Language": "de", "User-Agent": "agent/1", "If-None-Match": `"x"`, "Idempotency-Key": "k", "Prefer": "wait", "Traceparent": "00-x", "X-Stainless-Lang": "js",
		"X-GitHub-Api-Version": "2030-01-01", "Cookie": "a=b", "Proxy-Authorization": "x", "X-Original-Url": "/x", "X-HTTP-Method-Override": "DELETE", "X-Api-Key": "mine", "X-Custom": "x",
		"Vault-Token": "x", "Origin-Agent": "x", "Range": "bytes=0-1", "Upgrade": "websocket", "Connection": "authorization, X-GitHub-Api-Version, upgrade", "Te": "gzip", "X-Real-Ip": "1.2.3.4", "Sec-Fetch-Mode": "cors",
	} {
		edits = append(edits, header(name, value))
	}
	// Authorization is the vault token's own place here.
	r := s.post("/vault.call", `{"service":"github","action":"public.get"}`, append(edits, bearer(token))...)
	if r.status != 418 || r.body != "<script>" {
		t.Fatalf("%d %s", r.status, r.body)
	}
	got := s.up.last(t).header
	for name, want := range map[string]string{
		"Authorization": "Bearer " + secret, "Accept": "text/plain", "Accept-Language": "de", "User-Agent": "agent/1", "If-None-Match": `"x"`, "Idempotency-Key": "k", "Prefer": "wait",
		"Traceparent": "00-x", "X-Stainless-Lang": "js",
	} {
		if len(got[name]) != 1 || got[name][0] != want {
			t.Errorf("the upstream got %s: %q", name, got[name])
		}
		delete(got, name)
	}
	// Named by Connection, the agent's own version does not pass; the
	// service's default takes its place.
	if v := got.Get("X-Github-Api-Version"); v != "2022-11-28" {
		t.Errorf("X-GitHub-Api-Version %q", v)
	}
	delete(got, "X-Github-Api-Version")
	delete(got, "Accept-Encoding") // the transport's own
	if len(got) != 0 {
		t.Errorf("the upstream got more: %v", got)
	}

	for _, name := range []string{
		"Set-Cookie", "Vault-Error", "Alt-Svc", "Strict-Transport-Security", "Access-Control-Allow-Origin", "Clear-Site-Data", "Server", "Proxy-Authenticate", "X-Hop", "Connection", "Link",
	} {
		if v := r.header.Values(name); len(v) > 0 {
			t.Errorf("the client got %s: %q", name, v)
		}
	}
	for name, want := range map[string]string{
		"X-Ratelimit-Remaining": "59", "Www-Authenticate": "Bearer theirs", "Content-Type": "text/html", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox",
	} {
		if v := r.header.Values(name); len(v) != 1 || v[0] != want {
			t.Errorf("the client got %s: %q", name, v)
		}
	}

	// The defaults of the service, where the client says nothing of its own.
	s.call(token, "github", "public.get", "null", header("Accept", "*/*"), header("X-GitHub-Api-Version", "2024-01-01"))
	if got := s.up.last(t).header; got.Get("Accept") != "application/vnd.github+json" || got.Get("X-GitHub-Api-Version") != "2024-01-01" {
		t.Errorf("%v", got)
	}
}

// TestRedirects is about where an upstream sends its clients.
func TestRedirects(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issue("main", "github", "github:repos:read")
	other := newUpstream(t)
	for _, c := range []struct{ action, location, want string }{
		{"public.get", s.up.URL + "/base/elsewhere?x=1", "/proxy/github/elsewhere?x=1"},
		{"public.get", "/base/relative", "/proxy/github/relative"},
		{"public.get", "sibling", "/proxy/github/sibling"},
		{"public.get", "/outside/of/base", ""},
		{"public.get", other.URL + "/base/x", ""},
		{"public.get", "https://evil.example/", ""},
		{"public.get", "//evil.example/", ""},
		{"public.get", s.up.URL + "@evil.example/", ""},
		{"archive.get", other.URL + "/archive.zip?signature=x", other.URL + "/archive.zip?signature=x"},
	} {
		s.up.answer(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", c.location)
			w.WriteHeader(302)
		})
		before := s.up.count()
		params := "null"
		if c.action == "archive.get" {
			params = `{"id":1}`
		}
		r := s.call(token, "github", c.action, params)
		if got := r.header.Get("Location"); r.status != 302 || got != c.want {
			t.Errorf("%s: %d, Location %q, want %q", c.location, r.status, got, c.want)
		}
		if n := s.up.count() - before; n != 1 {
			t.Errorf("%s: the upstream saw %d requests", c.location, n)
		}
	}
	if other.count() != 0 {
		t.Error("a redirect was followed")
	}
}

// TestSecretComesBack is about an upstream that shows what it was given.
func TestSecretComesBack(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issue("main", "github", "github:repos:read")
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, "before "+secret+" after")
	_ = z.Close()
	for name, c := range map[string]struct {
		body, encoding string
		chunks         bool
	}{
		"plain":      {body: "before " + secret + " after"},
		"bit by bit": {body: "before " + secret + " after", chunks: true},
		"JSON":       {body: `{"you sent":` + quote("Bearer "+secret) + `}`},
		"base64":     {body: base64.StdEncoding.EncodeToString([]byte("user:" + secret))},
		"hex":        {body: hex.EncodeToString([]byte(secret))},
		"gzip":       {body: zipped.String(), encoding: "gzip"},
	} {
		s.up.answer(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Etag", `"x"`)
			w.Header().Set("X-Echo", "Bearer "+secret)
			if c.encoding != "" {
				w.Header().Set("Content-Encoding", c.encoding)
			}
			if !c.chunks {
				_, _ = io.WriteString(w, c.body)
				return
			}
			for _, b := range []byte(c.body) {
				_, _ = w.Write([]byte{b})
				_ = http.NewResponseController(w).Flush()
			}
		})
		r := s.call(token, "github", "public.get", "null")
		s.noSecrets(t, name, r.body+headerText(r))
		if r.status != 200 || !strings.Contains(r.body, "[REDACTED:github_pat]") || !strings.Contains(r.header.Get("X-Echo"), "[REDACTED:github_pat]") {
			t.Errorf("%s: %d %q %v", name, r.status, r.body, r.header)
		}
		s.barrier()
		records, _ := s.auditLog(0)
		if last := records[len(records)-1]; last.text("event") != "proxy.call" || fmt.Sprint(last["redactions"]) == "0" {
			t.Errorf("%s: %v", name, last)
		}
	}
}

// TestStreaming is about answers that come bit by bit.
func TestStreaming(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	tok := s.issueWith(`"agentId":"main","sessionId":"streaming","service":"github","scope":["github:repos:read"]`)
	next := make(chan string)
	s.up.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for event := range next {
			_, _ = io.WriteString(w, "data: "+event+"\n\n")
			_ = http.NewResponseController(w).Flush()
		}
	})
	open := func() (*http.Response, *bufio.Reader) {
		req, err := http.NewRequest("POST", s.base+"/vault.call", strings.NewReader(`{"service":"github","action":"public.get"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+tok.Token)
		answered := make(chan struct{})
		go func() { // the header comes with the first event
			select {
			case next <- "0":
			case <-answered:
			}
		}()
		res, err := s.client.Do(req)
		close(answered)
		if err != nil {
			t.Fatal(err)
		}
		return res, bufio.NewReader(res.Body)
	}
	line := func(r *bufio.Reader) (string, error) {
		text, err := r.ReadString('\n')
		if err == nil {
			_, err = r.ReadString('\n')
		}
		return strings.TrimSpace(text), err
	}

	res, events := open()
	for i := range 5 {
		// Each is read before the next is sent.
		if got, err := line(events); got != fmt.Sprintf("data: %d", i) {
			t.Fatalf("%q, %v", got, err)
		}
		if i < 4 {
			next <- fmt.Sprint(i + 1)
		}
	}

	// A revocation cuts what streams.
	s.ok("/vault.revoke", `{"sessionId":"streaming"}`, nil)
	if got, err := line(events); err == nil {
		t.Errorf("the stream goes on: %q", got)
	}
	res.Body.Close()
	close(next) // the upstream may end the answer at the same time
	var end record
	eventually(t, "the call's end is recorded", func() bool {
		records, _ := s.auditLog(0)
		for _, r := range records {
			if r.text("event") == "proxy.call" {
				end = r
			}
		}
		return end != nil
	})
	if end.text("error") != "SESSION_REVOKED" {
		t.Errorf("%v", end)
	}
}

// TestLargeAnswer is about an answer that fits in no buffer.
func TestLargeAnswer(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	token := s.issue("main", "github", "github:repos:read")
	block := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	const blocks = 256 // 16 MiB
	s.up.answer(func(w http.ResponseWriter, _ *http.Request) {
		for range blocks {
			_, _ = w.Write(block)
		}
	})
	r := s.call(token, "github", "public.get", "null")
	if sha256.Sum256([]byte(r.body)) != sha256.Sum256(bytes.Repeat(block, blocks)) {
		t.Errorf("%d, %d bytes", r.status, len(r.body))
	}
	s.barrier()
	records, _ := s.auditLog(0)
	if n := fmt.Sprint(records[len(records)-1]["responseBytes"]); n != fmt.Sprint(blocks*len(block)) {
		t.Errorf("the record says %s bytes", n)
	}
}
