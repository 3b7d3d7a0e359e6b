package secrets

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/file"
	"github.com/caddyvault/caddyvault/store/fsx"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "sk_live_canary_0123456789"

func testKEK(b byte) KEK {
	k, _ := KEKFromBytes(bytes.Repeat([]byte{b}, 32))
	return k
}

// place is a data directory that can be opened again and again.
type place struct {
	dir string
	t   *testing.T
}

func (p place) path() string { return filepath.Join(p.dir, "secrets.enc") }

func (p place) open(kek KEK, o Options) (*Secrets, store.Store, error) {
	p.t.Helper()
	st, err := file.Open(file.Options{DataDir: p.dir, PollInterval: 50 * time.Millisecond})
	if err != nil {
		return nil, nil, err
	}
	p.t.Cleanup(func() { st.Close() })
	s, err := Open(context.Background(), st, kek, o)
	if err != nil {
		st.Close()
		return nil, nil, err
	}
	p.t.Cleanup(func() { s.Close() })
	return s, st, nil
}

func (p place) must(o Options) (*Secrets, store.Store) {
	p.t.Helper()
	s, st, err := p.open(testKEK(1), o)
	if err != nil {
		p.t.Fatal(err)
	}
	return s, st
}

func newPlace(t *testing.T) place { return place{filepath.Join(t.TempDir(), "data"), t} }

func set(t *testing.T, s *Secrets, ref, value string, origins ...string) uint64 {
	t.Helper()
	v, err := s.Set(t.Context(), ref, value, origins...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLife(t *testing.T) {
	p := newPlace(t)
	s, st := p.must(Options{})
	v1 := set(t, s, "a", "one", "https://a.example")
	v2 := set(t, s, "a", "two") // keeps the origin
	if err := s.Bind(t.Context(), "a", "https://b.example"); err != nil {
		t.Fatal(err)
	}
	if err := s.Bind(t.Context(), "nothing", "https://b.example"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("bind of nothing: %v", err)
	}
	check := func(s *Secrets) uint64 {
		t.Helper()
		sec, ok := s.Get("a")
		if !ok || sec.Value != "two" || sec.Version <= v2 || v2 <= v1 ||
			!sec.AllowsOrigin("https://a.example") || !sec.AllowsOrigin("https://b.example") || sec.AllowsOrigin("https://c.example") {
			t.Fatalf("%v %v %v", sec, ok, sec.Origins)
		}
		return sec.Version
	}
	v3 := check(s)
	s.Close()
	st.Close()
	s, _ = p.must(Options{MustExist: true})
	check(s)
	if err := s.CheckVersions(map[string]uint64{"a": v3}); err != nil {
		t.Fatal(err)
	}
	err := s.CheckVersions(map[string]uint64{"a": v3 + 1, "gone": 1})
	if !errors.Is(err, ErrOlder) || !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "gone") {
		t.Fatalf("versions: %v", err)
	}
	if err := s.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Get("a"); ok || len(s.List()) != 0 {
		t.Fatal("removed secret is still there")
	}
	if err := s.Remove(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("second remove: %v", err)
	}
	if v := set(t, s, "a", "new"); v <= v3 {
		t.Fatalf("version %d after %d", v, v3)
	}
	if sec, _ := s.Get("a"); len(sec.Origins) != 0 {
		t.Fatal("a removed secret's origins came back")
	}
}

func TestValues(t *testing.T) {
	s, _ := newPlace(t).must(Options{})
	for name, c := range map[string]struct{ ref, value, code string }{
		"empty":      {"a", "", "SECRET_INVALID"},
		"NUL":        {"a", "x\x00", "SECRET_INVALID"},
		"too long":   {"a", strings.Repeat("x", MaxValue+1), "SECRET_INVALID"},
		"ref":        {"../a", "x", "SECRETREF_INVALID"},
		"no ref":     {"", "x", "SECRETREF_INVALID"},
		"long ref":   {strings.Repeat("a", 64), "x", "SECRETREF_INVALID"},
		"dotted ref": {".a", "x", "SECRETREF_INVALID"},
	} {
		_, err := s.Set(t.Context(), c.ref, c.value)
		var r *refusal.Refusal
		if !errors.As(err, &r) || r.Code != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	set(t, s, "a", strings.Repeat("\xff", MaxValue))
}

// TestTampered changes the file in every way that somebody with access to it
// but not to the key can think of.
func TestTampered(t *testing.T) {
	type doc struct {
		V       int                                   `json:"v"`
		Rev     uint64                                `json:"rev"`
		Entries map[string]map[string]json.RawMessage `json:"entries"`
	}
	for name, c := range map[string]struct {
		change func(d *doc, older map[string]json.RawMessage)
		is     error
		says   string
	}{
		"swapped": {func(d *doc, _ map[string]json.RawMessage) {
			a, b := d.Entries["secrets/a"], d.Entries["secrets/b"]
			a["value"], b["value"] = b["value"], a["value"]
		}, ErrDamaged, "secret a"},
		"renamed": {func(d *doc, _ map[string]json.RawMessage) {
			d.Entries["secrets/c"] = d.Entries["secrets/a"]
			delete(d.Entries, "secrets/a")
		}, ErrDamaged, "secret c"},
		"older ciphertext under the new version": {func(d *doc, older map[string]json.RawMessage) {
			var cur, old envelope
			_ = json.Unmarshal(d.Entries["secrets/a"]["value"], &cur)
			_ = json.Unmarshal(older["value"], &old)
			cur.Data = old.Data
			d.Entries["secrets/a"]["value"], _ = json.Marshal(cur)
		}, ErrDamaged, "secret a"},
		"older entry whole": {func(d *doc, older map[string]json.RawMessage) {
			d.Entries["secrets/a"] = older
		}, ErrOlder, "secret a"},
		"entry gone":      {func(d *doc, _ map[string]json.RawMessage) { delete(d.Entries, "secrets/a") }, ErrMissing, "secret a"},
		"keyset gone":     {func(d *doc, _ map[string]json.RawMessage) { delete(d.Entries, "keyset/secrets") }, ErrMissing, "keyset secrets"},
		"everything gone": {func(d *doc, _ map[string]json.RawMessage) { clear(d.Entries) }, ErrMissing, "keyset secrets"},
		"keyset as secret": {func(d *doc, _ map[string]json.RawMessage) {
			d.Entries["secrets/a"] = d.Entries["keyset/secrets"]
		}, ErrDamaged, "secret a"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			s, st := p.must(Options{})
			set(t, s, "a", canary+"1")
			set(t, s, "b", canary+"b")
			var old, d doc
			read(t, p.path(), &old)
			version := set(t, s, "a", canary+"2")
			s.Close()
			st.Close()
			read(t, p.path(), &d)
			c.change(&d, old.Entries["secrets/a"])
			b, _ := json.Marshal(d)
			if err := os.WriteFile(p.path(), b, 0o600); err != nil {
				t.Fatal(err)
			}
			s, _, err := p.open(testKEK(1), Options{MustExist: true})
			if err == nil {
				err = s.CheckVersions(map[string]uint64{"a": version})
			}
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), canary) {
				t.Fatalf("%v; want %v that says %q", err, c.is, c.says)
			}
		})
	}
}

