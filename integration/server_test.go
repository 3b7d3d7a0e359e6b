package integration

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// patience is how long anything may take that is waited for. It is far
	// more than it takes, for machines that do much else.
	patience = 30 * time.Second

	adminToken = "admin-0123456789/abcdefghijklmnopqrstuvwxyz+"
	signingKey = "signing-key-0123456789-abcdefghijklmnopqrstuvwxyz"

	// secret has characters that change in every encoding it may come back in.
	secret = `ghp_S3cr3t/Key+of=the~Vault&"tests"\0123456789`
)

// config is how a server is set up; the zero value is one site on loopback
// with every route.
type config struct {
	global string // more global options
	vault  string // more settings of the global option vault
	sites  string // instead of the one site; $PORT and $PORT2 are free ports
	env    []string
	unset  []string // names taken out of the environment
}

// withTLS is a site over HTTP and one over HTTPS, for which writeCertificate
// writes the certificate.
const withTLS = `
http://:$PORT {
	bind 127.0.0.1
	log
	vault
}
https://:$PORT2 {
	bind 127.0.0.1
	tls $DIR/cert.pem $DIR/key.pem
	log
	vault
}`

// A server is one process and its directory.
type server struct {
	t    testing.TB
	conf config

	dir      string // short: a socket is in it
	data     string
	services string
	file     string // the Caddyfile
	port     string
	port2    string
	base     string // http://127.0.0.1:port

	client *http.Client
	up     *upstream

	cmd    *exec.Cmd
	exited chan struct{}
	output syncBuffer

	mu      sync.Mutex
	secrets map[string]string // what must show nowhere, and its name
}

// syncBuffer is a bytes.Buffer for two goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// prepare lays out a server's directory without starting it.
func prepare(t testing.TB, c config) *server {
	t.Helper()
	// t.TempDir has the test's name in it, and a socket's path is short.
	dir, err := os.MkdirTemp("", "cv")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{
		t:        t,
		conf:     c,
		dir:      dir,
		data:     filepath.Join(dir, "data"),
		services: filepath.Join(dir, "services"),
		file:     filepath.Join(dir, "Caddyfile"),
		up:       newUpstream(t),
		secrets:  map[string]string{secret: "the secret", adminToken: "the admin token", signingKey: "the signing key"},
	}
	s.client = &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 64, Proxy: nil},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		s.stop()
		s.checkLogs()
		if t.Failed() {
			t.Logf("output of the server:\n%s", tail(s.output.String(), 4000))
			t.Logf("end of its log:\n%s", tail(s.read("caddy.log"), 2000))
		}
		os.RemoveAll(dir)
	})
	s.configure()
	return s
}

// configure writes the Caddyfile, with ports that are free now.
func (s *server) configure() {
	s.t.Helper()
	ports := freePorts(s.t, 2)
	s.port, s.port2 = ports[0], ports[1]
	s.base = "http://127.0.0.1:" + s.port
	sites := s.conf.sites
	if sites == "" {
		sites = `
http://:$PORT {
	bind 127.0.0.1
	log
	vault
}`
	}
	text := fmt.Sprintf(`{
	admin unix/%[1]s/admin.sock|0600
	persist_config off
	auto_https off
	grace_period 5s
%[6]s
	log default {
		output file %[1]s/caddy.log {
			roll_disabled
		}
		format json
		level %[7]s
	}
	vault {
		data_dir %[2]s
		services_dir %[3]s
		signing_key {env.VAULT_SIGNING_KEY}
		encryption_key {env.VAULT_ENCRYPTION_KEY}
		admin_token {env.VAULT_ADMIN_TOKEN}
%[4]s
	}
}
%[5]s
`, s.dir, s.data, s.services, s.conf.vault, strings.NewReplacer("$PORT2", s.port2, "$PORT", s.port, "$DIR", s.dir).Replace(sites), s.conf.global, logLevel())
	s.write(s.file, text)
}

