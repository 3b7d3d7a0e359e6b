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
