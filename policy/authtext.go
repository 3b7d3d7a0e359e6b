package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"
)

// Text is a text with placeholders, cut into pieces.
type Text []Piece

// Piece is a literal text and the variable behind it.
type Piece struct {
	// Lit is sent as it is.
	Lit string

	// Var stands behind it; VarNone ends a text.
	Var Var

	// Secret is the index of a VarSecret's secret in Compiled.Secrets.
	Secret int

	// Arg is the name of a VarHeader, canonical, and the hash of a VarBody's
	// digest, empty for the body itself.
	Arg string
}

// Var is what a placeholder stands for.
type Var uint8

// The variables. Only VarSecret is one of every text.
const (
	VarNone Var = iota
	VarSecret
	VarSignature
	VarTimestamp
	VarMethod
	VarHost
	VarPath
	VarQuery
	VarTarget
	VarBody
	VarHeader
)

// has says whether the text has a variable.
func (t Text) has(v Var) bool {
	return slices.ContainsFunc(t, func(p Piece) bool { return p.Var == v })
}

// count says how often the text has a variable.
func (t Text) count(v Var) int {
	n := 0
	for _, p := range t {
		if p.Var == v {
			n++
		}
	}
	return n
}

// Placeholders of a value, of the value of a signature, and of what is signed.
var (
	valueVars     = map[string]Var{"secret": VarSecret}
	signatureVars = map[string]Var{"signature": VarSignature, "timestamp": VarTimestamp}
	signedVars    = map[string]Var{
		"secret": VarSecret, "timestamp": VarTimestamp, "method": VarMethod, "host": VarHost, "path": VarPath,
		"query": VarQuery, "target": VarTarget, "body": VarBody, "header": VarHeader,
	}
)

// hashes are the ones a signature may be made with.
var hashes = map[string]bool{"sha256": true, "sha1": true, "sha512": true}

// parseText cuts a text at its placeholders. use is told each secret's name,
// empty for the service's own, and returns its index.
func parseText(s string, vars map[string]Var, use func(ref string) int) (Text, error) {
	if len(s) > maxAuthText {
		return nil, fmt.Errorf("is longer than %d bytes", maxAuthText)
	}
	if !utf8.ValidString(s) {
		return nil, errors.New("is not UTF-8")
	}
	var t Text
	for {
		i := strings.IndexAny(s, "{}")
		if i < 0 {
			if s != "" {
				t = append(t, Piece{Lit: s})
			}
			return t, nil
		}
		end := strings.IndexAny(s[i+1:], "{}")
		if s[i] == '}' || end < 0 || s[i+1+end] != '}' {
			return nil, errors.New("has a brace that is not part of a placeholder")
		}
		p, err := parseVar(s[i+1:i+1+end], vars, use)
		if err != nil {
			return nil, err
		}
		p.Lit = s[:i]
		t = append(t, p)
		s = s[i+end+2:]
	}
}

func parseVar(inner string, vars map[string]Var, use func(ref string) int) (Piece, error) {
	name, arg, named := strings.Cut(inner, ":")
	v, ok := vars[name]
	if !ok {
		return Piece{}, fmt.Errorf("has the unknown placeholder {%s}; there are %s", shown(inner), placeholders(vars))
	}
	p := Piece{Var: v, Arg: arg}
	switch v {
	case VarSecret:
		if named && !ValidSecretRef(arg) {
			return p, fmt.Errorf("has {%s}, whose name cannot be that of a secret", shown(inner))
		}
		p.Arg, p.Secret = "", use(arg)
	case VarBody:
		if named && !hashes[arg] {
			return p, fmt.Errorf("has {%s}; the hash is sha256, sha1 or sha512", shown(inner))
		}
	case VarHeader:
		if p.Arg = canonicalHeader(arg); p.Arg == "" {
			return p, fmt.Errorf("has {%s}, which names no header", shown(inner))
		}
	default:
		if named {
			return p, fmt.Errorf("has {%s}; {%s} takes nothing behind a colon", shown(inner), name)
		}
	}
	return p, nil
}