// logLevel is DEBUG, which shows the most, unless CADDYVAULT_TEST_LOG says
// otherwise: below it small answers go another way (docs/operations.md).
func logLevel() string { return cmp.Or(os.Getenv("CADDYVAULT_TEST_LOG"), "DEBUG") }

// freePorts returns ports of 127.0.0.1 that nobody listens on.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var ports []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	return ports
}

// start lays out and starts a server with the service github.
func start(t testing.TB, c config) *server {
	t.Helper()
	s := prepare(t, c)
	s.start()
	s.addService("github", s.githubService(), secret)
	return s
}

// command prepares the program with the server's environment.
func (s *server) command(args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = s.dir
	cmd.Env = s.environment()
	return cmd
}

func (s *server) environment() []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "XDG_DATA_HOME=" + s.dir + "/xdg", "XDG_CONFIG_HOME=" + s.dir + "/xdg",
		"VAULT_ADMIN_TOKEN=" + adminToken, "GORACE=halt_on_error=1",
	}
	env = append(env, s.conf.env...)
	for _, name := range s.conf.unset {
		for i, v := range env {
			if strings.HasPrefix(v, name+"=") {
				env[i] = name + "="
			}
		}
	}
	return env
}

// start starts the process and waits until it serves.
func (s *server) start() {
	s.t.Helper()
	for try := range 3 {
		err := s.tryStart()
		if err == nil {
			return
		}
		if try < 2 && strings.Contains(s.output.String(), "address already in use") {
			// Another test was faster to the port.
			s.configure()
			continue
		}
		s.t.Fatalf("start: %v\n%s", err, tail(s.output.String(), 4000))
	}
}

// tryStart starts the process and returns an error if it exits before it
// serves.
func (s *server) tryStart() error {
	cmd := s.command("run", "--config", s.file, "--adapter", "caddyfile")
	s.output = syncBuffer{}
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	s.cmd, s.exited = cmd, exited

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		select {
		case <-exited:
			s.cmd = nil
			return fmt.Errorf("the server exited: %v", cmd.ProcessState)
		case <-ctx.Done():
			return errors.New("the server does not serve")
		case <-time.After(5 * time.Millisecond): // the interval of polling
		}
		conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
		if err != nil {
			continue
		}
		conn.Close()
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/health", nil)
		res, err := s.client.Do(req)
		if err != nil {
			continue
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusNotFound {
			return nil
		}
	}
}

// startFails starts the process, which must not come up, and returns what it
// said.
func (s *server) startFails() string {
	s.t.Helper()
	if err := s.tryStart(); err == nil {
		s.t.Fatal("the server came up")
	}
	return s.output.String() + s.read("caddy.log")
}

// stop ends the process as an operator does.
func (s *server) stop() { s.signal(syscall.SIGTERM) }

func (s *server) signal(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.t.Errorf("the server does not end on %s", sig)
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
	s.cmd = nil
}

func (s *server) read(name string) string {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	return string(b)
}

func (s *server) write(path, content string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// writeService drops a service file in, as an editor that is careful does.
func (s *server) writeService(name, content string) {
	s.t.Helper()
	tmp := filepath.Join(s.dir, "new.json")
	s.write(tmp, content)
	if err := os.MkdirAll(s.services, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(s.services, name+".json")); err != nil {
		s.t.Fatal(err)
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// eventually waits until f is true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond) // the interval of polling
	}
}

// adminAPI asks Caddy's own admin API, on its socket.
func (s *server) adminAPI(method, path string, body io.Reader) (int, []byte) {
	s.t.Helper()
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.dir, "admin.sock"))
		},
	}}
	req, err := http.NewRequest(method, "http://127.0.0.1"+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Cache-Control", "must-revalidate")
	res, err := c.Do(req)
	if err != nil {
		s.t.Fatalf("admin API: %v", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatalf("admin API: %v", err)
	}
	if method != http.MethodGet {
		// The servers of before close what is idle, maybe as it is used again,
		// and a POST is not sent twice.
		s.client.CloseIdleConnections()
	}
	return res.StatusCode, b
}
