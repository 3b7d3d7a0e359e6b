package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/tidwall/gjson"
	"go.uber.org/zap"
	"golang.org/x/mod/sumdb/note"
)

// open reads the log that is there, or begins one, and makes the writer
// ready to go on behind its last record.
func (w *writer) open() (err error) {
	w.base, w.digest = newBase(), newDigest()
	if err := w.openCheckpoints(); err != nil {
		return err
	}
	parts, err := w.prepare()
	if err != nil {
		return err
	}
	dropped, parts := w.base.leftOver(parts)
	keep := false
	defer func() {
		if keep {
			parts = parts[:len(parts)-1] // the current one stays open
		}
		closeParts(parts)
	}()
	if err := openAll(w.fs, w.l.opts.Dir, parts, w.fs.Open, true); err != nil {
		return err
	}
	calls := &openCalls{}
	recovered, err := w.replayAll(parts, calls)
	if err != nil {
		return err
	}
	if err := w.checkKeys(); err != nil {
		return err
	}
	for _, p := range dropped {
		if err := w.fs.Remove(p.name); err != nil {
			return fmt.Errorf("drop %s: %w", p.name, err)
		}
	}
	unknown, err := calls.unknown(parts)
	if err != nil {
		return err
	}

	cur := parts[len(parts)-1]
	if _, err := io.Copy(w.digest, io.NewSectionReader(cur.f, 0, cur.size)); err != nil {
		return fmt.Errorf("read %s: %w", cur.name, err)
	}
	keep = true
	w.file = newHandle(cur.f.(file)) // the last one never rests
	w.l.opens.Add(1)
	w.durable, w.lastDurable = cur.size, w.chain.seq
	for _, p := range parts[:len(parts)-1] {
		w.l.view.sealed = append(w.l.view.sealed, part{p.name, p.first, p.size})
	}
	w.l.view.turn(part{}, w.file, w.first, w.durable)
	w.l.seq.Store(w.chain.seq)
	// What is there was perhaps written by a process that was killed before
	// it could sync, and is about to be signed for.
	if err := errors.Join(w.file.Sync(), w.fs.SyncDir()); err != nil {
		return fmt.Errorf("sync %s: %w", currentName, err)
	}
	w.l.tree.begin(w.check.tree, w.check.work)
	w.check = nil // it holds the hashes of many records
	return w.begin(recovered, unknown)
}

// openCheckpoints reads the log's key and its newest checkpoint.
func (w *writer) openCheckpoints() (err error) {
	if w.keys, err = w.loadKeys(); err != nil {
		return err
	}
	signed, err := w.readSmall(checkpointName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case w.keys == nil:
		return w.keyMissing(checkpointName + " is signed with it")
	default:
		if w.checkpoint, err = openCheckpoint(signed, w.keys.verifier); err != nil {
			return &Damage{Kind: Forged, File: checkpointName}
		}
	}
	content, err := w.readSmall(droppedName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case w.keys == nil:
		return w.keyMissing(droppedName + " is signed with it")
	default:
		if w.base, err = openBase(content, w.keys.verifier); err != nil {
			return err
		}
		w.replayKept()
	}
	w.chain = w.base.chain
	w.check = newTreeCheck(w.verifier(), w.chain, w.base.tree, w.wants()...)
	return nil
}

func (w *writer) verifier() note.Verifier {
	if w.keys == nil {
		return nil
	}
	return w.keys.verifier
}

func (w *writer) wants() []want {
	if w.checkpoint.Note == "" {
		return nil
	}
	return []want{{Checkpoint: w.checkpoint, file: checkpointName}}
}

// checkKeys compares what the records said of checkpoints with the files,
// and makes the first key.
func (w *writer) checkKeys() (err error) {
	switch {
	case w.check.found > 0 && w.keys == nil:
		return w.keyMissing("some of its records are checkpoints")
	case w.check.found > 0 && w.checkpoint.Note == "":
		return fmt.Errorf("%s is missing, though some records of the log are checkpoints. Restore the file",
			filepath.Join(w.l.opts.Dir, checkpointName))
	case w.check.last.Size > w.checkpoint.Size: // a copy of the file that is older than the log
		w.checkpoint = w.check.last
	}
	if w.keys == nil && w.l.opts.CheckpointEvery > 0 {
		w.keys, err = w.makeKeys()
	}
	return err
}

// prepare puts the names in order and returns the parts, the current one
// last. It makes the current one if there is no log at all.
func (w *writer) prepare() ([]openPart, error) {
	sealed, current, temps, err := listParts(w.fs)
	if err != nil {
		return nil, err
	}
	for _, name := range temps {
		// Never more than a copy. What cannot be unlinked is not a file.
		_ = w.fs.Remove(name)
	}
	switch {
	case current:
		if sealed, err = undoLink(w.fs, sealed); err != nil {
			return nil, err
		}
	case len(sealed) > 0:
		last := &sealed[len(sealed)-1]
		if err := openAll(w.fs, w.l.opts.Dir, sealed[len(sealed)-1:], w.fs.Open, true); err != nil {
			return nil, err
		}
		defer last.f.Close()
		line, _, _, err := lastLine(last.f, last.size)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", last.name, err)
		}
		seq, _, _ := parseTail(line)
		return nil, fmt.Errorf("%s is missing, though there are sealed segments: %w",
			filepath.Join(w.l.opts.Dir, currentName), &Damage{Seq: max(seq, last.first) + 1, Kind: Missing, File: currentName})
	case w.checkpoint.Size > 0:
		return nil, fmt.Errorf("%s is missing, though there is a checkpoint: %w", filepath.Join(w.l.opts.Dir, currentName),
			&Damage{Seq: 1, Last: w.checkpoint.Size, Kind: Missing, File: currentName})
	default:
		f, err := w.fs.Create(currentName)
		if err != nil {
			return nil, err
		}
		if err = f.Close(); err == nil {
			err = w.fs.SyncDir()
		}
		if err != nil {
			_ = w.fs.Remove(currentName)
			return nil, err
		}
	}
	return append(sealed, openPart{name: currentName}), nil
}

