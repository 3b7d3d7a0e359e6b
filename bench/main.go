// Command bench drives the built program and bare Caddy side by side, in
// alternating rounds, and prints a row a case: requests a second, CPU a
// request, latency and memory, each against bare Caddy in the same run.
//
//	go run ./bench [-rounds 5] [-seconds 3] [-case name] [-profile folder]
//
// The upstream, bare Caddy, the vault and the load are processes of their own,
// on loopback. It stops by itself.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"time"
)

// bench is one case: what the vault is asked, and what bare Caddy is asked
// beside it.
type bench struct {
	name  string
	conns int
	vault func(s *stage) request
	bare  func(s *stage) request
}

var cases = []bench{
	{"vault.call", 32, call, bareGet},
	{"vault.call, 1 connection", 1, call, bareGet},
	{"/proxy/", 32, proxied("svc"), bareGet},
	{"/proxy/, 1 connection", 1, proxied("svc"), bareGet},
	{"/proxy/, not scrubbed", 32, proxied("plain"), bareGet},
	{"/proxy/, 1 MB answers", 8, large("svc"), bareLarge},
	{"/proxy/, 1 MB, not scrubbed", 8, large("plain"), bareLarge},
	{"vault.issueToken (beside respond)", 32, issue, respond},
	{"vault.delegateToken (beside respond)", 32, delegate, respond},
}

func call(s *stage) request {
	return post(s.vaultURL+"/vault.call", fmt.Sprintf(`{"token":%q,"service":"svc","action":"small","params":{"owner":"octocat","repo":"hello"}}`, s.tokens["svc"]), "")
}

func proxied(service string) func(*stage) request {
	return func(s *stage) request {
		return request{Method: "GET", URL: s.vaultURL + "/proxy/" + service + "/repos/octocat/hello", Authorization: "Bearer " + s.tokens[service]}
	}
}

func large(service string) func(*stage) request {
	return func(s *stage) request {
		return request{Method: "GET", URL: s.vaultURL + "/proxy/" + service + "/large", Authorization: "Bearer " + s.tokens[service]}
	}
}

func issue(s *stage) request {
	return post(s.vaultURL+"/vault.issueToken", `{"service":"svc","scope":["s"]}`, "")
}

func delegate(s *stage) request {
	return post(s.vaultURL+"/vault.delegateToken", fmt.Sprintf(`{"token":%q}`, s.tokens["svc"]), "")
}

func bareGet(s *stage) request {
	return request{Method: "GET", URL: s.bareURL + "/repos/octocat/hello"}
}
func bareLarge(s *stage) request { return request{Method: "GET", URL: s.bareURL + "/large"} }

func respond(s *stage) request {
	return post(s.bareURL+"/respond", `{"service":"svc","scope":["s"]}`, "")
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "upstream" {
		serveUpstream(os.Args[2])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "load" {
		generate()
		return
	}
	rounds := flag.Int("rounds", 5, "rounds a case")
	seconds := flag.Float64("seconds", 3, "seconds a round and side")
	only := flag.String("case", "", "run only the cases whose name matches this regular expression")
	binary := flag.String("binary", "", "the built program; default: build it")
	flag.StringVar(&profileDir, "profile", "", "write CPU and allocation profiles of both sides into this folder; figures are not to be quoted then")
	flag.Parse()
	if err := run(*rounds, time.Duration(*seconds*float64(time.Second)), *only, *binary); err != nil {
		log.Fatal(err)
	}
}

func run(rounds int, length time.Duration, only, binary string) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "cvbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if binary == "" {
		binary = filepath.Join(dir, "caddyvault")
		build := exec.Command("go", "build", "-o", binary, "github.com/caddyvault/caddyvault/cmd/caddyvault")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build: %w\n%s", err, out)
		}
	}
	s, err := newStage(dir, binary)
	if err != nil {
		return err
	}
	defer s.close()

	fmt.Printf("%d cores, %s, %s, %d rounds of %s a side\n\n", runtime.NumCPU(), runtime.Version(), time.Now().Format(time.DateOnly), rounds, length)
	fmt.Println("| case | requests/s | of bare Caddy | CPU a request | of bare Caddy | p50 | p99 | peak memory | failed |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|")
	for _, c := range cases {
		if !wanted.MatchString(c.name) {
			continue
		}
		s.running = c.name
		var ours, bares []figures
		for range rounds {
			// Tokens live for minutes; a case may take longer.
			if err := s.renewTokens(); err != nil {
				return err
			}
			bare, err := s.measure(c.bare(s), c.conns, length, s.bare)
			if err != nil {
				return fmt.Errorf("%s, bare: %w", c.name, err)
			}
			our, err := s.measure(c.vault(s), c.conns, length, s.vault)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			ours, bares = append(ours, our), append(bares, bare)
		}
		failed := 0
		for _, f := range ours {
			failed += f.Failed
		}
		rate, cpu := median(ours, figures.rate), median(ours, figures.cpu)
		fmt.Printf("| %s | %.0f | %.2f | %.0f µs | %.2f | %.2f ms | %.2f ms | %.0f MiB | %d |\n", c.name,
			rate, rate/median(bares, figures.rate),
			cpu, cpu/median(bares, figures.cpu),
			median(ours, func(f figures) float64 { return f.P50 }),
			median(ours, func(f figures) float64 { return f.P99 }),
			float64(s.vault.peak())/(1<<20), failed)
	}
	return nil
}

func median(list []figures, of func(figures) float64) float64 {
	values := make([]float64, len(list))
	for i, f := range list {
		values[i] = of(f)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
