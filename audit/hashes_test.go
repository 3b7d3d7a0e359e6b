package audit

import (
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// oneHashAtATime has the standard library hash until it is undone.
func oneHashAtATime() (undo func()) {
	was := wide
	wide = false
	return func() { wide = was }
}

// TestHashes holds hashing of many at once to crypto/sha256.
func TestHashes(t *testing.T) {
	t.Logf("many at once: %v", wide)
	data := make([]byte, 64<<10)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	lengths := map[string]func(i int) int{
		"each length": func(i int) int { return i },
		"alike":       func(i int) int { return 480 + i%100 },
		"the same":    func(int) int { return 64 },
		"one long":    func(i int) int { return map[bool]int{true: 30_000, false: 100}[i%17 == 3] },
		"random":      func(int) int { return rand.IntN(2000) },
		"empty":       func(int) int { return 0 },
	}
	for name, length := range lengths {
		for _, n := range []int{0, 1, 15, 16, 17, 31, 32, 33, 300} {
			lines := make([]line, n)
			for i := range lines {
				l := length(i)
				from := rand.IntN(len(data) - l)
				lines[i].span = span{from, from + l}
			}
			sums := hashLines(make([][32]byte, 1), data, lines)[1:]
			if len(sums) != n {
				t.Fatalf("%s: %d hashes of %d lines", name, len(sums), n)
			}
			for i, l := range lines {
				if sums[i] != sha256.Sum256(data[l.from:l.to]) {
					t.Fatalf("%s: line %d of %d, %d bytes, is not its hash", name, i, n, l.to-l.from)
				}
			}
			leaves := leafHashes(make([]tlog.Hash, 1), sums)[1:]
			for i := range sums {
				if leaves[i] != leafHash(sums[i]) {
					t.Fatalf("%s: leaf %d of %d", name, i, n)
				}
			}
			nodes := nodeHashes(make([]tlog.Hash, 1), leaves)[1:]
			if len(leaves) != n || len(nodes) != n/2 {
				t.Fatalf("%s: %d leaves, %d nodes of %d", name, len(leaves), len(nodes), n)
			}
			for i := range nodes {
				if nodes[i] != tlog.NodeHash(leaves[2*i], leaves[2*i+1]) {
					t.Fatalf("%s: node %d of %d", name, i, n)
				}
			}
		}
	}
}

// TestBitFlipsInBlocks flips bits anywhere in a log of several blocks, where
// many records are hashed at once.
func TestBitFlipsInBlocks(t *testing.T) {
	dir, files := build(t, 1<<30, 3*scanBlock/200)
	lines := files[currentName]
	log := []byte(strings.Join(lines, ""))
	if len(log) < 2*scanBlock {
		t.Fatalf("only %d bytes", len(log))
	}
	name := filepath.Join(dir, currentName)
	for range 60 {
		i := rand.IntN(len(lines) - 1)
		at := len(strings.Join(lines[:i], "")) + rand.IntN(len(lines[i]))
		bit := byte(1) << rand.IntN(8)
		log[at] ^= bit
		if err := os.WriteFile(name, log, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, one := range []bool{false, true} {
			undo := func() {}
			if one {
				undo = oneHashAtATime()
			}
			var d *Damage
			_, err := Verify(dir, nil)
			undo()
			if !errors.As(err, &d) || d.Seq != uint64(i+1) || d.Kind != Altered {
				t.Fatalf("bit %b of byte %d, in record %d, one hash at a time: %v: %v", bit, at, i+1, one, err)
			}
		}
		log[at] ^= bit
	}
	if err := os.WriteFile(name, log, 0o600); err != nil {
		t.Fatal(err)
	}
	verifyOK(t, dir)
	defer oneHashAtATime()()
	verifyOK(t, dir)
}
