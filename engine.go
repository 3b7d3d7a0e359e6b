package caddyvault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/upstream"
	"github.com/caddyvault/caddyvault/vault"
)

// An engine is the state of one data directory in this process. It outlives
// configurations: a reload finds it open and goes on with it. It is counted by
// the configurations that name the directory and by the requests under way,
// and closed with the last of them.
//
// caddy.UsagePool does not serve here: it forgets a key before the value's
// destructor has run, and a configuration that comes back in between would
// find the directory still locked.
type engine struct {
	dir    string
	refs   atomic.Int64  // 0 once it is being closed, and for good
	closed chan struct{} // closed when the state is

	mu       sync.Mutex
	state    *vault.State
	settings engineSettings

	// audits are the settings of the audit log of the configurations that
	// have opened the state, the newest last, whose hold. A configuration
	// that does not come up takes its own away again.
	audits []*audit.Options

	// mirrors are theirs as well, nil for none; the newest runs.
	mirrors []*mirror
}

// engineSettings is what a state is opened with.
type engineSettings struct {
	servicesDir   string
	encryptionKey string

	audit *audit.Options // may change in a reload
}

// digest is for comparing settings without keeping the key.
func (s engineSettings) digest() [sha256.Size]byte {
	return sha256.Sum256([]byte(s.servicesDir + "\x00" + s.encryptionKey))
}

var engines = struct {
	mu sync.Mutex
	m  map[string]*engine
}{m: make(map[string]*engine)}

// acquireEngine returns the engine of a data directory, an absolute path, and
// counts the caller. It opens nothing. If the last one there was is just being
// closed, it waits for that.
func acquireEngine(dir string) *engine {
	for {
		engines.mu.Lock()
		e, ok := engines.m[dir]
		if !ok {
			e = &engine{dir: dir, closed: make(chan struct{})}
			e.refs.Store(1)
			engines.m[dir] = e
			engines.mu.Unlock()
			return e
		}
		engines.mu.Unlock()
		if e.retain() {
			return e
		}
		<-e.closed
	}
}

// retain counts a caller on an engine; it returns false if the engine is gone.
func (e *engine) retain() bool {
	for {
		n := e.refs.Load()
		if n == 0 {
			return false
		}
		if e.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release takes back one count, and closes the state with the last.
func (e *engine) release() error {
	if e.refs.Add(-1) > 0 {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var err error
	if e.state != nil {
		err = e.state.Close()
	}
	engines.mu.Lock()
	delete(engines.m, e.dir)
	others := slices.Collect(maps.Values(engines.m))
	engines.mu.Unlock()
	if e.state != nil {
		for _, name := range e.state.ServiceNames() {
			if !slices.ContainsFunc(others, func(o *engine) bool { return o.has(name) }) {
				metrics.forget(name)
			}
		}
	}
	close(e.closed)
	return err
}

// has reports whether there is a service of a name.
func (e *engine) has(service string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state != nil && e.state.Has(service)
}

// errSettingsChanged is returned for a reload that changes what only a restart
// can.
var errSettingsChanged = errors.New("services_dir and encryption_key of a data directory in use cannot change in a reload; restart instead")

// check refuses settings that the open state cannot take. A configuration asks
// before any of its apps start: once they do, its servers take connections,
// which are lost if it does not come up.
func (e *engine) check(s engineSettings) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.suits(s)
}

// suits is check with the lock held.
func (e *engine) suits(s engineSettings) error {
	if e.state != nil && e.settings.digest() != s.digest() {
		return fmt.Errorf("%s: %w", e.dir, errSettingsChanged)
	}
	return nil
}

// open returns the state, opening it the first time.
func (e *engine) open(s engineSettings, logger *zap.Logger) (*vault.State, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.suits(s); err != nil {
		return nil, err
	}
	if e.state != nil {
		return e.state, nil
	}
	if s.audit == nil {
		s.audit = new(audit.Options)
	}
	log := *s.audit
	log.Callers = func() int { return int(e.refs.Load()) } // and the configurations, which are few
	st, err := vault.OpenState(context.Background(), vault.StateOptions{
		DataDir:       e.dir,
		ServicesDir:   s.servicesDir,
		EncryptionKey: s.encryptionKey,
		Audit:         log,
		ParseService:  upstream.ParseService,
		Logger:        logger,
		Now:           time.Now,
	})
	if err != nil {
		return nil, err
	}
	e.state, e.settings = st, s
	e.audits = append(e.audits, s.audit)
	return st, nil
}

// useAudit makes the settings of a configuration that starts those of the
// open log.
func (e *engine) useAudit(o *audit.Options) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Contains(e.audits, o) {
		e.audits = append(e.audits, o)
		e.state.Audit().Reconfigure(*o)
	}
}

// dropAudit takes the settings of a configuration away that is going.
func (e *engine) dropAudit(o *audit.Options) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.Index(e.audits, o)
	if i < 0 {
		return
	}
	e.audits = slices.Delete(e.audits, i, i+1)
	if n := len(e.audits); i == n && n > 0 {
		e.state.Audit().Reconfigure(*e.audits[n-1])
	}
}
