package file

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/fsx"
	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// Between a notice and the look at the files, so that the several notices of
// one edit cost one look.
const debounce = 20 * time.Millisecond

// watchFiles looks at the files that people may edit: upon notices of the
// operating system, and in any case every so often, because notices get lost
// and some file systems have none.
func (s *Store) watchFiles() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	var events chan fsnotify.Event
	var errs chan error
	var notify *fsnotify.Watcher
	if !s.opts.noNotify {
		var err error
		if notify, err = fsnotify.NewWatcher(); err == nil {
			defer notify.Close()
			events, errs = notify.Events, notify.Errors
			for _, d := range s.folders {
				err = errors.Join(err, notify.Add(d.path))
			}
		}
		if err != nil {
			s.log.Warn("no notices of file changes; looking every so often", zap.Error(err))
		}
	}
	timer := time.NewTimer(s.opts.PollInterval)
	defer timer.Stop()
	next := time.Now().Add(s.opts.PollInterval)
	lookIn := func(d time.Duration) {
		if at := time.Now().Add(d); at.Before(next) {
			next = at
			timer.Reset(d)
		}
	}
	var lastErr string
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-events:
			if !ok {
				events = nil
			}
			lookIn(debounce)
			continue
		case _, ok := <-errs: // notices were lost
			if !ok {
				errs = nil
			}
			lookIn(debounce)
			continue
		case <-timer.C:
		}
		start := time.Now()
		waiting, err := s.scan(ctx, notify)
		if text := errorText(err); text != lastErr && ctx.Err() == nil {
			if lastErr = text; err != nil {
				s.log.Error("files of services or agents cannot be read; the last good ones stay in use", zap.Error(err))
			}
		}
		// A look at very many files may not become all there is to do.
		wait := max(s.opts.PollInterval, 20*time.Since(start))
		if waiting {
			wait = min(wait, settle+debounce)
		}
		next = time.Now().Add(wait)
		timer.Reset(wait)
	}
}

// scan looks for changed files and has the writer take them in. It reports
// whether one waits to settle.
func (s *Store) scan(ctx context.Context, notify *fsnotify.Watcher) (waiting bool, err error) {
	o := &op{kind: opScan}
	if fp, err := s.sealed.look(); err == nil {
		s.mu.RLock()
		o.sealed = fp != s.sealed.seen
		s.mu.RUnlock()
		waiting = o.sealed
	}
	for _, d := range s.folders {
		w, ferr := s.scanFolder(ctx, d, notify)
		waiting, err = waiting || w, errors.Join(err, ferr)
	}
	if o.sealed {
		if _, serr := s.submit(ctx, o); serr != nil {
			return false, serr
		}
	}
	return waiting, err
}

func (s *Store) scanFolder(ctx context.Context, d *folder, notify *fsnotify.Watcher) (waiting bool, err error) {
	if d.replaced() {
		if err := s.reopenFolder(ctx, d, notify); err != nil {
			return false, err
		}
	}
	if err := d.safe(); err != nil {
		return false, err
	}
	names, err := d.names()
	if err != nil {
		return false, err
	}
	again := time.Since(d.looked) >= d.again
	if again {
		d.looked = time.Now()
	}
	s.mu.RLock()
	o := &op{kind: opScan, folder: d, names: d.changed(names, again)}
	s.mu.RUnlock()
	if d.collection == store.Services {
		o.names = d.news(o.names, s.mu.RLocker())
	}
	if len(o.names) == 0 {
		return false, nil
	}
	if _, err := s.submit(ctx, o); err != nil {
		return false, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, name := range o.names {
		if v := d.byName[name]; v != nil && !v.badAt.IsZero() {
			waiting = true
		}
	}
	return waiting, nil
}

// reopenFolder follows the path to a directory that was put in the place of
// the one before.
func (s *Store) reopenFolder(ctx context.Context, d *folder, notify *fsnotify.Watcher) error {
	dir, err := fsx.OpenDir(d.path)
	if err != nil {
		return err
	}
	dir.SetFault(s.opts.fault)
	if notify != nil {
		_ = notify.Remove(d.path)
		if err := notify.Add(d.path); err != nil {
			s.log.Warn("no notices of file changes; looking every so often", zap.Error(err))
		}
	}
	fi, err := dir.Root().Stat(".")
	if err == nil {
		err = fsx.CheckUnwritable(d.path, fi)
	}
	if err != nil {
		_ = dir.Close()
		return fmt.Errorf("%ss: %w", d.what, err)
	}
	// The writer must not be in the middle of a write to the old one.
	_, err = s.submit(ctx, &op{kind: opScan, folder: d, dir: dir})
	if err != nil {
		_ = dir.Close()
	}
	return err
}
