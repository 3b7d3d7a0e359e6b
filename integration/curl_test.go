package integration

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/internal/need"
)

// curlAPI answers curl. Its bodies say what was asked.
func curlAPI(up *upstream) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/text":
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
		case "/zipped":
			if r.Header.Get("Accept-Encoding") == "" {
				return
			}
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, strings.Repeat("zipped ", 1000)) // the client's loss
			_ = z.Close()
		case "/moved":
			http.Redirect(w, r, up.URL+"/text?from=moved", http.StatusFound)
		case "/away":
			http.Redirect(w, r, "http://elsewhere.example/text", http.StatusFound)
		default:
			body, _ := io.ReadAll(r.Body) // from memory
			fmt.Fprintf(w, "%s %s %x", r.Method, r.RequestURI, sha256.Sum256(body))
		}
	}
}

// curlSite is a server that curl is pointed at, over HTTP and HTTPS.
func curlSite(t *testing.T) (s *server, token, reader string) {
	need.Programs(t, "curl")
	s = prepare(t, config{global: "servers {\n protocols h1 h2 h2c\n }", sites: withTLS})
	writeCertificate(t, s.dir)
	s.start()
	s.up.answer(curlAPI(s.up))
	for name, auth := range map[string]string{"api": "Authorization", "keyed": "X-Api-Key"} {
		s.ok("/vault.admin.addService", fmt.Sprintf(`{"service":%q,"baseUrl":%q,"masterSecret":%s,"authHeader":%q,"allowedAgents":["*"],"allowedActions":["*"],
			"allowedScopes":["read","write"],"endpoints":{
			"text":{"method":"GET","path":"/text","range":true},
			"other":{"method":"GET","path":"/*"},
			"put":{"method":"PUT","path":"/files/{path...}","requiredScope":["write"]},
			"post":{"method":"POST","path":"/*","requiredScope":["write"]}}}`, name, s.up.URL, quote(secret), auth), nil)
	}
	return s, s.issue("main", "api", "read", "write"), s.issue("main", "api", "read")
}

// curl runs curl; $API, $TLS and $KEYED are base URLs, $T and $R tokens, $DIR
// a directory.
func (s *server) curl(t *testing.T, vars *strings.Replacer, args ...string) *exec.Cmd {
	t.Helper()
	all := []string{"-q", "-s", "-S", "--cacert", s.dir + "/cert.pem"}
	for _, a := range args {
		all = append(all, vars.Replace(a))
	}
	cmd := exec.CommandContext(t.Context(), "curl", all...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}
	return cmd
}

