package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Report is what Verify found.
type Report struct {
	// Records is how many records are good, from the first on.
	Records uint64

	// LastSeq and LastHash are those of the last good record. LastHash is
	// what the next record would name as prev.
	LastSeq  uint64
	LastHash string

	// Segments are the files looked at, in their order.
	Segments []SegmentReport

	// Key is the public key under which checkpoints were looked at, empty if
	// there was none. KeyUnproven says that it lay beside the log.
	Key         string
	KeyUnproven bool

	// Own is the checkpoint in the directory, Checkpoints how many the
	// records hold, and Checked how many records those cover.
	// Dropped is how many records were dropped before the first, as the log's
	// key has signed.
	Dropped uint64

	Own         Checkpoint
	Checkpoints int
	Checked     uint64
}

// SegmentReport is one file of a log.
type SegmentReport struct {
	Name  string
	First uint64 // its first seq
	Last  uint64
	Size  int64 // bytes that belong to the chain

	// Repeated is how many bytes at the end of the file are again at the
	// beginning of the next, because a write failed here.
	Repeated int64
}

// VerifyOptions are how a log is verified. The zero value looks at the chain
// and, under the key in the directory, at checkpoints.
type VerifyOptions struct {
	// Key is the log's public key, known from elsewhere. Without, the one in
	// the directory is believed, and who could change the log could change
	// that.
	Key string

	// Checkpoints are signed notes that somebody else has kept.
	Checkpoints []string

	// Progress, if set, is told how many bytes of how many are done.
	Progress func(done, total int64)
}

// Verify is VerifyWith without options but progress.
func Verify(dir string, progress func(done, total int64)) (Report, error) {
	return VerifyWith(dir, VerifyOptions{Progress: progress})
}

// VerifyWith checks the log in dir without changing anything. It works on
// copies.
//
// The error is a *Damage if the log is not what was written; it names the
// first bad record. The chain alone does not show that whole records at the
// end are missing, that the last one was altered, or that all of it was
// written anew: checkpoints do, as far as they reach.
func VerifyWith(dir string, o VerifyOptions) (Report, error) {
	d, err := openDir(dir)
	if err != nil {
		return Report{}, fmt.Errorf("verify audit log: %w", err)
	}
	defer d.Close()
	v := verification{fs: d, dir: dir, o: o}
	err = v.run()
	closeParts(v.parts)
	if err != nil {
		return v.report, fmt.Errorf("verify audit log: %w", err)
	}
	return v.report, nil
}

// verification is one run of VerifyWith.
type verification struct {
	fs      fsys
	dir     string
	o       VerifyOptions
	parts   []openPart
	current bool // the newest segment is among the parts
	check   *treeCheck
	report  Report

	prove uint64 // the record to be proved, 0 for none
	pick  map[treeNode]tlog.Hash
}

func (v *verification) run() error {
	// Of a log that grows, the checkpoint must not be newer than the rest.
	signed, err := v.read(checkpointName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := v.open(); err != nil {
		return err
	}
	if err := v.loadCheckpoints(signed); err != nil {
		return err
	}
	if v.prove != 0 {
		if err := v.pickNodes(); err != nil {
			return err
		}
	}
	if err := v.scan(); err != nil {
		return err
	}
	r := &v.report
	r.Checked, r.Checkpoints = v.check.good, v.check.found
	if v.o.Key != "" && r.Records > 0 && v.check.found == 0 && r.Own.Size == 0 && len(v.o.Checkpoints) == 0 {
		return fmt.Errorf("the log has no checkpoint, and nothing that was signed with the key: %w",
			&Damage{Kind: Missing, File: checkpointName})
	}
	return nil
}

// open finds and opens the files.
func (v *verification) open() (err error) {
	if v.parts, v.current, _, err = listParts(v.fs); err != nil {
		return err
	}
	if v.current {
		// A live log may have just been given its second name.
		if n := len(v.parts) - 1; n >= 0 {
			same, err := sameFile(v.fs, v.parts[n].name, currentName)
			if err != nil {
				return err
			}
			if same {
				v.parts = v.parts[:n]
			}
		}
		v.parts = append(v.parts, openPart{name: currentName})
	}
	if len(v.parts) == 0 {
		return fmt.Errorf("no audit log in %s", v.dir)
	}
	return openAll(v.fs, v.dir, v.parts, v.fs.OpenRead, false)
}

// loadCheckpoints reads the key and the checkpoints that are no records.
func (v *verification) loadCheckpoints(signed string) error {
	key := v.o.Key
	if key == "" {
		there, err := v.read(publicName)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		key, v.report.KeyUnproven = there, true
	}
	var verifier note.Verifier
	if key != "" {
		var err error
		if verifier, err = ParseKey(key); err != nil {
			return err
		}
		v.report.Key = strings.TrimSpace(key)
	}
	var wants []want
	var err error
	if signed != "" && verifier != nil {
		if v.report.Own, err = openCheckpoint(signed, verifier); err != nil {
			return &Damage{Kind: Forged, File: checkpointName}
		}
		wants = append(wants, want{Checkpoint: v.report.Own, file: checkpointName})
	}
	for _, signed := range v.o.Checkpoints {
		if verifier == nil {
			return fmt.Errorf("there is no %s, and a checkpoint needs a key to be believed", publicName)
		}
		c, err := openCheckpoint(signed, verifier)
		if err != nil {
			return fmt.Errorf("the checkpoint from elsewhere: %w", err)
		}
		wants = append(wants, want{Checkpoint: c, file: "a checkpoint from elsewhere", external: true})
	}
	b := newBase()
	content, err := v.read(droppedName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case verifier == nil:
		return fmt.Errorf("the log begins after dropped segments, and there is no %s to verify %s with: give the key", publicName, droppedName)
	default:
		if b, err = openBase(content, verifier); err != nil {
			return err
		}
		gone, rest := b.leftOver(v.parts)
		closeParts(gone)
		v.parts = rest
	}
	v.report.Dropped = b.chain.seq
	v.check = newTreeCheck(verifier, b.chain, b.tree, wants...)
	return nil
}

func (v *verification) read(name string) (string, error) {
	f, err := v.fs.OpenRead(name)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	return readNote(f, name)
}

// scan reads all of the log.
func (v *verification) scan() error {
	r := &v.report
	var total, done int64
	for _, p := range v.parts {
		total += p.size
	}
	c := v.check.from
	var good int64
	for i := range v.parts {
		p := &v.parts[i]
		s := scanner{size: p.size, from: c, tree: v.check, name: p.name}
		if v.o.Progress != nil {
			s.progress = func(n int64) {
				done += n
				v.o.Progress(done, total)
			}
		}
		res, bad, err := s.scanPart(v.parts, i)
		c, good = res.end, res.good
		r.Records += res.records
		r.LastSeq, r.LastHash = c.seq, string(c.hash[:])
		r.Segments = append(r.Segments, SegmentReport{
			Name: p.name, First: c.seq - res.records + 1, Last: c.seq, Size: res.good, Repeated: p.extra,
		})
		if err != nil {
			return fmt.Errorf("read %s: %w", p.name, err)
		}
		if bad != nil {
			return bad.Damage
		}
	}
	if !v.current {
		return &Damage{Seq: c.seq + 1, Kind: Missing, File: currentName}
	}
	return v.check.finish(v.parts, c.seq, good)
}
