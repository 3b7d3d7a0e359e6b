package main

import (
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be the processes that the program starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "upstream" || os.Args[1] == "load") {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestEveryCaseRuns runs each case for a moment, and of the benchmarks of go
// test one. It judges no figure.
func TestEveryCaseRuns(t *testing.T) {
	manyServices, manyRevocations, flatCalls, idleLoad, partTime = 50, 100, 5, 50*time.Millisecond, "1x"
	tolerated = 1 // where tests run side by side, a disk may keep the vault waiting for too long
	dir := t.TempDir()
	o := options{rounds: 1, length: 50 * time.Millisecond, dir: dir, binary: filepath.Join(dir, "caddyvault")}
	if out, err := exec.Command("go", "build", "-o", o.binary, module+"/cmd/caddyvault").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	parts = slices.DeleteFunc(slices.Clone(parts), func(p packageParts) bool { return p.pkg != "token" })
	for _, c := range []struct {
		wanted string
		flat   bool
		rows   map[string]int
	}{
		{rows: map[string]int{"Calls": len(calls), "Latency": len(latencies), "Growth": 2, "Memory": 2, "Audit log": 4, "Parts": len(parts[0].rows)}},
		{flat: true, rows: map[string]int{"Memory over calls": 10}},
		{wanted: "^no such case$", rows: map[string]int{}},
	} {
		o.wanted, o.flat = regexp.MustCompile(c.wanted), c.flat
		tables, err := run(t.Context(), o, io.Discard)
		rows := map[string]int{}
		for _, table := range tables {
			rows[table.title] = len(table.rows)
		}
		if err != nil || !maps.Equal(rows, c.rows) {
			t.Errorf("%q: %v, rows %v, want %v", c.wanted, err, rows, c.rows)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "cvbench*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestParseBench(t *testing.T) {
	const out = `goos: linux
BenchmarkVerify/depth=0-2         	 6543210	       183.2 ns/op	       0 B/op	       0 allocs/op
BenchmarkVerify/depth=0-2         	 6543210	       300.1 ns/op	       0 B/op	       0 allocs/op
BenchmarkAppend/sync/256-2        	   12345	     10000 ns/op	    100000 records/s
BenchmarkAppend/sync/1-2          	--- FAIL
PASS
`
	found := parseBench(out, 2)
	for _, want := range []struct {
		name, unit string
		f          float64
	}{
		{"Verify/depth=0", "ns/op", 183.2},
		{"Verify/depth=0", "allocs/op", 0},
		{"Append/sync/256", "records/s", 100000},
	} {
		if f, ok := found[want.name][want.unit]; !ok || f != want.f {
			t.Errorf("%s %s: %v", want.name, want.unit, f)
		}
	}
	if len(found) != 2 {
		t.Errorf("%v", found)
	}
	// One processor adds nothing to the names.
	if found := parseBench("BenchmarkAppend/sync/1 	 10 	 5 ns/op\n", 1); found["Append/sync/1"]["ns/op"] != 5 {
		t.Errorf("%v", found)
	}
}

// example is a report with a figure that misses its aim and one that does not.
func example() report {
	calls := table{title: "Calls", head: []string{"case", "requests/s", "of bare Caddy", "aim", "CPU", "aim"}}
	calls.add("vault.call", figure("%.0f", 1234.6), atLeast("%.2f", 0.62, 0.85), atMost("%.2f", 1.2, 1.25))
	calls.add("other", figure("%.0f", 9), atLeast("%.2f", 0.8499, 0.85), atMost("%.2f", 1.26, 0))
	memory := table{title: "Memory", head: []string{"resident", "vault"}, notes: "As it is."}
	memory.add("idle", mebibytes(3<<20))
	return report{"2 cores.\n", []table{calls, memory}}
}

const (
	callsText = `### Calls

| case | requests/s | of bare Caddy | aim | CPU | aim |
| --- | --- | --- | --- | --- | --- |
| vault.call | 1235 | **0.62** | 0.85 | 1.20 | 1.25 |
| other | 9 | 0.85 | 0.85 | 1.26 |  |
`
	memoryText = `### Memory

| resident | vault |
| --- | --- |
| idle | 3 MiB |

As it is.
`
)

func TestReplace(t *testing.T) {
	for _, c := range []struct{ name, page, want, fails string }{
		{
			name: "all tables",
			page: "a\n<!-- bench -->\nold\n<!-- /bench -->\nb\n",
			want: "a\n<!-- bench -->\n2 cores.\n\n" + callsText + "\n" + memoryText + "<!-- /bench -->\nb\n",
		},
		{
			name: "one of them",
			page: "<!-- bench Memory -->\n<!-- /bench -->",
			want: "<!-- bench Memory -->\n2 cores.\n\n" + memoryText + "<!-- /bench -->",
		},
		{name: "none of that title", page: "<!-- bench Speed -->\n<!-- /bench -->", fails: "no table"},
		{name: "no markers", page: "text", fails: "no place"},
		{name: "no end", page: "<!-- bench -->\ntext", fails: "no place"},
	} {
		got, err := example().replace(c.page)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %v\n%s", c.name, err, got)
		}
		// Written again it stays as it is.
		if again, err := example().replace(got); err != nil || again != got {
			t.Errorf("%s, again: %v\n%s", c.name, err, again)
		}
	}
}

func TestRowsFitTheirTable(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a row with too few columns was taken")
		}
	}()
	t2 := table{title: "x", head: []string{"a", "b", "c"}}
	t2.add("row", figure("%.0f", 1))
}

// TestPages holds the README to the tables of this folder's page: they are
// written by one run.
func TestPages(t *testing.T) {
	between := func(page, begin string) string {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, ok := strings.Cut(string(b), begin+" -->\n")
		text, _, ok2 := strings.Cut(rest, "<!-- /bench -->")
		if !ok || !ok2 {
			t.Fatalf("%s has no place for tables", page)
		}
		return strings.TrimSpace(text)
	}
	some, all := between("../README.md", "<!-- bench Calls"), between("README.md", "<!-- bench")
	if !strings.HasPrefix(all, some) {
		t.Errorf("README.md has other figures than bench/README.md:\n%s\n\n%s", some, all)
	}
}
