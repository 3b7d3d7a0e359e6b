package file

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"net/url"
	"strconv"

	"github.com/caddyvault/caddyvault/store"
)

// A line of the log is
//
//	<checksum> <revision> <expires> <op> <key>[ <value>]\n
//
// with the CRC-32C of everything behind the checksum's space (without the
// newline) as 8 hex digits, revision and expiry (Unix milliseconds, 0 for
// never) in decimal, the key percent-escaped, and as op "p" for a put with
// the value as it is, "b" for one with the value in base64, "d" for a
// delete.

// maxLogValue is the largest value in the log, in bytes.
const maxLogValue = 64 << 10

// maxLine bounds a line: checksum, two numbers, an escaped key, a value in
// base64.
const maxLine = 8 + 1 + 20 + 1 + 20 + 3 + 3*store.MaxKey + 1 + maxLogValue*4/3 + 8

// errLine: a line is not one that was written here. It does not quote it.
var errLine = errors.New("malformed line")

// logRecord is a line, parsed. Its slices may point into the line.
type logRecord struct {
	rev     store.Rev
	expires int64 // Unix milliseconds; 0: never
	del     bool
	key     []byte
	value   []byte
}

// appendLine appends the line of r to b.
func appendLine(b []byte, r logRecord) []byte {
	start := len(b)
	b = append(b, "00000000 "...)
	b = strconv.AppendUint(b, uint64(r.rev), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.expires, 10)
	raw := !bytes.ContainsAny(r.value, "\r\n")
	switch {
	case r.del:
		b = append(b, " d "...)
	case raw:
		b = append(b, " p "...)
	default:
		b = append(b, " b "...)
	}
	b = appendKey(b, r.key)
	if !r.del {
		b = append(b, ' ')
		if raw {
			b = append(b, r.value...)
		} else {
			b = base64.StdEncoding.AppendEncode(b, r.value)
		}
	}
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.Checksum(b[start+9:], castagnoli))
	hex.Encode(b[start:], sum[:])
	return append(b, '\n')
}

// appendKey escapes what would end the key or the line, and '%'.
func appendKey(b, key []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range key {
		if c <= ' ' || c == '%' || c >= 0x7f {
			b = append(b, '%', digits[c>>4], digits[c&15])
			continue
		}
		b = append(b, c)
	}
	return b
}

// parseLine parses a line without its newline.
func parseLine(line []byte) (logRecord, error) {
	var r logRecord
	if len(line) < 9 || line[8] != ' ' {
		return r, errLine
	}
	var sum [4]byte
	if _, err := hex.Decode(sum[:], line[:8]); err != nil {
		return r, errLine
	}
	body := line[9:]
	if binary.BigEndian.Uint32(sum[:]) != crc32.Checksum(body, castagnoli) {
		return r, errLine
	}
	rev, body, ok1 := cutNumber(body)
	exp, body, ok2 := cutNumber(body)
	if !ok1 || !ok2 || len(body) < 3 || body[1] != ' ' || rev == 0 || store.Rev(rev) > maxRev {
		return r, errLine
	}
	r.rev, r.expires = store.Rev(rev), int64(exp)
	opCode, body := body[0], body[2:]
	key, value, hasValue := bytes.Cut(body, []byte{' '})
	if bytes.IndexByte(key, '%') >= 0 {
		k, err := url.PathUnescape(string(key))
		if err != nil {
			return r, errLine
		}
		key = []byte(k)
	}
	r.key, r.value = key, value
	switch opCode {
	case 'd':
		r.del = true
		if hasValue {
			return r, errLine
		}
	case 'p':
		if !hasValue {
			return r, errLine
		}
	case 'b':
		v, err := base64.StdEncoding.Strict().DecodeString(string(value))
		if err != nil || !hasValue {
			return r, errLine
		}
		r.value = v
	default:
		return r, errLine
	}
	if len(key) == 0 || len(key) > store.MaxKey {
		return r, errLine
	}
	return r, nil
}

// cutNumber parses the decimal number up to the first space.
func cutNumber(b []byte) (n uint64, rest []byte, ok bool) {
	for i, c := range b {
		switch {
		case c == ' ':
			return n, b[i+1:], i > 0
		case c < '0' || c > '9' || n >= 1<<59:
			return 0, nil, false
		}
		n = n*10 + uint64(c-'0')
	}
	return 0, nil, false
}

// entry returns r as an entry that shares its value.
func (r logRecord) entry() store.Entry {
	return store.Entry{Key: string(r.key), Value: r.value, Rev: r.rev, Expires: expiryTime(r.expires)}
}
