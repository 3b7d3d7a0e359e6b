package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token"
)

// JWKSMaxAge is how long the key set may be kept, in seconds. PublishFor is
// longer.
const JWKSMaxAge = 300

// SigningConfig is how the keys that the vault makes for itself are kept.
type SigningConfig struct {
	// Algorithm is EdDSA, ES256 or HS256.
	Algorithm string

	// RotateEvery is how long a key signs before another takes over, 0 for
	// until someone says so.
	RotateEvery time.Duration

	// PublishFor is how long a key is published before it signs, so that
	// whoever keeps the key set knows it by then.
	PublishFor time.Duration
}

// signingKeys are the keys that a data directory's tokens are signed with, in
// every configuration that leaves that to the vault.
type signingKeys struct {
	retired map[string]bool // of the audit log

	mu    sync.Mutex
	ring  *token.Ring // opened by the first that needs it
	plans map[string]SigningConfig
	wake  chan struct{} // holds one
}

func newSigningKeys() *signingKeys {
	return &signingKeys{retired: map[string]bool{}, plans: map[string]SigningConfig{}, wake: make(chan struct{}, 1)}
}

// ringFor returns the ring with a key of the configured algorithm in it.
func (st *State) ringFor(c SigningConfig) (*token.Ring, error) {
	s := st.signing
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ring == nil {
		ring, err := token.OpenRing(filepath.Join(st.dataDir, SigningKeyFile), st.now, func(kid string) bool { return s.retired[kid] })
		if err != nil {
			return nil, err
		}
		s.ring = ring
	}
	if _, err := s.ring.Ensure(c.Algorithm, !st.anchored.signed); err != nil {
		return nil, err
	}
	s.plans[c.Algorithm] = c
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return s.ring, nil
}

// authority makes what issues and verifies tokens under a configuration.
func (v *Vault) authority() (*token.Authority, error) {
	o := token.Options{
		Audience: v.Audience,
		Issuer:   v.Issuer,
		MaxTTL:   v.TokenTTLMax,
		Now:      v.now,
		Derive: func(c *token.Claims) any {
			keys := v.revocationKeys(c)
			keys.limits = v.budgets.limits(c)
			return keys
		},
	}
	if v.Meter != nil {
		o.Counted = v.Meter.Token
	}
	if v.SigningKey != "" {
		key, err := token.HMACKey(v.SigningKey)
		if err != nil {
			return nil, fmt.Errorf("signing key: %w", err)
		}
		return token.New(key, nil, o)
	}
	ring, err := v.ringFor(v.Signing)
	if err != nil {
		return nil, err
	}
	return token.NewOfRing(ring, v.Signing.Algorithm, o)
}

// rotateOnSchedule makes keys as their time comes, until ctx ends.
func (st *State) rotateOnSchedule(ctx context.Context) {
	defer st.background.Done()
	const look = time.Hour // clocks are set, too
	timer := time.NewTimer(look)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-st.signing.wake:
		case <-timer.C:
		}
		timer.Reset(min(look, max(time.Second, st.rotateDue(ctx))))
	}
}

// rotateDue makes the keys that are due and returns how long until the next.
func (st *State) rotateDue(ctx context.Context) time.Duration {
	s := st.signing
	s.mu.Lock()
	defer s.mu.Unlock()
	next := time.Duration(1<<63 - 1)
	for alg, c := range s.plans {
		if c.RotateEvery <= 0 {
			continue
		}
		newest, ok := s.ring.Newest(alg)
		if !ok {
			continue
		}
		now := st.now()
		from := newest.Add(c.RotateEvery)
		if wait := from.Add(-c.PublishFor).Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		if late := now.Add(c.PublishFor); from.Before(late) {
			from = late
		}
		k, err := s.ring.Rotate(alg, from)
		if err == nil {
			_, err = st.audit.Append(ctx, audit.Entry{Record: rotated(k.Kid(), "schedule")})
		}
		if err != nil {
			st.logger.Error("signing key could not be rotated, or the record of it not written", zap.String("algorithm", alg), zap.Error(err))
			next = min(next, time.Minute)
			continue
		}
		st.logger.Info("signing key rotated", zap.String("kid", k.Kid()), zap.Time("active_from", from))
		next = min(next, from.Add(c.RotateEvery-c.PublishFor).Sub(now))
	}
	return next
}

