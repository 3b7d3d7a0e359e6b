package audit

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// droppedName is the file that stands for the segments that retention has
// dropped. It is written before they go.
const droppedName = "audit.dropped"

// MinKeep is the least age of a record that retention drops: what a token
// that lives can still have to do with is never dropped.
const MinKeep = time.Hour

// clockPause is how long nothing is dropped by its age after the clock has
// jumped: it may jump back.
const clockPause = 24 * time.Hour

// base is where a log begins: nowhere, or behind what was dropped.
type base struct {
	chain chain
	tree  frontier
	kept  []string // lines of what was dropped that are still needed, in their order
	note  string
}

func newBase() base { return base{chain: newChain()} }

// droppedFile is the content of droppedName. The note is a checkpoint over
// all that was dropped, which also says where the chain goes on and what the
// kept lines are.
type droppedFile struct {
	Note  string      `json:"note"`
	Peaks []tlog.Hash `json:"peaks"`
	Kept  []string    `json:"kept"`
}

// extra is what the note says beside the checkpoint.
func (b *base) extra() string {
	sum := sha256.Sum256([]byte(strings.Join(b.kept, "\n")))
	return "chain " + base64.StdEncoding.EncodeToString(b.chain.sum[:]) + "\nkept " + hex.EncodeToString(sum[:]) + "\n"
}

// encode returns the content of droppedName, signed.
func (b *base) encode(s note.Signer) (string, error) {
	c := Checkpoint{Size: b.tree.n, Root: b.tree.root()}
	signed, err := note.Sign(&note.Note{Text: c.text(s.Name()) + b.extra()}, s)
	if err != nil {
		return "", err
	}
	b.note = string(signed)
	content, err := json.MarshalIndent(droppedFile{b.note, b.tree.peaks(), b.kept}, "", "\t")
	return string(content) + "\n", err
}

// openBase is the opposite of encode. It believes what v has signed.
func openBase(content string, v note.Verifier) (base, error) {
	forged := &Damage{Kind: Forged, File: droppedName}
	var f droppedFile
	if json.Unmarshal([]byte(content), &f) != nil {
		return base{}, forged
	}
	c, extra, err := openNote(f.Note, v)
	if err != nil {
		return base{}, forged
	}
	b := base{kept: f.Kept, note: f.Note}
	var ok bool
	if b.tree, ok = newFrontier(c.Size, f.Peaks); !ok || b.tree.root() != c.Root {
		return base{}, forged
	}
	sum, _, _ := strings.Cut(strings.TrimPrefix(extra, "chain "), "\n")
	raw, err := base64.StdEncoding.DecodeString(sum)
	if err != nil || len(raw) != sha256.Size {
		return base{}, forged
	}
	b.chain = chainAt(c.Size, [sha256.Size]byte(raw))
	if b.extra() != extra {
		return base{}, forged
	}
	return b, nil
}

// leftOver splits off the parts that were dropped already.
func (b *base) leftOver(parts []openPart) (gone, rest []openPart) {
	n := 0
	for n < len(parts) && parts[n].first > 0 && parts[n].first <= b.chain.seq {
		n++
	}
	return parts[:n], parts[n:]
}

// retain drops the oldest segments that Keep… do not keep.
func (k *keeper) retain() error {
	for {
		set := k.l.set.Load()
		if set.KeepFor <= 0 && set.KeepBytes <= 0 || k.keys == nil {
			return nil
		}
		v := k.l.view.snapshot()
		if v.cur == nil {
			return nil
		}
		p, yes, err := k.due(v, set)
		if yes && err == nil {
			yes, err = k.drop(v, p)
		}
		v.cur.release()
		if !yes || err != nil {
			return err
		}
	}
}

