package vault

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store/revocations"
	"github.com/caddyvault/caddyvault/token"
)

// Config is one configuration's settings; every field is set.
type Config struct {
	Audience string
	Issuer   string

	// TokenTTL is the life of a token that asks for none, TokenTTLMax the
	// longest.
	TokenTTL    time.Duration
	TokenTTLMax time.Duration

	// SigningKey is the configured HS256 key. Empty means the generated keys
	// of the data directory, kept as Signing says.
	SigningKey string
	Signing    SigningConfig

	// DPoPNonce asks for the vault's nonce in every DPoP proof.
	DPoPNonce bool

	// AdminToken is the configured admin token. Empty means the generated one
	// of the data directory.
	AdminToken string

	// RevocationsKeep is how long revoked sessions and tasks stay revoked.
	RevocationsKeep time.Duration

	// Templates returns the template of a name, and TemplateNames all names
	// in order.
	Templates     func(name string) (*policy.Template, error)
	TemplateNames func() ([]string, error)

	// BodyMemory is how many bytes of bodies that are had whole may be held at
	// a time; 0 for DefaultBodyMemory.
	BodyMemory int64

	Upstream Upstream

	// CheckService finds what keeps a service from being sent calls under
	// this configuration, when an administrator adds or changes one; nil for
	// nothing.
	CheckService func(context.Context, *policy.Compiled) *refusal.Refusal

	// Meter is told what happens; nil if nobody wants to know.
	Meter Meter
}

// Vault is one configuration's view of the state: the use cases.
type Vault struct {
	*State
	Config
	tokens *token.Authority
	admin  adminGate
	bodies bodies

	// keyGuesses counts wrong agent keys.
	keyGuesses guesses
}

// Caller is who is asking.
type Caller struct {
	// Agent is the agent's authenticated id. It is empty if nobody has
	// vouched for the caller, and then Trusted says whether its own word is
	// taken.
	Agent   string
	Trusted bool

	// Binding is how the agent's tokens have to be bound, whatever its record
	// says: BindDPoP, BindMTLS, BindAny, or "" for no matter.
	Binding string

	// Admin is set if the caller has shown the admin token on a route that
	// agents use, too.
	Admin bool

	// Groups are those that the issuer who vouched for the agent says it is
	// in; its record may have more.
	Groups []string

	// Client is the address of the connection's other end, the zero Addr for
	// a Unix socket.
	Client netip.Addr

	// RequestID names the request in answers and records.
	RequestID string
}

