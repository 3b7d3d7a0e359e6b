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
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// bench is one case: what the vault is asked, and what bare Caddy is asked
// beside it.
type bench struct {
	name  string
	conns int
	on    string // which of the vaults: "", async or many
	vault func(s *stage, url string) request
	bare  func(s *stage) request
}

var cases = []bench{
	{"vault.call", 32, "", call, bareGet("/repos/octocat/hello")},
	{"vault.call, 1 connection", 1, "", call, bareGet("/repos/octocat/hello")},
	{"vault.call, audit async", 32, "async", call, bareGet("/repos/octocat/hello")},
	{"/proxy/", 32, "", proxied("svc", "/repos/octocat/hello"), bareGet("/repos/octocat/hello")},
	{"/proxy/, 1 connection", 1, "", proxied("svc", "/repos/octocat/hello"), bareGet("/repos/octocat/hello")},
	{"/proxy/, audit async", 32, "async", proxied("svc", "/repos/octocat/hello"), bareGet("/repos/octocat/hello")},
	{"/proxy/, not scrubbed", 32, "", proxied("plain", "/repos/octocat/hello"), bareGet("/repos/octocat/hello")},
	{"/proxy/, 10,000 services of 100 endpoints", 32, "many", proxied("svc", "/repos/octocat/hello"), bareGet("/repos/octocat/hello")},
	{"/proxy/, 1 MB answers", 8, "", proxied("svc", "/large"), bareGet("/large")},
	{"/proxy/, 1 MB, not scrubbed", 8, "", proxied("plain", "/large"), bareGet("/large")},
	{"/proxy/, 1 MB up", 8, "", upload, bareUpload},
	{"/proxy/, streams of 200 events", 8, "", proxied("svc", "/events"), bareGet("/events")},
	{"vault.issueToken (beside respond)", 32, "", issue, respond},
}

func call(s *stage, url string) request {
	return post(url+"/vault.call", fmt.Sprintf(`{"token":%q,"service":"svc","action":"small","params":{"owner":"octocat","repo":"hello"}}`, s.tokens[url+"svc"]), "")
}

func proxied(service, path string) func(*stage, string) request {
	return func(s *stage, url string) request {
		return request{Method: "GET", URL: url + "/proxy/" + service + path, Authorization: "Bearer " + s.tokens[url+service]}
	}
}

// megabyte is a body of that length.
var megabyte = `"` + strings.Repeat("x", 1<<20-2) + `"`

func upload(s *stage, url string) request {
	return post(url+"/proxy/svc/upload", megabyte, "Bearer "+s.tokens[url+"svc"])
}

func bareUpload(s *stage) request { return post(s.bareURL+"/upload", megabyte, "") }

func issue(_ *stage, url string) request {
	return post(url+"/vault.issueToken", `{"service":"svc","scope":["s"]}`, "")
}

func bareGet(path string) func(*stage) request {
	return func(s *stage) request { return request{Method: "GET", URL: s.bareURL + path} }
}

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
	write := flag.String("write", "", "write the table into these files, in place of what stands between <!-- bench --> and <!-- /bench -->; separated by commas")
	flag.Parse()
	var table bytes.Buffer
	command := "go run ./bench " + strings.Join(os.Args[1:], " ")
	if err := run(*rounds, time.Duration(*seconds*float64(time.Second)), *only, *binary, io.MultiWriter(os.Stdout, &table)); err != nil {
		log.Fatal(err)
	}
	if *write == "" {
		return
	}
	for file := range strings.SplitSeq(*write, ",") {
		if err := replaceTable(file, "`"+strings.TrimSpace(command)+"`: "+table.String()); err != nil {
			log.Fatal(err)
		}
	}
}

// replaceTable puts a table between the markers of a page.
func replaceTable(file, table string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	const begin, end = "<!-- bench -->\n", "<!-- /bench -->"
	before, rest, ok := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s: no place for the table", file)
	}
	return os.WriteFile(file, []byte(before+begin+table+end+after), 0o644)
}

func run(rounds int, length time.Duration, only, binary string, out io.Writer) error {
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
		if log, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build: %w\n%s", err, log)
		}
	}
	s, err := newStage(dir, binary)
	if err != nil {
		return err
	}
	defer s.close()

	fmt.Fprintf(out, "%d cores, %s, %s, %d rounds of %s a side, medians; the ratios are against\nbare Caddy's `reverse_proxy` in the same run.\n\n", runtime.NumCPU(), runtime.Version(), time.Now().Format(time.DateOnly), rounds, length)
	fmt.Fprintln(out, "| case | requests/s | of bare Caddy | CPU a request | of bare Caddy | p50 | p99 | peak memory | failed |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|")
	for _, c := range cases {
		if !wanted.MatchString(c.name) {
			continue
		}
		s.running = c.name
		var ours, bares []figures
		for range rounds {
			// Tokens live for minutes; a case may take longer.
			v, err := s.on(c.on)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			bare, err := s.measure(c.bare(s), c.conns, length, s.bare)
			if err != nil {
				return fmt.Errorf("%s, bare: %w", c.name, err)
			}
			our, err := s.measure(c.vault(s, v.url), c.conns, length, v.process)
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
		fmt.Fprintf(out, "| %s | %.0f | %.2f | %.0f µs | %.2f | %.2f ms | %.2f ms | %.0f MiB | %d |\n", c.name,
			rate, rate/median(bares, figures.rate),
			cpu, cpu/median(bares, figures.cpu),
			median(ours, func(f figures) float64 { return f.P50 }),
			median(ours, func(f figures) float64 { return f.P99 }),
			float64(s.vaults[c.on].process.peak())/(1<<20), failed)
	}
	if v := s.vaults["many"]; v != nil {
		fmt.Fprintf(out, "\nThe vault with %d services of %d endpoints answered %.1f s after its start.\n", manyServices, manyPaths, v.start.Seconds())
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