func read(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// memory is a store.Store of one file's entries, for trying many files fast.
type memory struct {
	store.Store
	entries []store.Entry
}

func (m memory) Barrier(context.Context) (store.Rev, error) { return 1, nil }
func (m memory) List(_ context.Context, prefix string) (l []store.Entry, _ error) {
	for _, e := range m.entries {
		if strings.HasPrefix(e.Key, prefix) {
			l = append(l, e)
		}
	}
	return l, nil
}

func (m memory) Get(_ context.Context, key string) (store.Entry, error) {
	for _, e := range m.entries {
		if e.Key == key {
			return e, nil
		}
	}
	return store.Entry{}, store.ErrNotFound
}

func (m memory) Watch(ctx context.Context, _ string, _ store.Rev) (store.Watcher, error) {
	return ended{ctx}, nil
}

type ended struct{ ctx context.Context }

func (ended) Next(context.Context) (store.Event, error) { return store.Event{}, store.ErrClosed }
func (ended) Close()                                    {}

// TestFlipped flips every bit of every value: it is refused, or it was no
// part of what is promised (there is none such today).
func TestFlipped(t *testing.T) {
	p := newPlace(t)
	s, st := p.must(Options{})
	set(t, s, "a", canary, "https://a.example")
	entries, err := st.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for n, e := range entries {
		for i := range len(e.Value) * 8 {
			m := memory{entries: append([]store.Entry(nil), entries...)}
			m.entries[n].Value = bytes.Clone(e.Value)
			m.entries[n].Value[i/8] ^= 1 << (i % 8)
			s, err := Open(t.Context(), m, testKEK(1), Options{})
			if err == nil {
				s.Close()
				t.Fatalf("%s: bit %d flipped (%q): accepted", e.Key, i, m.entries[n].Value)
			}
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrWrongKey) {
				t.Fatalf("%s: bit %d: %v", e.Key, i, err)
			}
		}
	}
}

func TestWrongKey(t *testing.T) {
	p := newPlace(t)
	s, st := p.must(Options{})
	set(t, s, "a", canary)
	s.Close()
	st.Close()
	if _, _, err := p.open(testKEK(2), Options{}); !errors.Is(err, ErrWrongKey) {
		t.Fatalf("another key: %v", err)
	}
	if _, _, err := p.open(KEK{}, Options{}); !errors.Is(err, ErrKEK) {
		t.Fatalf("no key: %v", err)
	}
	b, _ := os.ReadFile(p.path())
	if bytes.Contains(b, []byte(canary)) || bytes.Contains(b, []byte(base64.StdEncoding.EncodeToString([]byte(canary)))) {
		t.Fatal("the secret is in the file")
	}
}

