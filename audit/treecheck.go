package audit

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/tidwall/gjson"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// treeCheck holds a scan of the whole log to checkpoints: those that its own
// records are, and those that are known from elsewhere.
type treeCheck struct {
	verifier note.Verifier // nil: signatures are not looked at, nor the tree
	base     uint64        // how many records were dropped before the first
	from     chain         // where the log begins
	start    frontier      // the tree there
	tree     frontier
	wants    []want // not reached yet, the smallest first
	made     func(level int, index uint64, h tlog.Hash)
	seen     func(v *levels) // if set, is shown every block

	recent []stretch // the last blocks: a checkpoint is recorded behind its records
	late   []want    // checkpoints over less than is in recent
	pool   sync.Pool // of *levels

	found int    // checkpoints among the records
	good  uint64 // the size of the largest that holds
	last  Checkpoint
	work  uint64 // the last record that is no checkpoint
	bad   *Damage
}

// want is a checkpoint to be checked.
type want struct {
	Checkpoint
	file     string // where it was found
	seq      uint64 // its record; 0 if it is none
	external bool   // held elsewhere
}

// stretch is one block of the log and the tree before it.
type stretch struct {
	before frontier
	levels *levels
}

// recentBlocks is how much of the log is kept as hashes, some 40 kB each.
const recentBlocks = 160

// newTreeCheck begins behind what was dropped.
func newTreeCheck(v note.Verifier, from chain, start frontier, wants ...want) *treeCheck {
	slices.SortStableFunc(wants, func(a, b want) int { return cmp.Compare(a.Size, b.Size) })
	c := &treeCheck{verifier: v, base: start.n, from: from, start: start, tree: start, wants: wants, good: start.n}
	c.reached()
	return c
}

// take returns levels to be filled, and room for leaves.
func (c *treeCheck) take() (*levels, []tlog.Hash) {
	v, ok := c.pool.Get().(*levels)
	if !ok || len(v.rows) == 0 {
		return new(levels), nil
	}
	return v, v.rows[0][:0]
}

// join takes over the tree of a block that fits, and the records in it that
// are checkpoints.
func (c *treeCheck) join(v *levels, file string, lines func(yield func([]byte) bool)) {
	if len(c.recent) == recentBlocks {
		c.pool.Put(c.recent[0].levels)
		c.recent = slices.Delete(c.recent, 0, 1)
	}
	c.recent = append(c.recent, stretch{c.tree, v})
	c.tree.advance(v, v.hi, c.made)
	if c.seen != nil {
		c.seen(v)
	}
	idle := v.lo // up to here there are checkpoints alone, or what work knows of
	for line := range lines {
		c.record(line, file)
		if seq, _, _ := parseTail(line); seq != idle+1 {
			c.work = seq - 1
		}
		idle, _, _ = parseTail(line)
	}
	if idle < v.hi {
		c.work = v.hi
	}
	c.reached()
}

// reached checks what is wanted of the tree so far.
func (c *treeCheck) reached() {
	for len(c.wants) > 0 && c.wants[0].Size <= c.tree.n {
		w := c.wants[0]
		c.wants = c.wants[1:]
		if root, ok := c.rootAt(w.Size); ok {
			c.compare(w, root)
		}
	}
}

// record checks a record that is a checkpoint.
func (c *treeCheck) record(line []byte, file string) {
	c.found++
	if c.verifier == nil || c.bad != nil {
		return
	}
	seq, _, _ := parseTail(line)
	cp, err := openCheckpoint(gjson.GetBytes(line, "checkpoint").Str, c.verifier)
	switch {
	case err != nil:
		c.bad = &Damage{Seq: seq, Kind: Forged, File: file}
		return
	case cp.Size >= seq: // it was signed for more than stands before it
		c.bad = &Damage{Seq: c.good + 1, Last: cp.Size, Kind: Missing, File: file}
		return
	}
	c.last = cp
	w := want{Checkpoint: cp, file: file, seq: seq}
	if root, ok := c.rootAt(cp.Size); ok {
		c.compare(w, root)
	} else if cp.Size > c.base {
		c.late = append(c.late, w)
	}
}

// rootAt returns the hash of the tree over the first n records, if they end
// in what is kept.
func (c *treeCheck) rootAt(n uint64) (tlog.Hash, bool) {
	if n == c.tree.n {
		return c.tree.root(), true
	}
	for i := len(c.recent) - 1; i >= 0; i-- {
		if s := &c.recent[i]; n >= s.before.n && n <= s.levels.hi {
			f := s.before
			f.advance(s.levels, n, nil)
			return f.root(), true
		}
	}
	return tlog.Hash{}, false
}

// compare says what it means if a checkpoint does not hold.
func (c *treeCheck) compare(w want, root tlog.Hash) {
	switch {
	case c.bad != nil:
	case root == w.Root:
		if !w.external {
			c.good = max(c.good, w.Size)
		}
	case w.external:
		// What the log says of itself does not count against it.
		c.bad = &Damage{Seq: c.base + 1, Last: w.Size, Kind: Altered, File: w.file}
	case w.Size <= c.good: // a larger one holds
		c.bad = &Damage{Seq: w.seq, Kind: Forged, File: w.file}
	default:
		c.bad = &Damage{Seq: c.good + 1, Last: w.Size, Kind: Altered, File: w.file}
	}
}

// short returns the damage of a log that ends at record last, before a
// checkpoint that is wanted; nil if none is.
func (c *treeCheck) short(last uint64, size int64) *Damage {
	if c.bad != nil || len(c.wants) == 0 {
		return c.bad
	}
	w := c.wants[len(c.wants)-1]
	d := &Damage{Seq: last + 1, Last: w.Size, Kind: Truncated, File: currentName, Offset: size}
	if w.external && !slices.ContainsFunc(c.wants, func(w want) bool { return !w.external }) {
		d.Kind = RolledBack // its own checkpoint agrees with it
	}
	return d
}

// finish ends a scan that found the chain to hold up to record last, which
// ends at byte size of the current file.
func (c *treeCheck) finish(parts []openPart, last uint64, size int64) error {
	if d := c.short(last, size); d != nil {
		return d
	}
	if len(c.late) == 0 {
		return nil
	}
	// A busy queue may put a checkpoint's record far behind its records.
	again := newTreeCheck(nil, c.from, c.start, c.late...)
	from := c.from
	for i := range parts {
		s := scanner{size: parts[i].size, from: from, tree: again, name: parts[i].name}
		res, err := s.scan(parts[i].f)
		parts[i].rest()
		if err != nil {
			return fmt.Errorf("read %s: %w", parts[i].name, err)
		}
		if again.bad != nil {
			return again.bad
		}
		from = res.end
	}
	return nil
}
