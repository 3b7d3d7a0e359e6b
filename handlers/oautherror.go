package handlers

import (
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/caddyvault/caddyvault/refusal"
)

// oauthErrors are the errors of RFC 6749, section 5.2, and of those that add
// to it, by the base of a code. What is not listed follows from its status.
var oauthErrors = map[string]string{
	"AGENT_UNAUTHENTICATED":                 "invalid_client",
	"AGENT_MISMATCH":                        "invalid_client",
	"AGENT_KEY_INVALID":                     "invalid_client",
	"AGENT_TOKEN_INVALID":                   "invalid_client",
	"CERTIFICATE_INVALID":                   "invalid_client",
	"ADMIN_UNAUTHORIZED":                    "invalid_client",
	"POLICY_DENY":                           "unauthorized_client",
	"AGENT_REVOKED":                         "unauthorized_client",
	"INVALID_SCOPE":                         "invalid_scope",
	"INSUFFICIENT_SCOPE":                    "invalid_scope",
	"SCOPE_REQUIRED":                        "invalid_scope",
	"SCOPE_INVALID":                         "invalid_scope",
	"UNKNOWN_SERVICE":                       "invalid_target", // RFC 8707, section 2
	"SERVICE_REQUIRED":                      "invalid_target",
	"SERVICE_MISMATCH":                      "invalid_target",
	"GRANT_TYPE_UNSUPPORTED":                "unsupported_grant_type",
	"BUDGET_EXHAUSTED":                      "invalid_request",
	"DPOP_PROOF_INVALID":                    "invalid_dpop_proof", // RFC 9449, section 5
	"TOKEN_BINDING_REQUIRED":                "invalid_dpop_proof",
	"DPOP_NONCE_REQUIRED":                   "use_dpop_nonce",
	"SERVICE_ALLOWED_SCOPES_NOT_CONFIGURED": "invalid_scope",
}

// oauthError returns the error and the status of a refusal.
func oauthError(r *refusal.Refusal) (name string, status int) {
	base := r.Base()
	if r.Code == "DELEGATION_DENIED:scope" {
		return "invalid_scope", http.StatusBadRequest
	}
	switch name := oauthErrors[base]; {
	case name == "invalid_client":
		return name, http.StatusUnauthorized
	case name != "":
		return name, http.StatusBadRequest
	case r.Status >= 500, r.Status == http.StatusTooManyRequests:
		return "temporarily_unavailable", r.Status
	case r.Status == http.StatusUnauthorized, r.Status == http.StatusForbidden:
		// A token that is wrong is a wrong request (RFC 8693, section 2.2.2).
		return "invalid_request", http.StatusBadRequest
	}
	return "invalid_request", r.Status
}

// oauthText is what a client of a standard endpoint is sent of a refusal: its
// own code is in the header Vault-Error.
func oauthText(name string, r *refusal.Refusal) []byte {
	text := printable(r.Detail, 512)
	if hint := printable(r.Hint, 512); hint != "" {
		text += "; " + hint
	}
	// RFC 6749, section 5.2, leaves these two out.
	text = strings.Map(func(c rune) rune {
		if c == '"' || c == '\\' {
			return '\''
		}
		return c
	}, text)
	body, err := json.Marshal(struct {
		Error       string `json:"error"`
		Description string `json:"error_description,omitzero"`
	}{name, text})
	if err != nil {
		return []byte(`{"error":"server_error"}`)
	}
	return body
}
