package token

import (
	"time"

	"github.com/google/uuid"
)

// Context is for whom and for what a token was issued: the claim "ctx".
type Context struct {
	AgentID   string `json:"agentId"`
	SessionID string `json:"sessionId"`
	TaskID    string `json:"taskId"`
	SkillID   string `json:"skillId"`
	Tool      string `json:"tool"`
}

// Claims is what a token says (wire.md, "POST /vault.issueToken"). Times are
// whole seconds.
type Claims struct {
	// Subject is the agent ("sub"), always equal to Context.AgentID.
	Subject string

	// Audience and Issuer are "aud" and "iss". Issue fills them in; in a
	// verified token Issuer may be empty, where the existing system issued it.
	Audience string
	Issuer   string

	// ID is "jti", the tokenId that a revocation names. See NewID.
	ID string

	// IssuedAt and ExpiresAt are "iat" and "exp".
	IssuedAt  time.Time
	ExpiresAt time.Time

	// Service is the one service that the token is for.
	Service string

	// Scope lists what it may do there.
	Scope []string

	Context Context

	// Groups are the agent's groups that an issuer has vouched for and that
	// the service's policy speaks of ("groups"). Nil for none.
	Groups []string

	// Limits are what the token may do less than its scopes allow, nil for
	// none.
	Limits *Limits

	// Chain lists the tokens that this one was derived from, its parent
	// first: at most MaxDepth. A revocation of any of them, of its agent or
	// of its task is one of this token, too.
	Chain []Ancestor

	// Bound is the key or certificate that whoever uses the token must show,
	// nil for none.
	Bound *Binding

	// Key is the key that signed a verified token. Issue ignores it.
	Key Key
}

// MaxDepth is how many tokens may stand above a token.
const MaxDepth = 8

// Limits narrow a token: each is a further condition on every call.
type Limits struct {
	// Actions are the only actions that may be called (the claim "actions"),
	// nil for all that the scopes allow.
	Actions []string

	// Params lists, by the name of a parameter, the texts that it may have
	// (the claim "params"). It has to be there.
	Params map[string][]string

	// MaxCalls is how many calls may start and MaxBytes how many bytes of
	// bodies may pass, both ways together ("maxCalls", "maxBytes"); 0 for no
	// bound. OneTime ("oneTime") is MaxCalls of 1, and then using it again is
	// a replay.
	MaxCalls int64
	MaxBytes int64
	OneTime  bool
}

// Budgeted reports whether calls or bytes are counted.
func (l *Limits) Budgeted() bool {
	return l != nil && (l.MaxCalls > 0 || l.MaxBytes > 0)
}

// Ancestor is what a token says of one that it was derived from. Its session
// is the token's own.
type Ancestor struct {
	ID      string // "jti"
	AgentID string // from the claim "act" (RFC 8693, section 4.1)
	TaskID  string // "task"; empty if it is that of the token below it

	// MaxCalls and MaxBytes are its own budget, which calls of the token
	// count against.
	MaxCalls int64
	MaxBytes int64
}

// Binding is the claim "cnf" (RFC 7800): exactly one of its fields is set.
type Binding struct {
	JKT string // the thumbprint of a DPoP key (RFC 9449, section 6.1)
	X5T string // the SHA-256 of a client certificate (RFC 8705, section 3.1)
}

// NewID returns a fresh token ID: a random UUID (RFC 9562, version 4).
func NewID() string { return uuid.NewString() }

// Verified is a token that passed every check of Authority.Verify. It is
// shared by all callers that present the same token: nothing in it may be
// changed.
type Verified struct {
	Claims

	// Ext is what Options.Derive returned for these claims, nil without it.
	Ext any
}
