// Package docs holds the documentation to what the program does: examples are
// adapted and validated, the README's own commands are run, links lead
// somewhere.
package docs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	// The program is built from this package. With it among the imports, a
	// change to it is a change to these tests, and go test does not answer
	// from its cache.
	_ "github.com/caddyvault/caddyvault"
	"github.com/caddyvault/caddyvault/internal/need"
)

const root = "../.."

var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "caddyvault-docs")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "caddyvault")
		if out, err := exec.Command("go", "build", "-o", binary, root+"/cmd/caddyvault").CombinedOutput(); err != nil {
			fmt.Printf("%s\n", out)
			return 1
		}
		return m.Run()
	}())
}

// run runs the program in an empty directory, with a home of its own.
func run(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir,
		"VAULT_ENCRYPTION_KEY="+strings.Repeat("0", 64), "VAULT_ADMIN_TOKEN="+strings.Repeat("a", 32))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// writeCA writes a certificate of nobody, for examples that want one.
func writeCA(t *testing.T, path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestExamples(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	writeCA(t, ca)
	t.Setenv("AGENT_CA", ca)
	files, err := filepath.Glob(root + "/examples/*/*")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	files = append(files, root+"/Caddyfile.example")
	for _, file := range files {
		t.Run(strings.TrimPrefix(file, root+"/"), func(t *testing.T) {
			path, err := filepath.Abs(file)
			if err != nil {
				t.Fatal(err)
			}
			switch filepath.Ext(file) {
			case ".service":
				checkUnit(t, path)
				return
			case ".md": // see pages
				return
			case ".json":
				validate(t, path, "")
				examine(t, path)
			default:
				out, err := run(t, t.TempDir(), "fmt", "--diff", path)
				if err != nil || strings.Contains(out, "\n+") || strings.Contains(out, "\n-") {
					t.Errorf("not formatted: %v\n%s", err, out)
				}
				validate(t, path, "caddyfile")
				examine(t, path)
			}
		})
	}
}

// validate adapts and validates a configuration, and sees that it makes no
// file.
func validate(t *testing.T, path, adapter string) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"validate", "--config", path}
	if adapter != "" {
		args = append(args, "--adapter", adapter)
	}
	out, err := run(t, dir, args...)
	if err != nil || !strings.Contains(out, "Valid configuration") {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"data", "services", "config", "vault"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("validating made %s", name)
		}
	}
}

// examine has the doctor look at a configuration: an example is copied without
// a second look, so it must be a safe one.
func examine(t *testing.T, path string) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"vault", "doctor", "--config", path, "--data-dir", filepath.Join(dir, "data"), "--services-dir", filepath.Join(dir, "services")}
	out, err := run(t, dir, args...)
	if err != nil || !strings.Contains(out, "server ") {
		t.Fatalf("doctor: %v\n%s", err, out)
	}
	// One example is about administrators on other machines, and keeps agents
	// away from them.
	if strings.Contains(out, "admin routes can be reached from other machines") && filepath.Base(filepath.Dir(path)) != "admin-site" {
		t.Errorf("the doctor says:\n%s", out)
	}
}

func checkUnit(t *testing.T, path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"[Unit]", "[Service]", "[Install]", "ExecStart=/usr/local/bin/caddyvault run --config", "ExecReload=", "UMask=0077"} {
		if !bytes.Contains(b, []byte(part)) {
			t.Errorf("no %s", part)
		}
	}
}

func pages(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob(root + "/docs/*.md")
	if err != nil || len(list) < 8 {
		t.Fatalf("%d pages, %v", len(list), err)
	}
	readmes, err := filepath.Glob(root + "/examples/*/README.md")
	if err != nil {
		t.Fatal(err)
	}
	list = append(list, readmes...)
	return append(list, root+"/README.md", root+"/CONTRIBUTING.md", root+"/SECURITY.md", root+"/CHANGELOG.md", root+"/SKILL.md", root+"/bench/README.md")
}

var (
	link  = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	block = regexp.MustCompile("(?ms)^(<!-- test -->\n)?```(\\w+)\n(.*?)^```$")
)

func TestLinksAndCaddyfiles(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	writeCA(t, ca)
	t.Setenv("AGENT_CA", ca)
	for _, page := range pages(t) {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(b, -1) {
			target := string(m[1])
			if strings.Contains(target, "://") {
				continue
			}
			there := filepath.Join(filepath.Dir(page), target)
			if _, err := os.Stat(there); err != nil {
				t.Errorf("%s: %s leads nowhere", page, target)
				continue
			}
			if anchor := strings.TrimPrefix(string(m[2]), "#"); anchor != "" && !hasHeading(t, there, anchor) {
				t.Errorf("%s: %s has no heading %s", page, target, anchor)
			}
		}
		for _, m := range block.FindAllSubmatch(b, -1) {
			if string(m[2]) != "caddyfile" {
				continue
			}
			path := filepath.Join(t.TempDir(), "Caddyfile")
			if err := os.WriteFile(path, m[3], 0o600); err != nil {
				t.Fatal(err)
			}
			validate(t, path, "caddyfile")
		}
	}
}

