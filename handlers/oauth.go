package handlers

import (
	"net/url"
	"strings"

	"github.com/caddyvault/caddyvault/identity"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/token"
	"github.com/caddyvault/caddyvault/vault"
)

// Names that the standards give things.
const (
	grantClient   = "client_credentials"
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeAccess    = "urn:ietf:params:oauth:token-type:access_token"
	typeJWT       = "urn:ietf:params:oauth:token-type:jwt"
	typeID        = "urn:ietf:params:oauth:token-type:id_token"
	typeAssertion = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
)

// standard wraps a standard endpoint, which takes a form.
func standard(h func(rq *request, form map[string]string) *refusal.Refusal) func(*request, []byte) *refusal.Refusal {
	return func(rq *request, body []byte) *refusal.Refusal {
		form, refused := parseForm(body)
		if refused != nil {
			return refused
		}
		return h(rq, form)
	}
}

// issuer returns the issuer if it is an https URL without path: it is what
// these standards name everything by, and without it they are not served.
func (rq *request) issuer() (string, *refusal.Refusal) {
	u, err := url.Parse(rq.vault.Issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", refusal.New("NOT_FOUND", "this route is there only where the issuer is a URL").
			WithHint("an administrator configures issuer https://…, the URL of this site without a path; vault.issueToken works without")
	}
	return rq.vault.Issuer, nil
}

// client learns who a client of a standard endpoint is: its secret is an
// agent's key, as a bearer would be; without one it may be known by whatever
// else agents are known by.
func (rq *request) client(form map[string]string) *refusal.Refusal {
	id, secret, refused := clientSecret(rq.Header, form)
	if refused != nil {
		return refused
	}
	if secret != "" {
		return rq.clientBy(secret, id)
	}
	if auth := rq.Header["Authorization"]; len(auth) == 1 && len(auth[0]) > 5 && strings.EqualFold(auth[0][:5], "Basic") {
		return refusal.New("AGENT_UNAUTHENTICATED", "the client has no secret").WithChallenge(`Basic realm="caddyvault"`)
	}
	if refused := rq.identify(); refused != nil {
		return refused
	}
	if rq.caller.Agent != "" && id != "" && id != rq.caller.Agent {
		return clientUnknown()
	}
	if rq.caller.Agent == "" && !rq.caller.Trusted {
		return clientUnknown()
	}
	return nil
}

// clientBy learns who shows a credential as its bearer. It has to be known by
// that: being trusted without proof does not do for whoever offers one.
func (rq *request) clientBy(credential, id string) *refusal.Refusal {
	seen := rq.Request
	asked := seen.Clone(seen.Context())
	asked.Header = seen.Header.Clone()
	asked.Header.Set("Authorization", "Bearer "+credential)
	rq.Request = asked
	refused := rq.identifyBy(true)
	rq.Request = seen
	if refused != nil {
		return refused
	}
	if rq.caller.Agent == "" || id != "" && id != rq.caller.Agent {
		rq.caller.Agent, rq.caller.Trusted, rq.known = "", false, false
		return clientUnknown()
	}
	return nil
}

func clientUnknown() *refusal.Refusal {
	return refusal.New("AGENT_UNAUTHENTICATED", "this vault does not know the client").
		WithHint("client_id is the agent, client_secret its key").WithChallenge(`Basic realm="caddyvault"`)
}

// oauthToken answers POST /oauth/token.
func oauthToken(rq *request, form map[string]string) *refusal.Refusal {
	switch form["grant_type"] {
	case grantClient:
		if refused := rq.client(form); refused != nil {
			return refused
		}
		agent := form["client_id"]
		if rq.caller.Agent != "" {
			agent = rq.caller.Agent
		}
		return rq.grant(form, agent, false)
	case grantExchange:
		return rq.exchange(form)
	case "":
		return refusal.New("GRANT_TYPE_REQUIRED", "name the grant in grant_type")
	}
	return refusal.New("GRANT_TYPE_UNSUPPORTED", "the grants are client_credentials and token exchange")
}

