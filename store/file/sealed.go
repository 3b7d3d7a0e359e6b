package file

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/fsx"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"
)

// sealedVersion is the format of secrets.enc. Version 1 is the older Node
// system's.
const sealedVersion = 2

// sealed is secrets.enc: secrets and keysets, encrypted by whoever stored
// them. The writer changes it; others read entries under Store.mu.
type sealed struct {
	dir   *fsx.Dir
	found bool      // there was a file at open
	rev   store.Rev // of the file at open

	entries map[string]store.Entry
	content []byte      // of the file, as last read or written
	seen    fingerprint // of the file when it was last looked at; under mu
	bad     fingerprint // of a file found damaged
	badAt   time.Time   // when it was first
	err     error       // why the file there now is not what entries say
}

// sealedDoc is the file.
type sealedDoc struct {
	V       int                    `json:"v"`
	Rev     store.Rev              `json:"rev"`
	Entries map[string]sealedEntry `json:"entries"`
}

// sealedEntry has its value as JSON if it is JSON, else in base64.
type sealedEntry struct {
	Rev     store.Rev      `json:"rev"`
	Expires int64          `json:"expires,omitzero"`
	Value   jsontext.Value `json:"value,omitzero"`
	Base64  *string        `json:"base64,omitzero"`
}

func openSealed(dir *fsx.Dir) (*sealed, error) {
	s := &sealed{dir: dir, entries: map[string]store.Entry{}}
	b, err := dir.ReadPrivate(sealedName)
	if errors.Is(err, fs.ErrNotExist) {
		s.seen = fingerprint{gone: true}
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s.found, s.content = true, b
	if s.entries, s.rev, err = parseSealed(b); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path(), err)
	}
	return s, nil
}

func (s *sealed) path() string { return filepath.Join(s.dir.Path(), sealedName) }

// look returns the fingerprint of the file there is now.
func (s *sealed) look() (fingerprint, error) {
	fi, err := s.dir.Root().Lstat(sealedName)
	if errors.Is(err, fs.ErrNotExist) {
		return fingerprint{gone: true}, nil
	}
	if err != nil {
		return fingerprint{}, err
	}
	return fingerprintOf(fi), nil
}

func parseSealed(b []byte) (map[string]store.Entry, store.Rev, error) {
	if isLegacy(b) {
		return nil, 0, ErrLegacy
	}
	if len(b) == 0 {
		return nil, 0, fmt.Errorf("%w: it is empty", ErrDamaged)
	}
	var doc sealedDoc
	if err := json.Unmarshal(b, &doc, json.RejectUnknownMembers(true)); err != nil {
		// Where it is, not what: the file holds ciphertexts only, but
		// somebody may have put something else there.
		var syntax *jsontext.SyntacticError
		if errors.As(err, &syntax) {
			return nil, 0, fmt.Errorf("%w at byte %d", ErrDamaged, syntax.ByteOffset)
		}
		return nil, 0, fmt.Errorf("%w: it is not what was written there", ErrDamaged)
	}
	if doc.V != sealedVersion || doc.Entries == nil || doc.Rev == 0 || doc.Rev > maxRev {
		return nil, 0, fmt.Errorf("%w: version %d, revision %d", ErrDamaged, doc.V, doc.Rev)
	}
	entries := make(map[string]store.Entry, len(doc.Entries))
	for key, d := range doc.Entries {
		e := store.Entry{Key: key, Rev: d.Rev, Value: d.Value, Expires: expiryTime(d.Expires)}
		c := store.Collection(key)
		ok := (c == store.Secrets || c == store.Keysets) && len(key) > len(c) && len(key) <= store.MaxKey &&
			d.Rev > 0 && d.Rev <= doc.Rev && d.Expires >= 0 && (d.Value == nil) == (d.Base64 != nil)
		if ok && d.Base64 != nil {
			v, err := base64.StdEncoding.Strict().DecodeString(*d.Base64)
			e.Value, ok = v, err == nil
		}
		if !ok {
			return nil, 0, fmt.Errorf("%w: entry %q", ErrDamaged, key)
		}
		entries[key] = e
	}
	return entries, doc.Rev, nil
}

// isLegacy reports whether b is a secrets.enc of the older Node system: a
// JSON object with v 1, as it is or in base64.
func isLegacy(b []byte) bool {
	b = bytes.TrimSpace(b)
	if raw, err := base64.StdEncoding.DecodeString(string(b)); err == nil && len(raw) > 0 {
		b = raw
	}
	var doc struct {
		V int `json:"v"`
	}
	return json.Unmarshal(b, &doc) == nil && doc.V == 1
}

