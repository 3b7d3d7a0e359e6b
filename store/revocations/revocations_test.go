package revocations

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/file"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openStore(tb testing.TB, dir string) store.Store {
	tb.Helper()
	st, err := file.Open(file.Options{DataDir: dir, PollInterval: time.Hour})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { st.Close() })
	return st
}

func openSet(tb testing.TB, st store.Store) *Set {
	tb.Helper()
	s, err := Open(context.Background(), st, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestLife(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	st := openStore(t, dir)
	s := openSet(t, st)
	now := time.Now()
	var hooked []Revocation
	s.OnEnforce(func(r Revocation) { hooked = append(hooked, r) })
	list := []Revocation{
		{Kind: Token, ID: "a", Reason: "lost", Since: now, Expires: now.Add(time.Hour)},
		{Kind: Session, ID: "a/b %\n", Since: now},
		{Kind: Agent, ID: "a", Reason: "line\nbreak", Since: now},
	}
	for _, r := range list {
		if err := s.Save(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if s.Revoked(s.Key(r.Kind, r.ID), now) {
			t.Fatal("in force before Enforce")
		}
		s.Enforce(r)
	}
	if len(hooked) != len(list) {
		t.Fatalf("%d hooks called", len(hooked))
	}
	check := func(s *Set) {
		t.Helper()
		for _, r := range list {
			if !s.Revoked(s.Key(r.Kind, r.ID), now) {
				t.Fatalf("%v is not in force", r)
			}
		}
		if s.Revoked(s.Key(Token, "a"), now.Add(2*time.Hour)) || !s.Revoked(s.Key(Agent, "a"), now.Add(1e6*time.Hour)) {
			t.Fatal("expiry")
		}
		if s.Revoked(s.Key(Task, "a"), now) || s.Revoked(Key{}, now) || s.Key(Token, "") != (Key{}) {
			t.Fatal("revoked what is not")
		}
		if i := s.Any(now, Key{}, s.Key(Task, "x"), s.Key(Agent, "a")); i != 2 {
			t.Fatalf("any: %d", i)
		}
		if i := s.Any(now, Key{}, s.Key(Task, "x")); i != -1 {
			t.Fatalf("any: %d", i)
		}
		got, err := s.List(t.Context())
		if err != nil || len(got) != len(list) {
			t.Fatalf("list: %v, %v", got, err)
		}
		for i := range got {
			if got[i].ID != list[i].ID || got[i].Reason != list[i].Reason || got[i].Since.UnixMilli() != now.UnixMilli() {
				t.Fatalf("list: %v", got[i])
			}
		}
	}
	check(s)
	st.Close()
	st = openStore(t, dir)
	s = openSet(t, st)
	check(s)
	if err := s.Lift(t.Context(), Agent, "", "a"); err != nil {
		t.Fatal(err)
	}
	if s.Revoked(s.Key(Agent, "a"), now) {
		t.Fatal("lifted and in force")
	}
	if err := s.Lift(t.Context(), Agent, "", "a"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("second lift: %v", err)
	}
	s.Enforce(list[2])
	if !s.Revoked(s.Key(Agent, "a"), now) {
		t.Fatal("not in force again")
	}
}

func TestInvalid(t *testing.T) {
	s := openSet(t, openStore(t, filepath.Join(t.TempDir(), "data")))
	for name, r := range map[string]Revocation{
		"no kind":     {ID: "a"},
		"wrong kind":  {Kind: kindEnd, ID: "a"},
		"no id":       {Kind: Token},
		"long id":     {Kind: Token, ID: strings.Repeat("a", MaxID+1)},
		"long reason": {Kind: Token, ID: "a", Reason: strings.Repeat("é", MaxReason+1)},
	} {
		if err := s.Save(t.Context(), r); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Save(t.Context(), Revocation{Kind: Token, ID: strings.Repeat("\xff", MaxID), Reason: strings.Repeat("é", MaxReason)}); err != nil {
		t.Error(err)
	}
}

// TestAgainstMap compares with a plain map while readers hold every answer
// against what must always be true: what is never lifted stays revoked, what
// was never revoked is not.
func TestAgainstMap(t *testing.T) {
	s := openSet(t, openStore(t, filepath.Join(t.TempDir(), "data")))
	now := time.Now()
	s.now = func() time.Time { return now }
	fixed := s.Key(Agent, "fixed")
	s.Enforce(Revocation{Kind: Agent, ID: "fixed"})
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			never := s.Key(Agent, "never")
			for !stop.Load() {
				if !s.Revoked(fixed, now) || s.Revoked(never, now) {
					t.Error("a reader saw a state that never was")
					return
				}
				runtime.Gosched()
			}
		})
	}
	model := map[string]int64{}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		id := fmt.Sprint(rng.IntN(4000))
		switch rng.IntN(4) {
		case 0:
			s.mu.Lock()
			if e := s.table.Load().find(s.Key(Token, id)); e != nil {
				e.exp.Store(lifted)
			}
			s.mu.Unlock()
			delete(model, id)
		default:
			exp := now.Add(time.Duration(rng.IntN(200)-100) * time.Second)
			s.Enforce(Revocation{Kind: Token, ID: id, Expires: exp})
			model[id] = millis(exp)
		}
		id = fmt.Sprint(rng.IntN(4000))
		exp, ok := model[id]
		if want := ok && exp > now.UnixMilli(); s.Revoked(s.Key(Token, id), now) != want {
			t.Fatalf("%s: want %v", id, want)
		}
	}
	stop.Store(true)
	wg.Wait()
	for i := range 4000 {
		exp, ok := model[fmt.Sprint(i)]
		if want := ok && exp > now.UnixMilli(); s.Revoked(s.Key(Token, fmt.Sprint(i)), now) != want {
			t.Fatalf("%d: want %v", i, want)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	s := openSet(t, openStore(t, filepath.Join(t.TempDir(), "data")))
	now, a, b := time.Now(), s.Key(Token, "a"), s.Key(Agent, "b")
	if n := testing.AllocsPerRun(100, func() { s.Revoked(a, now); s.Any(now, a, b); s.Key(Task, "t") }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkRevoked(b *testing.B) {
	for _, n := range []int{0, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := openSet(b, openStore(b, filepath.Join(b.TempDir(), "data")))
			for i := range n {
				s.Enforce(Revocation{Kind: Token, ID: fmt.Sprint(i)})
			}
			keys := [4]Key{s.Key(Token, "x"), s.Key(Session, "x"), s.Key(Task, "x"), s.Key(Agent, "x")}
			now := time.Now()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					s.Any(now, keys[:]...)
				}
			})
		})
	}
}

