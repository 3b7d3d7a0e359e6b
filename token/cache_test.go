package token

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// stored is the bytes and the number of entries that are really in a cache.
func stored(c *cache) (total, entries int) {
	for i := range c.slots {
		if e := c.slots[i].Load(); e != nil {
			total += e.cost
			entries++
		}
	}
	return total, entries
}

func fakeVerified(id string) *Verified {
	return &Verified{Claims: Claims{ID: id, Subject: "a", Service: "s", Scope: []string{"x"}}}
}

func TestCacheBound(t *testing.T) {
	for _, length := range []int{10, 600, MaxLength} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			const size = 1 << 20
			c := newCache(size)
			for i := range 20000 {
				raw := fmt.Sprintf("%0*d", length, i)
				v := c.put(c.hash(raw), raw, fakeVerified(raw), life{0, 10}, 5)
				if v.ID != raw {
					t.Fatal("put returned another token")
				}
				if e := c.get(c.hash(raw), raw); e == nil || e.verified.ID != raw {
					t.Fatal("what was put last is not there")
				}
			}
			total, entries := stored(c)
			counted := 0
			for i := range c.stripes {
				counted += c.stripes[i].bytes
			}
			if total != counted || total > size {
				t.Errorf("%d bytes are stored, %d are counted, %d are allowed", total, counted, size)
			}
			if entries < 60 {
				t.Errorf("only %d tokens are remembered", entries)
			}
		})
	}
}

// A token that costs more than a stripe may hold is answered, not kept.
func TestCacheTooLarge(t *testing.T) {
	c := newCache(stripes * 1000)
	raw := strings.Repeat("x", 2000)
	if v := c.put(c.hash(raw), raw, fakeVerified("id"), life{0, 10}, 5); v.ID != "id" {
		t.Error("not answered")
	}
	if total, _ := stored(c); total != 0 {
		t.Errorf("%d bytes are kept", total)
	}
}

// What is used stays when much that is used once comes by.
func TestCacheKeepsWhatIsUsed(t *testing.T) {
	c := newCache(1 << 20)
	const hot = "the token that is used all the time"
	c.put(c.hash(hot), hot, fakeVerified("hot"), life{0, 10}, 5)
	misses := 0
	for i := range 10000 {
		raw := fmt.Sprint("once ", i)
		c.put(c.hash(raw), raw, fakeVerified(raw), life{0, 10}, 5)
		if c.get(c.hash(hot), hot) == nil {
			misses++
			c.put(c.hash(hot), hot, fakeVerified("hot"), life{0, 10}, 5)
		}
	}
	if misses > 10 {
		t.Errorf("forgotten %d times", misses)
	}
}

// Tokens past their time go first, and a token seen again replaces itself.
func TestCachePrefersTheExpired(t *testing.T) {
	c := newCache(1 << 20)
	set := make([]string, 0, ways)
	first := c.hash("0")
	for i := 0; len(set) < ways; i++ { // eight texts of one set
		if raw := fmt.Sprint(i); c.hash(raw)>>c.shift == first>>c.shift {
			set = append(set, raw)
		}
	}
	for i, raw := range set {
		until := int64(100)
		if i == 3 {
			until = 10
		}
		c.put(c.hash(raw), raw, fakeVerified(raw), life{0, until}, 5)
		c.get(c.hash(raw), raw)
	}
	var extra string
	for i := 1 << 20; extra == ""; i++ {
		if raw := fmt.Sprint(i); c.hash(raw)>>c.shift == first>>c.shift {
			extra = raw
		}
	}
	c.put(c.hash(extra), extra, fakeVerified(extra), life{0, 100}, 50)
	for i, raw := range set {
		if there := c.get(c.hash(raw), raw) != nil; there == (i == 3) {
			t.Errorf("token %d is there: %t", i, there)
		}
	}
	again := c.put(c.hash(extra), extra, fakeVerified("other"), life{0, 100}, 50)
	if again.ID != extra {
		t.Error("a token that is there was put twice")
	}
	if later := c.put(c.hash(extra), extra, fakeVerified("later"), life{0, 300}, 200); later.ID != "later" {
		t.Error("a token past its time was not replaced")
	}
	_, entries := stored(c)
	if entries != ways {
		t.Errorf("%d entries, want %d", entries, ways)
	}
}

