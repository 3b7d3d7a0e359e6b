package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// process is one of the processes that are measured.
type process struct{ cmd *exec.Cmd }

// ticks is USER_HZ, the unit of /proc/<pid>/stat, on every Linux there is.
const ticks = 100

// cpu returns the CPU time used so far.
func (p *process) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / ticks
}

// peak returns the most memory that was resident, in bytes.
func (p *process) peak() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	return n << 10
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// stage is everything that a case needs, running.
type stage struct {
	dir                   string
	upstream, bare, vault *process
	upstreamURL           string
	bareURL, vaultURL     string
	adminURL              map[*process]string // of Caddy's admin API
	admin                 string
	tokens                map[string]string
	running               string // the case
}

func newStage(dir, binary string) (_ *stage, err error) {
	s := &stage{dir: dir, tokens: make(map[string]string), adminURL: make(map[*process]string)}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var ports [5]string
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	s.upstreamURL, s.bareURL, s.vaultURL = "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1], "http://127.0.0.1:"+ports[2]

	if s.upstream, err = s.startProcess(s.upstreamURL+"/small", self, "upstream", "127.0.0.1:"+ports[0]); err != nil {
		return nil, err
	}
	const global = "{\n\tadmin 127.0.0.1:%s\n\tpersist_config off\n\tstorage file_system %s/%s\n%s}\n"
	bare := fmt.Sprintf(global, ports[3], dir, "bare", "") + fmt.Sprintf(`%s {
	handle /respond {
		respond "{\"ok\":true}"
	}
	reverse_proxy %s {
		header_up Authorization "Bearer secret-0123456789abcdefghijklmnopqrstuvwxyz"
	}
}
`, s.bareURL, strings.TrimPrefix(s.upstreamURL, "http://"))
	if s.bare, err = s.caddy(binary, "bare.Caddyfile", bare, s.bareURL+"/respond"); err != nil {
		return nil, err
	}
	vault := fmt.Sprintf(global, ports[4], dir, "vault", "\tvault {\n\t\tdata_dir "+dir+"/data\n\t}\n") + s.vaultURL + " {\n\tvault\n}\n"
	if s.vault, err = s.caddy(binary, "vault.Caddyfile", vault, s.vaultURL+"/health"); err != nil {
		return nil, err
	}
	s.adminURL[s.bare], s.adminURL[s.vault] = "http://127.0.0.1:"+ports[3], "http://127.0.0.1:"+ports[4]
	b, err := os.ReadFile(filepath.Join(dir, "data", "admin.token"))
	if err != nil {
		return nil, err
	}
	s.admin = strings.TrimSpace(string(b))
	for name, scrub := range map[string]string{"svc": "on", "plain": "off"} {
		body := fmt.Sprintf(`{"service":%q,"baseUrl":%q,"scrub":%q,"allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["s"],
			"endpoints":{"small":{"method":"GET","path":"/repos/{owner}/{repo}","requiredScope":["s"]},"large":{"method":"GET","path":"/large"}},
			"masterSecret":"secret-0123456789abcdefghijklmnopqrstuvwxyz"}`, name, s.upstreamURL, scrub)
		if _, err := send(post(s.vaultURL+"/vault.admin.addService", body, "Bearer "+s.admin)); err != nil {
			return nil, err
		}
	}
	return s, s.renewTokens()
}

func (s *stage) renewTokens() error {
	for _, name := range [...]string{"svc", "plain"} {
		out, err := send(post(s.vaultURL+"/vault.issueToken", fmt.Sprintf(`{"service":%q,"scope":["s"],"ttl":900}`, name), ""))
		if err != nil {
			return err
		}
		var answer struct{ Token string }
		if err := json.Unmarshal(out, &answer); err != nil {
			return err
		}
		s.tokens[name] = answer.Token
	}
	return nil
}

func (s *stage) caddy(binary, name, config, ready string) (*process, error) {
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return s.startProcess(ready, binary, "run", "--adapter", "caddyfile", "--config", path)
}

func (s *stage) startProcess(ready string, name string, args ...string) (*process, error) {
	log, err := os.Create(filepath.Join(s.dir, fmt.Sprintf("%s-%s.log", filepath.Base(name), filepath.Base(args[len(args)-1]))))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "HOME="+s.dir, "XDG_DATA_HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if res, err := http.Get(ready); err == nil {
			res.Body.Close()
			return p, nil
		}
	}
	p.stop()
	b, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("%s %q does not answer:\n%s", name, args, b)
}

func (s *stage) close() {
	for _, p := range []*process{s.vault, s.bare, s.upstream} {
		if p != nil {
			p.stop()
		}
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// send makes one request and returns the answer of a success. A disk that is
// busy for a moment makes the vault refuse for a moment.
func send(r request) (out []byte, err error) {
	for range 10 {
		if out, err = sendOnce(r); err == nil {
			return out, nil
		}
		time.Sleep(time.Second)
	}
	return nil, err
}

func sendOnce(r request) ([]byte, error) {
	req, err := r.http()
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status + " " + string(out))
	}
	return out, err
}

// serveUpstream is the API that is called.
func serveUpstream(addr string) {
	small := []byte(`{"id":1296269,"name":"Hello-World","full_name":"octocat/Hello-World","owner":{"login":"octocat","id":1},"private":false,"html_url":"https://github.com/octocat/Hello-World","description":"first"}`)
	large := bytes.Repeat([]byte(`{"id":1296269,"text":"The quick brown fox jumps over the lazy dog.\n"},`), 1<<20/64)[:1<<20]
	serve := func(body []byte) http.HandlerFunc {
		length := strconv.Itoa(len(body))
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", length)
			_, _ = w.Write(body)
		}
	}
	http.HandleFunc("/", serve(small))
	http.HandleFunc("/large", serve(large))
	if err := http.ListenAndServe(addr, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
