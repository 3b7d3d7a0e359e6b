// Command bench drives the built program and bare Caddy side by side, in
// alternating rounds, and prints tables: requests a second, CPU a request,
// latency, memory, growth, and the parts' own benchmarks, each beside what is
// aimed at.
//
//	go run ./bench [-rounds 5] [-seconds 1.5] [-case name] [-write file,…]
//
// The upstream, bare Caddy, the vault and the load are processes of their own,
// on loopback. It stops by itself, and with everything it has started.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// options is what the command line says.
type options struct {
	rounds      int
	length      time.Duration // of a round, each side
	wanted      *regexp.Regexp
	binary, dir string
	profiles    string
	flat        bool
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "upstream" {
		serveUpstream(os.Args[2])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "load" {
		generate()
		return
	}
	log.SetFlags(0)
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "rounds a case")
	seconds := flag.Float64("seconds", 1.5, "seconds a round and side")
	only := flag.String("case", "", "run only what has a name that matches this regular expression")
	flag.StringVar(&o.binary, "binary", "", "the built program; default: build it")
	flag.StringVar(&o.dir, "dir", "", "where the vault's data is, and the audit log that is appended to; default: the folder for temporary files")
	flag.StringVar(&o.profiles, "profile", "", "write CPU and allocation profiles of both sides into this folder; figures are not to be quoted then")
	flag.BoolVar(&o.flat, "flat", false, "make a million calls and print the memory on the way, and nothing else")
	write := flag.String("write", "", "write the tables into these pages, separated by commas, in place of what stands between <!-- bench --> and <!-- /bench -->; of <!-- bench Calls --> only the table of that title")
	flag.Parse()
	var err error
	switch {
	case flag.NArg() > 0:
		log.Fatal("no arguments are taken")
	case *write != "" && (*only != "" || o.profiles != "" || o.flat):
		log.Fatal("-write wants every table, so it goes with none of -case, -profile and -flat")
	}
	if o.wanted, err = regexp.Compile(*only); err != nil {
		log.Fatal("-case: ", err)
	}
	o.length = time.Duration(*seconds * float64(time.Second))
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	r := report{intro: fmt.Sprintf("`%s`: %d cores, %s, %s, load average %s before the run,\n%d rounds of %s a side, medians. A figure in bold misses its aim.\n",
		strings.TrimSpace("go run ./bench "+strings.Join(os.Args[1:], " ")), runtime.NumCPU(), runtime.Version(), time.Now().Format(time.DateOnly), loadAverage(), o.rounds, o.length)}
	fmt.Print(r.intro)
	if r.tables, err = run(ctx, o, os.Stdout); err != nil {
		log.Fatal(err) //nolint:gocritic // nothing is left to be undone
	}
	if *write == "" {
		return
	}
	for page := range strings.SplitSeq(*write, ",") {
		if err := r.writeInto(page); err != nil {
			log.Fatal(err)
		}
	}
}

// loadAverage is how busy the machine was in the last minute.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

// run makes the tables, and prints each as it is done.
func run(ctx context.Context, o options, out io.Writer) ([]table, error) {
	if !filepath.IsAbs(o.dir) && o.dir != "" {
		abs, err := filepath.Abs(o.dir)
		if err != nil {
			return nil, err
		}
		o.dir = abs
	}
	dir, err := os.MkdirTemp(o.dir, "cvbench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if o.binary == "" {
		o.binary = filepath.Join(dir, "caddyvault")
		build := exec.CommandContext(ctx, "go", "build", "-o", o.binary, "github.com/caddyvault/caddyvault/cmd/caddyvault")
		if log, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build: %w\n%s", err, log)
		}
	}
	s, err := newStage(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	defer s.close()
	makers := []func(*stage) (table, error){callTable, latencyTable, growthTable, memoryTable, appendTable, partTable}
	if o.flat {
		makers = []func(*stage) (table, error){flatTable}
	}
	var tables []table
	for _, make := range makers {
		t, err := make(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.running, err)
		}
		if len(t.rows) > 0 {
			tables = append(tables, t)
			fmt.Fprint(out, "\n", t)
		}
	}
	return tables, nil
}

