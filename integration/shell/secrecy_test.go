package shell

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

func TestAdminToken(t *testing.T) {
	const other = "some-other-token-that-is-not-the-one-0"
	type files map[string]string
	tests := []struct {
		name  string
		files files // below the scripts' directory
		env   []string
	}{
		{name: "environment", env: []string{"VAULT_ADMIN_TOKEN=" + adminToken}, files: files{
			".env": "VAULT_ADMIN_TOKEN=" + other, "data/admin.token": other,
		}},
		{name: "generated file", files: files{"data/admin.token": adminToken}},
		{name: "generated file, end of line", files: files{"data/admin.token": adminToken + "\r\n"}},
		{name: "empty variable is none", env: []string{"VAULT_ADMIN_TOKEN="}, files: files{"data/admin.token": adminToken}},
		{name: "data directory", env: []string{"VAULT_DATA_DIR=DIR/my data"}, files: files{
			"my data/admin.token": adminToken, "data/admin.token": other,
		}},
		{name: "directory of another copy", env: []string{"AGENTVAULT_DIR=DIR/copy"}, files: files{
			"copy/data/admin.token": adminToken, "data/admin.token": other,
		}},
		{name: ".env comes before what was generated", files: files{
			".env": "VAULT_ADMIN_TOKEN=" + adminToken + "\n", "data/admin.token": other,
		}},
		{name: ".env names the data directory", files: files{
			".env": "VAULT_DATA_DIR=./state\n", "state/admin.token": adminToken, "data/admin.token": other,
		}},
		{name: ".env without an end of line", files: files{".env": "A=b\nVAULT_ADMIN_TOKEN=" + adminToken}},
		{name: ".env as Windows writes it", files: files{".env": "A=b\r\nVAULT_ADMIN_TOKEN=" + adminToken + "\r\n"}},
		{name: ".env in double quotes", files: files{".env": `VAULT_ADMIN_TOKEN="` + adminToken + `" # a comment`}},
		{name: ".env in single quotes", files: files{".env": `VAULT_ADMIN_TOKEN='` + adminToken + `'`}},
		{name: ".env with export", files: files{".env": "export VAULT_ADMIN_TOKEN=" + adminToken}},
		{name: ".env with a comment behind", files: files{".env": "VAULT_ADMIN_TOKEN=" + adminToken + "   # mine"}},
		{name: ".env, the last one counts", files: files{
			".env": "VAULT_ADMIN_TOKEN=" + other + "\n#VAULT_ADMIN_TOKEN=" + other + "\nVAULT_ADMIN_TOKEN=" + adminToken +
				"\nXVAULT_ADMIN_TOKEN=" + other + "\nno assignment\n=\n\n",
		}},
		{name: ".env, inside another value", files: files{
			".env": "VAULT_ADMIN_TOKEN=" + adminToken + "\nKEY=\"a \\\" b\nVAULT_ADMIN_TOKEN=" + other + "\n\"\nB='never closed\nVAULT_ADMIN_TOKEN=" + other + "\n",
		}},
		{name: ".env is not run", files: files{
			".env": "A=$(touch pwned)\ntouch pwned\nB=`touch pwned`; touch pwned\nVAULT_ADMIN_TOKEN=" + adminToken + "\n",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			for name, content := range tt.files {
				write(t, filepath.Join(b.dir, name), content, 0o600)
			}
			for _, e := range tt.env {
				b.env = append(b.env, strings.ReplaceAll(e, "DIR/", b.dir+"/"))
			}
			got := b.run("", "services")
			if got.code != 0 || got.stderr != "" {
				t.Errorf("got %+v", got)
			}
			if _, err := os.Stat(filepath.Join(b.home, "pwned")); err == nil {
				t.Error("a line of .env was run")
			}
		})
	}
}

func TestAdminTokenMissing(t *testing.T) {
	b := newBox(t)
	got := b.run("", "services")
	if got.code != 1 || got.stdout != "" || !strings.HasPrefix(got.stderr, "agentvault: ADMIN_TOKEN_REQUIRED: ") {
		t.Errorf("got %+v", got)
	}
	// One that would add a header line of its own.
	b.env = append(b.env, "VAULT_ADMIN_TOKEN=x\r\nHost: evil")
	got = b.run("", "services")
	if got.code != 1 || !strings.HasPrefix(got.stderr, "agentvault: ADMIN_TOKEN_INVALID: ") {
		t.Errorf("got %+v", got)
	}
	if n := len(b.vault.seen()); n != 0 {
		t.Errorf("the vault was asked %d times", n)
	}
}

