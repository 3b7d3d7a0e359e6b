package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddyvault/caddyvault/refusal"
)

const (
	// MaxLength is the longest token that is issued or looked at, in bytes.
	MaxLength = 4 << 10

	// MaxTTL is the longest life of a token, whatever is configured.
	MaxTTL = 15 * time.Minute

	// DefaultLeeway is how far the clocks of two nodes may differ.
	DefaultLeeway = 5 * time.Second

	// DefaultCacheBytes bounds the verified tokens that are remembered.
	DefaultCacheBytes = 32 << 20
)

// ErrTooLong means that the claims do not fit into a token of MaxLength.
var ErrTooLong = fmt.Errorf("token would be longer than %d bytes", MaxLength)

// Options says what an Authority writes into tokens and expects in them.
type Options struct {
	// Audience is "aud" and Issuer is "iss"; both are required.
	Audience string
	Issuer   string

	// MaxTTL is the longest life of a token, from iat to exp. Default and
	// maximum are the constant MaxTTL.
	MaxTTL time.Duration

	// Leeway is added to every comparison of a time with the clock. The
	// default is DefaultLeeway, the maximum one minute.
	Leeway time.Duration

	// Now is the clock, by default time.Now.
	Now func() time.Time

	// CacheBytes bounds the memory of remembered tokens, about. The default
	// is DefaultCacheBytes; below zero nothing is remembered.
	CacheBytes int

	// Derive computes a value from a token's claims once, when it is first
	// verified; callers find it in Verified.Ext. It may run twice for one
	// token, must not change the claims, and what it returns is shared and
	// should be small (a few hundred bytes).
	Derive func(*Claims) any

	// Counted, if set, is told of each good token, and whether it was
	// remembered.
	Counted func(cached bool)
}

// Authority issues and verifies tokens. It is safe for use by many goroutines.
// Its keys are those it was made with, or follow those of a Ring.
type Authority struct {
	opts   Options
	ring   *Ring  // nil for keys that never change
	alg    string // of the ring's keys that sign
	tables atomic.Pointer[tables]
	mu     sync.Mutex // of those who make new tables
	cache  *cache     // nil if nothing is remembered
	signed *signed    // nil, too
}

// tables are the keys at one time; they never change.
type tables struct {
	signing *material
	noKid   *verifier            // HS256 under the signing key, or nil
	byKid   map[string]*verifier // one (algorithm, key) a key id
	gone    map[string]bool      // ids of keys that are retired
	jwks    []byte

	// For which state of the ring, and until when, in Unix nanoseconds.
	gen   uint64
	until int64
}

// verifier is one key with what is asked of the claims that it signed.
type verifier struct {
	key    *material
	claims *jwt.Validator
	issued bool // the issuer claim is required
}

// New returns the authority that signs with signing and accepts its tokens and
// those of the keys in verify. An HS256 key without an id can only be the
// signing key: nothing could tell two of them apart.
func New(signing Key, verify []Key, o Options) (*Authority, error) {
	if signing.m == nil || signing.m.sign == nil {
		return nil, errors.New("tokens: the signing key cannot sign")
	}
	a, err := emptyAuthority(o)
	if err != nil {
		return nil, err
	}
	t := &tables{signing: signing.m, byKid: make(map[string]*verifier)}
	for i, k := range slices.Insert(slices.Clone(verify), 0, signing) {
		switch {
		case k.m == nil:
			return nil, errors.New("tokens: an empty verification key")
		case k.m.kid != "":
			// The id is a digest of the key: the same id is the same key.
			t.byKid[k.m.kid] = newVerifier(k.m, a.opts)
		case i == 0:
			t.noKid = newVerifier(k.m, a.opts)
		default:
			return nil, errors.New("tokens: an HS256 key verifies only as the signing key")
		}
	}
	if t.jwks, err = t.publish(); err != nil {
		return nil, err
	}
	a.tables.Store(t)
	return a, nil
}

// NewOfRing returns the authority that signs with the ring's key of an
// algorithm and accepts tokens of every key of the ring that is not retired.
// Ensure must have returned a key of that algorithm.
func NewOfRing(ring *Ring, alg string, o Options) (*Authority, error) {
	a, err := emptyAuthority(o)
	if err != nil {
		return nil, err
	}
	a.ring, a.alg = ring, alg
	if a.current().signing == nil {
		return nil, errors.New("tokens: the ring has no key that signs")
	}
	return a, nil
}

