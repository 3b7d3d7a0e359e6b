package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/fsx"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"
)

// settle is how long a file must stay broken, or gone, before that is
// believed: editors truncate before they write, and move away before they
// move in.
const settle = 250 * time.Millisecond

// lookAgain is how many intervals of polling pass until a file is read again
// whose fault is elsewhere.
const lookAgain = 5

// itemSuffix ends the name of every file of a folder.
const itemSuffix = ".json"

// What the files of a folder may be called, less the suffix. An agent's id
// may have characters that a file's name cannot: they are percent-encoded, and
// upper case is among them, because some file systems do not tell it from
// lower case.
var (
	serviceName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	agentName   = regexp.MustCompile(`^(?:[a-z0-9]|%[0-9A-F]{2})(?:[a-z0-9._@-]|%[0-9A-F]{2}){0,239}$`)
)

// folder is a directory with one JSON file an entry: the services, the agents.
// The writer changes it; others read under Store.mu.
type folder struct {
	collection string // store.Services
	what       string // "service"
	pattern    *regexp.Regexp
	path       string

	dir      *fsx.Dir
	validate func(name string, data []byte) error
	again    time.Duration // until what is named elsewhere is looked at again
	looked   time.Time     // when it was; the watch's own
	byName   map[string]*item
}

// item is one file. It is replaced, not changed.
type item struct {
	rev   store.Rev
	value []byte // last good
	err   error  // why the file there now is not it
	seen  fingerprint

	// A broken or missing file waits here until it has settled.
	bad   fingerprint
	badAt time.Time
}

// open makes the directory if it is missing, and reads every file.
func (s *folder) open(fault fsx.Fault, rev *counter) error {
	if err := fsx.MakeDir(s.path); err != nil {
		return err
	}
	var err error
	if s.dir, err = fsx.OpenDir(s.path); err != nil {
		return err
	}
	s.dir.SetFault(fault)
	s.byName = map[string]*item{}
	if err := s.dir.RemoveTemps(); err != nil {
		return err
	}
	return s.loadAll(rev)
}

// loadAll reads every file at the start, when broken ones are believed at
// once.
func (s *folder) loadAll(rev *counter) error {
	names, err := s.names()
	if err != nil {
		return err
	}
	for _, f := range s.readAll(names) {
		if f.seen.gone {
			continue
		}
		v := &item{seen: f.seen, err: f.err}
		if f.err == nil {
			v.value = f.data
		}
		if v.rev, err = rev.next(); err != nil {
			return err
		}
		s.byName[f.name] = v
	}
	return nil
}

// loaded is a file as it was read at the start.
type loaded struct {
	name string
	seen fingerprint
	data []byte
	err  error // why it is broken
}

// readAll reads and checks files on every core: there may be thousands.
func (s *folder) readAll(names []string) []loaded {
	files := make([]loaded, len(names))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(files)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(files)); i = next.Add(1) - 1 {
				f := &files[i]
				f.name = names[i]
				f.seen, f.data, f.err = s.read(f.name)
			}
		})
	}
	workers.Wait()
	return files
}

