package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/fsx"
	"github.com/caddyvault/caddyvault/store/storetest"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustOpen(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func dirOptions(t *testing.T) Options {
	return Options{DataDir: filepath.Join(t.TempDir(), "data")}
}

func mustPut(t *testing.T, s *Store, key, value string) store.Rev {
	t.Helper()
	rev, err := s.Put(t.Context(), key, []byte(value), store.AnyRev, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func mustWatch(t *testing.T, s *Store, prefix string) store.Watcher {
	t.Helper()
	rev, err := s.Barrier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Watch(t.Context(), prefix, rev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// next fails the test if no event comes; the limit is only for a broken
// implementation.
func next(t *testing.T, w store.Watcher) store.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ev, err := w.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

func writeFile(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	storetest.RunReopen(t, func(t *testing.T) func() store.Store {
		o := dirOptions(t)
		return func() store.Store { return mustOpen(t, o) }
	}, true)
}

func TestLocked(t *testing.T) {
	o := dirOptions(t)
	s := mustOpen(t, o)
	if _, err := Open(o); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), o.DataDir) {
		t.Fatalf("second open: %v", err)
	}
	s.Close()
	mustOpen(t, o)
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T, o Options)
		is   error
		says string
	}{
		"data dir open to others": {func(t *testing.T, o Options) { os.Chmod(o.DataDir, 0o750) }, fsx.ErrInsecure, "chmod 700 "},
		"services dir writable":   {func(t *testing.T, o Options) { os.Chmod(o.DataDir+"/services", 0o770) }, fsx.ErrInsecure, "chmod go-w "},
		"agents dir writable":     {func(t *testing.T, o Options) { os.Chmod(o.DataDir+"/agents", 0o770) }, fsx.ErrInsecure, "chmod go-w "},
		"secrets readable":        {func(t *testing.T, o Options) { os.Chmod(o.DataDir+"/secrets.enc", 0o640) }, fsx.ErrInsecure, "chmod 600 "},
		"revocations readable":    {func(t *testing.T, o Options) { os.Chmod(o.DataDir+"/revocations.log", 0o604) }, fsx.ErrInsecure, "chmod 600 "},
		"secrets empty":           {func(t *testing.T, o Options) { os.Truncate(o.DataDir+"/secrets.enc", 0) }, ErrDamaged, "secrets.enc"},
		"revocations empty":       {func(t *testing.T, o Options) { os.Truncate(o.DataDir+"/revocations.log", 0) }, ErrDamaged, "revocations.log"},
		"revision empty":          {func(t *testing.T, o Options) { os.Truncate(o.DataDir+"/revision", 0) }, ErrDamaged, "revision"},
		"older revocations":       {func(t *testing.T, o Options) { writeFile(t, o.DataDir+"/revocations.json", "{}", 0o600) }, ErrLegacy, "caddyvault vault import"},
		"older secrets, JSON": {func(t *testing.T, o Options) {
			writeFile(t, o.DataDir+"/secrets.enc", `{"v":1,"alg":"aes-256-gcm"}`, 0o600)
		}, ErrLegacy, "secrets.enc"},
		"older secrets, base64":  {func(t *testing.T, o Options) { writeFile(t, o.DataDir+"/secrets.enc", "eyJ2IjoxfQ==\n", 0o600) }, ErrLegacy, "secrets.enc"},
		"secrets are a link":     {func(t *testing.T, o Options) { relink(t, o.DataDir+"/secrets.enc") }, fsx.ErrInsecure, "secrets.enc"},
		"revocations are a link": {func(t *testing.T, o Options) { relink(t, o.DataDir+"/revocations.log") }, fsx.ErrInsecure, "revocations.log"},
		"the lock is a link":     {func(t *testing.T, o Options) { relink(t, o.DataDir+"/.lock") }, nil, ".lock"},
		"secrets with more fields": {func(t *testing.T, o Options) {
			writeFile(t, o.DataDir+"/secrets.enc", `{"v":2,"rev":1,"entries":{},"x":1}`, 0o600)
		}, ErrDamaged, "secrets.enc"},
		"secrets with a double key": {func(t *testing.T, o Options) {
			writeFile(t, o.DataDir+"/secrets.enc", `{"v":2,"v":2,"rev":1,"entries":{}}`, 0o600)
		}, ErrDamaged, "secrets.enc"},
	} {
		t.Run(name, func(t *testing.T) {
			o := dirOptions(t)
			s := mustOpen(t, o)
			mustPut(t, s, "secrets/a", `{"x":1}`)
			mustPut(t, s, "revocations/token/a", `{}`)
			s.Close()
			c.make(t, o)
			s, err := Open(o)
			if err == nil {
				s.Close()
			}
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("open: %v; want %v that says %q", err, c.is, c.says)
			}
		})
	}
}

