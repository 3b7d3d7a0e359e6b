package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const module = "github.com/caddyvault/caddyvault"

// part is a benchmark of go test, and what of its figures makes a row.
type part struct {
	name, bench string
	unit        string  // in go test's words
	show        string  // format of the row's figure
	times       float64 // what makes the row's unit of go test's
	aim         float64 // in the row's unit; 0 for nothing
	least       bool    // the aim is the least, not the most
}

// packageParts are benchmarks of a package, an expression for all of them, and
// how often they run.
type packageParts struct {
	pkg, run string
	times    int
	rows     []part
}

var parts = []packageParts{
	{"vault", "^Benchmark(Verify|VerifyRevocations|Proof)$/^(depth=0|ES256)$", 5, []part{
		{name: "check of a remembered token", bench: "Verify/depth=0", unit: "ns/op", show: "%.0f ns", times: 1, aim: 300},
		{name: "the same, 1,000,000 live revocations", bench: "VerifyRevocations/depth=0", unit: "ns/op", show: "%.0f ns", times: 1, aim: 300},
		{name: "check of a DPoP proof and its token", bench: "Proof/ES256", unit: "ns/op", show: "%.0f µs", times: 1e-3},
	}},
	{"token", "^BenchmarkVerify(First|Signed)$/^EdDSA$", 5, []part{
		{name: "first look at a token, EdDSA", bench: "VerifyFirst/EdDSA", unit: "ns/op", show: "%.0f µs", times: 1e-3, aim: 60},
		{name: "the same, of one that this process signed", bench: "VerifySigned/EdDSA", unit: "ns/op", show: "%.0f µs", times: 1e-3},
	}},
	{"policy", "^BenchmarkMatchAmongServices$/^v1$/^resource19$", 3, []part{
		{name: "match among 10,000 services of 100 endpoints", bench: "MatchAmongServices/v1/resource19/abc/items/def", unit: "ns/op", show: "%.2f µs", times: 1e-3, aim: 2},
	}},
	{"upstream/scrub", "^BenchmarkReader$/^JSON$", 5, []part{
		{name: "scrubbing JSON without a hit", bench: "Reader/JSON", unit: "MB/s", show: "%.2f GB/s", times: 1e-3, aim: 1, least: true},
	}},
	{"audit", "^BenchmarkBig$/^verify$", 1, []part{
		{name: "verifying an audit log of 1,000,000 records", bench: "Big/verify", unit: "records/s", show: "%.1f million records/s", times: 1e-6, aim: 2, least: true},
	}},
}

func partTable(s *stage) (table, error) {
	t := table{title: "Parts", head: []string{"part", "figure", "aim", "allocations"}}
	for _, p := range parts {
		var rows []part
		for _, row := range p.rows {
			if s.wants(row.name) {
				rows = append(rows, row)
			}
		}
		if len(rows) == 0 {
			continue
		}
		found, err := s.goBench(p.pkg, p.run, p.times)
		if err != nil {
			return t, err
		}
		for _, row := range rows {
			f, ok := found[row.bench][row.unit]
			if !ok {
				return t, fmt.Errorf("go test printed no %s of %s", row.unit, row.bench)
			}
			got := atMost(row.show, f*row.times, row.aim)
			if row.least {
				got = atLeast(row.show, f*row.times, row.aim)
			}
			allocations := cell{""}
			if n, ok := found[row.bench]["allocs/op"]; ok {
				allocations = figure("%.0f", n)
			}
			t.add(row.name, got, allocations)
		}
	}
	t.notes = "By `go test -bench`, which prints more of each; the fastest of up to five runs, as a busy machine makes them slower."
	return t, nil
}

// appendTable is the audit log by itself: whoever appends waits for the disk,
// or, with durability async, only for its place in the log.
func appendTable(s *stage) (table, error) {
	t := table{title: "Audit log", head: []string{"append", "sync, records/s", "async, records/s"}}
	var found map[string]map[string]float64
	for _, callers := range []int{1, 16, 64, 256} {
		if !s.wants(fmt.Sprintf("audit append, %d callers", callers)) {
			continue
		}
		if found == nil {
			var err error
			if found, err = s.goBench("audit", "^BenchmarkAppend$", 1); err != nil {
				return t, err
			}
		}
		row := []cell{}
		for _, durability := range []string{"sync", "async"} {
			f, ok := found[fmt.Sprintf("Append/%s/%d", durability, callers)]["records/s"]
			if !ok {
				return t, fmt.Errorf("go test printed no figure for %d callers, %s", callers, durability)
			}
			row = append(row, figure("%.0f", f))
		}
		t.add(strings.Replace(fmt.Sprintf("%d callers", callers), "1 callers", "1 caller", 1), row...)
	}
	if len(t.rows) == 0 {
		return t, nil
	}
	took, err := syncTime(s.dir)
	if err != nil {
		return t, err
	}
	t.notes = fmt.Sprintf("On %s, where a write of one record and its sync alone takes %d µs (median).", fileSystem(s.dir), took.Microseconds())
	return t, nil
}

// partTime is how long a benchmark of go test runs.
var partTime = "500ms"

// goBench runs benchmarks of a package some times and returns the figures of
// the fastest by name and unit.
func (s *stage) goBench(pkg, run string, times int) (map[string]map[string]float64, error) {
	ctx, cancel := context.WithTimeout(s.ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", run, "-benchtime", partTime, "-count", strconv.Itoa(times), module+"/"+pkg)
	cmd.Env = append(os.Environ(), "TMPDIR="+s.dir)
	// go test passes an interrupt on to what it runs.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test -bench %s ./%s: %w\n%s", run, pkg, err, out)
	}
	return parseBench(string(out), runtime.GOMAXPROCS(0)), nil
}

// parseBench reads what go test -bench prints, on a machine of so many
// processors. Of several runs of one benchmark the fastest counts.
func parseBench(out string, processors int) map[string]map[string]float64 {
	found := map[string]map[string]float64{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		if processors > 1 {
			name = strings.TrimSuffix(name, fmt.Sprint("-", processors))
		}
		units := map[string]float64{}
		for i := 2; i+1 < len(fields); i += 2 {
			if f, err := strconv.ParseFloat(fields[i], 64); err == nil {
				units[fields[i+1]] = f
			}
		}
		if before, ok := found[name]; !ok || units["ns/op"] < before["ns/op"] {
			found[name] = units
		}
	}
	return found
}

// syncTime is how long the disk takes for one small write.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "sync")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var all []figures
	for range 50 {
		start := time.Now()
		if _, err := f.Write(make([]byte, 600)); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		all = append(all, figures{P50: float64(time.Since(start))})
	}
	return time.Duration(median(all, figures.p50)), nil
}

// fileSystem names the file system of a folder.
func fileSystem(dir string) string {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "an unknown file system"
	}
	var kind, longest string
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		if rest, err := filepath.Rel(fields[1], dir); err == nil && filepath.IsLocal(rest) && len(fields[1]) >= len(longest) {
			longest, kind = fields[1], fields[2]
		}
	}
	if kind == "tmpfs" {
		return "tmpfs, which is memory and no disk"
	}
	return kind
}
