package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestReadBlocks cuts files into blocks: every whole line is in one of them,
// once, in its order.
func TestReadBlocks(t *testing.T) {
	lines := func(length func() int, size int) []byte {
		var b []byte
		for i := 0; len(b) < size; i++ {
			b = fmt.Appendf(b, "%d %s\n", i, strings.Repeat("x", length()))
		}
		return b
	}
	exact := bytes.Repeat([]byte(strings.Repeat("y", 63)+"\n"), 3*scanBlock/64)
	short := lines(func() int { return rand.IntN(1000) }, 5*scanBlock)
	long := lines(func() int { return []int{10, 3 * scanBlock, scanBlock - 3}[rand.IntN(3)] }, 40*scanBlock)
	for name, c := range map[string]struct {
		data []byte
		want int // bytes
	}{
		"nothing":                    {nil, 0},
		"no newline":                 {[]byte("abc"), 0},
		"one line":                   {[]byte("abc\n"), 4},
		"empty lines":                {bytes.Repeat([]byte("\n"), 2*scanBlock+7), 2*scanBlock + 7},
		"lines end with blocks":      {exact, len(exact)},
		"and one byte later":         {append([]byte("z"), exact...), len(exact) + 1},
		"short lines":                {short, len(short)},
		"a torn end":                 {append(short[:len(short):len(short)], "torn"...), len(short)},
		"long lines":                 {long, len(long)},
		"a long torn end":            {append(exact[:len(exact):len(exact)], bytes.Repeat([]byte("t"), 3*scanBlock)...), len(exact)},
		"what is no line any longer": {append(append(exact[:len(exact):len(exact)], bytes.Repeat([]byte("t"), maxLine+3*scanBlock)...), exact...), len(exact)},
	} {
		for _, workers := range []int{1, 2, 7} {
			got, stopped := 0, false
			err := readBlocks(bytes.NewReader(c.data), int64(len(c.data)), workers, func(*block) {}, func(b *block) bool {
				if stopped {
					t.Fatalf("%s: a block behind the last", name)
				}
				if len(b.data) > 0 && (b.off != int64(got) || !bytes.Equal(b.data, c.data[got:got+len(b.data)]) || b.data[len(b.data)-1] != '\n') {
					t.Fatalf("%s, %d workers: the block at %d of %d bytes is not what follows %d", name, workers, b.off, len(b.data), got)
				}
				got += len(b.data)
				stopped = b.over
				return !stopped
			})
			if err != nil || got != c.want {
				t.Fatalf("%s, %d workers: %d bytes of %d: %v", name, workers, got, c.want, err)
			}
		}
	}

	t.Run("shorter than it was", func(t *testing.T) {
		got := 0
		err := readBlocks(bytes.NewReader(short[:3*scanBlock]), int64(len(short)), 2, func(*block) {}, func(b *block) bool {
			got += len(b.data)
			return true
		})
		if want := bytes.LastIndexByte(short[:3*scanBlock], '\n') + 1; err != nil || got != want {
			t.Fatalf("%d bytes of %d: %v", got, want, err)
		}
	})
	t.Run("reading fails", func(t *testing.T) {
		broken := errors.New("broken")
		for _, workers := range []int{1, 2} {
			err := readBlocks(brokenAt{bytes.NewReader(short), 3 * scanBlock, broken}, int64(len(short)), workers, func(*block) {}, func(*block) bool { return true })
			if !errors.Is(err, broken) {
				t.Fatal(err)
			}
		}
	})
	t.Run("stopped", func(t *testing.T) {
		for _, workers := range []int{1, 2} {
			n := 0
			err := readBlocks(bytes.NewReader(short), int64(len(short)), workers, func(*block) {}, func(*block) bool { n++; return n < 2 })
			if err != nil || n != 2 {
				t.Fatalf("%d: %v", n, err)
			}
		}
	})
}

// brokenAt cannot be read from some byte on.
type brokenAt struct {
	io.ReaderAt
	off int64
	err error
}

func (b brokenAt) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.off {
		return 0, b.err
	}
	return b.ReaderAt.ReadAt(p, off)
}

// TestShows compares with the encoding.
func TestShows(t *testing.T) {
	for range 1000 {
		var sum [32]byte
		for i := range sum {
			sum[i] = byte(rand.Uint32())
		}
		hash := chainAt(1, sum).hash
		if !shows(hash[:], &sum) {
			t.Fatalf("%x is not shown by %s", sum, hash[:])
		}
		for i := range hash {
			other := hash
			other[i] ^= byte(1 + rand.IntN(255))
			if shows(other[:], &sum) {
				t.Fatalf("%x is shown by %s", sum, other[:])
			}
		}
	}
}
