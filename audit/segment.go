package audit

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Names in the directory.
const (
	currentName = "audit.log.jsonl"
	namePrefix  = "audit.log."
	nameSuffix  = ".jsonl"
	tornPrefix  = "audit.torn."
	tempPrefix  = "audit.tmp."
)

func sealedName(first uint64) string {
	return namePrefix + strconv.FormatUint(first, 10) + nameSuffix
}

// parseSealed returns the first seq that the name of a sealed segment gives.
func parseSealed(name string) (first uint64, ok bool) {
	digits, ok := strings.CutPrefix(name, namePrefix)
	if !ok {
		return 0, false
	}
	digits, ok = strings.CutSuffix(digits, nameSuffix)
	if !ok {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && first > 0 && sealedName(first) == name
}

func randomHex() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return hex.EncodeToString(b[:])
}

func (w *writer) tornName() string {
	return tornPrefix + strconv.FormatInt(w.l.opts.Now().UnixMilli(), 10) + "-" + randomHex()
}

// rotate seals the current segment because it is large enough. If that does
// not work nothing is lost: the segment grows until it does.
func (w *writer) rotate() {
	if w.dead != nil || w.first == 0 || time.Now().Before(w.rotateAgain) {
		return
	}
	err := w.awaitSync()
	if err == nil && len(w.tail) > 0 {
		if err = w.file.Sync(); err == nil {
			w.settle(len(w.tail), w.chain.seq)
		}
	}
	if err != nil {
		w.renewUntil(err)
		return
	}
	if err = w.turn(nil); err == nil {
		return
	}
	if w.unsyncedNames {
		w.renewUntil(err)
		return
	}
	w.rotateAgain = time.Now().Add(time.Second)
	w.l.opts.Logger.Warn("audit segment cannot be sealed yet", zap.Error(err))
}

// renew goes on in a new segment after something failed or was changed. The
// old file is only read, and verified, from here on.
func (w *writer) renew(cause error) error {
	// Its outcome does not matter: what it covers is written anew.
	if w.syncing {
		if err := <-w.syncDone; err != nil {
			w.l.opts.Logger.Debug("audit log: sync of what is written anew failed", zap.Error(err))
		}
		w.syncing = false
	}
	if w.unsyncedNames {
		return w.syncNames()
	}
	found, err := w.inspect()
	var damage *Damage
	if errors.As(err, &damage) {
		// What is lost stays lost. That it is must show for ever, though
		// the end of a file that was cut at a line's end looks like any.
		if terr := w.turn(nil); terr != nil {
			w.l.opts.Logger.Error("audit damage could not be recorded", zap.Error(terr))
		}
		return err
	}
	if err != nil {
		return err
	}
	if found == nil && errors.Is(cause, errChanged) {
		found = &Record{Reason: cause.Error()}
	}
	return w.turn(found)
}

// inspect verifies the current file as it is on disk. It saves bytes that
// are not ours and returns the record of that, or nil. A *Damage says that
// records once durable are gone.
func (w *writer) inspect() (*Record, error) {
	fi, err := w.file.Stat()
	if err != nil {
		return nil, err
	}
	if links(fi) > 1 && w.first > 0 { // the second may be an attempt's of ours
		if fi, err = w.unlinkOwn(fi); err != nil {
			return nil, err
		}
	}
	if n := links(fi); n > 1 {
		return nil, fmt.Errorf("%s has %d hard links, remove the others", currentName, n)
	}
	digest := newDigest()
	n, err := io.Copy(digest, io.NewSectionReader(w.file, 0, w.durable))
	if err != nil {
		return nil, err
	}
	if n < w.durable || !bytes.Equal(digest.Sum(nil), w.digest.Sum(nil)) {
		return nil, w.damage(n)
	}
	rest, err := io.ReadAll(io.NewSectionReader(w.file, w.durable, fi.Size()-w.durable))
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(w.tail, rest) {
		return nil, nil // they go on in the new segment
	}
	rest = rest[commonPrefix(rest, w.tail):]
	return w.saveTorn(rest, "bytes of unknown origin at the end of "+currentName)
}

// unlinkOwn removes the sealed name of the current file if an attempt to
// seal it has left that behind.
func (w *writer) unlinkOwn(fi fs.FileInfo) (fs.FileInfo, error) {
	name := sealedName(w.first)
	if !w.isNamed(w.file, name) || !w.isCurrent(w.file) {
		return fi, nil
	}
	if err := w.fs.Remove(name); err != nil {
		return nil, err
	}
	return w.file.Stat()
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// damage names the first record in the current file that is not what was
// written; n is how many bytes are left of those that were durable.
func (w *writer) damage(n int64) *Damage {
	d := &Damage{Seq: w.lastDurable, Kind: Altered, File: currentName}
	s := scanner{size: n, from: chain{seq: max(w.first, 1) - 1}, anyPrev: true}
	res, err := s.scan(w.file)
	switch {
	case err != nil:
	case res.good == n && n == w.durable:
		d.Offset = max(res.lastAt, 0) // the last one, which no other vouches for
	case res.good < n && n == w.durable:
		if f, err := s.diagnose([]openPart{{name: currentName, f: w.file, size: n}}, 0, res); err == nil {
			d = f.Damage
		}
	default:
		d.Seq, d.Kind, d.Offset = res.end.seq+1, Truncated, res.good
	}
	return d
}

// saveTorn writes bytes that are not part of the chain to a file of their
// own and returns the record that says so.
func (w *writer) saveTorn(b []byte, reason string) (*Record, error) {
	name := w.tornName()
	f, err := w.fs.Create(name)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = w.fs.SyncDir()
	}
	if err != nil {
		_ = w.fs.Remove(name)
		return nil, err
	}
	return &Record{Reason: reason, Name: name, Size: int64(len(b)), FirstSeq: w.lastDurable + 1}, nil
}