// names returns the names there are files for, sorted. A name may be one that
// no entry can have.
func (s *folder) names() ([]string, error) {
	f, err := s.dir.Root().Open(".")
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.dir.Path(), err)
	}
	defer f.Close()
	all, err := f.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", s.dir.Path(), err)
	}
	var names []string
	for _, file := range all {
		if name, ok := strings.CutSuffix(file, itemSuffix); ok && !strings.HasPrefix(file, ".") && name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// look returns the fingerprint of the file of name.
func (s *folder) look(name string) fingerprint {
	fi, err := s.dir.Root().Lstat(name + itemSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return fingerprint{gone: true}
	}
	if err != nil {
		return fingerprint{} // reading it will say
	}
	return fingerprintOf(fi)
}

// read reads the file of name and checks it. An error says why it is broken.
func (s *folder) read(name string) (fingerprint, []byte, error) {
	fp, data, err := s.readFile(name)
	if err == nil {
		err = s.check(name, data)
	}
	return fp, data, err
}

// readFile reads the file of name.
func (s *folder) readFile(name string) (fingerprint, []byte, error) {
	fp := s.look(name)
	if fp.gone {
		return fp, nil, fs.ErrNotExist
	}
	if err := s.checkName(name); err != nil {
		return fp, nil, err
	}
	data, fi, err := s.dir.ReadRegular(name+itemSuffix, MaxService)
	if errors.Is(err, fs.ErrNotExist) {
		return fingerprint{gone: true}, nil, fs.ErrNotExist
	}
	if fi != nil {
		// Of what was read; a change while reading shows at the next look.
		fp = fingerprintOf(fi)
	}
	return fp, data, err
}

func (s *folder) checkName(name string) error {
	if s.pattern.MatchString(name) {
		return nil
	}
	article := "a"
	if strings.ContainsRune("aeiou", rune(s.what[0])) {
		article = "an"
	}
	return fmt.Errorf("%q cannot be the name of %s %s (%s)", name, article, s.what, s.pattern)
}

// check decides whether data can be the file of name.
func (s *folder) check(name string, data []byte) error {
	if err := s.checkName(name); err != nil {
		return err
	}
	var v jsontext.Value
	if len(data) > MaxService {
		return fmt.Errorf("larger than %d bytes", MaxService)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if v.Kind() != '{' {
		return errors.New("not a JSON object")
	}
	if s.validate != nil {
		return s.validate(name, data)
	}
	return nil
}

func (s *folder) entry(name string, v *item) store.Entry {
	return store.Entry{Key: s.collection + name, Value: slices.Clone(v.value), Rev: v.rev, Err: v.err}
}

func (s *folder) get(key string) (store.Entry, bool) {
	name := strings.TrimPrefix(key, s.collection)
	v, ok := s.byName[name]
	if !ok || v.rev == 0 {
		return store.Entry{}, false
	}
	return s.entry(name, v), true
}

func (s *folder) each(f func(store.Entry) bool) {
	for name, v := range s.byName {
		if v.rev != 0 && !f(store.Entry{Key: s.collection + name, Value: v.value, Rev: v.rev, Err: v.err}) {
			return
		}
	}
}

// changed returns those names, and those known, whose files must be looked
// at again; with elsewhere also those whose fault may have been mended
// elsewhere. Under Store.mu.
func (s *folder) changed(names []string, elsewhere bool) (todo []string) {
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
		if v := s.byName[name]; v == nil || s.look(name) != v.seen || elsewhere && errors.Is(v.err, store.ErrElsewhere) {
			todo = append(todo, name)
		}
	}
	for name := range s.byName {
		if !there[name] {
			todo = append(todo, name)
		}
	}
	return todo
}

// still reports whether a file is as it was, and its fault elsewhere, though
// maybe for another cause.
func (v *item) still(fp fingerprint, err error) bool {
	return store.Cause(err) != nil && v.rev != 0 && fp == v.seen && errorText(err) == errorText(v.err)
}

// news reads files and returns the names of those that the writer has to take
// in. What a file names may take time to read: that is spent here, and not in
// the writer, for which revocations wait.
func (s *folder) news(names []string, mu sync.Locker) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		fp, _, err := s.read(name)
		mu.Lock()
		v := s.byName[name]
		mu.Unlock()
		return v != nil && v.still(fp, err) && errorText(store.Cause(err)) == errorText(store.Cause(v.err))
	})
}

