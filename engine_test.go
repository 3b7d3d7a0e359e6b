package caddyvault

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/vault"
)

func openTestEngine(t *testing.T, e *engine, s engineSettings) *vault.State {
	t.Helper()
	st, err := e.open(s, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestEngineOutlivesConfigurations(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := engineSettings{servicesDir: filepath.Join(dir, "services")}

	e := acquireEngine(dir)
	st := openTestEngine(t, e, s)
	for range 100 { // as a reload does: the new configuration comes before the old one goes
		next := acquireEngine(dir)
		if next != e {
			t.Fatal("a second engine for the same directory")
		}
		if got := openTestEngine(t, next, s); got != st {
			t.Fatal("opened anew")
		}
		if err := e.release(); err != nil {
			t.Fatal(err)
		}
	}
	if n := st.Audit().Opens(); n != 1 {
		t.Errorf("the audit log was opened %d times", n)
	}

	// A request that is under way keeps it open behind the last configuration.
	if !e.retain() {
		t.Fatal("the engine is gone though a configuration holds it")
	}
	if err := e.release(); err != nil {
		t.Fatal(err)
	}
	if st.Audit().Err() != nil {
		t.Error("closed under a request")
	}
	if err := e.release(); err != nil {
		t.Fatal(err)
	}
	if e.retain() {
		t.Error("a closed engine can be held")
	}

	// It can be opened again.
	again := acquireEngine(dir)
	if again == e {
		t.Fatal("a closed engine came back")
	}
	openTestEngine(t, again, s)
	if err := again.release(); err != nil {
		t.Fatal(err)
	}
}

func TestEngineRefusesOtherSettings(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	e := acquireEngine(dir)
	defer e.release()
	openTestEngine(t, e, engineSettings{servicesDir: filepath.Join(dir, "a")})
	if _, err := e.open(engineSettings{servicesDir: filepath.Join(dir, "b")}, zap.NewNop()); !errors.Is(err, errSettingsChanged) {
		t.Errorf("another services_dir: %v", err)
	}
	if _, err := e.open(engineSettings{servicesDir: filepath.Join(dir, "a"), encryptionKey: "x"}, zap.NewNop()); !errors.Is(err, errSettingsChanged) {
		t.Errorf("another encryption_key: %v", err)
	}
}

// TestEngineComesBackWhileItCloses has many holders come and go at once: each
// must find the state open, though it is closed and opened in between.
func TestEngineComesBackWhileItCloses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := engineSettings{servicesDir: filepath.Join(dir, "services")}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				e := acquireEngine(dir)
				st, err := e.open(s, zap.NewNop())
				if err != nil {
					t.Errorf("open: %v", err)
				} else if err := st.Audit().Err(); err != nil {
					t.Errorf("audit: %v", err)
				}
				if err := e.release(); err != nil {
					t.Errorf("release: %v", err)
				}
			}
		})
	}
	wg.Wait()
	engines.mu.Lock()
	defer engines.mu.Unlock()
	if n := len(engines.m); n != 0 {
		t.Errorf("%d engines are left", n)
	}
}

// TestEngineAuditSettings has the settings of the newest configuration hold,
// and those of the one before again if that one goes.
func TestEngineAuditSettings(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	e := acquireEngine(dir)
	defer e.release()
	first, second := &audit.Options{SegmentSize: 5 << 20}, &audit.Options{SegmentSize: 6 << 20}
	st := openTestEngine(t, e, engineSettings{servicesDir: filepath.Join(dir, "a"), audit: first})
	expect := func(want *audit.Options) {
		t.Helper()
		if got := st.Audit().Settings().SegmentSize; got != want.SegmentSize {
			t.Fatalf("segment size %d, want %d", got, want.SegmentSize)
		}
	}
	e.useAudit(first)
	expect(first)
	e.useAudit(second)
	expect(second)
	e.dropAudit(second) // it did not come up
	expect(first)
	e.useAudit(second)
	e.dropAudit(first) // a reload
	expect(second)
}