// emptyAuthority checks the options and fills in the defaults.
func emptyAuthority(o Options) (*Authority, error) {
	if o.Audience == "" || o.Issuer == "" {
		return nil, errors.New("tokens: audience and issuer are required")
	}
	if o.MaxTTL == 0 {
		o.MaxTTL = MaxTTL
	}
	if o.MaxTTL < time.Second || o.MaxTTL > MaxTTL {
		return nil, fmt.Errorf("tokens: the longest life is %v, from 1s to %v is possible", o.MaxTTL, MaxTTL)
	}
	if o.Leeway == 0 {
		o.Leeway = DefaultLeeway
	}
	if o.Leeway < 0 || o.Leeway > time.Minute {
		return nil, fmt.Errorf("tokens: the leeway is %v, up to 1m is possible", o.Leeway)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	a := &Authority{opts: o}
	if o.CacheBytes > 0 {
		a.cache, a.signed = newCache(o.CacheBytes), newSigned()
	}
	return a, nil
}

// current returns the keys as they are now. With a ring, new tables are made
// when it has changed or the time of a key has come.
func (a *Authority) current() *tables {
	t := a.tables.Load()
	if a.ring == nil {
		return t
	}
	view, now := a.ring.view.Load(), a.opts.Now()
	if t.holds(view, now) {
		return t
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if t = a.tables.Load(); t.holds(view, now) {
		return t
	}
	t = &tables{byKid: make(map[string]*verifier), gone: make(map[string]bool), gen: view.gen, until: math.MaxInt64}
	if next := view.next(now); !next.IsZero() {
		t.until = next.UnixNano()
	}
	for i, k := range view.keys {
		switch s, useful := view.state(i, now); {
		case s == Retired:
			t.gone[k.Kid()] = true
		case useful:
			t.byKid[k.Kid()] = newVerifier(k.m, a.opts)
		}
	}
	if k, ok := view.signing(a.alg, now); ok {
		t.signing = k.m
	}
	t.jwks, _ = t.publish() // of strings only
	a.tables.Store(t)
	return t
}

// holds reports whether the tables are those of a view at now.
func (t *tables) holds(view *ringView, now time.Time) bool {
	return t != nil && t.gen == view.gen && now.UnixNano() < t.until
}

// newVerifier turns on every check of claims that the library has. The same
// checks, and those that it lacks, are in wireClaims.check.
func newVerifier(k *material, o Options) *verifier {
	v := &verifier{key: k, issued: k.kid != ""}
	opts := []jwt.ParserOption{
		jwt.WithAudience(o.Audience),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(o.Leeway),
		jwt.WithTimeFunc(o.Now),
	}
	if v.issued {
		opts = append(opts, jwt.WithIssuer(o.Issuer))
	}
	v.claims = jwt.NewValidator(opts...)
	return v
}

// publish returns the public keys as a JWK set, the signing key first.
func (t *tables) publish() ([]byte, error) {
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: []jwk{}}
	signing := ""
	if t.signing != nil {
		signing = t.signing.kid
		if k, ok := t.signing.jwk(); ok {
			set.Keys = append(set.Keys, k)
		}
	}
	var others []jwk
	for kid, v := range t.byKid {
		if k, ok := v.key.jwk(); ok && kid != signing {
			others = append(others, k)
		}
	}
	slices.SortFunc(others, func(x, y jwk) int {
		if x.Kid < y.Kid {
			return -1
		}
		return 1
	})
	set.Keys = append(set.Keys, others...)
	return json.Marshal(set)
}

// JWKS returns the keys that others may verify tokens with, as a JWK set
// (RFC 7517, section 5), those that will sign among them: none for HS256.
func (a *Authority) JWKS() []byte { return slices.Clone(a.current().jwks) }

// Kid returns the id of the key that signs, which for the configured HS256 key
// is empty.
func (a *Authority) Kid() string {
	if s := a.current().signing; s != nil {
		return s.kid
	}
	return ""
}

// Verify returns what the token says, or a refusal: TOKEN_REQUIRED if raw is
// empty, TOKEN_EXPIRED if its time is all that is wrong with it, otherwise
// TOKEN_INVALID. It asks nothing but the clock; whether the token has been
// revoked is for the caller to ask, on each call.
func (a *Authority) Verify(raw string) (*Verified, *refusal.Refusal) {
	if raw == "" {
		r := refusal.New("TOKEN_REQUIRED", "a vault token is needed")
		r.Challenge = []string{"Bearer"}
		return nil, r
	}
	if len(raw) > MaxLength {
		return nil, invalid("it is longer than a token can be")
	}
	if a.cache == nil {
		v, _, r := a.verify(raw)
		return v, r
	}
	hash := a.cache.hash(raw)
	// Outside of its time a token goes the long way, which knows the reason.
	if e := a.cache.get(hash, raw); e != nil && e.in(a.opts.Now().Unix()) {
		if e.verified.Key.m.dead.Load() {
			return nil, retired()
		}
		if a.opts.Counted != nil {
			a.opts.Counted(true)
		}
		return &e.verified, nil
	}
	v, life, r := a.verify(raw)
	if r != nil {
		return nil, r
	}
	if a.opts.Counted != nil {
		a.opts.Counted(false)
	}
	return a.cache.put(hash, raw, v, life, a.opts.Now().Unix()), nil
}

// invalid is TOKEN_INVALID for a reason, which never quotes the token.
func invalid(reason string) *refusal.Refusal {
	r := refusal.New("TOKEN_INVALID", "the token is not valid: "+reason)
	r.Challenge = []string{`Bearer error="invalid_token"`}
	return r
}

// retired is TOKEN_REVOKED of a token whose key is.
func retired() *refusal.Refusal {
	r := refusal.New("TOKEN_REVOKED", "the key that signed the token has been retired").WithHint("issue a new token")
	r.Challenge = []string{`Bearer error="invalid_token", error_description="revoked"`}
	return r
}

// expired is TOKEN_EXPIRED.
func expired() *refusal.Refusal {
	r := refusal.New("TOKEN_EXPIRED", "the token has expired").WithHint("issue a new token")
	r.Challenge = []string{`Bearer error="invalid_token", error_description="expired"`}
	return r
}
