package audit

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync"
)

const (
	// scanBlock is how much of a file a worker takes at a time. It stays in
	// the cache of one processor.
	scanBlock = 256 << 10

	// maxLine is more than any line has, whatever a record holds.
	maxLine = 4 << 20

	// overRead is how much is read behind a block for the end of its last
	// line.
	overRead = 4 << 10

	// underRead is how much is read before a block for the newline there. Less
	// would do, but the kernel copies what is aligned several times as fast.
	underRead = 64
)

// readBlocks has workers read the first size bytes of a file and call check
// with the lines that begin in each stretch of scanBlock bytes; join is called
// with the same, in their order, until it says no. What follows the last
// newline is left out.
func readBlocks(f io.ReaderAt, size int64, workers int, check func(*block), join func(*block) bool) error {
	n := int((size + scanBlock - 1) / scanBlock)
	do := func(b *block, i int) {
		if b.err = b.read(f, int64(i)*scanBlock, size); b.err == nil {
			check(b)
		}
	}
	if workers = min(workers, n); workers <= 1 {
		b := new(block)
		for i := range n {
			if do(b, i); b.err != nil || !join(b) || b.last {
				return b.err
			}
		}
		return nil
	}
	// Who takes a block takes the next stretch with it, so that the oldest
	// stretch is always at work, and goes to the slot of its number.
	var (
		mu    sync.Mutex
		next  int
		free  = make(chan *block, 3*workers)
		slots = make([]chan *block, cap(free))
		stop  = make(chan struct{})
		wg    sync.WaitGroup
	)
	for i := range slots {
		slots[i] = make(chan *block, 1)
		free <- new(block)
	}
	take := func() (b *block, i int) {
		mu.Lock()
		defer mu.Unlock()
		select {
		case b = <-free:
		case <-stop:
		}
		next++
		return b, next - 1
	}
	for range workers {
		wg.Go(func() {
			for {
				b, i := take()
				if b == nil || i >= n {
					return
				}
				do(b, i)
				slots[i%len(slots)] <- b
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	for i := range n {
		b := <-slots[i%len(slots)]
		if b.err != nil || !join(b) || b.last {
			return b.err
		}
		free <- b
	}
	return nil
}

// read reads the lines that begin in the scanBlock bytes from off on.
func (b *block) read(f io.ReaderAt, off, size int64) error {
	b.data, b.off, b.over, b.last = nil, off, false, false
	from := max(off-underRead, 0)
	end := min(off+scanBlock, size)
	b.buf = b.buf[:0]
	fill := func(to int64) error {
		have := len(b.buf)
		b.buf = slices.Grow(b.buf, int(to-from)-have)[:to-from]
		n, err := f.ReadAt(b.buf[have:], from+int64(have))
		if b.buf = b.buf[:have+n]; from+int64(len(b.buf)) < to {
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			b.last, size = true, from+int64(len(b.buf)) // shorter than it was
		}
		return nil
	}
	if err := fill(min(end+overRead, size)); err != nil {
		return err
	}
	end = min(end, size)
	start := 0 // of the first line, in buf
	if off > 0 {
		before := off - 1 - from // a newline here ends the line before
		if end-1-from <= before {
			return nil // the file ends before the block
		}
		start = bytes.IndexByte(b.buf[before:end-1-from], '\n') + 1
		if start == 0 {
			return nil // no line begins here
		}
		start += int(before)
	}
	b.off = from + int64(start)
	// The last line ends with the first newline that is not before this.
	least := int(end - 1 - from)
	for seen := least; ; {
		if i := bytes.IndexByte(b.buf[min(seen, len(b.buf)):], '\n'); i >= 0 {
			b.data = b.buf[start : seen+i+1]
			return nil
		}
		seen = max(seen, len(b.buf))
		have := from + int64(len(b.buf))
		if have >= size || have-end > maxLine {
			break
		}
		if err := fill(min(have+16*overRead, size)); err != nil {
			return err
		}
	}
	b.over = true
	b.data = b.buf[start:max(start, bytes.LastIndexByte(b.buf[:least], '\n')+1)]
	return nil
}

// readLines calls f with stretches of whole lines until f says no. What
// follows the last newline is left out.
func readLines(r io.ReaderAt, size int64, f func(off int64, lines []byte) bool) error {
	buf := make([]byte, min(readBlock, max(size, 1)))
	var off int64 // of buf
	have := 0
	for off+int64(have) < size {
		if have == len(buf) { // no newline in all of it
			buf = append(buf, make([]byte, len(buf))...)
		}
		n := int(min(int64(len(buf)-have), size-off-int64(have)))
		n, err := r.ReadAt(buf[have:have+n], off+int64(have))
		if err != nil && !(errors.Is(err, io.EOF) && n > 0) {
			if errors.Is(err, io.EOF) { // shorter than it was
				return nil
			}
			return err
		}
		end := bytes.LastIndexByte(buf[have:have+n], '\n') + 1
		if end == 0 {
			have += n
			continue
		}
		end += have
		have += n
		if !f(off, buf[:end]) {
			return nil
		}
		have = copy(buf, buf[end:have])
		off += int64(end)
	}
	return nil
}

// readBlock is how much readLines reads at a time: what stays in a cache.
const readBlock = 256 << 10