// turn seals the current segment and makes a new one current. The new one
// begins with the tail, byte for byte, then the record of the sealing, then,
// if given, of what was found. Its content is on disk before it gets the
// name, and the name is never free: a crash leaves the old segment or the
// new one.
func (w *writer) turn(found *Record) error {
	next := w.chain
	content := bytes.Clone(w.tail)
	sums := slices.Clone(w.sums)
	now := w.l.opts.Now()
	var sealed part
	if w.durable > 0 {
		sealed = part{sealedName(w.first), w.first, w.durable}
		content = appendOwn(content, &next, &sums, now, &Record{
			Event: EventSegment, Name: sealed.name, Size: sealed.size, SHA256: hex.EncodeToString(w.digest.Sum(nil)),
			FirstSeq: w.first, LastSeq: w.lastDurable,
		})
	}
	if found != nil {
		found.Event = EventRecovered
		content = appendOwn(content, &next, &sums, now, found)
	}
	temp := tempPrefix + randomHex()
	f, err := createWith(w.fs, temp, content)
	if err != nil {
		return err
	}
	if err := w.replace(temp, f, sealed); err != nil {
		_ = f.Close()
		return err
	}
	if fi, err := w.file.Stat(); err == nil && (fi.Size() > w.durable || w.allocated > w.durable) {
		// It gives back the room that it did not need. The new segment begins with what is cut off. Should the cut be
		// lost, the next start sees where the new one begins.
		_ = w.file.Truncate(w.durable)
	}

	w.file = newHandle(f)
	w.l.opens.Add(1)
	w.first = 0
	if len(content) > 0 {
		w.first = w.lastDurable + 1
	}
	w.chain, w.lastDurable, w.sums = next, next.seq, sums
	w.l.seq.Store(next.seq)
	w.durable, w.tail, w.written = int64(len(content)), nil, 0
	w.allocated = 0
	w.digest = newDigest()
	w.digest.Write(content)
	w.l.view.turn(sealed, w.file, w.first, w.durable)
	w.unsyncedNames = true
	return w.syncNames()
}

// appendOwn appends the line of a record that the writer itself has to say.
func appendOwn(dst []byte, c *chain, sums *[][sha256.Size]byte, now time.Time, r *Record) []byte {
	start := len(dst)
	dst = appendHead(dst, now.UnixMilli(), r.Event)
	dst, _ = r.appendRest(dst)
	dst = append(c.appendTail(dst, start), '\n')
	*sums = append(*sums, c.sum)
	return dst
}

func (w *writer) appendOwn(dst []byte, now time.Time, r *Record) []byte {
	return appendOwn(dst, &w.chain, &w.sums, now, r)
}

func (w *writer) syncNames() error {
	if err := w.fs.SyncDir(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	w.unsyncedNames = false
	w.grow()
	return nil
}

// createWith makes a file with a content that is on disk.
func createWith(d fsys, name string, content []byte) (file, error) {
	f, err := d.Create(name)
	if err != nil {
		return nil, err
	}
	if len(content) > 0 {
		n, werr := f.Write(content)
		if err = werr; err == nil && n < len(content) {
			err = io.ErrShortWrite
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		_ = f.Close()
		_ = d.Remove(name)
		return nil, err
	}
	return f, nil
}

// replace gives the current file the name of a sealed one, and temp, which
// is f, the name of the current.
func (w *writer) replace(temp string, f file, sealed part) (err error) {
	linked := false
	defer func() {
		if err == nil {
			return
		}
		// Take back what was done, but never the last name of a file.
		if linked && w.isCurrent(w.file) {
			_ = w.fs.Remove(sealed.name)
		}
		_ = w.fs.Remove(temp)
	}()
	mine := w.isCurrent(w.file)
	if sealed.name != "" {
		if err := w.vacate(sealed.name); err != nil {
			return err
		}
		if mine {
			linked = true
			err = w.fs.Link(currentName, sealed.name)
		} else {
			err = w.restore(sealed)
		}
		if err != nil {
			return err
		}
	}
	if !mine {
		if err := w.vacate(currentName); err != nil {
			return err
		}
	}
	if err := w.fs.Rename(temp, currentName); err != nil && !w.isCurrent(f) {
		return err
	}
	return nil
}

// isCurrent reports whether f is what the current name stands for.
func (w *writer) isCurrent(f file) bool { return w.isNamed(f, currentName) }

func (w *writer) isNamed(f file, name string) bool {
	fi, err := f.Stat()
	if err != nil {
		return false
	}
	cur, err := w.fs.Lstat(name)
	return err == nil && os.SameFile(fi, cur)
}

// vacate moves away a file that has a name we need and is not ours. A link
// to the current file that an earlier attempt has left is removed.
func (w *writer) vacate(name string) error {
	_, err := w.fs.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case name != currentName && w.isNamed(w.file, name) && w.isCurrent(w.file):
		return w.fs.Remove(name)
	}
	aside := w.tornName()
	w.l.opts.Logger.Warn("a foreign file has the name of an audit segment and is moved aside",
		zap.String("name", name), zap.String("to", aside))
	return w.fs.Rename(name, aside)
}

// restore writes the durable part of the current file, which has lost its
// name and perhaps every name, anew as a sealed segment.
func (w *writer) restore(sealed part) error {
	temp := tempPrefix + randomHex()
	f, err := w.fs.Create(temp)
	if err != nil {
		return err
	}
	_, err = io.Copy(struct{ io.Writer }{f}, io.NewSectionReader(w.file, 0, sealed.size))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = w.fs.Rename(temp, sealed.name)
	}
	if err != nil {
		_ = w.fs.Remove(temp)
	}
	return err
}