// replayAll verifies every part. It moves a torn tail of the last one aside
// and returns the record of that, or nil.
func (w *writer) replayAll(parts []openPart, calls *openCalls) (*Record, error) {
	for i := range parts {
		p := &parts[i]
		s := scanner{size: p.size, from: w.chain, calls: calls, part: i, replay: w.l.opts.Replay, tree: w.check, name: p.name}
		res, damage, err := s.scanPart(parts, i)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", p.name, err)
		}
		last := i == len(parts)-1
		if last && i == 0 && res.records == 0 && p.size > 0 {
			line, err := lineAt(p.f, 0)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", p.name, err)
			}
			if isLegacy(line) {
				return nil, fmt.Errorf("%s was written by the older system, run: caddyvault vault import %s: %w",
					filepath.Join(w.l.opts.Dir, p.name), quote(w.l.opts.Dir), ErrLegacy)
			}
		}
		w.chain = res.end
		if res.records > 0 && last {
			w.first = res.end.seq - res.records + 1
		}
		if damage != nil && (!last || !damage.torn) {
			return nil, damage.Damage
		}
		if !last {
			continue
		}
		if err := w.check.finish(parts, w.chain.seq, res.good); err != nil {
			return nil, err
		}
		if damage != nil {
			return w.setAside(p, res)
		}
	}
	return nil, nil
}

// setAside moves a torn tail to a file of its own.
func (w *writer) setAside(p *openPart, res scanResult) (*Record, error) {
	rest := make([]byte, p.size-res.good)
	if _, err := p.f.ReadAt(rest, res.good); err != nil {
		return nil, fmt.Errorf("read %s: %w", p.name, err)
	}
	w.lastDurable = res.end.seq
	r, err := w.saveTorn(rest, "torn last line")
	f := p.f.(file)
	if err == nil {
		err = f.Truncate(res.good)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, fmt.Errorf("recover %s: %w", p.name, err)
	}
	w.l.opts.Logger.Warn("the audit log ended in a torn line, which was moved aside",
		zap.String("file", r.Name), zap.Int64("bytes", r.Size), zap.Uint64("last_seq", res.end.seq))
	p.size = res.good
	return r, nil
}

// begin writes what Open itself has to say.
func (w *writer) begin(recovered *Record, unknown []Record) error {
	now := w.l.opts.Now()
	if w.first > 0 {
		line, _, _, err := lastLine(w.file, w.durable)
		if err != nil {
			return fmt.Errorf("read %s: %w", currentName, err)
		}
		if ts, _, ok := parseHead(line); ok && now.UnixMilli() < ts-clockStep.Milliseconds() {
			w.clockSet(now, fmt.Sprintf("the clock is %.3f s before the last record", float64(ts-now.UnixMilli())/1000))
		}
	}
	if recovered != nil {
		recovered.Event = EventRecovered
		w.tail = w.appendOwn(w.tail, now, recovered)
	}
	for i := range unknown {
		w.tail = w.appendOwn(w.tail, now, &unknown[i])
	}
	if len(w.tail) == 0 {
		return nil
	}
	err := w.write()
	if err == nil && len(w.tail) > 0 { // Async
		if err = errors.Join(w.awaitSync(), w.file.Sync()); err == nil {
			w.settle(len(w.tail), w.chain.seq)
		}
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", currentName, err)
	}
	w.l.seq.Store(w.chain.seq)
	w.l.tree.worked(w.chain.seq)
	w.l.view.grow(w.first, w.durable)
	return nil
}

// found is damage in a part. Torn means that nothing follows it: the
// end of the file as a crash may leave it.
type found struct {
	*Damage
	torn bool
}

// scanPart verifies part i and says what is wrong with it, nil if nothing
// is. What is behind the result's good is not part of the chain.
func (s *scanner) scanPart(parts []openPart, i int) (scanResult, *found, error) {
	p := &parts[i]
	defer p.rest()
	res := scanResult{end: s.from, lastAt: -1}
	if p.size == 0 {
		if i == 0 && p.first == 0 {
			return res, nil, nil // a log that has just begun
		}
		return res, &found{Damage: &Damage{Seq: s.from.seq + 1, Kind: Truncated, File: p.name}}, nil
	}
	if p.first > 0 && p.first != s.from.seq+1 {
		line, err := lineAt(p.f, 0)
		if err != nil {
			return res, nil, err
		}
		if seq, _, ok := parseTail(line); ok && seq != p.first {
			return res, &found{Damage: &Damage{Seq: seq, Kind: Misnamed, File: p.name}}, nil
		}
	}
	if i == len(parts)-1 {
		// No later line vouches for the last one.
		line, off, whole, err := lastLine(p.f, p.size)
		if err != nil {
			return res, nil, err
		}
		if whole && !gjson.ValidBytes(line) {
			s.size = off
		}
	}
	res, err := s.scan(p.f)
	if err == nil && s.tree != nil && s.tree.bad != nil {
		return res, &found{Damage: s.tree.bad}, nil
	}
	if err != nil || res.good == p.size {
		return res, nil, err
	}
	d, err := s.diagnose(parts, i, res)
	return res, d, err
}
