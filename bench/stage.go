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
	dir, binary string
	upstream    *process
	bare        *process
	upstreamURL string
	bareURL     string
	vaults      map[string]*vaultProcess
	adminURL    map[*process]string // of Caddy's admin API
	tokens      map[string]string   // by the vault's URL and the service
	running     string              // the case
}

// vaultProcess is a vault under one of the configurations.
type vaultProcess struct {
	*process
	url   string
	start time.Duration // until it answered
}

const global = "{\n\tadmin %s\n\tpersist_config off\n\tstorage file_system %s\n%s}\n"

// manyServices of manyPaths endpoints each is a large installation.
var manyServices = 10_000

const manyPaths = 100

func newStage(dir, binary string) (_ *stage, err error) {
	s := &stage{dir: dir, binary: binary, tokens: make(map[string]string), adminURL: make(map[*process]string), vaults: make(map[string]*vaultProcess)}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var ports [3]string
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	s.upstreamURL, s.bareURL = "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1]
	if s.upstream, err = s.startProcess(s.upstreamURL+"/small", self, "upstream", "127.0.0.1:"+ports[0]); err != nil {
		return nil, err
	}
	bare := fmt.Sprintf(global, "127.0.0.1:"+ports[2], dir+"/bare", "") + fmt.Sprintf(`%s {
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
	s.adminURL[s.bare] = "http://127.0.0.1:" + ports[2]
	return s, nil
}

// on returns the vault under a configuration, started by the first case that
// needs it, with fresh tokens.
func (s *stage) on(name string) (*vaultProcess, error) {
	v := s.vaults[name]
	if v == nil {
		var err error
		if v, err = s.startVault(name); err != nil {
			return nil, err
		}
		s.vaults[name] = v
	}
	for _, service := range [...]string{"svc", "plain"} {
		out, err := send(post(v.url+"/vault.issueToken", fmt.Sprintf(`{"service":%q,"scope":["s"],"ttl":900}`, service), ""))
		if err != nil {
			return nil, err
		}
		var answer struct{ Token string }
		if err := json.Unmarshal(out, &answer); err != nil {
			return nil, err
		}
		s.tokens[v.url+service] = answer.Token
	}
	return v, nil
}

func (s *stage) startVault(name string) (*vaultProcess, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	admin, err := freePort()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(s.dir, "data-"+name)
	settings := "\t\tdata_dir " + data + "\n"
	switch name {
	case "async":
		settings += "\t\taudit {\n\t\t\tdurability async\n\t\t}\n"
	case "many":
		if err := writeServices(filepath.Join(data, "services"), s.upstreamURL); err != nil {
			return nil, err
		}
	}
	url := "http://127.0.0.1:" + port
	config := fmt.Sprintf(global, "127.0.0.1:"+admin, filepath.Join(s.dir, "caddy-"+name), "\tvault {\n"+settings+"\t}\n") + url + " {\n\tvault\n}\n"
	begin := time.Now()
	p, err := s.caddy(s.binary, "vault-"+name+".Caddyfile", config, url+"/health")
	if err != nil {
		return nil, err
	}
	v := &vaultProcess{process: p, url: url, start: time.Since(begin)}
	s.adminURL[p] = "http://127.0.0.1:" + admin
	b, err := os.ReadFile(filepath.Join(data, "admin.token"))
	if err != nil {
		p.stop()
		return nil, err
	}
	for service, scrub := range map[string]string{"svc": "on", "plain": "off"} {
		body := fmt.Sprintf(`{"service":%q,"baseUrl":%q,"scrub":%q,"allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["s"],
			"endpoints":{"small":{"method":"GET","path":"/repos/{owner}/{repo}","requiredScope":["s"]},"large":{"method":"GET","path":"/large"},
				"upload":{"method":"POST","path":"/upload"},"events":{"method":"GET","path":"/events"}},
			"masterSecret":"secret-0123456789abcdefghijklmnopqrstuvwxyz"}`, service, s.upstreamURL, scrub)
		if _, err := send(post(url+"/vault.admin.addService", body, "Bearer "+strings.TrimSpace(string(b)))); err != nil {
			p.stop()
			return nil, err
		}
	}
	return v, nil
}

// writeServices writes many service files.
func writeServices(dir, upstream string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var endpoints []string
	for i := range manyPaths {
		endpoints = append(endpoints, fmt.Sprintf(`"action%d":{"method":"GET","path":"/things%d/{id}/parts/{part}"}`, i, i))
	}
	body := fmt.Sprintf(`{"baseUrl":%q,"allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["s"],"endpoints":{%s}}`, upstream, strings.Join(endpoints, ","))
	for i := range manyServices {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("service%d.json", i)), []byte(body), 0o600); err != nil {
			return err
		}
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
	for _, v := range s.vaults {
		v.stop()
	}
	for _, p := range []*process{s.bare, s.upstream} {
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
	http.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		serve(small)(w, r)
	})
	http.HandleFunc("/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 200 {
			_, _ = fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":\"word %d\"}}]}\n\n", i)
			_ = http.NewResponseController(w).Flush()
		}
	})
	if err := http.ListenAndServe(addr, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