func TestCurl(t *testing.T) {
	t.Parallel()
	s, token, reader := curlSite(t)
	keyed := s.issue("main", "keyed", "read")
	https := "https://127.0.0.1:" + s.port2
	vars := strings.NewReplacer("$API", s.base+"/proxy/api", "$TLS", https+"/proxy/api", "$KEYED", s.base+"/proxy/keyed", "$T", token, "$R", reader, "$K", keyed, "$DIR", s.dir)

	big := make([]byte, 8<<20)
	fill(big)
	s.write(filepath.Join(s.dir, "big"), string(big))
	bigSum := fmt.Sprintf("%x", sha256.Sum256(big))
	s.write(filepath.Join(s.dir, "body.json"), `{"a":1}`)
	sum := func(body string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(body))) }
	zipped := strings.Repeat("zipped ", 1000)

	for _, c := range []struct {
		name string
		args []string
		want string // output; "…" at its end for a beginning
	}{
		{"the token as Basic's user", []string{"-u", "$T:", "$API/text"}, "0123456789"},
		{"the token as Basic's password", []string{"-u", "x:$T", "$API/text"}, "0123456789"},
		{"any scheme", []string{"-H", "authorization: token $T", "$API/text"}, "0123456789"},
		{"no scheme", []string{"-H", "Authorization: $T", "$API/text"}, "0123456789"},
		{"a bearer", []string{"--oauth2-bearer", "$T", "$API/text"}, "0123456789"},
		{"the vault's own header", []string{"-H", "Vault-Token: $T", "$API/text"}, "0123456789"},
		{"the service's own header", []string{"-H", "x-api-key: $K", "$KEYED/text"}, "0123456789"},
		{"anyauth asks first", []string{"--anyauth", "-u", "x:$T", "$API/text"}, "0123456789"},
		{"asks first with a body", []string{"--anyauth", "-u", "x:$T", "-d", "a=b", "$API/p"}, "POST /p " + sum("a=b")},

		{"HTTP/1.0", []string{"--http1.0", "-u", "$T:", "$API/text", "-w", " %{http_version}"}, "0123456789 1…"},
		{"HTTP/2", []string{"--http2", "-u", "$T:", "$TLS/text", "-w", " %{http_version}"}, "0123456789 2"},
		{"HTTP/2 without TLS", []string{"--http2-prior-knowledge", "-u", "$T:", "$API/text", "-w", " %{http_version}"}, "0123456789 2"},
		{"HTTP/2 by upgrade", []string{"--http2", "-u", "$T:", "$API/text"}, "0123456789"},
		{"two at once", []string{"--http2", "--parallel", "-u", "$T:", "$TLS/text", "$TLS/text"}, "01234567890123456789"},

		{"PUT of a large file", []string{"-u", "$T:", "-T", "$DIR/big", "$API/files/big"}, "PUT /files/big " + bigSum},
		{"and of unknown length", []string{"-u", "$T:", "-T", "-", "$API/files/big"}, "PUT /files/big " + bigSum},
		{"and over HTTP/2", []string{"--http2", "-u", "$T:", "-T", "$DIR/big", "$TLS/files/big"}, "PUT /files/big " + bigSum},
		{"and after 100", []string{"-u", "$T:", "-H", "Expect: 100-continue", "-T", "$DIR/big", "$API/files/big"}, "PUT /files/big " + bigSum},
		{"a name with a space", []string{"-u", "$T:", "-T", "$DIR/body.json", "$API/files/a%20b"}, "PUT /files/a%20b " + sum(`{"a":1}`)},
		{"refused before it is sent", []string{"-u", "$R:", "-H", "Expect: 100-continue", "-T", "$DIR/big", "$API/files/big", "-o", "$DIR/refusal", "-w", "%{http_code} %{size_upload}"}, "403 0"},

		{"JSON", []string{"-u", "$T:", "--json", "@$DIR/body.json", "$API/p"}, "POST /p " + sum(`{"a":1}`)},
		{"a form", []string{"-u", "$T:", "-d", "a=b c", "$API/p?x=%20y"}, "POST /p?x=%20y " + sum("a=b c")},
		{"a query", []string{"-u", "$T:", "-G", "--data-urlencode", "q=a&b ü", "$API/p"}, "GET /p?q=a%26b+%c3%bc " + sum("")},
		{"GET with a body", []string{"-u", "$T:", "-X", "GET", "-d", `{"q":1}`, "$API/p"}, "GET /p " + sum(`{"q":1}`)},

		{"compressed", []string{"--compressed", "-u", "$T:", "$API/zipped"}, zipped},
		{"not compressed", []string{"-u", "$T:", "$API/zipped"}, zipped},
		{"HEAD", []string{"-I", "-u", "$T:", "$API/text", "-o", "/dev/null", "-w", "%{http_code} %header{content-length}"}, "200 10"},
		{"a range", []string{"-r", "2-4", "-u", "$T:", "$API/text", "-w", " %{http_code} %header{content-range}"}, "234 206 bytes 2-4/10"},
		{"a range where none may be", []string{"-r", "2-4", "-u", "$T:", "$API/p", "-w", " %{http_code}"}, "GET /p " + sum("") + " 200"},
		{"a redirect, shown", []string{"-H", "Authorization: Bearer $T", "$API/moved", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"}, "302 " + s.base + "/proxy/api/text?from=moved"},
		{"a redirect, followed", []string{"-L", "-H", "Authorization: Bearer $T", "$API/moved", "-w", " %{url_effective}"}, "0123456789 " + s.base + "/proxy/api/text?from=moved"},
		{"a redirect to elsewhere", []string{"-L", "-u", "$T:", "$API/away", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"}, "302 "},

		{"dots", []string{"--path-as-is", "-u", "$T:", "$API/x/../text", "-o", "/dev/null", "-w", "%{http_code} %header{vault-error}"}, "400 PARAM_INVALID:path"},
		{"no token", []string{"$API/text", "-o", "/dev/null", "-w", "%{http_code} %header{vault-error}"}, "401 TOKEN_REQUIRED"},
		{"two tokens", []string{"-u", "$T:", "-H", "Vault-Token: $R", "$API/text", "-o", "/dev/null", "-w", "%{http_code} %header{vault-error}"}, "401 TOKEN_INVALID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := s.up.count()
			cmd := s.curl(t, vars, c.args...)
			if c.name == "and of unknown length" {
				cmd.Stdin = strings.NewReader(string(big))
			}
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s%s", err, out, stderr.String())
			}
			begins, cut := strings.CutSuffix(c.want, "…")
			if string(out) != c.want && !(cut && strings.HasPrefix(string(out), begins)) {
				t.Errorf("got  %q\nwant %q", tail(string(out), 300), tail(c.want, 300))
			}
			s.up.mu.Lock()
			defer s.up.mu.Unlock()
			for _, r := range s.up.seen[before:] {
				if got := r.header.Get("Authorization") + r.header.Get("X-Api-Key"); got != "Bearer "+secret && got != secret {
					t.Errorf("the upstream got the key as %q", got)
				}
				for _, tok := range []string{token, reader, keyed} {
					if strings.Contains(fmt.Sprint(r.uri, r.header), tok) {
						t.Errorf("the upstream got the vault's token: %s %v", r.uri, r.header)
					}
				}
			}
		})
	}
}

// TestCurlStream shows that curl -N gets every event when it is sent, over
// both versions of HTTP, and that a stream ends when its session does.
func TestCurlStream(t *testing.T) {
	t.Parallel()
	s, _, _ := curlSite(t)
	step := make(chan struct{})
	s.up.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; ; i++ {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			select {
			case <-step:
			case <-r.Context().Done():
				return
			}
		}
	})
	for _, version := range []string{"--http1.1", "--http2"} {
		t.Run(version, func(t *testing.T) {
			session := strings.Trim(version, "-.")
			token := s.issueWith(`"service":"api","scope":["read"],"sessionId":"` + session + `"`).Token
			cmd := s.curl(t, strings.NewReplacer(), version, "-N", "-u", token+":", "https://127.0.0.1:"+s.port2+"/proxy/api/events")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for i := range 5 {
				if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", i) || !lines.Scan() {
					t.Fatalf("%d: %q %v", i, lines.Text(), lines.Err())
				}
				if i < 4 {
					step <- struct{}{}
				}
			}
			s.ok("/vault.revoke", `{"sessionId":"`+session+`"}`, nil)
			for lines.Scan() {
				t.Errorf("after the revocation: %q", lines.Text())
			}
			if err := cmd.Wait(); err == nil {
				t.Error("curl takes a stream that was cut for a whole one")
			}
		})
	}
}
