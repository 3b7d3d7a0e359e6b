package policy

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// A table is written into a text: values in the order of the hashes of their
// names. A hash says about where in the table it stands, so that looking it up
// touches one or two lines of the processor's cache. Whoever reads a value
// compares the name.

// tableEntry is an entry of a table.
type tableEntry struct{ hash, value uint32 }

// tableEntrySize is how many bytes it takes.
const tableEntrySize = 8

// appendTable sorts entries and appends them.
func appendTable(text []byte, entries []tableEntry) []byte {
	slices.SortStableFunc(entries, func(a, b tableEntry) int { return cmp.Compare(a.hash, b.hash) })
	for _, e := range entries {
		text = binary.BigEndian.AppendUint32(text, e.hash)
		text = binary.BigEndian.AppendUint32(text, e.value)
	}
	return text
}

// tableAt returns entry i of the table that begins at a place of the text.
func tableAt(text string, at, i int) tableEntry {
	b := text[at+i*tableEntrySize:][:tableEntrySize]
	return tableEntry{
		uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]),
		uint32(b[4])<<24 | uint32(b[5])<<16 | uint32(b[6])<<8 | uint32(b[7]),
	}
}

// tableSeek returns the first of n entries whose hash is not below h, or n.
func tableSeek(text string, at, n int, h uint32) int {
	i := int(uint64(h) * uint64(n) >> 32)
	for i > 0 && tableAt(text, at, i-1).hash >= h {
		i--
	}
	for i < n && tableAt(text, at, i).hash < h {
		i++
	}
	return i
}

// hash spreads names over 32 bits. It is FNV-1a, whose upper bits are then
// mixed with the lower ones. Names that have one hash cost a comparison each;
// they are all the service's own.
func hash(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	h ^= h >> 15
	h *= 0x2c1b3c6d
	return h ^ h>>13
}