func rotated(kid, reason string) audit.Record {
	return audit.Record{Event: "key.rotated", Kid: kid, Reason: reason}
}

// SigningKeyInfo is one entry of vault.admin.listSigningKeys. Times are
// milliseconds.
type SigningKeyInfo struct {
	Kid        string `json:"kid"`
	Algorithm  string `json:"algorithm"`
	State      string `json:"state"`
	Created    int64  `json:"created,omitzero"`
	ActiveFrom int64  `json:"activeFrom,omitzero"`
	Retired    int64  `json:"retired,omitzero"`
}

// ListSigningKeys returns the keys of the ring, the oldest first.
func (v *Vault) ListSigningKeys() ([]SigningKeyInfo, *refusal.Refusal) {
	ring, refused := v.ring()
	if refused != nil {
		return nil, refused
	}
	ms := func(t time.Time) int64 {
		if t.IsZero() {
			return 0
		}
		return t.UnixMilli()
	}
	out := []SigningKeyInfo{}
	for _, k := range ring.List() {
		out = append(out, SigningKeyInfo{k.Kid, k.Algorithm, string(k.State), ms(k.Created), ms(k.ActiveFrom), ms(k.Retired)})
	}
	return out, nil
}

// ring returns the ring, unless tokens are signed with a configured key.
func (v *Vault) ring() (*token.Ring, *refusal.Refusal) {
	if v.SigningKey != "" {
		return nil, refusal.New("SIGNING_KEY_CONFIGURED", "tokens are signed with the configured signing_key").
			WithHint("change the key in the configuration, or take signing_key out so that the vault keeps keys of its own")
	}
	v.signing.mu.Lock()
	defer v.signing.mu.Unlock()
	return v.signing.ring, nil
}

// RotateSigningKey makes a key that signs after it has been published for long
// enough, or with now at once.
func (v *Vault) RotateSigningKey(ctx context.Context, now bool, rec *audit.Record) (*SigningKeyInfo, *refusal.Refusal) {
	ring, refused := v.ring()
	if refused != nil {
		return nil, refused
	}
	if refused := v.writable(); refused != nil {
		return nil, refused
	}
	from := v.now()
	if !now {
		from = from.Add(v.Signing.PublishFor)
	}
	k, err := ring.Rotate(v.Signing.Algorithm, from)
	if err != nil {
		return nil, storeRefusal(err)
	}
	rec.Kid = k.Kid()
	if refused := v.record(ctx, audit.Entry{Record: rotated(k.Kid(), "command")}); refused != nil {
		return nil, refused
	}
	state := token.Published
	if now {
		state = token.Active
	}
	return &SigningKeyInfo{k.Kid(), k.Algorithm(), string(state), k.Created.UnixMilli(), k.ActiveFrom.UnixMilli(), 0}, nil
}

// RetireSigningKey ends every token of a key, at once, and cuts their calls.
// The id of the key that signs in its place is returned, if it was the one
// that signed. Like a revocation it is in force even if a refusal says that
// it could not be recorded or stored.
func (v *Vault) RetireSigningKey(ctx context.Context, kid string, rec *audit.Record) (next string, _ *refusal.Refusal) {
	rec.Kid = kid
	ring, refused := v.ring()
	if refused != nil {
		return "", refused
	}
	dead, replacement, err := ring.Retire(kid)
	if errors.Is(err, fs.ErrNotExist) {
		return "", refusal.New("UNKNOWN_KEY", "there is no signing key with this id that is not retired").
			WithHint("vault.admin.listSigningKeys names them")
	}
	enforce := func() {
		dead.Kill()
		v.live.revoked()
	}
	if err != nil {
		enforce()
		v.logger.Error("a signing key is retired but that could not be stored", zap.Error(err))
		return "", storeRefusal(err)
	}
	if refused := v.record(ctx, audit.Entry{Record: audit.Record{Event: "key.retired", Kid: kid}, InForce: enforce}); refused != nil {
		enforce()
		return "", refused
	}
	if replacement.Kid() != "" {
		if refused := v.record(ctx, audit.Entry{Record: rotated(replacement.Kid(), "retirement")}); refused != nil {
			return "", refused
		}
	}
	return replacement.Kid(), nil
}
