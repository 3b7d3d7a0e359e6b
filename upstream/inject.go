package upstream

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/vault"
)

// An injector adds a service's secrets to requests. It is made once, when the
// service is.
type injector struct {
	// header, prefix and suffix are the ordinary case: one secret in one
	// header. header is canonical, and empty in all other cases.
	header, prefix, suffix string

	// places are the other cases, in the order to fill them: signatures come
	// last, over what all others have made of the request.
	places []policy.Place

	// before and after are the texts of the baseUrl's path around its secret.
	before, after string
	inPath        bool
}

func newInjector(svc *policy.Compiled) injector {
	if p := svc.Places; len(p) == 1 && p[0].In == policy.InHeader && len(svc.Secrets()) == 1 {
		switch v := p[0].Value; {
		case len(v) == 1:
			return injector{header: p[0].Name, prefix: v[0].Lit}
		case len(v) == 2 && v[1].Var == policy.VarNone:
			return injector{header: p[0].Name, prefix: v[0].Lit, suffix: v[1].Lit}
		}
	}
	var in injector
	for _, p := range svc.Places {
		if p.In != policy.InSign {
			in.places = append(in.places, p)
		}
	}
	for _, p := range svc.Places {
		if p.In == policy.InSign {
			in.places = append(in.places, p)
		}
	}
	in.before, in.after, in.inPath = svc.PathAround()
	return in
}

// sendable returns an escaped path as it can be looked at before the secret is
// in it: with a letter in the secret's place.
func (in *injector) sendable(escaped string) string {
	if !in.inPath {
		return escaped
	}
	return in.before + "x" + in.after + escaped[len(in.before)+len(policy.PathSecret)+len(in.after):]
}

// apply adds the secrets to a request, whose header map and URL must be its
// own. whole is its body where the credential depends on that.
func (in *injector) apply(out *http.Request, creds []vault.Credential, whole *policy.BodyPlan, now time.Time) {
	if in.header != "" {
		out.Header[in.header] = []string{in.prefix + creds[0].Value + in.suffix}
		return
	}
	if len(in.places) == 0 {
		return
	}
	f := filler{req: out, creds: creds, now: now}
	if whole != nil {
		f.body = f.fillBody(whole)
	}
	for i := range in.places {
		switch p := &in.places[i]; p.In {
		case policy.InHeader:
			out.Header[p.Name] = []string{string(f.text(nil, p.Value))}
		case policy.InBasic:
			pair := append(f.text(nil, p.User), ':')
			pair = f.text(pair, p.Password)
			out.Header[p.Name] = []string{"Basic " + base64.StdEncoding.EncodeToString(pair)}
		case policy.InQuery:
			q := append([]byte(out.URL.RawQuery), '&')
			if len(q) == 1 {
				q = q[:0]
			}
			q = append(append(q, p.Name...), '=')
			out.URL.RawQuery = string(policy.AppendParam(q, string(f.text(nil, p.Value))))
		case policy.InPath:
			in.fillPath(out.URL, f.text(nil, p.Value))
		case policy.InSign:
			f.sign(p)
		}
	}
}

// fillPath puts the secret into the URL's path, which sendable made.
func (in *injector) fillPath(u *url.URL, secret []byte) {
	below := u.EscapedPath()[len(in.before)+1:]
	u.RawPath = string(append(policy.AppendSegment([]byte(in.before), string(secret)), below...))
	u.Path = pathOf(u.RawPath)
}

// base returns the path of the service's base URL as it was sent.
func (in *injector) base(sent *url.URL, fixed, below string) string {
	if !in.inPath {
		return fixed
	}
	escaped := sent.EscapedPath()
	return escaped[:len(escaped)-(len(below)-len(in.before)-len(policy.PathSecret)-len(in.after))]
}

// A filler fills the places of one attempt's request.
type filler struct {
	req   *http.Request
	creds []vault.Credential
	body  []byte // whole, with what was put into it
	now   time.Time
}

// text appends a text whose only placeholders are secrets.
func (f *filler) text(b []byte, t policy.Text) []byte {
	for i := range t {
		b = append(b, t[i].Lit...)
		if t[i].Var == policy.VarSecret {
			b = append(b, f.creds[t[i].Secret].Value...)
		}
	}
	return b
}

// fillBody makes the request's body with the secrets in their places.
func (f *filler) fillBody(plan *policy.BodyPlan) []byte {
	if len(plan.Inserts) == 0 {
		return plan.Body // sent as it came, and signed
	}
	var b []byte
	done := 0
	for _, in := range plan.Inserts {
		b = append(append(b, plan.Body[done:in.At]...), in.Before...)
		value := string(f.text(nil, in.Value))
		if in.JSON {
			b, _ = jsontext.AppendQuote(b, value) // ASCII: it cannot fail
		} else {
			b = policy.AppendParam(b, value)
		}
		b, done = append(b, in.After...), in.At
	}
	b = append(b, plan.Body[done:]...)
	f.req.Body = &filledBody{filled: b, client: f.req.Body}
	f.req.ContentLength = int64(len(b))
	f.req.Trailer = nil
	for _, name := range digestHeaders {
		delete(f.req.Header, name)
	}
	return b
}

// digestHeaders speak of a body that the client made.
var digestHeaders = [...]string{"Content-Md5", "Digest", "Content-Digest", "Repr-Digest"}

// filledBody is sent in place of the client's body, which is read beside it to
// be counted: the length of the secret is nobody's business.
type filledBody struct {
	filled []byte
	client io.ReadCloser
	begun  bool
}

func (b *filledBody) Read(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		if b.client != nil {
			if _, err := io.Copy(io.Discard, b.client); err != nil {
				return 0, err // of a budget
			}
		}
	}
	n := copy(p, b.filled)
	if b.filled = b.filled[n:]; n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (b *filledBody) Close() error {
	if b.client == nil {
		return nil
	}
	return b.client.Close()
}

// dropCredential returns the query of a link of the upstream's own without
// what the vault put there: a link to the next page repeats it.
func dropCredential(svc *policy.Compiled, rawQuery string) string {
	if svc == nil {
		return rawQuery
	}
	return svc.DropQuery(rawQuery)
}