// TestHandEdit puts an older and then a damaged entry into the file of a
// running vault: the last good secret stays and the log names it.
func TestHandEdit(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	p := newPlace(t)
	s, st := p.must(Options{Logger: zap.New(core)})
	set(t, s, "a", canary+"1")
	older, err := st.Get(t.Context(), "secrets/a")
	if err != nil {
		t.Fatal(err)
	}
	set(t, s, "a", canary+"2")
	for i, value := range [][]byte{older.Value, []byte(`{"v":1}`)} {
		// What another hand writes reaches Secrets by the store's watch.
		if _, err := st.Put(t.Context(), "secrets/a", value, store.AnyRev, time.Time{}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return logs.FilterMessage("secret refused").Len() > i })
		if sec, ok := s.Get("a"); !ok || sec.Value != canary+"2" {
			t.Fatalf("%v, %v", sec, ok)
		}
	}
	v := set(t, s, "a", canary+"3") // replaces the damaged one
	if sec, _ := s.Get("a"); sec.Value != canary+"3" || sec.Version != v {
		t.Fatal("not replaced")
	}
	if _, err := st.Delete(t.Context(), "secrets/a", store.AnyRev); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { _, ok := s.Get("a"); return !ok })
	for _, l := range logs.All() {
		if strings.Contains(fmt.Sprint(l.Message, l.ContextMap()), canary) {
			t.Fatal("a log line shows the secret")
		}
	}
}

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatal("it did not happen")
		case <-tick.C:
		}
	}
}

func TestRedacted(t *testing.T) {
	sec := &Secret{Ref: "a", Value: canary}
	kek, _ := KEKFromString(hex.EncodeToString([]byte("0123456789abcdef0123456789abcdef")))
	for _, v := range []any{sec, *sec, []any{sec}, map[string]Secret{"a": *sec}, kek, &kek, struct{ K KEK }{kek}} {
		j, _ := json.Marshal(v)
		out := string(j)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			out += fmt.Sprintf(verb, v)
		}
		if strings.Contains(out, canary) || strings.Contains(out, hex.EncodeToString([]byte(canary))) || strings.Contains(out, "0123456789abcdef") || strings.Contains(out, "48 49 50") {
			t.Errorf("%T shows it: %s", v, out)
		}
	}
}

func TestKEK(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb, 0xff}, 16)
	for _, s := range []string{
		hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)), hex.EncodeToString(raw) + "\n",
		base64.StdEncoding.EncodeToString(raw), base64.RawStdEncoding.EncodeToString(raw),
		base64.URLEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw),
	} {
		if k, err := KEKFromString(s); err != nil || !bytes.Equal(k.b[:], raw) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "short", strings.Repeat("g", 64), strings.Repeat("a", 63), strings.Repeat("a", 45), base64.StdEncoding.EncodeToString(raw) + "="} {
		if _, err := KEKFromString(s); !errors.Is(err, ErrKEK) || s != "" && strings.Contains(err.Error(), s) {
			t.Errorf("%q: %v", s, err)
		}
	}
	path := filepath.Join(t.TempDir(), ".vault-key")
	k, err := GenerateKEKFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := LoadKEKFile(path); err != nil || *l.b != *k.b {
		t.Fatalf("load: %v", err)
	}
	if _, err := GenerateKEKFile(path); !errors.Is(err, os.ErrExist) {
		t.Fatalf("second generate: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKEKFile(path); !errors.Is(err, fsx.ErrInsecure) || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Fatalf("readable by the group: %v", err)
	}
}

func FuzzKEK(f *testing.F) {
	f.Add(strings.Repeat("0", 64))
	f.Add(base64.StdEncoding.EncodeToString(make([]byte, 32)))
	f.Fuzz(func(t *testing.T, s string) {
		k, err := KEKFromString(s)
		if (err == nil) == k.IsZero() {
			t.Fatal("neither key nor error")
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	h, err := newKeyset()
	if err != nil {
		f.Fatal(err)
	}
	a := testAEAD(f, h)
	good, _ := seal(a, &Secret{Ref: "a", Value: canary, Version: 7})
	f.Add(good)
	f.Add([]byte(`{"v":1,"version":1,"updated":0,"data":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if sec, err := open(a, "a", b); err == nil && (sec.Value != canary || sec.Version != 7) {
			t.Fatalf("made up: %v", sec)
		}
	})
}

func BenchmarkGet(b *testing.B) {
	s := &Secrets{}
	s.all.Store(&map[string]*Secret{"a": {Ref: "a"}})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.Get("a")
		}
	})
}