// exchange is the grant of RFC 8693: of an agent's own JWT for a token, or of a
// token for one of its children.
func (rq *request) exchange(form map[string]string) *refusal.Refusal {
	subject := form["subject_token"]
	switch {
	case subject == "":
		return refusal.New("SUBJECT_TOKEN_REQUIRED", "there is no subject_token")
	case form["actor_token"] != "" || form["actor_token_type"] != "":
		return refusal.New("ACTOR_TOKEN_INVALID", "an actor_token is not taken: who asks is the actor")
	case form["requested_token_type"] != "" && form["requested_token_type"] != typeAccess:
		return refusal.New("REQUESTED_TOKEN_TYPE_INVALID", "what is given out is %s", typeAccess)
	}
	switch form["subject_token_type"] {
	case typeJWT, typeID:
		if refused := rq.subject(subject, form); refused != nil {
			return refused
		}
		return rq.grant(form, rq.caller.Agent, true)
	case typeAccess:
	default:
		return refusal.New("SUBJECT_TOKEN_TYPE_INVALID", "the types are %s for a token of the vault, and %s for an agent's own", typeAccess, typeJWT)
	}
	rq.event = "token.delegate"
	if refused := rq.client(form); refused != nil {
		return refused
	}
	req := vault.DelegateRequest{Token: subject, Holder: rq, Service: rq.target(form)}
	if form["scope"] != "" {
		req.Scope = strings.Fields(form["scope"])
	}
	res, refused := rq.vault.Delegate(rq.Context(), rq.caller, req, &rq.record)
	if refused != nil {
		return refused
	}
	return rq.granted(&res.IssueResult, true)
}

// subject learns who an agent's own JWT is about. A client that also shows a
// secret has to be the same.
func (rq *request) subject(jwt string, form map[string]string) *refusal.Refusal {
	if !identity.LooksLikeJWT(jwt) {
		return refusal.New("SUBJECT_TOKEN_INVALID", "the subject_token is not a JWT")
	}
	id, secret, refused := clientSecret(rq.Header, form)
	if refused != nil {
		return refused
	}
	if secret != "" {
		if refused := rq.clientBy(secret, id); refused != nil {
			return refused
		}
		id = rq.caller.Agent
	}
	refused = rq.clientBy(jwt, id)
	if refused == nil {
		return nil
	}
	switch refused.Base() {
	case "AGENT_UNAUTHENTICATED", "AGENT_TOKEN_INVALID":
		// What is wrong is the request, not the client (RFC 8693, section
		// 2.2.2).
		r := refusal.New("SUBJECT_TOKEN_INVALID", "the subject_token is not of an agent that is known here: %s", refused.Detail)
		r.Hint = refused.Hint
		return r
	}
	return refused
}

// grant issues a token to an agent.
func (rq *request) grant(form map[string]string, agent string, exchanged bool) *refusal.Refusal {
	res, refused := rq.vault.Issue(rq.Context(), rq.caller, vault.IssueRequest{
		Service: rq.target(form),
		Scope:   strings.Fields(form["scope"]),
		Context: token.Context{AgentID: agent, Tool: "oauth.token"},
		Holder:  rq,
	}, &rq.record)
	if refused != nil {
		return refused
	}
	return rq.granted(res, exchanged)
}

// target is the service that a request names: by its name as audience or
// resource, or as resource by the URL of its calls. "?" stands for one that
// none can have, where the two differ.
func (rq *request) target(form map[string]string) string {
	resource := form["resource"]
	if rest, ok := strings.CutPrefix(resource, strings.TrimSuffix(rq.vault.Issuer, "/")+proxyPrefix); ok {
		resource = strings.TrimSuffix(rest, "/")
	}
	audience := form["audience"]
	switch {
	case resource == "":
		return audience
	case audience == "" || audience == resource:
		return resource
	}
	return "?"
}