// TestPrograms: every box checks the arguments and environments of the programs
// that were run; this shows that the check can fail, and what a caller who
// exports and traces everything gives away.
func TestPrograms(t *testing.T) {
	b := newBox(t)
	write(t, filepath.Join(b.dir, "data", "admin.token"), adminToken, 0o600)
	got := b.script(`
		set -a; . "$LIB"
		export av_token=x av_body=x av_admin=x av_answer=x token=x av_key=x
		export AGENTVAULT_AGENT_KEY=` + agentKey + `
		set -xv
		agentvault_services
		agentvault_token github a >token
		agentvault_call - github x <token
		agentvault_revoke --token - <token
	`)
	if got.code != 0 {
		t.Fatalf("got %+v", got)
	}
	if n := b.vault.keyed(); n != 2 {
		t.Errorf("%d requests carry the agent's key, want those for a token and to revoke", n)
	}
	if strings.Contains(got.stderr, agentKey) {
		t.Error("the agent's key was traced to standard error")
	}
	if strings.Contains(got.stderr, adminToken) || strings.Contains(got.stderr, agentToken) {
		t.Error("a token was traced to standard error")
	}
	logged, err := os.ReadFile(b.log)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"curl\n", "jq\n", "--dump-header\n", "HOME="} {
		if !strings.Contains(string(logged), line) {
			t.Errorf("the wrappers did not write down %q", line)
		}
	}
}

// TestProxy: what is on this machine is asked directly, whatever the
// environment says; what is elsewhere is not.
func TestProxy(t *testing.T) {
	b := newBox(t)
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		reply(w, 200, `{"ok":true}`)
	}))
	t.Cleanup(proxy.Close)
	b.env = append(b.env, "http_proxy="+proxy.URL, "HTTP_PROXY="+proxy.URL, "ALL_PROXY="+proxy.URL, "no_proxy=")

	_, port, _ := strings.Cut(strings.TrimPrefix(b.vault.URL, "http://"), ":")
	for _, url := range []string{b.vault.URL, b.vault.URL + "//", "http://LocalHost:" + port} {
		b.env = append(b.env, "VAULT_URL="+url)
		b.want(b.run("", "token", "github", "a"), result{stdout: agentToken + "\n"})
	}
	if n := asked.Load(); n != 0 {
		t.Fatalf("the proxy saw %d requests", n)
	}
	for i, url := range []string{"http://vault.invalid", "http://127.0.0.1.vault.invalid", "http://localhost.invalid:" + port} {
		b.env = append(b.env, "VAULT_URL="+url)
		b.want(b.run("", "health"), result{stdout: `{"ok":true}` + "\n"})
		if n := asked.Load(); n != int64(i+1) {
			t.Fatalf("%s: the proxy saw %d requests", url, n)
		}
	}
}

// TestCurlSettings: a user's .curlrc has no part in this, the file that is meant
// to has.
func TestCurlSettings(t *testing.T) {
	b := newBox(t)
	write(t, filepath.Join(b.home, ".curlrc"), "include\nlocation\nverbose\nheader = \"X-Rc: 1\"\n", 0o600)
	write(t, filepath.Join(b.home, "vault.curl"), "user = \"me:secret\"\n", 0o600)
	b.env = append(b.env, "AGENTVAULT_CURL_CONFIG=vault.curl")
	b.want(b.run("", "token", "github", "a"), result{stdout: agentToken + "\n"})
	h := b.vault.only(t).header
	if h.Get("X-Rc") != "" {
		t.Error(".curlrc was read")
	}
	if !strings.HasPrefix(h.Get("Authorization"), "Basic ") {
		t.Error("AGENTVAULT_CURL_CONFIG was not read")
	}
}

// TestNoRedirect: a token is not carried on to where an answer points.
func TestNoRedirect(t *testing.T) {
	b := newBox(t)
	b.vault.answer("/vault.issueToken", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/vault.audit.query", http.StatusTemporaryRedirect)
	})
	got := b.run("", "token", "github", "a")
	if got.code != 1 || got.stdout != "" || !strings.HasPrefix(got.stderr, "agentvault: HTTP_307: ") {
		t.Errorf("got %+v", got)
	}
	b.vault.only(t)
}