// formatSealed returns the file, an entry a line. No newline ends it, so
// that a file cut anywhere is not JSON.
func formatSealed(entries map[string]store.Entry, rev store.Rev) ([]byte, error) {
	b := append([]byte(`{"v":`), strconv.Itoa(sealedVersion)...)
	b = append(b, `,"rev":`...)
	b = strconv.AppendUint(b, uint64(rev), 10)
	b = append(b, `,"entries":{`...)
	for i, key := range slices.Sorted(maps.Keys(entries)) {
		e := entries[key]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '\n')
		var err error
		if b, err = jsontext.AppendQuote(b, key); err != nil {
			return nil, fmt.Errorf("key: %w", store.ErrInvalid)
		}
		b = append(b, `:{"rev":`...)
		b = strconv.AppendUint(b, uint64(e.Rev), 10)
		if ms := expiryMillis(e.Expires); ms != 0 {
			b = append(b, `,"expires":`...)
			b = strconv.AppendInt(b, ms, 10)
		}
		if v := jsontext.Value(e.Value); v.IsValid() && string(bytes.TrimSpace(v)) == string(v) && v.Kind() == '{' {
			b = append(b, `,"value":`...)
			b = append(b, v...)
		} else {
			b = append(b, `,"base64":"`...)
			b = base64.StdEncoding.AppendEncode(b, e.Value)
			b = append(b, '"')
		}
		b = append(b, '}')
	}
	return append(b, "\n}}"...), nil
}

// commitSealed does a Put or Delete of a secret or keyset.
func (s *Store) commitSealed(o *op) (store.Rev, error) {
	// A hand edit not noticed yet comes first, so that it is not lost.
	s.takeSealed(false)
	if s.sealed.err != nil {
		return 0, s.sealed.err
	}
	cur, ok := s.sealed.entries[o.key]
	if err := s.compare(o, cur, ok); err != nil {
		return 0, err
	}
	rev, err := s.rev.next()
	if err != nil {
		return 0, err
	}
	ev := o.event(rev)
	now := s.opts.Now()
	entries := maps.Clone(s.sealed.entries)
	maps.DeleteFunc(entries, func(_ string, e store.Entry) bool { return e.Expired(now) })
	if delete(entries, o.key); o.kind == opPut {
		entries[o.key] = ev.Entry
	}
	b, err := formatSealed(entries, rev)
	if err != nil {
		return 0, err
	}
	if err := s.dir.WriteAtomic(sealedName, b, 0o600); err != nil {
		return 0, err
	}
	s.apply(func() {
		s.sealed.entries, s.sealed.content, s.sealed.seen = entries, b, fingerprint{}
	}, ev)
	return rev, nil
}

// takeSealed takes in what somebody else did to secrets.enc. A damaged file
// leaves everything as it is and is reported once it has settled; nothing is
// written over it. A missing one is written anew by the next Put, from
// memory.
func (s *Store) takeSealed(settled bool) {
	d := s.sealed
	fp, err := d.look()
	if err == nil && fp == d.seen {
		return
	}
	var entries map[string]store.Entry
	var b []byte
	switch {
	case err != nil:
	case fp.gone:
		s.log.Error("secrets.enc is gone; the secrets in memory stay in use, and the next change writes it anew",
			zap.String("file", d.path()))
		s.locked(func() { d.seen, d.err = fp, nil })
		return
	default:
		if b, err = d.dir.ReadPrivate(sealedName); err == nil && !bytes.Equal(b, d.content) {
			if entries, _, err = parseSealed(b); err != nil {
				err = fmt.Errorf("%s: %w", d.path(), err)
			}
		}
	}
	if err != nil {
		if fp != d.bad {
			d.bad, d.badAt = fp, time.Now()
		}
		if settled && time.Since(d.badAt) < settle {
			return // perhaps half-written: the next look decides
		}
		s.log.Error("secrets.enc was changed and is refused; the secrets in memory stay in use", zap.Error(err))
		s.locked(func() { d.seen, d.err = fp, err })
		return
	}
	if entries == nil { // the bytes are known
		s.locked(func() { d.seen, d.err = fp, nil })
		return
	}
	events, err := s.differences(entries)
	if err != nil {
		s.log.Error("a change of secrets.enc was not taken in", zap.Error(err))
		return
	}
	s.apply(func() { d.entries, d.content, d.seen, d.err = entries, b, fp, nil }, events...)
}

// differences gives each entry that is not as it was a new revision and
// returns the changes.
func (s *Store) differences(entries map[string]store.Entry) ([]store.Event, error) {
	var events []store.Event
	old := s.sealed.entries
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		e, was := entries[key], old[key]
		if was.Rev != 0 && bytes.Equal(e.Value, was.Value) && e.Expires.Equal(was.Expires) {
			e.Rev = was.Rev
		} else {
			rev, err := s.rev.next()
			if err != nil {
				return nil, err
			}
			e.Rev = rev
			events = append(events, store.Event{Type: store.Put, Entry: e})
		}
		entries[key] = e
	}
	for _, key := range slices.Sorted(maps.Keys(old)) {
		if _, ok := entries[key]; !ok {
			rev, err := s.rev.next()
			if err != nil {
				return nil, err
			}
			events = append(events, store.Event{Type: store.Delete, Entry: store.Entry{Key: key, Rev: rev}})
		}
	}
	return events, nil
}