// placeholders lists what a text may hold.
func placeholders(vars map[string]Var) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		switch vars[name] {
		case VarSecret:
			names = append(names, "{secret}", "{secret:name}")
		case VarBody:
			names = append(names, "{body}", "{body:sha256}")
		case VarHeader:
			names = append(names, "{header:Name}")
		default:
			names = append(names, "{"+name+"}")
		}
	}
	return strings.Join(names, ", ")
}

// placeBuilder makes the place of one entry of auth.
type placeBuilder struct {
	c *Compiled
	a *Auth
	p Place
}

func (b *placeBuilder) kind() string {
	if b.a.In == "" {
		return ""
	}
	return " (" + shown(b.a.In) + ")"
}

// authFields are the fields of an entry beside in, and the kinds that have
// them.
var authFields = []struct {
	name  string
	value func(*Auth) string
	kinds string
}{
	{"name", func(a *Auth) string { return a.Name }, "header query body sign"},
	{"pointer", func(a *Auth) string { return a.Pointer }, "body"},
	{"value", func(a *Auth) string { return a.Value }, "header query body sign"},
	{"user", func(a *Auth) string { return a.User }, "basic"},
	{"password", func(a *Auth) string { return a.Password }, "basic"},
	{"signed", func(a *Auth) string { return a.Signed }, "sign"},
	{"key", func(a *Auth) string { return a.Key }, "sign"},
	{"keyEncoding", func(a *Auth) string { return a.KeyEncoding }, "sign"},
	{"algorithm", func(a *Auth) string { return a.Algorithm }, "sign"},
	{"encoding", func(a *Auth) string { return a.Encoding }, "sign"},
	{"timestampHeader", func(a *Auth) string { return a.TimestampHeader }, "sign"},
	{"timestampFormat", func(a *Auth) string { return a.TimestampFormat }, "sign"},
}

func (b *placeBuilder) build() error {
	b.p.In = b.a.In
	build, ok := map[string]func() error{
		InHeader: b.header, InBasic: b.basic, InQuery: b.query, InPath: b.path, InBody: b.body, InSign: b.sign,
	}[b.a.In]
	switch {
	case b.a.In == "":
		return errors.New("in is missing: header, basic, query, path, body or sign")
	case !ok:
		return errors.New("in is none of header, basic, query, path, body and sign")
	}
	for _, f := range authFields {
		if f.value(b.a) != "" && !slices.Contains(strings.Fields(f.kinds), b.a.In) {
			return fmt.Errorf("%s belongs to %s", f.name, strings.ReplaceAll(f.kinds, " ", ", "))
		}
	}
	return build()
}

// useIn returns a use function that marks what a secret is used for.
func (b *placeBuilder) useIn(mark func(*SecretUse)) func(string) int {
	return func(ref string) int {
		i := b.c.use(ref)
		if mark != nil {
			mark(&b.c.secrets[i])
		}
		return i
	}
}

func plain(u *SecretUse) { u.Plain = true }

// value parses the text of a place that is sent as it is.
func (b *placeBuilder) value() (err error) {
	s := b.a.Value
	if s == "" {
		s = "{secret}"
	}
	if b.p.Value, err = parseText(s, valueVars, b.useIn(plain)); err != nil {
		return fmt.Errorf("value %w", err)
	}
	if !b.p.Value.has(VarSecret) {
		return errors.New("value has no {secret}")
	}
	for _, p := range b.p.Value {
		if !oneLine(p.Lit) {
			return errors.New("value has a control character or one that is not ASCII")
		}
	}
	return nil
}

// oneLine says whether s is printable ASCII.
func oneLine(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// takeHeader checks and takes the name of a header.
func (b *placeBuilder) takeHeader(field, name string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("%s is missing: the name of a header", field)
	}
	h := canonicalHeader(name)
	switch {
	case h == "":
		return "", fmt.Errorf("%s is not the name of a header", field)
	case notForAuth(h):
		return "", fmt.Errorf("%s may not be %s, which frames the message or describes the request", field, h)
	case b.c.headerTaken(h):
		return "", fmt.Errorf("the header %s is used twice", h)
	}
	return h, nil
}

