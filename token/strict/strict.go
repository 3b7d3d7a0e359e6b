// Package strict reads the parts of JWTs, the vault's own and those of others.
//
// Promises: what has two readings has none. Names that occur twice, invalid
// UTF-8, data after the end and a second spelling of the same bytes are errors,
// and no error quotes what was read. It knows nothing of keys or claims.
package strict

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Base64 refuses trailing bits that are not zero, so that no two texts decode
// to the same bytes. It skips line breaks: see Alphabet.
var Base64 = base64.RawURLEncoding.Strict()

// ErrForm is any violation of the form of a token. It says no more, so that it
// cannot quote anything.
var ErrForm = errors.New("not the form of a token")

// Alphabet reports whether raw is made of base64url characters and dots. The
// decoder skips line breaks, so that one token would have many spellings.
func Alphabet(raw string) bool {
	for i := range len(raw) {
		c := raw[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// Whole calls member for every member of the one object that data is. Names
// that occur twice, at any depth, invalid UTF-8 and trailing data are errors.
func Whole(data []byte, member func(d *jsontext.Decoder, name string) error) error {
	// A *bytes.Buffer, because the decoder reads its bytes without a copy.
	d := jsontext.NewDecoder(bytes.NewBuffer(data))
	if err := Object(d, member); err != nil {
		return err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return ErrForm
	}
	return nil
}

// Object calls member for every member of the object that d is at. member
// reads or skips the value.
func Object(d *jsontext.Decoder, member func(d *jsontext.Decoder, name string) error) error {
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return ErrForm
	}
	for {
		t, err := d.ReadToken()
		switch {
		case err != nil:
			return ErrForm
		case t.Kind() == '}':
			return nil
		}
		if err := member(d, t.String()); err != nil {
			return ErrForm
		}
	}
}

// Text reads a string, and reports false if anything else is there.
func Text(d *jsontext.Decoder) (string, bool) {
	t, err := d.ReadToken()
	if err != nil || t.Kind() != '"' {
		return "", false
	}
	return t.String(), true
}

// Texts reads an array of strings, none of them empty.
func Texts(d *jsontext.Decoder) ([]string, bool) {
	list, ok := AnyTexts(d)
	return list, ok && !slices.Contains(list, "")
}

// AnyTexts reads an array of strings, empty ones too.
func AnyTexts(d *jsontext.Decoder) ([]string, bool) {
	if t, err := d.ReadToken(); err != nil || t.Kind() != '[' {
		return nil, false
	}
	list := []string{}
	for d.PeekKind() != ']' {
		s, ok := Text(d)
		if !ok {
			return nil, false
		}
		list = append(list, s)
	}
	_, err := d.ReadToken()
	return list, err == nil
}

// MaxTime is the last second of the year 9999, far beyond any token and far
// below where a conversion of seconds could overflow.
const MaxTime = 253402300799

// Seconds reads a number, and reports false unless it is a whole, unsigned
// number of seconds in plain digits, not beyond MaxTime.
func Seconds(d *jsontext.Decoder) (time.Time, bool) {
	t, err := d.ReadToken()
	if err != nil || t.Kind() != '0' {
		return time.Time{}, false
	}
	// ParseUint takes digits only: no sign, point or exponent.
	n, err := strconv.ParseUint(t.String(), 10, 64)
	if err != nil || n > MaxTime {
		return time.Time{}, false
	}
	return time.Unix(int64(n), 0), true
}
