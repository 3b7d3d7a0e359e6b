package main

import (
	"bytes"
	"context"
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
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

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

// memory returns a size of /proc/<pid>/status in bytes: what is resident
// (VmRSS), or was at most (VmHWM).
func (p *process) memory(name string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), name+":")
	kib, _, _ := strings.Cut(rest, "kB")
	n, _ := strconv.ParseInt(strings.TrimSpace(kib), 10, 64)
	return n << 10
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// server is bare Caddy, or a vault under one of the configurations.
type server struct {
	*process
	url   string
	admin string        // Caddy's admin API
	start time.Duration // until it answered
	spent time.Duration // CPU time until then
}

// stage is everything that a case needs, running.
type stage struct {
	options
	ctx         context.Context
	dir         string // of this run
	upstream    *process
	upstreamURL string
	bare        *server
	bareURL     string
	vaults      map[string]*server
	admins      map[*process]string
	tokens      map[string]string // by the vault's URL and the service
	running     string            // the case
}

const global = "{\n\tadmin %s\n\tpersist_config off\n\tstorage file_system %s\n%s}\n"

// newStage starts the upstream and bare Caddy.
func newStage(ctx context.Context, dir string, o options) (_ *stage, err error) {
	s := &stage{ctx: ctx, options: o, dir: dir, tokens: make(map[string]string), admins: make(map[*process]string), vaults: make(map[string]*server)}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s.upstreamURL = "http://" + addr
	if s.upstream, err = s.startProcess(s.upstreamURL+"/small", self, "upstream", addr); err != nil {
		return nil, err
	}
	if s.bare, err = s.startBare("bare"); err != nil {
		return nil, err
	}
	s.bareURL = s.bare.url
	return s, nil
}

// startBare starts a Caddy with nothing of ours.
func (s *stage) startBare(name string) (*server, error) {
	return s.caddy("bare-"+name, "", fmt.Sprintf(`
	handle /respond {
		respond "{\"ok\":true}"
	}
	reverse_proxy %s {
		header_up Authorization "Bearer secret-0123456789abcdefghijklmnopqrstuvwxyz"
	}
`, strings.TrimPrefix(s.upstreamURL, "http://")), "/respond")
}

// on returns the vault under a configuration, started by the first case that
// needs it, with fresh tokens.
func (s *stage) on(name string) (*server, error) {
	v := s.vaults[name]
	if v == nil {
		var err error
		if v, err = s.startVault(name); err != nil {
			return nil, err
		}
		s.vaults[name] = v
	}
	for _, service := range [...]string{"svc", "plain"} {
		var err error
		if s.tokens[v.url+service], err = issued(v.url, service, ""); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// stop ends a vault that no other case needs.
func (s *stage) stop(name string) {
	s.vaults[name].stop()
	delete(s.vaults, name)
}

// startVault starts a vault: one with an asynchronous audit log ("async"), with
// many services ("many"), with many revocations ("revoked"), or like any.
func (s *stage) startVault(name string) (*server, error) {
	data := filepath.Join(s.dir, "data-"+name)
	settings := "\t\tdata_dir " + data + "\n"
	var err error
	switch name {
	case "async":
		settings += "\t\taudit {\n\t\t\tdurability async\n\t\t}\n"
	case "many":
		err = writeServices(filepath.Join(data, "services"), s.upstreamURL)
	case "revoked":
		err = writeRevocations(s.ctx, data)
	}
	if err != nil {
		return nil, err
	}
	v, err := s.caddy("vault-"+name, "\tvault {\n"+settings+"\t}\n", "\n\tvault\n", "/health")
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(data, "admin.token"))
	if err != nil {
		v.stop()
		return nil, err
	}
	for service, scrub := range map[string]string{"svc": "on", "plain": "off"} {
		body := fmt.Sprintf(`{"service":%q,"baseUrl":%q,"scrub":%q,"allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["s"],
			"endpoints":{"small":{"method":"GET","path":"/repos/{owner}/{repo}","requiredScope":["s"]},"large":{"method":"GET","path":"/large"},
				"upload":{"method":"POST","path":"/upload"},"events":{"method":"GET","path":"/events"},"slow":{"method":"GET","path":"/slow"}},
			"masterSecret":"secret-0123456789abcdefghijklmnopqrstuvwxyz"}`, service, s.upstreamURL, scrub)
		if _, err := send(post(v.url+"/vault.admin.addService", body, "Bearer "+strings.TrimSpace(string(b)))); err != nil {
			v.stop()
			return nil, err
		}
	}
	return v, nil
}

// caddy starts the built program with a global option and one site, and waits
// until a path of it answers.
func (s *stage) caddy(name, option, site, ready string) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	admin, err := freeAddr()
	if err != nil {
		return nil, err
	}
	c := &server{url: "http://" + addr, admin: "http://" + admin}
	config := filepath.Join(s.dir, name+".Caddyfile")
	text := fmt.Sprintf(global, admin, filepath.Join(s.dir, "caddy-"+name), option) + c.url + " {" + site + "}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	begin := time.Now()
	if c.process, err = s.startProcess(c.url+ready, s.binary, "run", "--adapter", "caddyfile", "--config", config); err != nil {
		return nil, err
	}
	c.start, c.spent = time.Since(begin), c.cpu()
	s.admins[c.process] = c.admin
	return c, nil
}

func (s *stage) startProcess(ready string, name string, args ...string) (*process, error) {
	log, err := os.Create(filepath.Join(s.dir, fmt.Sprintf("%s-%s.log", filepath.Base(name), filepath.Base(args[len(args)-1]))))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(s.ctx, name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "HOME="+s.dir, "XDG_DATA_HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	tooLate := time.After(patience)
	for waiting := true; waiting; {
		if res, err := client.Get(ready); err == nil {
			res.Body.Close()
			return p, nil
		}
		select {
		case <-p.ended:
			waiting = false
		case <-tooLate:
			waiting = false
		case <-time.After(10 * time.Millisecond):
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
	if s.bare != nil {
		s.bare.stop()
	}
	if s.upstream != nil {
		s.upstream.stop()
	}
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// client is for everything but the load.
var client = &http.Client{Timeout: patience}

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
	res, err := client.Do(req)
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
	http.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 2 {
			_, _ = fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":\"word %d\"}}]}\n\n", i)
			_ = http.NewResponseController(w).Flush()
			if i == 0 {
				time.Sleep(20 * time.Millisecond)
			}
		}
	})
	if err := http.ListenAndServe(addr, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
