package audit

import (
	"bytes"
	"io"

	"github.com/tidwall/gjson"
)

// diagnose says what is wrong with part i behind what a scan found good. It
// is slow, and needed once in a log's life.
func (s *scanner) diagnose(parts []openPart, i int, res scanResult) (*found, error) {
	p := &parts[i]
	want := res.end.seq + 1
	d := &Damage{Seq: want, File: p.name, Offset: res.good}
	line, err := lineAt(p.f, res.good)
	if err != nil {
		return nil, err
	}
	next := res.good + int64(len(line)) + 1 // where the next line begins
	if next > p.size {                      // no newline
		d.Kind = Truncated
		return &found{d, true}, nil
	}
	seq, prev, ok := parseTail(line)
	fits := ok && bytes.Equal(prev, res.end.hash[:])
	switch {
	case !ok || !gjson.ValidBytes(line):
		d.Kind = Altered
		follows, err := p.any(next, func(uint64) bool { return true })
		return &found{d, !follows}, err
	case fits:
		d.Kind = Altered // in the digits of its seq
	case seq == want:
		d.Kind = Altered
		return &found{Damage: d}, s.whichAltered(parts, i, res, line, next, d)
	case seq < want:
		d.Seq, d.Kind = seq, Duplicated
	default:
		d.Kind = Missing
		later, err := p.any(next, func(seq uint64) bool { return seq == want })
		if err != nil {
			return nil, err
		}
		if later {
			d.Kind = Reordered
		} else if res.good == 0 && i > 0 && !sealedMissing(line, parts[i-1].name) {
			d.Kind, d.File, d.Offset = Truncated, parts[i-1].name, parts[i-1].size
		}
	}
	return &found{Damage: d}, nil
}

// any reports whether a line from off on has a seq for which ok is true.
func (p *openPart) any(off int64, ok func(seq uint64) bool) (found bool, err error) {
	err = readLines(sectionAt{p.f, off}, p.size-off, func(_ int64, lines []byte) bool {
		for line := range linesOf(lines) {
			if seq, _, is := parseTail(line); is && ok(seq) {
				found = true
				return false
			}
		}
		return true
	})
	return found, err
}

// whichAltered tells which of two neighbours was altered when the second,
// line, does not name the hash of the first. If the line after them names
// the second's, that one is as it was.
func (s *scanner) whichAltered(parts []openPart, i int, res scanResult, line []byte, next int64, d *Damage) error {
	if res.end.seq == 0 || (i == 0 || s.anyPrev) && res.records == 0 {
		return nil // there is no first
	}
	after, at := &parts[i], next
	if next >= after.size && i+1 < len(parts) {
		after, at = &parts[i+1], 0
	}
	if at < after.size {
		l, err := lineAt(after.f, at)
		if err != nil {
			return err
		}
		h := hashLine(line)
		if _, prev, ok := parseTail(l); ok && !bytes.Equal(prev, h[:]) {
			return nil
		}
	}
	d.Seq = res.end.seq
	d.Offset = max(res.lastAt, 0)
	if res.records == 0 { // the last of the part before
		d.File = parts[i-1].name
		_, off, _, err := lastLine(parts[i-1].f, parts[i-1].size)
		d.Offset = off
		return err
	}
	return nil
}

// sealedMissing reports whether a segment that begins with line was preceded
// by another one than name.
func sealedMissing(line []byte, name string) bool {
	r := gjson.ParseBytes(line)
	return r.Get("event").Str == EventSegment && r.Get("name").Str != name
}

// sectionAt reads a file from an offset on.
type sectionAt struct {
	f   io.ReaderAt
	off int64
}

func (s sectionAt) ReadAt(b []byte, off int64) (int, error) { return s.f.ReadAt(b, s.off+off) }