// takeItem takes in what somebody else did to the file of name: one event for
// each change of what is in use or reported. With settled, bad news is only
// believed after a while.
func (s *Store) takeItem(d *folder, name string, settled bool) {
	cur := d.byName[name]
	fp, data, err := d.read(name)
	if cur == nil {
		if fp.gone {
			return
		}
		cur = &item{}
	}
	next := *cur
	if cur.still(fp, err) {
		s.log.Error(d.what+" file is still broken", zap.String(d.what, name), zap.Error(err), zap.NamedError("cause", store.Cause(err)))
		next.err = err
		s.locked(func() { d.byName[name] = &next }) // no news but for the log
		return
	}
	if err != nil {
		if fp != next.bad || next.badAt.IsZero() {
			next.bad, next.badAt = fp, time.Now()
		}
		if settled && time.Since(next.badAt) < settle {
			s.locked(func() { d.byName[name] = &next })
			return
		}
	}
	next.seen, next.bad, next.badAt = fp, fingerprint{}, time.Time{}
	key := d.collection + name
	if fp.gone && cur.rev == 0 {
		s.locked(func() { delete(d.byName, name) })
		return
	}
	if !fp.gone && cur.rev != 0 && errorText(err) == errorText(cur.err) && (err != nil || string(data) == string(cur.value)) {
		s.locked(func() { d.byName[name] = &next }) // no news
		return
	}
	rev, rerr := s.rev.next()
	if rerr != nil {
		s.log.Error("a change of a file was not taken in", zap.String(d.what, name), zap.Error(rerr))
		return
	}
	if fp.gone {
		s.log.Info(d.what+" file is gone", zap.String(d.what, name))
		s.apply(func() { delete(d.byName, name) },
			store.Event{Type: store.Delete, Entry: store.Entry{Key: key, Rev: rev}})
		return
	}
	next.rev, next.err = rev, err
	if err == nil {
		next.value = data
		s.log.Info(d.what+" file changed", zap.String(d.what, name))
	} else {
		s.log.Error(d.what+" file is broken; the last good version stays in use",
			zap.String(d.what, name), zap.Bool("lastGood", next.value != nil), zap.Error(err), zap.NamedError("cause", store.Cause(err)))
	}
	s.apply(func() { d.byName[name] = &next }, store.Event{Type: store.Put, Entry: d.entry(name, &next)})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// commitItem does a Put or Delete of a file in d.
func (s *Store) commitItem(d *folder, o *op) (store.Rev, error) {
	name := strings.TrimPrefix(o.key, d.collection)
	if v := d.byName[name]; o.kind == opPut || v != nil {
		// A hand edit not noticed yet comes first, so that it is not lost.
		if v == nil || d.look(name) != v.seen {
			s.takeItem(d, name, false)
		}
	}
	cur, ok := d.get(o.key)
	if err := s.compare(o, cur, ok); err != nil {
		return 0, err
	}
	if err := d.safe(); err != nil {
		return 0, err
	}
	rev, err := s.rev.next()
	if err != nil {
		return 0, err
	}
	if o.kind == opDelete {
		if err := d.dir.Remove(name + itemSuffix); err != nil {
			return 0, err
		}
		s.apply(func() { delete(d.byName, name) }, o.event(rev))
		return rev, nil
	}
	if err := d.dir.WriteAtomic(name+itemSuffix, o.value, 0o600); err != nil {
		return 0, err
	}
	// Without a fingerprint the file is read once more at the next look,
	// which finds the same bytes: no second event.
	s.apply(func() { d.byName[name] = &item{rev: rev, value: o.value} }, o.event(rev))
	return rev, nil
}

// safe refuses the directory while others can write it.
func (s *folder) safe() error {
	fi, err := s.dir.Root().Stat(".")
	if err != nil {
		return fmt.Errorf("%s: %w", s.dir.Path(), err)
	}
	return fsx.CheckUnwritable(s.dir.Path(), fi)
}

// replaced reports whether the path now leads to another directory than the
// one that is open.
func (s *folder) replaced() bool {
	now, err := os.Stat(s.dir.Path())
	if err != nil {
		return false // gone for now; what was read stays
	}
	open, err := s.dir.Root().Stat(".")
	return err != nil || !os.SameFile(now, open)
}
