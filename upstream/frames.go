package upstream

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
)

// Opcodes of WebSocket frames (RFC 6455, section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// Codes of closing (section 7.4.1).
const (
	closeGoingAway = 1001
	closeProtocol  = 1002
	closePolicy    = 1008
	closeInternal  = 1011
)

const (
	maxFrameHeader = 14
	maxControl     = 125 // the longest payload of a control frame
)

// errFrame is what breaks the protocol.
var errFrame = errors.New("not a frame that may stand here")

// frameHeader is what stands before a frame's payload. The mask is left out:
// what is masked is passed on as it is.
type frameHeader struct {
	fin    bool
	opcode byte
	length int64
}

func (f frameHeader) control() bool { return f.opcode >= opClose }

// parseFrame reads the header that b begins with and says how long it is, 0 if
// b ends before it does. No extension is ever negotiated, so no reserved bit
// may be set; a client masks its frames and a server does not.
func parseFrame(b []byte, fromClient bool) (f frameHeader, n int, err error) {
	if len(b) < 2 {
		return f, 0, nil
	}
	f.fin, f.opcode = b[0]&0x80 != 0, b[0]&0x0f
	if b[0]&0x70 != 0 || f.opcode > opBinary && f.opcode < opClose || f.opcode > opPong || (b[1]&0x80 != 0) != fromClient {
		return f, 0, errFrame
	}
	n = 2
	switch f.length = int64(b[1] & 0x7f); f.length {
	case 126:
		n = 4
	case 127:
		n = 10
	}
	if f.control() && (!f.fin || n > 2) {
		return f, 0, errFrame
	}
	size := n
	if fromClient {
		size += 4
	}
	if len(b) < size {
		return f, 0, nil
	}
	switch n {
	case 4:
		f.length = int64(binary.BigEndian.Uint16(b[2:]))
	case 10:
		f.length = int64(binary.BigEndian.Uint64(b[2:]))
		if f.length < 0 {
			return f, 0, errFrame
		}
	}
	return f, size, nil
}

// appendFrame appends a server's frame.
func appendFrame(b []byte, fin bool, opcode byte, payload []byte) []byte {
	if fin {
		opcode |= 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, opcode, byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, opcode, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, opcode, 127), uint64(n))
	}
	return append(b, payload...)
}

// closePayload is what a Close frame says.
func closePayload(code uint16, reason string) []byte {
	if len(reason) > maxControl-2 {
		reason = reason[:maxControl-2]
	}
	return append(binary.BigEndian.AppendUint16(nil, code), reason...)
}

// maskedClose is a Close frame as a client sends it.
func maskedClose(code uint16) []byte {
	mask := binary.BigEndian.AppendUint32(nil, rand.Uint32())
	b := append([]byte{0x80 | opClose, 0x80 | 2}, mask...)
	for i, c := range closePayload(code, "") {
		b = append(b, c^mask[i])
	}
	return b
}

// sequence holds the frames of one direction to their order: a message is
// continued before the next begins.
type sequence struct{ open bool }

func (s *sequence) next(f frameHeader) error {
	if f.control() {
		return nil
	}
	if (f.opcode == opContinuation) != s.open {
		return errFrame
	}
	s.open = !f.fin
	return nil
}

// A follower follows a client's frames without touching them.
type follower struct {
	seq    sequence
	head   [maxFrameHeader]byte
	have   int   // bytes of head
	left   int64 // of the payload
	closed bool  // a Close frame has begun: the last one
}

// follow looks at the next bytes.
func (fw *follower) follow(p []byte) error {
	for len(p) > 0 {
		if fw.left > 0 {
			n := min(fw.left, int64(len(p)))
			fw.left -= n
			p = p[n:]
			continue
		}
		if fw.closed {
			return errFrame
		}
		// Byte by byte: a header has at most fourteen.
		fw.head[fw.have] = p[0]
		fw.have++
		p = p[1:]
		f, n, err := parseFrame(fw.head[:fw.have], true)
		if err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		fw.have, fw.left = 0, f.length
		if err := fw.seq.next(f); err != nil {
			return err
		}
		fw.closed = f.opcode == opClose
	}
	return nil
}

// header returns a copy of the header that has begun and is not whole.
func (fw *follower) header() []byte { return append([]byte(nil), fw.head[:fw.have]...) }

// between reports whether a frame may be put in here, before a header that is
// not whole.
func (fw *follower) between() bool { return fw.left == 0 && !fw.closed }

// readFrame reads the header of a server's frame.
func readFrame(r io.Reader) (frameHeader, error) {
	var b [maxFrameHeader]byte
	for have, want := 0, 2; ; {
		if _, err := io.ReadFull(r, b[have:want]); err != nil {
			if have > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return frameHeader{}, err
		}
		have = want
		f, n, err := parseFrame(b[:have], false)
		if err != nil || n > 0 {
			return f, err
		}
		want = map[byte]int{126: 4, 127: 10}[b[1]&0x7f]
	}
}