// New returns the use cases under a configuration. It reads or makes the keys
// that the configuration leaves to the data directory.
func New(st *State, c Config) (*Vault, error) {
	if c.Signing.Algorithm == "" {
		c.Signing = SigningConfig{Algorithm: "EdDSA", PublishFor: 2 * JWKSMaxAge * time.Second}
	}
	v := &Vault{State: st, Config: c}
	v.bodies.init(c.BodyMemory)

	var err error
	if v.tokens, err = v.authority(); err != nil {
		return nil, err
	}

	admin := c.AdminToken
	if admin == "" {
		b, created, err := loadOrCreatePrivate(st.dataDir, AdminTokenFile, func() []byte {
			return []byte(hex.EncodeToString(randomBytes(32)) + "\n")
		})
		if err != nil {
			return nil, fmt.Errorf("admin token: %w", err)
		}
		path := filepath.Join(st.dataDir, AdminTokenFile)
		admin = strings.TrimSpace(string(b))
		if len(admin) < minAdminToken {
			return nil, fmt.Errorf("%s: the admin token is shorter than %d characters", path, minAdminToken)
		}
		if created {
			st.logger.Info("admin token generated", zap.String("file", path))
		}
	}
	v.admin.init(admin, st.now)
	return v, nil
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// tokenKeys is what calls need to know of a token beside its claims, computed
// once when the token is verified.
type tokenKeys struct {
	own    [7]revocations.Key // its entries in the revocation index
	above  []aboveKey         // those of the tokens it was derived from
	limits limits             // the budgets that its calls count against

	agent     string
	bound     *token.Binding // to what the token is bound, if to anything
	agents    []string       // those of the tokens above, if they are others
	ancestors []string       // the ids of those tokens, the parent first

	key token.Key // that signed it
}

// aboveKey is an entry in the revocation index that concerns a token because
// of one above it.
type aboveKey struct {
	key  revocations.Key
	kind uint8 // an index of revocationCodes
}

// revocationKinds stand in the order of RevokeTargets.
var revocationKinds = [4]revocations.Kind{revocations.Token, revocations.Session, revocations.Task, revocations.Agent}

// revocationCodes stand in the order in which a revoked token is told why:
// token, session and task, each revoked for everybody or by its own agent, and
// the agent.
var revocationCodes = [7]string{"TOKEN_REVOKED", "TOKEN_REVOKED", "SESSION_REVOKED", "SESSION_REVOKED", "TASK_REVOKED", "TASK_REVOKED", "AGENT_REVOKED"}

const (
	kindToken   = 0
	kindSession = 2
	kindTask    = 4
	kindAgent   = 6

	byOwner = 1 // added to a kind
)

func (st *State) revocationKeys(c *token.Claims) *tokenKeys {
	keys := &tokenKeys{key: c.Key, agent: c.Subject, bound: c.Bound}
	set := st.revocations
	for i, id := range [3]string{c.ID, c.Context.SessionID, c.Context.TaskID} {
		keys.own[2*i] = set.Key(revocationKinds[i], id)
		keys.own[2*i+byOwner] = set.OwnedKey(revocationKinds[i], c.Subject, id)
	}
	keys.own[kindAgent] = set.Key(revocations.Agent, c.Subject)

	// A family has one session. What is the same as below is looked at once.
	add := func(kind uint8, key revocations.Key) {
		k := aboveKey{key, kind}
		if k.key != keys.own[kind] && !slices.Contains(keys.above, k) {
			keys.above = append(keys.above, k)
		}
	}
	tokens, tasks := []string{c.ID}, []string{c.Context.TaskID}
	for _, a := range c.Chain {
		keys.ancestors = append(keys.ancestors, a.ID)
		if a.AgentID != c.Subject && !slices.Contains(keys.agents, a.AgentID) {
			keys.agents = append(keys.agents, a.AgentID)
		}
		tokens = append(tokens, a.ID)
		add(kindToken, set.Key(revocations.Token, a.ID))
		add(kindAgent, set.Key(revocations.Agent, a.AgentID))
		if a.TaskID != "" {
			tasks = append(tasks, a.TaskID)
			add(kindTask, set.Key(revocations.Task, a.TaskID))
		}
		// What an agent revokes as its own takes along all that was derived
		// from a token of it.
		add(kindSession+byOwner, set.OwnedKey(revocations.Session, a.AgentID, c.Context.SessionID))
		for _, id := range tokens {
			add(kindToken+byOwner, set.OwnedKey(revocations.Token, a.AgentID, id))
		}
		for _, id := range tasks {
			add(kindTask+byOwner, set.OwnedKey(revocations.Task, a.AgentID, id))
		}
	}
	return keys
}

// revoked returns the code of the first reason for which a token does nothing
// any more, or "": it or one above it is revoked, an agent of theirs is
// disabled or has ended, or it is not bound as its agent's tokens have to be
// now.
func (st *State) revoked(keys *tokenKeys) string {
	if keys.key.Dead() {
		return "TOKEN_REVOKED"
	}
	now := st.now()
	if i := st.revocations.Any(now, keys.own[:]...); i >= 0 {
		return revocationCodes[i]
	}
	for _, k := range keys.above {
		if st.revocations.Revoked(k.key, now) {
			return revocationCodes[k.kind]
		}
	}
	if code := st.agentBlocked(keys.agent, now); code != "" {
		return code
	}
	for _, agent := range keys.agents {
		if code := st.agentBlocked(agent, now); code != "" {
			return code
		}
	}
	if !bindingHolds(st.agents.get(keys.agent), keys.bound) {
		return unbound
	}
	return ""
}

func revokedRefusal(code string) *refusal.Refusal {
	if code == unbound {
		return boundOtherwise()
	}
	what, how, _ := strings.Cut(code, "_")
	if how == "EXPIRED" {
		return refusal.New(code, "this "+strings.ToLower(what)+" has expired")
	}
	return refusal.New(code, "this "+strings.ToLower(what)+" has been "+strings.ToLower(how))
}

// verify checks a token, that it is not revoked, and who holds it.
func (v *Vault) verify(raw string, holder HolderSource) (*token.Verified, *tokenKeys, *refusal.Refusal) {
	t, refused := v.tokens.Verify(raw)
	if refused != nil {
		return nil, nil, refused
	}
	keys := t.Ext.(*tokenKeys)
	if code := v.revoked(keys); code != "" {
		return t, keys, revokedRefusal(code)
	}
	return t, keys, v.checkHolder(t, raw, holder)
}

// JWKS returns the public keys that tokens are signed with (RFC 7517).
func (v *Vault) JWKS() []byte { return v.tokens.JWKS() }

// Health returns nil while calls are served, else why they are refused.
func (v *Vault) Health() *refusal.Refusal {
	if err := v.audit.Err(); err != nil {
		return auditRefusal(err)
	}
	return nil
}

// record appends a record and waits until it is durable.
func (v *Vault) record(ctx context.Context, e audit.Entry) *refusal.Refusal {
	if _, err := v.audit.Append(ctx, e); err != nil {
		return auditRefusal(err)
	}
	return nil
}

// auditRefusal turns an error of the audit log into the refusal.
func auditRefusal(err error) *refusal.Refusal {
	if denied, ok := errors.AsType[*audit.Denied](err); ok {
		r := revokedRefusal(denied.Code)
		r.Recorded = true
		return r
	}
	r := refusal.New(refusal.AuditUnavailable, "the audit log cannot be written, and nothing is done unrecorded").
		WithHint("try again in a few seconds").WithCause(err)
	r.RetryAfter = time.Second
	return r
}

func storeRefusal(err error) *refusal.Refusal {
	r := refusal.New(refusal.StoreUnavailable, "the store cannot be written").WithHint("try again in a few seconds").WithCause(err)
	r.RetryAfter = time.Second
	return r
}

// unknownService is the refusal for a name that no service has.
func unknownService(name string) *refusal.Refusal {
	return refusal.New("UNKNOWN_SERVICE", "there is no service %q", clip(name)).
		WithHint("an administrator adds services; vault.admin.listServices names them")
}

// service returns a service that can serve calls.
func (v *Vault) service(name string) (*policy.Compiled, *refusal.Refusal) {
	svc := v.services.get(name)
	if svc == nil || svc.compiled == nil {
		return nil, unknownService(name)
	}
	return svc.compiled, nil
}

// clip shortens a string that an agent chose, for use in a message.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