// granted answers with a token (RFC 6749, section 5.1).
func (rq *request) granted(res *vault.IssueResult, exchanged bool) *refusal.Refusal {
	out := struct {
		Token     string `json:"access_token"`
		Issued    string `json:"issued_token_type,omitzero"`
		Type      string `json:"token_type"`
		ExpiresIn int    `json:"expires_in"`
		Scope     string `json:"scope,omitzero"`
	}{Token: res.Token, Type: "Bearer", ExpiresIn: res.ExpiresInSec, Scope: strings.Join(rq.record.Scope, " ")}
	if res.TokenType != "" {
		out.Type = res.TokenType
	}
	if exchanged {
		out.Issued = typeAccess
	}
	rq.w.Header().Set("Pragma", "no-cache")
	return rq.answer(out)
}

// oauthIntrospect answers POST /oauth/introspect (RFC 7662).
func oauthIntrospect(rq *request, form map[string]string) *refusal.Refusal {
	admin := rq.isAdmin()
	if !admin {
		if refused := rq.client(form); refused != nil {
			return refused
		}
	}
	if form["token"] == "" {
		return refusal.New("TOKEN_FIELD_REQUIRED", "there is no token")
	}
	info, refused := rq.vault.Introspect(rq.caller, admin, form["token"])
	if refused != nil {
		return refused
	}
	return rq.answer(info.Standard())
}

// oauthRevoke answers POST /oauth/revoke (RFC 7009). A token that is not good
// is as good as revoked.
func oauthRevoke(rq *request, form map[string]string) *refusal.Refusal {
	admin := rq.isAdmin()
	if !admin {
		if refused := rq.client(form); refused != nil {
			return refused
		}
	}
	if form["token"] == "" {
		return refusal.New("TOKEN_FIELD_REQUIRED", "there is no token")
	}
	if refused := rq.vault.RevokeToken(rq.Context(), rq.caller, admin, form["token"], &rq.record); refused != nil {
		return refused
	}
	rq.answerRaw(200, nil)
	return nil
}

// Metadata that both documents have.
type metadata struct {
	JWKS string   `json:"jwks_uri"`
	DPoP []string `json:"dpop_signing_alg_values_supported"`
	MTLS bool     `json:"tls_client_certificate_bound_access_tokens"`
}

func metadataOf(issuer string) metadata {
	return metadata{strings.TrimSuffix(issuer, "/") + "/.well-known/jwks.json", strings.Fields(token.ProofAlgorithms), true}
}

// serverMetadata answers GET /.well-known/oauth-authorization-server (RFC
// 8414).
func serverMetadata(rq *request, _ []byte) *refusal.Refusal {
	issuer, refused := rq.issuer()
	if refused != nil {
		return refused
	}
	at := strings.TrimSuffix(issuer, "/") + "/oauth/"
	methods := []string{"client_secret_basic", "client_secret_post", "none"}
	for _, m := range rq.server.Identify.Means {
		if _, ok := m.(Certificates); ok {
			methods = append(methods, "tls_client_auth") // RFC 8705, section 2.1
		}
	}
	rq.w.Header().Set("Cache-Control", "public, max-age=300")
	return rq.answer(struct {
		Issuer     string   `json:"issuer"`
		Token      string   `json:"token_endpoint"`
		Introspect string   `json:"introspection_endpoint"`
		Revoke     string   `json:"revocation_endpoint"`
		Grants     []string `json:"grant_types_supported"`
		Responses  []string `json:"response_types_supported"`
		Methods    []string `json:"token_endpoint_auth_methods_supported"`
		Methods2   []string `json:"introspection_endpoint_auth_methods_supported"`
		Methods3   []string `json:"revocation_endpoint_auth_methods_supported"`
		metadata
	}{issuer, at + "token", at + "introspect", at + "revoke", []string{grantClient, grantExchange}, []string{}, methods, methods, methods, metadataOf(issuer)})
}

// resourceMetadata answers GET /.well-known/oauth-protected-resource (RFC
// 9728).
func resourceMetadata(rq *request, _ []byte) *refusal.Refusal {
	issuer, refused := rq.issuer()
	if refused != nil {
		return refused
	}
	rq.w.Header().Set("Cache-Control", "public, max-age=300")
	return rq.answer(struct {
		Resource string   `json:"resource"`
		Servers  []string `json:"authorization_servers"`
		Bearer   []string `json:"bearer_methods_supported"`
		metadata
	}{issuer, []string{issuer}, []string{"header", "body"}, metadataOf(issuer)})
}