// due reports whether the oldest segment is to be dropped.
func (k *keeper) due(v snapshot, set *Options) (p part, yes bool, err error) {
	if len(v.sealed) == 0 || k.blocked == len(v.sealed) && k.blockedFirst == v.sealed[0].first {
		return p, false, nil
	}
	p = v.sealed[0]
	last := v.first - 1
	if len(v.sealed) > 1 {
		last = v.sealed[1].first - 1
	} else if v.first == 0 {
		return p, false, nil
	}
	if c := k.last.Load(); c == nil || c.Size < last {
		return p, false, nil
	}
	if k.newestOf != p.first {
		f, err := k.fs.OpenRead(p.name)
		if err != nil {
			return p, false, err
		}
		line, _, _, err := lastLine(f, p.size)
		_ = f.Close()
		if err != nil {
			return p, false, err
		}
		ts, _, _ := parseHead(line)
		k.newestOf, k.newest = p.first, time.UnixMilli(ts)
	}
	age := k.l.opts.Now().Sub(k.newest)
	if age < MinKeep {
		return p, false, nil
	}
	total := v.size
	for _, p := range v.sealed {
		total += p.size
	}
	jumped := k.l.jumped.Load()
	old := set.KeepFor > 0 && age > set.KeepFor && (jumped == 0 || time.Since(k.l.start)-time.Duration(jumped) > clockPause)
	return p, old || set.KeepBytes > 0 && total > set.KeepBytes, nil
}

// errOldest says that the oldest segment is not what it was.
var errOldest = errors.New("the oldest segment is damaged, and is not dropped")

// drop drops the oldest segment, unless a call in it is still open.
func (k *keeper) drop(v snapshot, p part) (bool, error) {
	next := base{kept: slices.Clone(k.base.kept)}
	calls := &openCalls{}
	tree := newTreeCheck(nil, k.base.chain, k.base.tree)
	s := scanner{size: p.size, workers: 1, from: k.base.chain, calls: calls, replay: k.l.opts.keeping(&next.kept), tree: tree}
	res, err := k.scan(p, s)
	if err != nil {
		return false, err
	}
	if res.good != p.size {
		return false, fmt.Errorf("%s: %w", p.name, errOldest)
	}
	next.chain, next.tree = res.end, tree.tree
	if open, err := k.open(v, calls, res.end); err != nil || open {
		k.blocked, k.blockedFirst = len(v.sealed), p.first
		return false, err
	}
	content, err := next.encode(k.keys.signer)
	if err == nil {
		err = writeSmall(k.fs, droppedName, content)
	}
	if err != nil {
		return false, err
	}
	k.l.view.drop(p)
	k.base = next
	if err := k.fs.Remove(p.name); err != nil {
		return false, err // the next start does it
	}
	_ = k.l.Enqueue(Entry{Record: Record{Event: EventDropped, Name: p.name, Size: p.size, FirstSeq: p.first, LastSeq: res.end.seq}})
	k.l.opts.Logger.Info("audit segment dropped", zap.String("name", p.name), zap.Uint64("first_seq", p.first), zap.Uint64("last_seq", res.end.seq))
	return true, k.fs.SyncDir()
}

func (k *keeper) scan(p part, s scanner) (scanResult, error) {
	f, err := k.fs.OpenRead(p.name)
	if err != nil {
		return scanResult{}, err
	}
	defer f.Close()
	return s.scan(f)
}

// open reports whether one of the oldest segment's calls has no end in what
// follows.
func (k *keeper) open(v snapshot, calls *openCalls, from chain) (bool, error) {
	for i, p := range v.sealed[1:] {
		if !calls.in(0) {
			return false, nil
		}
		res, err := k.scan(p, scanner{size: p.size, workers: 1, from: from, calls: calls, part: i + 1})
		if err != nil {
			return false, err
		}
		from = res.end
	}
	if calls.in(0) && v.first > 0 {
		s := scanner{size: v.size, workers: 1, from: from, calls: calls, part: len(v.sealed)}
		if _, err := s.scan(v.cur); err != nil {
			return false, err
		}
	}
	return calls.in(0), nil
}

// keeping returns what collects, in a scan, the lines that are needed when
// their segment is gone.
func (o *Options) keeping(kept *[]string) map[string]func([]byte) {
	key := func(line []byte) (string, bool) {
		_, event, _ := parseHead(line)
		if f := o.Carry[string(event)]; f != nil {
			return f(line)
		}
		return "", false
	}
	m := make(map[string]func([]byte), len(o.Carry))
	for event := range o.Carry {
		m[event] = func(line []byte) {
			k, keep := key(line)
			if k == "" {
				return
			}
			*kept = slices.DeleteFunc(*kept, func(old string) bool { have, _ := key([]byte(old)); return have == k })
			if keep {
				*kept = append(*kept, string(line))
			}
		}
	}
	return m
}

// replayKept replays the kept lines of what was dropped.
func (w *writer) replayKept() {
	for _, line := range w.base.kept {
		_, event, _ := parseHead([]byte(line))
		if f := w.l.opts.Replay[string(event)]; f != nil {
			f([]byte(line))
		}
	}
}