// BenchmarkLoad opens a store with 1,000,000 live revocations and loads
// them; memory is that of driver and index together.
func BenchmarkLoad(b *testing.B) {
	const n, writers = 1_000_000, 1000
	dir := filepath.Join(b.TempDir(), "data")
	st := openStore(b, dir)
	s := openSet(b, st)
	var wg sync.WaitGroup
	exp := time.Now().Add(time.Hour)
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				id := fmt.Sprintf("01890a5d-ac96-774b-bcce-%012x", i)
				if err := s.Save(b.Context(), Revocation{Kind: Token, ID: id, Reason: "lost", Since: exp, Expires: exp}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	st.Close()
	s = nil
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		before := heap()
		b.StartTimer()
		st := openStore(b, dir)
		s := openSet(b, st)
		b.StopTimer()
		b.ReportMetric(float64(heap()-before)/n, "bytes/entry")
		runtime.KeepAlive(s)
		st.Close()
		b.StartTimer()
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestOwned shows that a revocation with an owner is that owner's only, and
// stays so after a restart.
func TestOwned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	st := openStore(t, dir)
	s := openSet(t, st)
	now := time.Now()
	long := strings.Repeat("o", MaxID)
	list := []Revocation{
		{Kind: Session, ID: "s1", Owner: "tony", Since: now},
		{Kind: Token, ID: long, Owner: long, Since: now, Expires: now.Add(time.Hour)},
	}
	for _, r := range list {
		if err := s.Save(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		s.Enforce(r)
	}
	check := func(s *Set) {
		t.Helper()
		for _, c := range []struct {
			key  Key
			want bool
		}{
			{s.OwnedKey(Session, "tony", "s1"), true},
			{s.OwnedKey(Token, long, long), true},
			{s.Key(Session, "s1"), false},
			{s.OwnedKey(Session, "steve", "s1"), false},
			{s.OwnedKey(Session, "tonys", "1"), false},
			{s.OwnedKey(Session, "ton", "ys1"), false},
			{s.OwnedKey(Task, "tony", "s1"), false},
			{s.OwnedKey(Token, "tony", "s1"), false},
			{s.OwnedKey(Session, "", "s1"), false},
			{s.OwnedKey(Session, "tony", ""), false},
		} {
			if got := s.Revoked(c.key, now); got != c.want {
				t.Errorf("revoked is %v, want %v", got, c.want)
			}
		}
		got, err := s.List(t.Context())
		if err != nil || len(got) != 2 || got[0].Owner != long || got[0].ID != long || got[1].Owner != "tony" || got[1].ID != "s1" || got[1].Kind != Session {
			t.Errorf("list: %+v, %v", got, err)
		}
	}
	check(s)
	st.Close()
	st = openStore(t, dir)
	s = openSet(t, st)
	check(s)
	if err := s.Lift(t.Context(), Session, "", "s1"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("lifted for everybody: %v", err)
	}
	if err := s.Lift(t.Context(), Session, "tony", "s1"); err != nil || s.Revoked(s.OwnedKey(Session, "tony", "s1"), now) {
		t.Errorf("lift: %v", err)
	}
	if err := s.Save(t.Context(), Revocation{Kind: Agent, ID: "steve", Owner: "tony"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("an agent with an owner: %v", err)
	}
}
