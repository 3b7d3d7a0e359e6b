package audit

import (
	"fmt"
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

// Verify checks the chain of the log in dir without changing anything. It
// works on copies. progress, if set, is told how many bytes of how many are
// done.
//
// The error is a *Damage if the log is not what was written; it names the
// first bad record. The chain alone does not show that whole records at the
// end are missing, that the last one was altered, or that all of it was
// written anew.
func Verify(dir string, progress func(done, total int64)) (Report, error) {
	d, err := openDir(dir)
	if err != nil {
		return Report{}, fmt.Errorf("verify audit log: %w", err)
	}
	defer d.Close()
	r, err := verify(d, dir, progress)
	if err != nil {
		return r, fmt.Errorf("verify audit log: %w", err)
	}
	return r, nil
}

func verify(d fsys, dir string, progress func(done, total int64)) (r Report, err error) {
	parts, current, _, err := listParts(d)
	if err != nil {
		return r, err
	}
	if current {
		// A live log may have just been given its second name.
		if n := len(parts) - 1; n >= 0 {
			if same, err := sameFile(d, parts[n].name, currentName); err != nil {
				return r, err
			} else if same {
				parts = parts[:n]
			}
		}
		parts = append(parts, openPart{name: currentName})
	}
	if len(parts) == 0 {
		return r, fmt.Errorf("no audit log in %s", dir)
	}
	defer func() { closeParts(parts) }()
	if err := openAll(d, dir, parts, d.OpenRead, false); err != nil {
		return r, err
	}
	var total, done int64
	for _, p := range parts {
		total += p.size
	}
	c := newChain()
	for i := range parts {
		p := &parts[i]
		s := scanner{size: p.size, from: c}
		if progress != nil {
			s.progress = func(n int64) {
				done += n
				progress(done, total)
			}
		}
		res, bad, err := s.scanPart(parts, i)
		c = res.end
		r.Records += res.records
		r.LastSeq, r.LastHash = c.seq, string(c.hash[:])
		r.Segments = append(r.Segments, SegmentReport{
			Name: p.name, First: c.seq - res.records + 1, Last: c.seq, Size: res.good, Repeated: p.extra,
		})
		if err != nil {
			return r, fmt.Errorf("read %s: %w", p.name, err)
		}
		if bad != nil {
			return r, bad.Damage
		}
	}
	if !current {
		return r, &Damage{Seq: c.seq + 1, Kind: Missing, File: currentName}
	}
	return r, nil
}
