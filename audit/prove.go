package audit

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Proof shows that a record is in the log that a checkpoint was signed for,
// to somebody who has the log's public key and nothing else.
type Proof struct {
	// Seq is the record's number, and Record its line.
	Seq    uint64 `json:"seq"`
	Record string `json:"record"`

	// Hashes are the audit path of RFC 6962, section 2.1.1, from the leaf
	// with the index Seq-1 to the root.
	Hashes []tlog.Hash `json:"hashes"`

	// Checkpoint is the signed note.
	Checkpoint string `json:"checkpoint"`
}

// errProof says that a proof shows nothing.
var errProof = errors.New("the proof does not hold: the record is not the one that the checkpoint was signed for")

// Check reports whether the proof holds under a public key.
func (p *Proof) Check(key string) error {
	v, err := ParseKey(key)
	if err != nil {
		return err
	}
	c, err := openCheckpoint(p.Checkpoint, v)
	if err != nil {
		return fmt.Errorf("the checkpoint of the proof: %w", err)
	}
	seq, _, ok := parseTail([]byte(p.Record))
	if !ok || seq != p.Seq || seq > c.Size {
		return errProof
	}
	leaf := leafHash(sha256.Sum256([]byte(p.Record)))
	if tlog.CheckRecord(p.Hashes, int64(c.Size), c.Root, int64(seq-1), leaf) != nil {
		return errProof
	}
	return nil
}

// treeNode names a subtree of 1<<level leaves.
type treeNode struct {
	level int
	index uint64
}

// Prove verifies the log in dir as VerifyWith does, and proves the record
// with a number by the newest checkpoint.
func Prove(dir string, seq uint64, o VerifyOptions) (Proof, error) {
	d, err := openDir(dir)
	if err != nil {
		return Proof{}, fmt.Errorf("prove: %w", err)
	}
	defer d.Close()
	v := verification{fs: d, dir: dir, o: o, prove: seq}
	err = v.run()
	var p Proof
	if err == nil {
		p, err = v.proof()
	}
	closeParts(v.parts)
	if err != nil {
		return Proof{}, fmt.Errorf("prove: %w", err)
	}
	return p, nil
}

// pickNodes notes which subtrees the proof is made of.
func (v *verification) pickNodes() error {
	own := v.report.Own.Size
	switch {
	case own == 0:
		return errors.New("there is no audit.checkpoint to prove anything by")
	case v.prove == 0 || v.prove <= v.report.Dropped:
		return fmt.Errorf("there is no record %d: the log begins with %d", v.prove, v.report.Dropped+1)
	case v.prove > own:
		return fmt.Errorf("record %d has no checkpoint over it, the newest is over %d records", v.prove, own)
	}
	pick := make(map[treeNode]tlog.Hash)
	_, _ = tlog.ProveRecord(int64(own), int64(v.prove-1), tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		for _, x := range indexes {
			level, n := tlog.SplitStoredHashIndex(x)
			pick[treeNode{level, uint64(n)}] = tlog.Hash{}
		}
		return nil, errProof
	}))
	c := v.check
	found := func(level int, index uint64, h tlog.Hash) {
		if _, ok := pick[treeNode{level, index}]; ok {
			pick[treeNode{level, index}] = h
		}
	}
	for l := range 64 { // what was dropped
		if c.start.n>>l&1 == 1 {
			found(l, c.start.n>>l-1, c.start.hash[l])
		}
	}
	c.made = found
	c.seen = func(levels *levels) {
		for n := range pick {
			if h, ok := levels.node(n.level, n.index); ok {
				pick[n] = h
			}
		}
	}
	v.pick = pick
	return nil
}

// proof puts the proof together, after the scan.
func (v *verification) proof() (Proof, error) {
	p := Proof{Seq: v.prove, Checkpoint: v.report.Own.Note}
	var err error
	p.Hashes, err = tlog.ProveRecord(int64(v.report.Own.Size), int64(v.prove-1), tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			level, n := tlog.SplitStoredHashIndex(x)
			out[i] = v.pick[treeNode{level, uint64(n)}]
		}
		return out, nil
	}))
	if err != nil {
		return p, err
	}
	for i, s := range v.report.Segments {
		if v.prove < s.First || v.prove > s.Last {
			continue
		}
		off, err := seekSeq(v.parts[i].f, s.Size, v.prove)
		if err != nil {
			return p, err
		}
		line, err := lineAt(v.parts[i].f, off)
		if err != nil {
			return p, err
		}
		p.Record = string(line)
	}
	return p, p.Check(v.report.Key)
}
