package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
)

// A line ends in ,"seq":<digits>,"prev":"<43 characters>"}: parts of fixed
// length, so that it is read from its end without parsing what comes before.
const (
	seqKey  = `,"seq":`
	prevKey = `,"prev":"`
	lineEnd = `"}`

	prevLen = 43 // 32 bytes in base64url without padding

	// prevTail is the length of everything behind the digits of seq.
	prevTail = len(prevKey) + prevLen + len(lineEnd)
)

// prevHash is a hash as a line shows it.
type prevHash [prevLen]byte

// chain is where a log stands: the number of its last line, that line's
// SHA-256, and the same as the next line shows it. A log begins with 43
// 'A's, which is the encoding of 32 zero bytes.
type chain struct {
	seq  uint64
	sum  [sha256.Size]byte
	hash prevHash
}

func newChain() chain { return chainAt(0, [sha256.Size]byte{}) }

// chainAt is where a log stands behind line number seq.
func chainAt(seq uint64, sum [sha256.Size]byte) chain {
	c := chain{seq: seq, sum: sum}
	base64.RawURLEncoding.Encode(c.hash[:], c.sum[:])
	return c
}

// hashLine returns the hash of a line without its newline.
func hashLine(line []byte) prevHash { return chainAt(0, sha256.Sum256(line)).hash }

// appendTail appends seq and prev and the end of the object, but no newline,
// to a line that begins at start in dst, and moves the chain on to it.
func (c *chain) appendTail(dst []byte, start int) []byte {
	c.seq++
	dst = append(dst, seqKey...)
	dst = strconv.AppendUint(dst, c.seq, 10)
	dst = append(dst, prevKey...)
	dst = append(dst, c.hash[:]...)
	dst = append(dst, lineEnd...)
	*c = chainAt(c.seq, sha256.Sum256(dst[start:]))
	return dst
}

// pairs are the two characters of base64url for every 12 bits.
var pairs = func() (t [1 << 12][2]byte) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range t {
		t[i] = [2]byte{alphabet[i>>6], alphabet[i&63]}
	}
	return t
}()

// shows reports whether prev, of the length of a prevHash, is what a line
// shows of sum. It is quicker than encoding.
func shows(prev []byte, sum *[sha256.Size]byte) bool {
	p := (*prevHash)(prev)
	for i := range sha256.Size / 3 {
		bits := uint(sum[3*i])<<16 | uint(sum[3*i+1])<<8 | uint(sum[3*i+2])
		if [2]byte(p[4*i:]) != pairs[bits>>12&0xfff] || [2]byte(p[4*i+2:]) != pairs[bits&0xfff] {
			return false
		}
	}
	bits := uint(sum[30])<<16 | uint(sum[31])<<8 // 16 bits: three characters
	return [2]byte(p[40:]) == pairs[bits>>12] && p[42] == pairs[bits&0xfff][0]
}

// prevOf returns the prev of a line that parseTail has found to end as lines
// do.
func prevOf(line []byte) []byte {
	end := len(line) - len(lineEnd)
	return line[end-prevLen : end]
}

// parseTail returns the seq of a line without its newline, and its prev,
// which is part of line. It is not ok if line does not end as lines do.
func parseTail(line []byte) (seq uint64, prev []byte, ok bool) {
	at := len(line) - prevTail
	if at < len(headPrefix)+len(seqKey)+1 || string(line[len(line)-len(lineEnd):]) != lineEnd ||
		string(line[at:at+len(prevKey)]) != prevKey || line[0] != '{' {
		return 0, nil, false
	}
	prev = line[at+len(prevKey) : at+len(prevKey)+prevLen]
	i := at
	for i > 0 && line[i-1] >= '0' && line[i-1] <= '9' {
		i--
	}
	digits := line[i:at]
	if len(digits) == 0 || len(digits) > 19 || digits[0] == '0' ||
		i < len(seqKey) || string(line[i-len(seqKey):i]) != seqKey {
		return 0, nil, false
	}
	for _, d := range digits {
		seq = seq*10 + uint64(d-'0')
	}
	return seq, prev, true
}

// parseHead returns the time and the event of a line. The event is part of
// line and still escaped.
func parseHead(line []byte) (ts int64, event []byte, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(headPrefix))
	if !ok {
		return 0, nil, false
	}
	i, neg := 0, false
	if len(rest) > 0 && rest[0] == '-' {
		neg, i = true, 1
	}
	first := i
	for i < len(rest) && i-first < 18 && rest[i] >= '0' && rest[i] <= '9' {
		ts = ts*10 + int64(rest[i]-'0')
		i++
	}
	if i == first {
		return 0, nil, false
	}
	if neg {
		ts = -ts
	}
	rest, ok = bytes.CutPrefix(rest[i:], []byte(`,"event":"`))
	if !ok {
		return 0, nil, false
	}
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return 0, nil, false
	}
	return ts, rest[:end], true
}

// fieldString returns the value of a field that holds a plain string, still
// escaped. A quote inside a value is escaped, so what is found is a key.
func fieldString(line []byte, needle string) ([]byte, bool) {
	i := bytes.Index(line, []byte(needle))
	if i < 0 {
		return nil, false
	}
	rest := line[i+len(needle):]
	for j := 0; j < len(rest); j++ {
		switch rest[j] {
		case '\\':
			j++
		case '"':
			return rest[:j], true
		}
	}
	return nil, false
}