func (b *placeBuilder) header() (err error) {
	if b.p.Name, err = b.takeHeader("name", b.a.Name); err != nil {
		return err
	}
	if err := b.value(); err != nil {
		return err
	}
	v := b.p.Value
	if strings.HasPrefix(v[0].Lit, " ") || strings.HasSuffix(v[len(v)-1].Lit, " ") && v[len(v)-1].Var == VarNone {
		return errors.New("value begins or ends with a space")
	}
	return nil
}

func (b *placeBuilder) basic() (err error) {
	if b.c.headerTaken("Authorization") {
		return errors.New("the header Authorization is used twice")
	}
	b.p.Name = "Authorization"
	user := func(u *SecretUse) { u.Plain, u.InUser = true, true }
	if b.p.User, err = parseText(b.a.User, valueVars, b.useIn(user)); err != nil {
		return fmt.Errorf("user %w", err)
	}
	if b.p.Password, err = parseText(b.a.Password, valueVars, b.useIn(plain)); err != nil {
		return fmt.Errorf("password %w", err)
	}
	if !b.p.User.has(VarSecret) && !b.p.Password.has(VarSecret) {
		return errors.New("neither user nor password has {secret}")
	}
	for _, p := range slices.Concat(b.p.User, b.p.Password) {
		if strings.ContainsFunc(p.Lit, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return errors.New("user or password has a control character")
		}
	}
	for _, p := range b.p.User {
		if strings.Contains(p.Lit, ":") {
			return errors.New("user has a colon, which would end it")
		}
	}
	return nil
}

// takeParam checks and takes the name of a parameter or form field.
func (b *placeBuilder) takeParam(what string) error {
	name := b.a.Name
	if name == "" {
		return fmt.Errorf("name is missing: the name of a %s", what)
	}
	if len(name) > maxName {
		return fmt.Errorf("name is longer than %d bytes", maxName)
	}
	for i := range len(name) {
		if !unreserved[name[i]] {
			return fmt.Errorf("name is not letters, digits, '-', '.', '_' and '~'")
		}
	}
	if b.c.Reserved(name) {
		return fmt.Errorf("the %s %s is used twice", what, name)
	}
	b.c.reserve(name)
	b.p.Name = name
	return nil
}

func (b *placeBuilder) query() error {
	if err := b.takeParam("query parameter"); err != nil {
		return err
	}
	return b.value()
}

func (b *placeBuilder) path() error {
	if !b.c.pathSecret {
		return errors.New("baseUrl has no {secret}; it says where in the path the secret stands")
	}
	b.p.Value = Text{{Var: VarSecret, Secret: b.useIn(func(u *SecretUse) {
		u.Plain, u.InPath, u.Segment = true, true, b.c.pathSegment
	})(b.c.pathRef)}}
	return nil
}

func (b *placeBuilder) body() error {
	switch {
	case b.a.Name != "" && b.a.Pointer != "":
		return errors.New("name and pointer are both set: a body is a form or JSON")
	case b.a.Pointer == "" && b.a.Name == "":
		return errors.New(`name (a form field) or pointer (such as "/token", in JSON) is missing`)
	case b.a.Name != "":
		if err := b.takeParam("form field"); err != nil {
			return err
		}
		return b.value()
	}
	var err error
	if b.p.Pointer, err = parsePointer(b.a.Pointer); err != nil {
		return err
	}
	if len(b.p.Pointer) == 1 {
		if b.c.Reserved(b.p.Pointer[0]) {
			return fmt.Errorf("the member %s is used twice", shown(b.p.Pointer[0]))
		}
		b.c.reserve(b.p.Pointer[0])
	}
	return b.value()
}

// parsePointer reads a JSON pointer (RFC 6901).
func parsePointer(s string) ([]string, error) {
	if !strings.HasPrefix(s, "/") {
		return nil, errors.New("pointer does not begin with a slash")
	}
	tokens := strings.Split(s[1:], "/")
	if len(tokens) > maxPointer {
		return nil, fmt.Errorf("pointer is deeper than %d", maxPointer)
	}
	for i, tok := range tokens {
		if rest := strings.NewReplacer("~0", "", "~1", "").Replace(tok); strings.Contains(rest, "~") {
			return nil, errors.New("pointer has a ~ that is neither ~0 nor ~1")
		}
		tok = strings.NewReplacer("~1", "/", "~0", "~").Replace(tok)
		if tok == "" || len(tok) > maxName || !oneLine(tok) {
			return nil, fmt.Errorf("pointer has a name that is not 1 to %d printable ASCII characters", maxName)
		}
		tokens[i] = tok
	}
	return tokens, nil
}

