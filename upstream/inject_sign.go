package upstream

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"io"
	"strconv"
	"time"

	"github.com/caddyvault/caddyvault/policy"
)

// hashes are what signatures and digests are made with. SHA-1 is there because
// vendors ask for it; in an HMAC it is not known to be weak.
var hashes = map[string]func() hash.Hash{
	"sha256": sha256.New,
	"sha1":   sha1.New,
	"sha512": sha512.New,
}

// sign signs the request as it stands.
func (f *filler) sign(p *policy.Place) {
	s := p.Sign
	stamp := timestamp(f.now, s.TimestampForm)
	if s.TimestampHeader != "" {
		f.req.Header[s.TimestampHeader] = []string{stamp}
	}
	mac := hmac.New(hashes[s.Algorithm], f.key(s))
	for i := range s.Signed {
		f.signed(mac, &s.Signed[i], stamp)
	}
	signature := encode(s.Encoding, mac.Sum(nil))
	var value []byte
	for _, piece := range p.Value {
		value = append(value, piece.Lit...)
		switch piece.Var {
		case policy.VarSignature:
			value = append(value, signature...)
		case policy.VarTimestamp:
			value = append(value, stamp...)
		}
	}
	f.req.Header[p.Name] = []string{string(value)}
}

// key returns the key of a signature. Whether it decodes was looked at when
// the secret was handed out.
func (f *filler) key(s *policy.Sign) []byte {
	key := f.text(nil, s.Key)
	var decoded []byte
	switch s.KeyEncoding {
	case "hex":
		decoded, _ = hex.DecodeString(string(key))
	case "base64":
		decoded, _ = base64.StdEncoding.DecodeString(string(key))
	default:
		return key
	}
	return decoded
}

// signed writes one piece of what is signed. Writing to a hash cannot fail.
func (f *filler) signed(w io.Writer, piece *policy.Piece, stamp string) {
	write := func(s string) { _, _ = io.WriteString(w, s) }
	write(piece.Lit)
	switch piece.Var {
	case policy.VarSecret:
		write(f.creds[piece.Secret].Value)
	case policy.VarTimestamp:
		write(stamp)
	case policy.VarMethod:
		write(f.req.Method)
	case policy.VarHost:
		write(f.req.Host)
	case policy.VarPath:
		write(f.req.URL.EscapedPath())
	case policy.VarQuery:
		write(f.req.URL.RawQuery)
	case policy.VarTarget:
		write(f.req.URL.RequestURI())
	case policy.VarHeader:
		for i, v := range f.req.Header[piece.Arg] {
			if i > 0 {
				write(", ") // as one line, RFC 9110 section 5.3
			}
			write(v)
		}
	case policy.VarBody:
		if piece.Arg == "" {
			_, _ = w.Write(f.body)
			return
		}
		h := hashes[piece.Arg]()
		h.Write(f.body)
		write(hex.EncodeToString(h.Sum(nil)))
	}
}

func encode(encoding string, sum []byte) string {
	switch encoding {
	case "base64":
		return base64.StdEncoding.EncodeToString(sum)
	case "base64url":
		return base64.RawURLEncoding.EncodeToString(sum)
	}
	return hex.EncodeToString(sum)
}

func timestamp(now time.Time, format string) string {
	switch format {
	case "unix-ms":
		return strconv.FormatInt(now.UnixMilli(), 10)
	case "rfc3339":
		return now.UTC().Format(time.RFC3339)
	}
	return strconv.FormatInt(now.Unix(), 10)
}
