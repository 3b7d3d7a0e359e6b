package vault

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/store/revocations"
	"github.com/caddyvault/caddyvault/token"
)

// unheld is a request that shows nothing.
type unheld struct{}

func (unheld) Holder() Holder { return Holder{} }
func (unheld) SaysDPoP() bool { return false }

// lineOf returns a token of a depth, and a token of no line.
func lineOf(b *testing.B, v *Vault, depth int) string {
	b.Helper()
	res, refused := v.Issue(b.Context(), local, IssueRequest{Service: "api", Scope: []string{"s1"}, Context: token.Context{AgentID: "a"}}, new(audit.Record))
	if refused != nil {
		b.Fatal(refused)
	}
	raw := res.Token
	for range depth {
		res, refused := v.Delegate(b.Context(), local, DelegateRequest{Token: raw}, new(audit.Record))
		if refused != nil {
			b.Fatal(refused)
		}
		raw = res.Token
	}
	return raw
}

// BenchmarkVerify is the check of a token that is remembered, with everything
// that every call looks at: key, time, revocation, holder.
func BenchmarkVerify(b *testing.B) {
	v := newTestVault(b)
	for _, depth := range []int{0, 1, token.MaxDepth} {
		raw := lineOf(b, v, depth)
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, refused := v.verify(raw, unheld{}); refused != nil {
					b.Fatal(refused)
				}
			}
		})
	}
}

// BenchmarkVerifyRevocations is the same with a million live revocations.
func BenchmarkVerifyRevocations(b *testing.B) {
	v := newTestVault(b)
	for i := range 1_000_000 {
		v.revocations.Enforce(revocations.Revocation{Kind: revocations.Token, ID: fmt.Sprint("gone-", i), Since: time.Now(), Expires: time.Now().Add(time.Hour)})
	}
	for _, depth := range []int{0, token.MaxDepth} {
		raw := lineOf(b, v, depth)
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, refused := v.verify(raw, unheld{}); refused != nil {
					b.Fatal(refused)
				}
			}
		})
	}
}

func BenchmarkIssue(b *testing.B) {
	v := newTestVault(b)
	for b.Loop() {
		if _, refused := v.Issue(b.Context(), local, IssueRequest{Service: "api", Scope: []string{"s1"}, Context: token.Context{AgentID: "a"}}, new(audit.Record)); refused != nil {
			b.Fatal(refused)
		}
	}
}

func BenchmarkDelegate(b *testing.B) {
	v := newTestVault(b)
	raw := lineOf(b, v, 1)
	for b.Loop() {
		if _, refused := v.Delegate(b.Context(), local, DelegateRequest{Token: raw}, new(audit.Record)); refused != nil {
			b.Fatal(refused)
		}
	}
}

// BenchmarkProof is the check of a bound token with its proof, of which each
// is used once; making them is not counted.
func BenchmarkProof(b *testing.B) {
	for _, alg := range []string{"ES256", "EdDSA"} {
		b.Run(alg, func(b *testing.B) {
			v := newTestVault(b)
			p := newProver(b, alg)
			res, refused := v.Issue(b.Context(), local, IssueRequest{Service: "api", Scope: []string{"s1"}, Context: token.Context{AgentID: "a"}, Holder: holding(p.raw(p.header(), good("")))}, new(audit.Record))
			if refused != nil {
				b.Fatal(refused)
			}
			b.ReportAllocs()
			for range b.N {
				b.StopTimer()
				v.proofs = newProofs(v.now) // so that none is refused for lack of room, or as older than this
				h := holding(p.raw(p.header(), good(res.Token)))
				b.StartTimer()
				if _, _, refused := v.verify(res.Token, h); refused != nil {
					b.Fatal(refused)
				}
			}
		})
	}
}

// BenchmarkOpenManyServices opens a state with 10,000 services of 100
// endpoints, and prints what each takes in memory.
func BenchmarkOpenManyServices(b *testing.B) {
	const services, endpoints = 10_000, 100
	dir := b.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "services"), 0o700); err != nil {
		b.Fatal(err)
	}
	for i := range services {
		var eps []string
		for j := range endpoints {
			eps = append(eps, fmt.Sprintf(`"action%d":{"method":"GET","path":"/things%d/{id}/parts/{part}","requiredScope":["s"]}`, j, j))
		}
		body := fmt.Sprintf(`{"baseUrl":"https://api%d.example.com","secretRef":"key%d","allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["s"],"endpoints":{%s}}`, i, i, strings.Join(eps, ","))
		if err := os.WriteFile(filepath.Join(dir, "services", fmt.Sprintf("service%d.json", i)), []byte(body), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	for b.Loop() {
		before := heap()
		st := newTestState(b, dir)
		b.ReportMetric((heap()-before)/services, "heapbytes/service")
		if n := len(st.services.all()); n != services {
			b.Fatal(n)
		}
		if err := st.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
