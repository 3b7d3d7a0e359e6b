package file

import (
	"bytes"
	"errors"
	"io"
)

// lineReader cuts a stream into lines without copying them.
type lineReader struct {
	r     io.Reader
	buf   []byte
	start int // of what was read and not yet returned
	end   int
	err   error
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: r, buf: make([]byte, 1<<20)}
}

// next returns the next line with its newline; the rest of the stream if
// there is no newline any more, or none within the buffer; nothing at the
// end. The line is valid until the next call.
func (l *lineReader) next() ([]byte, error) {
	searched := 0
	for {
		if i := bytes.IndexByte(l.buf[l.start+searched:l.end], '\n'); i >= 0 {
			line := l.buf[l.start : l.start+searched+i+1]
			l.start += len(line)
			return line, nil
		}
		searched = l.end - l.start
		if l.err != nil && !errors.Is(l.err, io.EOF) {
			return nil, l.err // what could not be read is not the end
		}
		if l.err != nil || searched == len(l.buf) {
			line := l.buf[l.start:l.end]
			l.start = l.end
			return line, nil
		}
		if l.start > 0 {
			copy(l.buf, l.buf[l.start:l.end])
			l.start, l.end = 0, searched
		}
		n, err := l.r.Read(l.buf[l.end:])
		l.end += n
		l.err = err
	}
}
