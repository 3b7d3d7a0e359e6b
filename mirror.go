package caddyvault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
)

// A mirror hands every audit record to a logger of Caddy's. It follows the
// log on disk: a logger that blocks holds up the mirror and nothing else, and
// what it has not taken waits in the log.
type mirror struct {
	name   string
	logger *zap.Logger // of the configuration that wants the mirror

	cancel context.CancelFunc
	done   chan struct{}
}

const (
	mirrorMark = time.Second     // so often is kept how far the mirror has come
	mirrorWait = 2 * time.Second // for a logger that blocks, as the mirror stops
)

// mirrorLogger is the logger's name as Caddy takes it: that of a module.
type mirrorLogger string

// CaddyModule returns information with the logger's name as id.
func (m mirrorLogger) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: caddy.ModuleID(m), New: func() caddy.Module { return m }}
}

// newMirror returns nil if there is to be none.
func newMirror(ctx caddy.Context, a *Audit) (*mirror, error) {
	if a == nil || a.Mirror == "" {
		return nil, nil
	}
	if err := checkMirror(a.Mirror); err != nil {
		return nil, err
	}
	return &mirror{name: a.Mirror, logger: ctx.Logger(mirrorLogger(a.Mirror))}, nil
}

func checkMirror(name string) error {
	if !audit.ValidBookmark(name) {
		return fmt.Errorf("mirror: %q is not the name of a logger: letters, digits, '.', '_' and '-', at most 64", name)
	}
	return nil
}

// start starts the mirror where it has ended, also in another process.
func (m *mirror) start(log *audit.Log, warn *zap.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.done = cancel, make(chan struct{})
	done := m.done
	go func() {
		defer close(done)
		if err := m.run(ctx, log); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, audit.ErrClosed) {
			warn.Error("mirror of the audit log ended", zap.String("logger", m.name), zap.Error(err))
		}
	}()
}

// stop stops it, without waiting for long.
func (m *mirror) stop() {
	m.cancel()
	timer := time.NewTimer(mirrorWait)
	defer timer.Stop()
	select {
	case <-m.done:
	case <-timer.C:
	}
}

func (m *mirror) run(ctx context.Context, log *audit.Log) (err error) {
	after, err := log.Bookmark(m.name)
	if err != nil {
		return err
	}
	f, err := log.Follow(audit.FollowOptions{After: after, Apart: true})
	if err != nil {
		return err
	}
	defer f.Close()
	marked, last := time.Now(), after
	mark := func() {
		if last != after {
			if merr := log.SetBookmark(m.name, last); merr == nil {
				after = last
			}
		}
		marked = time.Now()
	}
	defer mark()
	for {
		wait, cancel := context.WithTimeout(ctx, mirrorMark)
		b, err := f.Next(wait)
		cancel()
		if err != nil && (!errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil) {
			return err
		}
		if b.Missing != [2]uint64{} {
			m.logger.Warn("audit records were dropped before they were mirrored",
				zap.Uint64("firstSeq", b.Missing[0]), zap.Uint64("lastSeq", b.Missing[1]))
		}
		for _, line := range b.Lines {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			seq, _ := audit.LineSeq(line)
			m.logger.Info(audit.LineEvent(line), zap.Uint64("seq", seq), zap.Reflect("record", json.RawMessage(line)))
			last = seq
		}
		last = max(last, b.Seq)
		if time.Since(marked) >= mirrorMark {
			mark()
		}
	}
}

// useMirror makes the mirror of a configuration that starts the one that
// runs; nil is for none.
func (e *engine) useMirror(m *mirror, warn *zap.Logger) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopMirror()
	e.mirrors = append(e.mirrors, m)
	e.startMirror(warn)
}

// dropMirror takes the mirror of a configuration away that is going. If that
// did not come up, the one before it goes on.
func (e *engine) dropMirror(m *mirror, warn *zap.Logger) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := len(e.mirrors) - 1
	for i >= 0 && e.mirrors[i] != m {
		i--
	}
	if i < 0 {
		return
	}
	running := i == len(e.mirrors)-1
	if running {
		e.stopMirror()
	}
	e.mirrors = slices.Delete(e.mirrors, i, i+1)
	if running {
		e.startMirror(warn)
	}
}

func (e *engine) stopMirror() {
	if n := len(e.mirrors); n > 0 && e.mirrors[n-1] != nil {
		e.mirrors[n-1].stop()
	}
}

func (e *engine) startMirror(warn *zap.Logger) {
	if n := len(e.mirrors); n > 0 && e.mirrors[n-1] != nil {
		e.mirrors[n-1].start(e.state.Audit(), warn)
	}
}