func relink(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.Rename(path, path+".real"), os.Symlink(filepath.Base(path)+".real", path)); err != nil {
		t.Fatal(err)
	}
}

// TestTruncated cuts each file at every length: what was there is never
// silently less, except for a last line of the log that is incomplete.
func TestTruncated(t *testing.T) {
	o := dirOptions(t)
	o.noNotify = true
	s := mustOpen(t, o)
	mustPut(t, s, "secrets/a", `{"x":1}`)
	for _, id := range []string{"a", "b", "c"} {
		mustPut(t, s, "revocations/token/"+id, `{"reason":"lost\n"}`)
	}
	s.Close()
	path := filepath.Join(o.DataDir, sealedName)
	whole, _ := os.ReadFile(path)
	for n := range whole {
		writeFile(t, path, string(whole[:n]), 0o600)
		if _, err := Open(o); !errors.Is(err, ErrDamaged) {
			t.Fatalf("secrets.enc cut at %d: %v", n, err)
		}
	}
	writeFile(t, path, string(whole), 0o600)

	path = filepath.Join(o.DataDir, logName)
	whole, _ = os.ReadFile(path)
	for n := len(logHeader); n <= len(whole); n++ {
		writeFile(t, path, string(whole[:n]), 0o600)
		s := mustOpen(t, o)
		list, err := s.List(t.Context(), store.Revocations)
		if want := bytes.Count(whole[:n], []byte("\n")) - 1; err != nil || len(list) != want {
			t.Fatalf("revocations.log cut at %d: %d entries, %v; want %d", n, len(list), err, want)
		}
		mustPut(t, s, "revocations/agent/after", `{}`) // and it goes on
		s.Close()
		s = mustOpen(t, o)
		if _, err := s.Get(t.Context(), "revocations/agent/after"); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	torn, _ := filepath.Glob(filepath.Join(o.DataDir, "revocations.torn.*"))
	if len(torn) == 0 {
		t.Error("no torn tail was kept")
	}
}

// TestFlipped flips every bit of the log: a start either refuses by name or
// has every revocation.
func TestFlipped(t *testing.T) {
	o := dirOptions(t)
	o.noNotify = true
	s := mustOpen(t, o)
	mustPut(t, s, "revocations/token/a", `{}`)
	mustPut(t, s, "revocations/token/b", `{}`)
	s.Close()
	path := filepath.Join(o.DataDir, logName)
	whole, _ := os.ReadFile(path)
	for i := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[i/8] ^= 1 << (i % 8)
		writeFile(t, path, string(b), 0o600)
		if s, err := Open(o); err == nil {
			list, _ := s.List(t.Context(), store.Revocations)
			s.Close()
			if len(list) != 2 {
				t.Fatalf("bit %d: %d entries", i, len(list))
			}
		} else if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), logName) {
			t.Fatalf("bit %d: %v", i, err)
		}
	}
}

// TestFaults fails step k of the writes, for k = 1, 2, 3…: an error leaves
// memory and files as they were, and the store goes on afterwards.
func TestFaults(t *testing.T) {
	for _, key := range []string{"services/a", "agents/a", "secrets/a", "revocations/token/a"} {
		for k := 1; ; k++ {
			o := dirOptions(t)
			o.PollInterval, o.noNotify = time.Hour, true
			n := -1 << 30
			var failed fsx.Step
			o.fault = func(step fsx.Step, _ string) error {
				if n++; n == k {
					failed = step
					return errors.New("injected")
				}
				return nil
			}
			s := mustOpen(t, o)
			mustPut(t, s, key, `{"n":1}`)
			n = 0
			_, err := s.Put(t.Context(), key, []byte(`{"n":2}`), store.AnyRev, time.Time{})
			n = -1 << 30
			want := `{"n":1}`
			if err == nil {
				want = `{"n":2}`
			}
			if e, gerr := s.Get(t.Context(), key); gerr != nil || string(e.Value) != want {
				t.Fatalf("%s, failed %s: %s, %v; want %s", key, failed, e.Value, gerr, want)
			}
			if failed != fsx.StepSyncDir { // after which the new content has its name
				s.Close()
				s = mustOpen(t, o)
				if e, gerr := s.Get(t.Context(), key); gerr != nil || string(e.Value) != want {
					t.Fatalf("%s, failed %s, reopened: %s, %v; want %s", key, failed, e.Value, gerr, want)
				}
			}
			mustPut(t, s, key, `{"n":3}`)
			s.Close()
			if temps, _ := filepath.Glob(filepath.Join(o.DataDir, ".tmp-*")); len(temps) > 0 {
				t.Fatalf("left over: %v", temps)
			}
			if err == nil {
				break
			}
		}
	}
}

