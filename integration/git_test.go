package integration

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault/internal/need"
)

// gitHost is a server of git repositories over HTTP, whose key is the secret
// as Basic's password.
type gitHost struct {
	t    *testing.T
	root string // bare repositories, one folder an owner
}

func (g *gitHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	if user != "x-access-token" || password != secret {
		g.t.Errorf("%s %s: Authorization is %q", r.Method, r.URL, r.Header["Authorization"])
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	// What came in pieces is whole by now, and CGI wants its length.
	var body bytes.Buffer
	if _, err := body.ReadFrom(r.Body); err != nil {
		g.t.Error(err)
	}
	r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, int64(body.Len()), nil
	if body.Len() > 0 {
		r.Body = nopCloser{&body}
	}
	(&cgi.Handler{
		Path: "/usr/bin/env",
		Args: []string{"git", "http-backend"},
		Env:  []string{"GIT_PROJECT_ROOT=" + g.root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=x", "GIT_CONFIG_NOSYSTEM=1", "GIT_PROTOCOL=" + r.Header.Get("Git-Protocol")},
		Root: "/",
	}).ServeHTTP(w, r)
}

type nopCloser struct{ *bytes.Buffer }

func (nopCloser) Close() error { return nil }

// A gitUser is somebody with a directory who runs git.
type gitUser struct {
	t   *testing.T
	dir string
	env []string
}

func (u gitUser) git(dir string, args ...string) (string, error) {
	u.t.Helper()
	cmd := exec.CommandContext(u.t.Context(), "git", args...)
	cmd.Dir = filepath.Join(u.dir, dir)
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + u.dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
	}, u.env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (u gitUser) must(dir string, args ...string) string {
	u.t.Helper()
	out, err := u.git(dir, args...)
	if err != nil {
		u.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// TestGit clones, fetches and pushes through the gateway, over TLS, with the
// vault's token as the password.
func TestGit(t *testing.T) {
	t.Parallel()
	need.Programs(t, "git")
	s := prepare(t, config{sites: `
http://:$PORT {
	bind 127.0.0.1
	vault
}
https://:$PORT2 {
	bind 127.0.0.1
	tls $DIR/cert.pem $DIR/key.pem
	log
	vault agent
}`})
	writeCertificate(t, s.dir)
	s.start()
	host := &gitHost{t: t, root: filepath.Join(s.dir, "repos")}
	s.up.answer(host.ServeHTTP)
	s.ok("/vault.admin.loadTemplate", `{"template":"github-git","masterSecret":`+quote(secret)+`}`, nil)
	s.ok("/vault.admin.updateService", fmt.Sprintf(`{"service":"github-git","baseUrl":%q}`, s.up.URL), nil)
	reader := s.issue("main", "github-git", "git:read")
	writer := s.issue("main", "github-git", "git:read", "git:write")

	// What is in the repository before anybody comes.
	owner := gitUser{t: t, dir: s.dir}
	owner.must("", "init", "-q", "--bare", "-b", "main", "repos/o/r.git")
	owner.must("", "init", "-q", "-b", "main", "first")
	s.write(filepath.Join(s.dir, "first", "README"), "hello\n")
	owner.must("first", "add", ".")
	owner.must("first", "commit", "-q", "-m", "first")
	owner.must("first", "commit", "-q", "--allow-empty", "-m", "second")
	owner.must("first", "push", "-q", "../repos/o/r.git", "main")

	home := filepath.Join(s.dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	const helper = `credential.helper=!f() { test "$1" = get && printf 'username=x\npassword=%s\n' "$VAULT_TOKEN"; }; f`
	as := func(token string) gitUser {
		return gitUser{t: t, dir: home, env: []string{"VAULT_TOKEN=" + token, "GIT_SSL_CAINFO=" + s.dir + "/cert.pem"}}
	}
	url := "https://127.0.0.1:" + s.port2 + "/proxy/github-git/o/r.git"

	t.Run("clone, the token in the URL", func(t *testing.T) {
		as("").must("", "clone", "-q", strings.Replace(url, "://", "://x:"+reader+"@", 1), "byurl")
		as("").must("", "clone", "-q", strings.Replace(url, "://", "://"+reader+":@", 1), "byuser")
		if b, err := os.ReadFile(filepath.Join(home, "byurl", "README")); err != nil || string(b) != "hello\n" {
			t.Errorf("%q %v", b, err)
		}
	})
	t.Run("clone, a credential helper", func(t *testing.T) {
		as(reader).must("", "-c", helper, "clone", "-q", url, "r")
		as(reader).must("r", "fsck", "--strict")
	})
	t.Run("shallow", func(t *testing.T) {
		as(reader).must("", "-c", helper, "clone", "-q", "--depth", "1", url, "shallow")
		if n := strings.TrimSpace(as("").must("shallow", "rev-list", "--count", "HEAD")); n != "1" {
			t.Errorf("%s commits", n)
		}
		as(reader).must("shallow", "-c", helper, "fetch", "-q", "--unshallow")
		if n := strings.TrimSpace(as("").must("shallow", "rev-list", "--count", "HEAD")); n != "2" {
			t.Errorf("%s commits", n)
		}
	})
	t.Run("old protocol", func(t *testing.T) {
		as(reader).must("", "-c", helper, "-c", "protocol.version=0", "clone", "-q", url, "old")
	})
	t.Run("push", func(t *testing.T) {
		u := as(writer)
		s.write(filepath.Join(home, "r", "small"), "x\n")
		u.must("r", "add", ".")
		u.must("r", "commit", "-q", "-m", "small")
		u.must("r", "-c", helper, "push", "-q", "origin", "main")

		// More than http.postBuffer, of what cannot be compressed.
		big := make([]byte, 3<<20)
		fill(big)
		s.write(filepath.Join(home, "r", "big"), string(big))
		u.must("r", "add", ".")
		u.must("r", "commit", "-q", "-m", "big")
		u.must("r", "-c", helper, "push", "-q", "origin", "main")
		if last := s.up.last(t); !strings.HasSuffix(last.uri, "/git-receive-pack") || len(last.body) < len(big) || last.header["Content-Length"] != nil {
			t.Errorf("%s of %d bytes with the length %q", last.uri, len(last.body), last.header["Content-Length"])
		}
		there := gitUser{t: t, dir: host.root}.must("o/r.git", "rev-parse", "main")
		if here := u.must("r", "rev-parse", "main"); here != there {
			t.Errorf("pushed %s, and there is %s", here, there)
		}
	})
	t.Run("compressed fetch", func(t *testing.T) {
		// Many commits that the other side does not know make a long list.
		var commits strings.Builder
		for i := range 200 {
			fmt.Fprintf(&commits, "commit refs/heads/own\ncommitter a <a@b> %d +0000\ndata 1\nx\n", 4000000000+i)
		}
		cmd := exec.CommandContext(t.Context(), "git", "fast-import", "--quiet")
		cmd.Dir, cmd.Env = filepath.Join(home, "byurl"), append(os.Environ(), "HOME="+home)
		cmd.Stdin = strings.NewReader(commits.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		before := s.up.count()
		as(reader).must("byurl", "-c", helper, "fetch", "-q", "origin")
		zipped := false
		s.up.mu.Lock()
		for _, r := range s.up.seen[before:] {
			zipped = zipped || r.header.Get("Content-Encoding") == "gzip"
		}
		s.up.mu.Unlock()
		if !zipped {
			t.Error("no request was compressed, so nothing is shown")
		}
	})
	t.Run("what is refused", func(t *testing.T) {
		for _, c := range []struct {
			name, token string
			args        []string
			code, says  string
		}{
			{"no token", "", []string{"ls-remote", url}, "TOKEN_REQUIRED", "could not read Username"},
			{"no token of the vault", "none", []string{"-c", helper, "ls-remote", url}, "TOKEN_INVALID", "remote: TOKEN_INVALID: the token is not valid"},
			{"no such service", reader, []string{"-c", helper, "ls-remote", strings.Replace(url, "/github-git/", "/gitt/", 1)}, "UNKNOWN_SERVICE", "remote: UNKNOWN_SERVICE: there is no service \"gitt\""},
			{"dots", reader, []string{"-c", helper, "ls-remote", strings.Replace(url, "/o/", "/%2e%2e/", 1)}, "PARAM_INVALID:path", "remote: PARAM_INVALID:path: the path has"},
			{
				"push with a token to read", reader,
				[]string{"-C", "r", "-c", helper, "push", "origin", "main:other"},
				"INSUFFICIENT_SCOPE:git:write",
				"remote: INSUFFICIENT_SCOPE:git:write: the action push.refs needs the scope git:write, which the token does not have\nremote: ask vault.issueToken for a token for github-git with the scope git:write",
			},
		} {
			_, end := s.auditLog(0)
			out, err := as(c.token).git("", c.args...)
			if err == nil || !strings.Contains(out, c.says) {
				t.Errorf("%s: %v\n%s", c.name, err, out)
			}
			s.barrier()
			records, _ := s.auditLog(end)
			found := false
			for _, r := range records {
				found = found || r.text("event") == "proxy.call.denied" && r.text("error") == c.code
			}
			if !found {
				t.Errorf("%s: no record of %s: %v", c.name, c.code, records)
			}
		}
		if out := (gitUser{t: t, dir: host.root}).must("o/r.git", "branch", "--list", "other"); out != "" {
			t.Errorf("it was pushed: %s", out)
		}
	})
	s.up.mu.Lock()
	defer s.up.mu.Unlock()
	for _, r := range s.up.seen {
		for _, token := range []string{reader, writer} {
			var header strings.Builder
			_ = r.header.Write(&header) // to memory
			if strings.Contains(r.uri+header.String()+r.body, token) || newHaystack(header.String()).holds(token) != "" {
				t.Errorf("the vault's token left with %s %s", r.method, r.uri)
			}
		}
	}
}