func (b *placeBuilder) sign() (err error) {
	a := b.a
	if b.p.Name, err = b.takeHeader("name", a.Name); err != nil {
		return err
	}
	s := &Sign{KeyEncoding: a.KeyEncoding, Algorithm: a.Algorithm, Encoding: a.Encoding, TimestampForm: a.TimestampFormat}
	b.p.Sign = s
	for _, choice := range []struct {
		field string
		value *string
		of    []string // the first is the default
	}{
		{"algorithm", &s.Algorithm, []string{"sha256", "sha1", "sha512"}},
		{"encoding", &s.Encoding, []string{"hex", "base64", "base64url"}},
		{"keyEncoding", &s.KeyEncoding, []string{"raw", "hex", "base64"}},
		{"timestampFormat", &s.TimestampForm, []string{"unix", "unix-ms", "rfc3339"}},
	} {
		if *choice.value == "" {
			*choice.value = choice.of[0]
		}
		if !slices.Contains(choice.of, *choice.value) {
			return fmt.Errorf("%s is none of %s", choice.field, strings.Join(choice.of, ", "))
		}
	}
	if a.TimestampHeader != "" {
		if s.TimestampHeader, err = b.takeHeader("timestampHeader", a.TimestampHeader); err != nil {
			return err
		}
	}
	if err := b.signKey(); err != nil {
		return err
	}
	return b.signTexts()
}

func (b *placeBuilder) signKey() (err error) {
	s, key := b.p.Sign, b.a.Key
	if key == "" {
		key = "{secret}"
	}
	if s.Key, err = parseText(key, valueVars, b.useIn(func(u *SecretUse) {
		if s.KeyEncoding != "raw" {
			u.KeyEncoding = s.KeyEncoding
		}
	})); err != nil {
		return fmt.Errorf("key %w", err)
	}
	switch {
	case !s.Key.has(VarSecret):
		return errors.New("key has no {secret}")
	case s.KeyEncoding != "raw" && (len(s.Key) != 1 || s.Key[0].Lit != ""):
		return fmt.Errorf("key is more than one {secret}, and keyEncoding is %s", s.KeyEncoding)
	}
	return nil
}

func (b *placeBuilder) signTexts() (err error) {
	s, value := b.p.Sign, b.a.Value
	if value == "" {
		value = "{signature}"
	}
	if b.p.Value, err = parseText(value, signatureVars, nil); err != nil {
		return fmt.Errorf("value %w", err)
	}
	if b.p.Value.count(VarSignature) != 1 {
		return errors.New("value has not exactly one {signature}")
	}
	for _, p := range b.p.Value {
		if !oneLine(p.Lit) || !httpguts.ValidHeaderFieldValue(p.Lit) {
			return errors.New("value has a character that cannot stand in a header")
		}
	}
	if b.a.Signed == "" {
		return errors.New(`signed is missing: what is signed, such as "v0:{timestamp}:{body}"`)
	}
	if s.Signed, err = parseText(b.a.Signed, signedVars, b.useIn(nil)); err != nil {
		return fmt.Errorf("signed %w", err)
	}
	stamped := s.Signed.has(VarTimestamp)
	switch {
	case s.Signed.count(VarNone) == len(s.Signed):
		return errors.New("signed has no placeholder, so every request would have one signature")
	case stamped && s.TimestampHeader == "" && !b.p.Value.has(VarTimestamp):
		return errors.New("{timestamp} is signed and sent nowhere: set timestampHeader, or put {timestamp} into value")
	case b.a.TimestampFormat != "" && !stamped && s.TimestampHeader == "" && !b.p.Value.has(VarTimestamp):
		return errors.New("timestampFormat is set, and there is no time stamp")
	}
	return nil
}
