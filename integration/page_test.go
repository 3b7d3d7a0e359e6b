package integration

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/websocket"

	"github.com/caddyvault/caddyvault/internal/need"
)

var (
	pageSection = regexp.MustCompile(`<!-- test: ([a-z-]+) -->\n`)
	pageBlock   = regexp.MustCompile("(?ms)^```(sh|js)\n(.*?)^```$")
)

// TestClientsPage runs the lines of docs/clients.md, in their order, against
// stand-ins for the services of the built-in templates.
func TestClientsPage(t *testing.T) {
	t.Parallel()
	needModules(t)
	need.Programs(t, "bash", "curl", "jq", "git")
	page, err := os.ReadFile("../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	s := prepare(t, config{sites: `
http://:$PORT {
	bind 127.0.0.1
	vault
}
http://:$PORT2 {
	bind 127.0.0.1
	vault proxy stripe
}`})
	s.start()
	host := &gitHost{t: t, root: filepath.Join(s.dir, "repos")}
	owner := gitUser{t: t, dir: s.dir}
	owner.must("", "init", "-q", "--bare", "-b", "main", "repos/caddyserver/caddy.git")
	owner.must("", "init", "-q", "-b", "main", "first")
	s.write(filepath.Join(s.dir, "first", "README.md"), "Caddy over git\n")
	owner.must("first", "add", ".")
	owner.must("first", "commit", "-q", "-m", "first")
	owner.must("first", "push", "-q", "../repos/caddyserver/caddy.git", "main")
	s.up.answer(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/caddyserver/") && r.Header.Get("Authorization") != "Bearer "+secret && r.Header.Get("X-Api-Key") != secret {
			t.Errorf("%s: the key is %q", r.URL, r.Header)
		}
		switch r.URL.Path {
		case "/v1/chat/completions":
			w.Header().Set("Content-Type", "text/event-stream")
			for _, piece := range []string{"Hello", " too"} {
				fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q}}]}\n\n", piece)
			}
			_, _ = io.WriteString(w, "data: [DONE]\n\n") // the client's loss
		case "/v1/messages":
			answerJSON(w, 200, `{"id":"m","type":"message","role":"assistant","content":[{"type":"text","text":"Hello too"}]}`)
		case "/repos/caddyserver/caddy":
			answerJSON(w, 200, `{"full_name":"caddyserver/caddy"}`)
		case "/v1/balance":
			answerJSON(w, 200, `{"object":"balance","available":[{"amount":1234,"currency":"eur"}]}`)
		case "/v1/realtime":
			websocket.Server{Handler: func(ws *websocket.Conn) {
				_ = websocket.Message.Send(ws, `{"type":"session.created"}`) // the client's loss
				var gone string
				_ = websocket.Message.Receive(ws, &gone)
			}}.ServeHTTP(w, r)
		default:
			host.ServeHTTP(w, r)
		}
	})
	for template, base := range map[string]string{"openai": "/v1", "anthropic": "", "github": "", "stripe": "", "github-git": ""} {
		s.ok("/vault.admin.loadTemplate", fmt.Sprintf(`{"template":%q,"masterSecret":%s}`, template, quote(secret)), nil)
		s.ok("/vault.admin.updateService", fmt.Sprintf(`{"service":%q,"baseUrl":%q}`, template, s.up.URL+base), nil)
	}

	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(s.dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(root, "integration", "sdk", "node_modules"), filepath.Join(home, "node_modules")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"openai": "Hello too", "anthropic": "Hello too", "github": "caddyserver/caddy", "stripe": "1234",
		"curl": `{"full_name":"caddyserver/caddy"}`, "github-git": "Caddy over git", "realtime": "session.created",
	}
	places := pageSection.FindAllSubmatchIndex(page, -1)
	for i, at := range places {
		name, end := string(page[at[2]:at[3]]), len(page)
		if i+1 < len(places) {
			end = places[i+1][0]
		}
		t.Run(name, func(t *testing.T) {
			script := ""
			for _, block := range pageBlock.FindAllStringSubmatch(string(page[at[1]:end]), -1) {
				if block[1] == "js" {
					block[2] = "node --input-type=module - <<'JS'\n" + block[2] + "JS\n"
				}
				script += block[2]
			}
			script = strings.NewReplacer("127.0.0.1:8787", "127.0.0.1:"+s.port, "8788", s.port2).Replace(script)
			cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
			cmd.Dir = home
			cmd.Env = []string{
				"PATH=" + root + string(os.PathListSeparator) + os.Getenv("PATH"), "HOME=" + home, "VAULT_URL=" + s.base, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
			}
			out, err := cmd.CombinedOutput()
			if err != nil || strings.TrimSpace(string(out)) != want[name] {
				t.Errorf("%v: %q, want %q\n%s", err, out, want[name], script)
			}
		})
		delete(want, name)
	}
	for name := range want {
		t.Errorf("the page has no lines for %s", name)
	}
}
