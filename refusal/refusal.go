// Package refusal is the one type in which every part of the vault says no.
//
// A refusal carries a stable code for programs, a sentence for people and,
// where a next step exists, a hint. Handlers turn it into the answer and the
// audit record in one place (wire.md, "Status codes"). The package knows
// nothing of HTTP handling, storage or Caddy; anything may import it.
package refusal

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Refusal is why a request was not served. No field ever holds a secret, a
// token or an agent's body: all of them may be logged and sent.
type Refusal struct {
	// Code is stable and for programs, for example
	// "INVALID_SCOPE:github:repos:write". Match on the part before the first
	// colon; the rest is detail.
	Code string

	// Status is the HTTP status, 400 to 599.
	Status int

	// Detail is one sentence for a person, naming the thing.
	Detail string

	// Hint is the next step, if there is one: the scope to ask for, the
	// action that matches, when to retry.
	Hint string

	// RetryAfter is how long to wait before another try; zero says nothing.
	RetryAfter time.Duration

	// Challenge holds the values of WWW-Authenticate, if the status is 401.
	Challenge []string

	// Recorded says that the audit log already has the record of this
	// refusal, written where it was decided.
	Recorded bool

	// Cause is what happened underneath. It goes to the server's log only,
	// never into an answer or a record.
	Cause error
}

// Error returns the code and the detail.
func (r *Refusal) Error() string {
	if r.Detail == "" {
		return r.Code
	}
	return r.Code + ": " + r.Detail
}

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Cause }

// Base returns the code without its detail, the part before the first colon.
func (r *Refusal) Base() string { return Base(r.Code) }

// Base returns the part of code before the first colon.
func Base(code string) string {
	base, _, _ := strings.Cut(code, ":")
	return base
}

// New returns a refusal with the status that wire.md gives its code. The
// detail is formatted with args as by fmt.Sprintf.
func New(code, detail string, args ...any) *Refusal {
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	return &Refusal{Code: code, Status: Status(code), Detail: detail}
}

// WithHint returns a copy of r that says what to do next.
func (r *Refusal) WithHint(hint string, args ...any) *Refusal {
	c := *r
	if len(args) > 0 {
		hint = fmt.Sprintf(hint, args...)
	}
	c.Hint = hint
	return &c
}

// WithChallenge returns a copy of r with the values of WWW-Authenticate.
func (r *Refusal) WithChallenge(values ...string) *Refusal {
	c := *r
	c.Challenge = values
	return &c
}

// WithCause returns a copy of r that remembers what happened underneath.
func (r *Refusal) WithCause(err error) *Refusal {
	c := *r
	c.Cause = err
	return &c
}

// Codes that several packages use or compare with.
const (
	AuditUnavailable = "AUDIT_UNAVAILABLE"
	StoreUnavailable = "STORE_UNAVAILABLE"
	Internal         = "INTERNAL"
)