// pair measures a case, this side and then that, in alternating rounds.
func (s *stage) pair(this, that func() (job, *process, error)) (ours, theirs []figures, err error) {
	for range s.rounds {
		for _, side := range []struct {
			of   func() (job, *process, error)
			into *[]figures
		}{{that, &theirs}, {this, &ours}} {
			j, p, err := side.of()
			if err != nil {
				return nil, nil, err
			}
			f, err := s.measure(j, p)
			if err != nil {
				return nil, nil, err
			}
			*side.into = append(*side.into, f)
		}
	}
	return ours, theirs, nil
}

// besideBare measures a case of the vault and bare Caddy beside it.
func (s *stage) besideBare(c bench) (ours, bares []figures, err error) {
	return s.pair(
		func() (job, *process, error) { return s.ofVault(c) },
		func() (job, *process, error) { return s.job(c.bare(s), c), s.bare.process, nil },
	)
}

func (s *stage) job(r request, c bench) job {
	return job{Request: r, Conns: c.conns, Length: s.length}
}

// ofVault is what a case asks of its vault. Tokens live for minutes; a case
// may take longer.
func (s *stage) ofVault(c bench) (job, *process, error) {
	v, err := s.on(c.on)
	if err != nil {
		return job{}, nil, err
	}
	r := c.vault(s, v.url)
	if c.fresh != nil {
		const mostRequests = 8000 // a second, or the round ends early
		if r.Each, err = c.fresh(s, v.url, max(10, int(s.length.Seconds()*mostRequests))); err != nil {
			return job{}, nil, err
		}
	}
	return s.job(r, c), v.process, nil
}

// wants reports whether a row is to be made, and takes note of its name.
func (s *stage) wants(name string) bool {
	if s.wanted != nil && !s.wanted.MatchString(name) {
		return false
	}
	s.running = name
	return true
}

func callTable(s *stage) (table, error) {
	t := table{title: "Calls", head: []string{"case", "requests/s", "of bare Caddy", "aim", "CPU a request", "of bare Caddy", "aim", "p50", "p99", "peak memory", "failed"}}
	for _, c := range calls {
		if !s.wants(c.name) {
			continue
		}
		ours, bares, err := s.besideBare(c)
		if err != nil {
			return t, err
		}
		failed := 0
		for _, f := range ours {
			failed += f.Failed
		}
		rate, cpu := median(ours, figures.rate), median(ours, figures.cpu)
		t.add(c.name,
			figure("%.0f", rate), atLeast("%.2f", ratio(ours, bares, figures.rate), c.rate),
			figure("%.0f µs", cpu), atMost("%.2f", ratio(ours, bares, figures.cpu), c.cpu),
			figure("%.2f ms", median(ours, figures.p50)), figure("%.2f ms", median(ours, figures.p99)),
			mebibytes(s.vaults[c.on].memory("VmHWM")), figure("%.0f", float64(failed)))
	}
	t.notes = "The vault has everything on: token, policy, audit log synced to disk, scrubbing. Memory is the most that its process has had so far."
	return t, nil
}

func latencyTable(s *stage) (table, error) {
	t := table{title: "Latency", head: []string{"case", "p50", "bare Caddy", "added", "aim", "p99", "bare Caddy", "added", "aim"}}
	for _, c := range latencies {
		if !s.wants(c.name) {
			continue
		}
		ours, bares, err := s.besideBare(c)
		if err != nil {
			return t, err
		}
		cells := []cell{}
		for _, q := range []struct {
			of  func(figures) float64
			aim float64
		}{{figures.p50, c.p50}, {figures.p99, c.p99}} {
			our, bare := median(ours, q.of), median(bares, q.of)
			cells = append(cells, figure("%.2f ms", our), figure("%.2f ms", bare), atMost("%.2f ms", our-bare, q.aim))
		}
		t.add(c.name, cells...)
	}
	t.notes = "One request at a time, the audit log synced to disk before each is sent on. The upstream sends a stream's second event 20 ms after the first."
	return t, nil
}