func TestModes(t *testing.T) {
	o := dirOptions(t)
	defer setUmask(0)()
	s := mustOpen(t, o)
	mustPut(t, s, "services/a", `{}`)
	mustPut(t, s, "secrets/a", `{}`)
	mustPut(t, s, "revocations/token/a", `{}`)
	err := filepath.WalkDir(o.DataDir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		want := os.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if err == nil && fi.Mode().Perm() != want {
			t.Errorf("%s has mode %o", path, fi.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestHandEditedServices(t *testing.T) {
	for name, noNotify := range map[string]bool{"notices": false, "polling": true} {
		t.Run(name, func(t *testing.T) {
			o := dirOptions(t)
			o.noNotify = noNotify
			o.PollInterval = 50 * time.Millisecond
			o.ValidateService = func(_ string, data []byte) error {
				if bytes.Contains(data, []byte("bad")) {
					return errors.New("policy says no")
				}
				return nil
			}
			s := mustOpen(t, o)
			w := mustWatch(t, s, "services/")
			path := filepath.Join(o.DataDir, "services", "a.json")
			expect := func(typ store.EventType, value, says string) store.Event {
				t.Helper()
				ev := next(t, w)
				if ev.Type != typ || string(ev.Value) != value || !strings.Contains(errorText(ev.Err), says) || (says == "") != (ev.Err == nil) {
					t.Fatalf("event %v %s %q %v; want %v %q, error %q", ev.Type, ev.Key, ev.Value, ev.Err, typ, value, says)
				}
				return ev
			}
			rev := mustPut(t, s, "services/a", `{"n":1}`)
			if ev := expect(store.Put, `{"n":1}`, ""); ev.Rev != rev {
				t.Fatal("the watcher saw another write than Put's")
			}
			writeFile(t, path, `{"n":2}`, 0o600)
			rev = expect(store.Put, `{"n":2}`, "").Rev
			if _, err := s.Put(t.Context(), "services/a", []byte(`{}`), rev-1, time.Time{}); !errors.Is(err, store.ErrConflict) {
				t.Fatalf("put over a hand edit: %v", err)
			}
			writeFile(t, path, `{"n":`, 0o600)
			expect(store.Put, `{"n":2}`, "not JSON")
			writeFile(t, path, `{"bad":1}`, 0o600)
			expect(store.Put, `{"n":2}`, "policy says no")
			writeFile(t, path, `[]`, 0o600)
			expect(store.Put, `{"n":2}`, "not a JSON object")
			writeFile(t, path, `{"n":3}`, 0o666)
			expect(store.Put, `{"n":2}`, "chmod go-w")
			os.Chmod(path, 0o644)
			expect(store.Put, `{"n":3}`, "")
			relink(t, path)
			expect(store.Put, `{"n":3}`, "not a regular file")
			os.Remove(path)
			expect(store.Delete, "", "")
			writeFile(t, filepath.Join(o.DataDir, "services", "BAD.json"), `{}`, 0o600)
			expect(store.Put, "", "cannot be the name")
			writeFile(t, filepath.Join(o.DataDir, "services", ".hidden.json"), `{}`, 0o600)
			writeFile(t, path, `{"n":4}`, 0o600)
			expect(store.Put, `{"n":4}`, "")
			if _, err := s.Put(t.Context(), "services/a", []byte(`{"bad":1}`), store.AnyRev, time.Time{}); !errors.Is(err, store.ErrInvalid) {
				t.Fatalf("put of a broken service: %v", err)
			}
		})
	}
}

// TestFaultsElsewhere: a file that names what cannot be used is taken in when
// that has been mended, without being touched.
func TestFaultsElsewhere(t *testing.T) {
	o := dirOptions(t)
	o.PollInterval = 5 * time.Millisecond
	core, logs := observer.New(zap.ErrorLevel)
	o.Logger = zap.New(core)
	var now atomic.Pointer[string]
	set := func(s string) { now.Store(&s) }
	set("missing")
	o.ValidateService = func(_ string, data []byte) error {
		if f := *now.Load(); f != "" && bytes.Contains(data, []byte("cert")) {
			return elsewhere(f)
		}
		return nil
	}
	path := filepath.Join(o.DataDir, "services", "a.json")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, `{"cert":1}`, 0o600)
	s := mustOpen(t, o)
	if e, err := s.Get(t.Context(), "services/a"); err != nil || e.Value != nil || !errors.Is(e.Err, store.ErrElsewhere) {
		t.Fatal(e, err)
	}
	w := mustWatch(t, s, "services/")
	told := func(cause string) int {
		return logs.Filter(func(e observer.LoggedEntry) bool { return fmt.Sprint(e.ContextMap()["cause"]) == cause }).Len()
	}
	set("no certificate") // which is told once
	for told("no certificate") == 0 {
		time.Sleep(o.PollInterval) // the interval of polling
	}
	set("")
	if ev := next(t, w); ev.Type != store.Put || string(ev.Value) != `{"cert":1}` || ev.Err != nil {
		t.Fatal(ev)
	}

	// One that was good stays in use until another is.
	set("gone")
	writeFile(t, path, `{"cert":2}`, 0o600)
	if ev := next(t, w); string(ev.Value) != `{"cert":1}` || errorText(ev.Err) != "not usable" {
		t.Fatal(ev)
	}
	set("")
	if ev := next(t, w); string(ev.Value) != `{"cert":2}` || ev.Err != nil {
		t.Fatal(ev)
	}
	if n := told("gone"); n != 1 {
		t.Errorf("it was told %d times", n)
	}
}

// elsewhere is such a fault; only the log gets to know which.
type elsewhere string

func (elsewhere) Error() string   { return "not usable" }
func (e elsewhere) Unwrap() error { return fault(e) }

type fault string

func (f fault) Error() string { return string(f) }
func (fault) Unwrap() error   { return store.ErrElsewhere }

// TestHandEditedAgents shows that agents are files like services: with names of
// their own, watched, and not mixed up with a service of the same name.
func TestHandEditedAgents(t *testing.T) {
	o := dirOptions(t)
	o.PollInterval = 50 * time.Millisecond
	o.ValidateAgent = func(name string, data []byte) error {
		if bytes.Contains(data, []byte("bad")) {
			return errors.New("no agent " + name)
		}
		return nil
	}
	s := mustOpen(t, o)
	mustPut(t, s, "services/a", `{"bad":1}`)
	w := mustWatch(t, s, "agents/")
	path := filepath.Join(o.DataDir, "agents", "%54ony@corp.json")
	writeFile(t, path, `{"n":1}`, 0o600)
	if ev := next(t, w); ev.Key != "agents/%54ony@corp" || string(ev.Value) != `{"n":1}` || ev.Err != nil {
		t.Fatalf("event %s %s %v", ev.Key, ev.Value, ev.Err)
	}
	writeFile(t, path, `{"bad":1}`, 0o600)
	if ev := next(t, w); string(ev.Value) != `{"n":1}` || !strings.Contains(errorText(ev.Err), "no agent %54ony") {
		t.Fatalf("event %s %v", ev.Value, ev.Err)
	}
	for _, name := range []string{"Tony", "to ny", "tony%2f", "-tony", "%5"} {
		if _, err := s.Put(t.Context(), "agents/"+name, []byte(`{}`), store.AnyRev, time.Time{}); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("put of %q: %v", name, err)
		}
	}
	if list, err := s.List(t.Context(), store.Services); err != nil || len(list) != 1 {
		t.Errorf("services: %v, %v", list, err)
	}
}

func TestHandEditedSecrets(t *testing.T) {
	o := dirOptions(t)
	o.PollInterval = 50 * time.Millisecond
	s := mustOpen(t, o)
	path := filepath.Join(o.DataDir, sealedName)
	mustPut(t, s, "secrets/a", `{"n":1}`)
	w := mustWatch(t, s, "secrets/")
	whole, _ := os.ReadFile(path)
	writeFile(t, path, strings.Replace(string(whole), `{"n":1}`, `{"n":2}`, 1), 0o600)
	if ev := next(t, w); string(ev.Value) != `{"n":2}` {
		t.Fatalf("event %v", ev)
	}
	writeFile(t, path, "{", 0o600)
	if _, err := s.Put(t.Context(), "secrets/b", []byte(`{}`), 0, time.Time{}); !errors.Is(err, ErrDamaged) {
		t.Fatalf("put over a damaged file: %v", err)
	}
	if e, err := s.Get(t.Context(), "secrets/a"); err != nil || string(e.Value) != `{"n":2}` {
		t.Fatalf("get: %v, %v", e, err)
	}
	os.Remove(path)
	mustPut(t, s, "secrets/b", `{}`) // written anew, from memory
	s.Close()
	s = mustOpen(t, o)
	if list, err := s.List(t.Context(), store.Secrets); err != nil || len(list) != 2 {
		t.Fatalf("list: %v, %v", list, err)
	}
}
