package policy

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hundred is a service of 100 endpoints, as large ones are.
func hundred(t testing.TB) *Compiled {
	eps := map[string]string{}
	for i := range 20 {
		p := fmt.Sprintf("/v1/resource%02d", i)
		eps[fmt.Sprintf("r%02d.list", i)] = "GET " + p + " r"
		eps[fmt.Sprintf("r%02d.create", i)] = "POST " + p + " r"
		eps[fmt.Sprintf("r%02d.get", i)] = "GET " + p + "/{id} r"
		eps[fmt.Sprintf("r%02d.sub", i)] = "GET " + p + "/{id}/items/{item} r"
		eps[fmt.Sprintf("r%02d.files", i)] = "GET " + p + "/{id}/files/{path...} r"
	}
	return service(t, "https://api.example.com/base", eps)
}

func BenchmarkMatch(b *testing.B) {
	c := hundred(b)
	for _, path := range []string{
		"/v1/resource07",
		"/v1/resource19/abc/items/def",
		"/v1/resource11/abc/files/a/b/c/d.md",
		"/v1/resource11/abc/files/docs%2Freadme.md",
		"/v1/nothing/here",
	} {
		b.Run(path[1:], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.Match("GET", path)
			}
		})
	}
}

// BenchmarkMatchGuarded matches beside a stricter endpoint, so that every other
// reading of an encoded path is looked for.
func BenchmarkMatchGuarded(b *testing.B) {
	c := service(b, "https://api.example.com", map[string]string{"all": "GET /v1/* r", "admin": "GET /v1/admin/{x} w"})
	for _, path := range []string{"/v1/a/b", "/v1/docs%2Freadme.md", "/v1/" + strings.Repeat("docs%2F", 20) + "readme.md"} {
		b.Run(path[1:min(len(path), 24)], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := c.Match("GET", path); !ok {
					b.Fatal("no match")
				}
			}
		})
	}
}

func BenchmarkDecideAction(b *testing.B) {
	c := hundred(b)
	scopes := []string{"r", "w"}
	b.ReportAllocs()
	for b.Loop() {
		e, r := c.DecideAction(Agent{ID: "main"}, "r11.get")
		if r != nil || e.DecideScope(scopes) != nil {
			b.Fatal(r)
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	c := hundred(b)
	for name, bench := range map[string]struct{ action, params string }{
		"query": {"r11.sub", `{"id":"abc","item":17,"page":2,"per_page":100}`},
		"json":  {"r11.create", `{"title":"a title","body":"some text that is a little longer","labels":["a","b"],"n":12}`},
	} {
		e, params := c.Endpoint(bench.action), []byte(bench.params)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, r := e.Plan(params); r != nil {
					b.Fatal(r)
				}
			}
		})
	}
}

func BenchmarkCheckProxyPath(b *testing.B) {
	for _, path := range []string{"/v1/chat/completions", "/repos/o/r/contents/docs%2Freadme.md"} {
		b.Run(path[1:], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if r := CheckProxyPath(path); r != nil {
					b.Fatal(r)
				}
			}
		})
	}
}

func BenchmarkParseService(b *testing.B) {
	eps := map[string]string{}
	for i := range 100 {
		eps[fmt.Sprintf("a%02d", i)] = fmt.Sprintf("GET /v1/r%02d/{id} r", i)
	}
	data := serviceJSON("https://api.example.com", eps)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseService("svc", data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMatchAmongServices matches in 10,000 services of 100 endpoints, a
// different service each time, so that nothing stays in the processor's
// caches by chance. It prints what a service costs in memory.
func BenchmarkMatchAmongServices(b *testing.B) {
	const services = 10_000
	data := largeService()
	before := heap()
	all := make([]*Compiled, services)
	start := time.Now()
	for i := range all {
		c, err := ParseService(fmt.Sprintf("svc%05d", i), data)
		if err != nil {
			b.Fatal(err)
		}
		all[i] = c
	}
	took := time.Since(start)
	each := float64(heap()-before) / services
	for _, path := range []string{"/v1/resource07", "/v1/resource19/abc/items/def", "/v1/resource11/abc/files/a/b/c/d.md"} {
		b.Run(path[1:], func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 7919) % services // a prime: every service once before any twice
				if _, ok := all[i].Match("GET", path); !ok {
					b.Fatal("no match")
				}
			}
			b.ReportMetric(each, "heapbytes/service")
			b.ReportMetric(float64(took.Milliseconds()), "load-ms")
		})
	}
	runtime.KeepAlive(all)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// largeService is the file of a service of 100 endpoints, as hundred's.
func largeService() []byte {
	eps := map[string]string{}
	for i := range 20 {
		p := fmt.Sprintf("/v1/resource%02d", i)
		eps[fmt.Sprintf("r%02d.list", i)] = "GET " + p + " r"
		eps[fmt.Sprintf("r%02d.create", i)] = "POST " + p + " r"
		eps[fmt.Sprintf("r%02d.get", i)] = "GET " + p + "/{id} r"
		eps[fmt.Sprintf("r%02d.sub", i)] = "GET " + p + "/{id}/items/{item} r"
		eps[fmt.Sprintf("r%02d.files", i)] = "GET " + p + "/{id}/files/{path...} r"
	}
	return serviceJSON("https://api.example.com/base", eps)
}

// BenchmarkMatchHostile matches what costs the most: patterns that share their
// beginnings, and a path that fits all but the end of each.
func BenchmarkMatchHostile(b *testing.B) {
	eps := map[string]string{}
	for i := range 50 {
		eps[fmt.Sprintf("p%02d", i)] = fmt.Sprintf("GET /a{x}b%s/{y}/{z}/end%02d r", strings.Repeat("b", i), i)
		eps[fmt.Sprintf("m%02d", i)] = fmt.Sprintf("GET /{x...}/t%02d r", i)
	}
	c := service(b, "https://api.example.com", eps)
	for _, bench := range []struct{ name, path string }{
		{"partials", "/a" + strings.Repeat("b", 200) + "/y/z/no"},
		{"tails", strings.Repeat("/x", 500)},
		{"long", "/" + strings.Repeat("ab", 4000)},
		{"encoded", strings.Repeat("/%61", 2000)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.Match("GET", bench.path)
			}
		})
	}
}