// statuses maps the base of a code to its HTTP status (wire.md, "Status
// codes"). A code that is absent, such as ALLOWEDAGENTS_REQUIRED, is a 400.
var statuses = map[string]int{
	"TOKEN_REQUIRED":         http.StatusUnauthorized,
	"TOKEN_INVALID":          http.StatusUnauthorized,
	"TOKEN_EXPIRED":          http.StatusUnauthorized,
	"TOKEN_REVOKED":          http.StatusUnauthorized,
	"SESSION_REVOKED":        http.StatusUnauthorized,
	"TASK_REVOKED":           http.StatusUnauthorized,
	"AGENT_REVOKED":          http.StatusUnauthorized,
	"TOKEN_REPLAYED":         http.StatusUnauthorized,
	"TOKEN_BINDING_REQUIRED": http.StatusUnauthorized,
	"DPOP_PROOF_INVALID":     http.StatusUnauthorized,
	"DPOP_NONCE_REQUIRED":    http.StatusUnauthorized,
	"ADMIN_UNAUTHORIZED":     http.StatusUnauthorized,
	"AGENT_DISABLED":         http.StatusUnauthorized,
	"AGENT_EXPIRED":          http.StatusUnauthorized,
	"AGENT_KEY_INVALID":      http.StatusUnauthorized,
	"AGENT_TOKEN_INVALID":    http.StatusUnauthorized,
	"AGENT_UNAUTHENTICATED":  http.StatusUnauthorized,
	"CERTIFICATE_INVALID":    http.StatusUnauthorized,

	"POLICY_DENY":                           http.StatusForbidden,
	"INVALID_SCOPE":                         http.StatusForbidden,
	"INSUFFICIENT_SCOPE":                    http.StatusForbidden,
	"DELEGATION_DENIED":                     http.StatusForbidden,
	"ACTION_NOT_GRANTED":                    http.StatusForbidden,
	"PARAM_NOT_GRANTED":                     http.StatusForbidden,
	"CONTEXT_MISMATCH":                      http.StatusForbidden,
	"SERVICE_MISMATCH":                      http.StatusForbidden,
	"AGENT_MISMATCH":                        http.StatusForbidden,
	"ORIGIN_DENIED":                         http.StatusForbidden,
	"ADMIN_NOT_CONFIGURED":                  http.StatusForbidden,
	"SERVICE_ALLOWED_SCOPES_NOT_CONFIGURED": http.StatusForbidden,

	"UNKNOWN_SERVICE":  http.StatusNotFound,
	"UNKNOWN_ACTION":   http.StatusNotFound,
	"UNKNOWN_AGENT":    http.StatusNotFound,
	"UNKNOWN_TEMPLATE": http.StatusNotFound,
	"UNKNOWN_SECRET":   http.StatusNotFound,
	"UNKNOWN_KEY":      http.StatusNotFound,
	"NO_ENDPOINT":      http.StatusNotFound,
	"NOT_FOUND":        http.StatusNotFound,

	"UPGRADE_DENIED":         http.StatusForbidden,
	"UPGRADE_REQUIRED":       http.StatusUpgradeRequired,
	"METHOD_NOT_ALLOWED":     http.StatusMethodNotAllowed,
	"CLIENT_TIMEOUT":         http.StatusRequestTimeout,
	"CLIENT_CLOSED":          499, // recorded only: nobody is there to be told
	"AGENT_ALREADY_EXISTS":   http.StatusConflict,
	"SERVICE_ALREADY_EXISTS": http.StatusConflict,
	"SIGNING_KEY_CONFIGURED": http.StatusConflict,
	"BODY_TOO_LARGE":         http.StatusRequestEntityTooLarge,
	"PATH_TOO_LONG":          http.StatusRequestURITooLong,
	"UNSUPPORTED_MEDIA_TYPE": http.StatusUnsupportedMediaType,
	"HOST_DENIED":            http.StatusMisdirectedRequest,
	"RATE_LIMITED":           http.StatusTooManyRequests,
	"BUDGET_EXHAUSTED":       http.StatusTooManyRequests,

	Internal:                http.StatusInternalServerError,
	"UPSTREAM_UNREACHABLE":  http.StatusBadGateway,
	"UPSTREAM_TLS":          http.StatusBadGateway,
	"UPSTREAM_FORBIDDEN":    http.StatusBadGateway,
	"UPSTREAM_PROTOCOL":     http.StatusBadGateway,
	AuditUnavailable:        http.StatusServiceUnavailable,
	StoreUnavailable:        http.StatusServiceUnavailable,
	"BODY_MEMORY_EXHAUSTED": http.StatusServiceUnavailable,
	"ISSUER_UNAVAILABLE":    http.StatusServiceUnavailable,
	"MISSING_MASTER_SECRET": http.StatusServiceUnavailable,
	"UPSTREAM_TIMEOUT":      http.StatusGatewayTimeout,

	// A file pointed a stored secret at another origin (config.md, "A
	// service"): nothing the agent can mend, like a missing secret.
	"SECRET_ORIGIN_MISMATCH": http.StatusServiceUnavailable,
}

// lasting are codes whose statuses clients take for a reason to try again at
// once, which helps nobody: a budget never comes back, and an administrator
// does not come in seconds.
var lasting = map[string]bool{
	"BUDGET_EXHAUSTED":       true,
	"MISSING_MASTER_SECRET":  true,
	"SECRET_ORIGIN_MISMATCH": true,
}

// Lasting reports whether the same request would be refused again, though its
// status says that it might not.
func Lasting(code string) bool { return lasting[Base(code)] }

// Status returns the HTTP status of a code: 400 for one that has none of its
// own, which is what <FIELD>_REQUIRED and <FIELD>_INVALID are.
func Status(code string) int {
	if s, ok := statuses[Base(code)]; ok {
		return s
	}
	return http.StatusBadRequest
}