// hasHeading reports whether a page has the heading that an anchor names, by
// the rule of the forges: lower case, dashes for spaces, no punctuation.
func hasHeading(t *testing.T, page, anchor string) bool {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllSubmatch(b, -1) {
		words := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(string(m[1])), "")
		if strings.ReplaceAll(words, " ", "-") == anchor {
			return true
		}
	}
	return false
}

// TestReadme runs the README's commands in their order, in a copy of what is
// in the repository, against a stand-in for GitHub.
func TestReadme(t *testing.T) {
	need.Programs(t, "bash", "curl", "jq", "git")
	const key = "ghp_your_own_key_goes_here"
	var mu sync.Mutex
	var keys []string
	github := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		keys = append(keys, r.Header.Get("Authorization")+" "+r.URL.Path)
		mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"full_name":"caddyserver/caddy"}`)
	}))
	defer github.Close()

	b, err := os.ReadFile(root + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	url := "http://127.0.0.1:" + port
	dir := copyTree(t)
	env := append(os.Environ(), "PORT="+port, "VAULT_URL="+url, "PERSIST=off",
		"XDG_CONFIG_HOME="+dir+"/.xdg", "XDG_DATA_HOME="+dir+"/.xdg")
	var commands []string
	first := ""
	for _, m := range block.FindAllStringSubmatch(string(b), -1) {
		if m[2] == "sh" && first == "" {
			first = strings.TrimSpace(m[3])
		}
		if m[1] != "" {
			commands = append(commands, strings.ReplaceAll(m[3], "http://127.0.0.1:8787", url))
		}
	}
	if first != "go run ./cmd/caddyvault run --config Caddyfile.example" || len(commands) < 5 {
		t.Fatalf("the README begins with %q and has %d tested blocks", first, len(commands))
	}
	startServer(t, dir, env, first, url)

	var outputs []string
	for i, command := range commands {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", command)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("%s\n%v\n%s", command, err, out)
		}
		if strings.Contains(string(out), key) {
			t.Errorf("the key is shown by %s", command)
		}
		outputs = append(outputs, string(out))
		if strings.Contains(command, "agentvault revoke --agent main") {
			cmd := exec.Command("./agentvault", "token", "github", "github:repos:read")
			cmd.Dir, cmd.Env = dir, env
			if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "AGENT_REVOKED") {
				t.Errorf("a revoked agent: %v\n%s", err, out)
			}
		}
		if i == 0 { // from here on the service is the stand-in
			patch := filepath.Join(dir, "patch.json")
			if err := os.WriteFile(patch, fmt.Appendf(nil, `{"baseUrl":%q}`, github.URL), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(binary, "vault", "services", "update", "github", patch)
			cmd.Dir, cmd.Env = dir, env
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
	}
	for i, want := range map[int]string{0: "loaded template github", 1: "caddyserver/caddy", 2: "caddyserver/caddy", 3: "proxy.call", 4: ""} {
		if !strings.Contains(outputs[i], want) {
			t.Errorf("%s\nsays no %q:\n%s", commands[i], want, outputs[i])
		}
	}
	mu.Lock()
	defer mu.Unlock()
	want := "Bearer " + key + " /repos/caddyserver/caddy"
	if len(keys) != 2 || keys[0] != want || keys[1] != want {
		t.Errorf("the stand-in got %q", keys)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// copyTree copies what git knows of, or would, into a new directory.
func copyTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
		src := filepath.Join(root, name)
		fi, err := os.Lstat(src)
		if err != nil || !fi.Mode().IsRegular() {
			continue
		}
		b, err := os.ReadFile(src)
		if err != nil {
			t.Fatal(err)
		}
		dst := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dst, b, fi.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// startServer runs the README's first command until the test ends.
func startServer(t *testing.T, dir string, env []string, command, url string) {
	t.Helper()
	cmd := exec.Command("bash", "-c", command)
	cmd.Dir, cmd.Env = dir, env
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go run has a child
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		<-exited
		if t.Failed() {
			t.Logf("the server's log:\n%s", log.String())
		}
	})
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if res, err := http.Get(url + "/health"); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-exited:
			t.Fatal("the server ended")
		default:
		}
	}
	t.Fatal("the server does not answer")
}