func TestCacheParallel(t *testing.T) {
	c := newCache(256 << 10)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 5000 {
				raw := fmt.Sprint(i % 700)
				if e := c.get(c.hash(raw), raw); e != nil {
					if e.verified.ID != raw {
						t.Error("another token's claims")
					}
					continue
				}
				if v := c.put(c.hash(raw), raw, fakeVerified(raw), life{0, 10}, 5); v.ID != raw {
					t.Error("another token's claims")
				}
			}
		})
	}
	wg.Wait()
	total, _ := stored(c)
	counted := 0
	for i := range c.stripes {
		counted += c.stripes[i].bytes
	}
	if total != counted {
		t.Errorf("%d bytes are stored, %d are counted", total, counted)
	}
}

func TestCacheHoldsNoRefusals(t *testing.T) {
	a := newAuthority(t, hmacKey(t), []Key{edKey(t)}, testOptions(&testClock{testNow}))
	for _, raws := range hostile(t) {
		for _, raw := range raws {
			a.Verify(raw)
		}
	}
	if _, entries := stored(a.cache); entries != 0 {
		t.Errorf("%d entries after refusals only", entries)
	}
}

// Without a cache the answers are the same.
func TestCacheOff(t *testing.T) {
	o := testOptions(&testClock{testNow})
	o.CacheBytes = -1
	a := newAuthority(t, edKey(t), nil, o)
	raw, err := a.Issue(testClaims())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		v, r := a.Verify(raw)
		if r != nil || v.ID != testClaims().ID {
			t.Fatalf("%v, %v", v, r)
		}
	}
}

func TestVerifyAllocatesNothing(t *testing.T) {
	o := testOptions(&testClock{testNow})
	o.Now = time.Now
	a := newAuthority(t, edKey(t), nil, o)
	c := testClaims()
	c.IssuedAt, c.ExpiresAt = time.Now(), time.Now().Add(10*time.Minute)
	raw, err := a.Issue(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, r := a.Verify(raw); r != nil {
		t.Fatal(r)
	}
	if n := testing.AllocsPerRun(100, func() { a.Verify(raw) }); n != 0 {
		t.Errorf("%v allocations for a remembered token", n)
	}
}

func benchToken(b *testing.B, key Key, cacheBytes int) (*Authority, string) {
	o := Options{Audience: testAudience, Issuer: testIssuer, CacheBytes: cacheBytes}
	a := newAuthority(b, key, nil, o)
	c := testClaims()
	c.IssuedAt, c.ExpiresAt = time.Now(), time.Now().Add(15*time.Minute)
	raw, err := a.Issue(c)
	if err != nil {
		b.Fatal(err)
	}
	return a, raw
}

func BenchmarkVerifyCached(b *testing.B) {
	a, raw := benchToken(b, edKey(b), 0)
	b.ReportAllocs()
	for b.Loop() {
		if _, r := a.Verify(raw); r != nil {
			b.Fatal(r)
		}
	}
}

func BenchmarkVerifyCachedParallel(b *testing.B) {
	a, raw := benchToken(b, edKey(b), 0)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, r := a.Verify(raw); r != nil {
				b.Error(r)
				return
			}
		}
	})
}

func BenchmarkVerifyFirst(b *testing.B) {
	for _, k := range []Key{edKey(b), hmacKey(b)} {
		name, _, _ := strings.Cut(k.String(), " ")
		b.Run(name, func(b *testing.B) {
			a, raw := benchToken(b, k, -1)
			b.ReportAllocs()
			for b.Loop() {
				if _, r := a.Verify(raw); r != nil {
					b.Fatal(r)
				}
			}
		})
	}
}

func BenchmarkVerifyHostile(b *testing.B) {
	a, raw := benchToken(b, edKey(b), 0)
	for name, raw := range map[string]string{
		"megabyte of dots": strings.Repeat(".", 1<<20),
		"4 KiB of dots":    strings.Repeat(".", MaxLength),
		"bad signature":    raw[:len(raw)-4] + "AAAA",
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, r := a.Verify(raw); r == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

func BenchmarkIssue(b *testing.B) {
	for _, k := range []Key{edKey(b), hmacKey(b)} {
		name, _, _ := strings.Cut(k.String(), " ")
		b.Run(name, func(b *testing.B) {
			a, _ := benchToken(b, k, 0)
			c := testClaims()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Issue(c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestNewID(t *testing.T) {
	ids := []string{NewID(), NewID(), NewID()}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 3 || len(ids[0]) != 36 {
		t.Errorf("%v", ids)
	}
}
