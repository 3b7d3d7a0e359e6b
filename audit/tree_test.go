package audit

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// TestTree holds the tree to the one of package tlog, however the leaves
// came to it.
func TestTree(t *testing.T) {
	const most = 700
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	roots := make([]tlog.Hash, most+1)
	leaves := make([]tlog.Hash, most)
	var one frontier
	for i := range most {
		sum := sha256.Sum256(fmt.Append(nil, i))
		leaves[i] = leafHash(sum)
		if leaves[i] != tlog.RecordHash(sum[:]) {
			t.Fatal("leaf")
		}
		hs, err := tlog.StoredHashes(int64(i), sum[:], reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hs...)
		if roots[i+1], err = tlog.TreeHash(int64(i+1), reader); err != nil {
			t.Fatal(err)
		}
		one.push(0, leaves[i], nil)
		if one.root() != roots[i+1] {
			t.Fatalf("root of %d leaves, one by one", i+1)
		}
		if f, ok := newFrontier(one.n, one.peaks()); !ok || f.root() != roots[i+1] {
			t.Fatalf("peaks of %d leaves", i+1)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var f frontier
		nodes := map[string]tlog.Hash{}
		made := func(level int, index uint64, h tlog.Hash) { nodes[fmt.Sprint(level, index)] = h }
		for f.n < most {
			n := min(most, f.n+1+r.Uint64N(100))
			var v levels
			v.build(f.n, leaves[f.n:n])
			mid := f
			mid.advance(&v, f.n+r.Uint64N(n-f.n+1), nil)
			if mid.n > 0 && mid.root() != roots[mid.n] {
				t.Fatalf("root of %d leaves, within a stretch", mid.n)
			}
			for l, row := range v.rows {
				for i, h := range row {
					made(l, v.first[l]+uint64(i), h)
				}
			}
			f.advance(&v, n, made)
			if f.root() != roots[f.n] {
				t.Fatalf("root of %d leaves, in stretches", f.n)
			}
		}
		for l := 0; 1<<l <= most; l++ {
			for k := 0; (k+1)<<l <= most; k++ {
				if nodes[fmt.Sprint(l, k)] != stored[tlog.StoredHashIndex(l, int64(k))] {
					t.Fatalf("node %d, %d", l, k)
				}
			}
		}
	}
	for _, bad := range []int{0, 1, 3} {
		if _, ok := newFrontier(6, make([]tlog.Hash, bad)); ok {
			t.Fatalf("%d peaks of 6 leaves", bad)
		}
	}
}
