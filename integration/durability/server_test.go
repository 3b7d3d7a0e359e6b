// Package durability kills and reloads the built program under load, and
// looks at what is left on disk.
package durability

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "caddyvault-durability")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "caddyvault")
		if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/caddyvault").CombinedOutput(); err != nil {
			fmt.Printf("%s\n", out)
			return 1
		}
		return m.Run()
	}())
}

// server is the program on a directory of its own.
type server struct {
	t      testing.TB
	dir    string
	base   string
	config string
	client *http.Client
	cmd    *exec.Cmd
	log    *os.File
	exited chan struct{}
	admin  string // the admin token
}

// newServer takes further settings of the vault.
func newServer(t testing.TB, settings ...string) *server {
	t.Helper()
	// Not t.TempDir: the path of a socket is short.
	dir, err := os.MkdirTemp("", "cv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s := &server{t: t, dir: dir, base: "http://" + l.Addr().String()}
	s.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	s.config = filepath.Join(dir, "Caddyfile")
	config := fmt.Sprintf(`{
	admin unix/%s/admin.sock|0600
	persist_config off
	storage file_system %s/storage
	vault {
		data_dir %s/data
		%s
	}
}

%s {
	vault
}
`, dir, dir, dir, strings.Join(settings, "\n"), s.base)
	if err := os.WriteFile(s.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir, "XDG_DATA_HOME="+s.dir)
	return cmd
}

// start runs the program and waits until it serves.
func (s *server) start() {
	s.t.Helper()
	var err error
	if s.log, err = os.Create(filepath.Join(s.dir, "log")); err != nil {
		s.t.Fatal(err)
	}
	s.cmd = s.command("run", "--config", s.config)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait()
		close(exited)
	}(s.cmd, s.exited)
	s.t.Cleanup(func() { s.signal(syscall.SIGKILL) })
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if res, err := s.client.Get(s.base + "/health"); err == nil {
			res.Body.Close()
			b, err := os.ReadFile(filepath.Join(s.dir, "data", "admin.token"))
			if err != nil {
				s.t.Fatal(err)
			}
			s.admin = strings.TrimSpace(string(b))
			return
		}
		select {
		case <-s.exited:
			b, _ := os.ReadFile(s.log.Name())
			s.t.Fatalf("the server does not start:\n%s", b)
		default:
		}
	}
	s.t.Fatal("the server does not answer")
}

func (s *server) signal(sig os.Signal) {
	_ = s.cmd.Process.Signal(sig)
	<-s.exited
	s.client.CloseIdleConnections()
}

// post returns the status and the answer; 0 if there was none.
func (s *server) post(route string, body any, header ...string) (int, []byte) {
	b, err := json.Marshal(body)
	if err != nil {
		s.t.Error(err)
		return 0, nil
	}
	req, err := http.NewRequest(http.MethodPost, s.base+"/"+route, bytes.NewReader(b))
	if err != nil {
		s.t.Error(err)
		return 0, nil
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, nil
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil
	}
	return res.StatusCode, out
}

// asAdmin is post for an administrator, who must succeed.
func (s *server) asAdmin(route string, body any) []byte {
	s.t.Helper()
	status, out := s.post(route, body, "Authorization", "Bearer "+s.admin)
	if status != http.StatusOK {
		s.t.Fatalf("%s: %d %s", route, status, out)
	}
	return out
}

func (s *server) addService(upstream string) {
	s.t.Helper()
	s.asAdmin("vault.admin.addService", map[string]any{
		"service": "svc", "baseUrl": upstream, "allowedAgents": []string{"*"}, "allowedActions": []string{"*"},
		"allowedScopes": []string{"s"}, "masterSecret": "secret-0123456789",
		"endpoints": map[string]any{"get": map[string]any{"method": "GET", "path": "/get"}, "stream": map[string]any{"method": "GET", "path": "/stream"}},
	})
}

// records reads every record of the audit log.
func (s *server) records() []map[string]any {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "data", "audit.log*.jsonl"))
	if err != nil {
		s.t.Fatal(err)
	}
	var out []map[string]any
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			s.t.Fatal(err)
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var r map[string]any
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				continue // a torn end, which the next start moves aside
			}
			out = append(out, r)
		}
		f.Close()
	}
	return out
}

// adminAPI loads a configuration as POST /load does.
func (s *server) load() error {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.dir, "admin.sock"))
	}}}
	defer client.CloseIdleConnections()
	f, err := os.Open(s.config)
	if err != nil {
		return err
	}
	defer f.Close()
	req, err := http.NewRequest(http.MethodPost, "http://localhost/load", f)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate") // also if nothing has changed
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body)
		return fmt.Errorf("%d %s", res.StatusCode, b)
	}
	return nil
}
