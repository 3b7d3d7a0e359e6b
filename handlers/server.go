package handlers

import (
	"crypto/rand"
	"encoding/hex"
	"iter"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// Group is a part of the API that a site may serve.
type Group uint8

// The groups.
const (
	Agent Group = 1 << iota // health, issueToken, call, revoke, audit.query, the key set
	Admin                   // vault.admin.*, and health
)

// Server serves the API of one site.
type Server struct {
	// Groups are the parts of the API that are served here; a path of the
	// others is NOT_FOUND.
	Groups Group

	// Proxy, if set, is the one service that is served here, at the root of
	// the site: every path is the service's, and Groups does not count.
	Proxy string

	// Identify says who is calling.
	Identify Identifier

	// AllowedHosts are Host names that are legal on a loopback connection
	// beside the loopback names and addresses, in lower case and without port.
	AllowedHosts []string

	// ClientIP returns the address that the server in front takes for the
	// client's, "" if it is the connection's own.
	ClientIP func(r *http.Request) string

	// OnAgent, if set, is told the agent as soon as it is known.
	OnAgent func(r *http.Request, agent string)

	// Exiting, if set, says that the server is ending and with it every
	// stream that would go on for ever.
	Exiting func() bool

	// OnRefused, if set, is told the code of each refusal.
	OnRefused func(code string)

	// OnError, if set, is told what went wrong underneath a refusal. It must
	// not be shown to clients.
	OnError func(r *http.Request, refused *refusal.Refusal)
}

// request is one request on its way through a route.
type request struct {
	*http.Request
	w      http.ResponseWriter
	server *Server
	vault  *vault.Vault
	caller vault.Caller

	// event names the record of a refusal, less ".denied".
	event string

	// record gathers what is known for the audit record.
	record audit.Record

	// held is what its body takes of the memory for bodies.
	held vault.BodyHold

	// known is set once the caller has shown a valid token, or is an
	// administrator or a known agent: its refusals are not those of an
	// outsider.
	known bool

	// oauth is set for an endpoint whose errors have the form of RFC 6749.
	oauth bool
}

// route answers a request. A returned refusal means that nothing has been
// written.
type route struct {
	group   Group
	event   string // of a refusal, less ".denied"
	method  string
	noBody  bool
	form    bool // the body is a form, not JSON
	handler func(rq *request, body []byte) *refusal.Refusal
}

// routes are the exact paths of the API (wire.md).
var routes map[string]route

func init() {
	post := func(group Group, event string, h func(*request, []byte) *refusal.Refusal) route {
		return route{group: group, event: event, method: http.MethodPost, handler: h}
	}
	routes = map[string]route{
		"/health":                {group: Agent | Admin, event: "request", method: http.MethodGet, noBody: true, handler: health},
		"/.well-known/jwks.json": {group: Agent, event: "request", method: http.MethodGet, noBody: true, handler: jwks},
		"/vault.issueToken":      post(Agent, "token.issue", issueToken),
		"/vault.delegateToken":   post(Agent, "token.delegate", delegateToken),
		"/vault.introspectToken": post(Agent, "token.introspect", introspectToken),
		"/vault.call":            post(Agent, "proxy.call", call),
		"/vault.revoke":          post(Agent, "token.revoke", revoke),
		"/vault.audit.query":     post(Agent, "audit.query", auditQuery),
		"/vault.audit.stream":    {group: Admin, event: "admin.auditStream", method: http.MethodGet, noBody: true, handler: auditStream},
	}
	for name, rt := range map[string]route{
		"/oauth/token":      post(Agent, "token.issue", standard(oauthToken)),
		"/oauth/introspect": post(Agent, "token.introspect", standard(oauthIntrospect)),
		"/oauth/revoke":     post(Agent, "token.revoke", standard(oauthRevoke)),
	} {
		rt.form = true
		routes[name] = rt
	}
	routes["/.well-known/oauth-authorization-server"] = route{group: Agent, event: "request", method: http.MethodGet, noBody: true, handler: serverMetadata}
	routes["/.well-known/oauth-protected-resource"] = route{group: Agent, event: "request", method: http.MethodGet, noBody: true, handler: resourceMetadata}
	for name, h := range adminRoutes {
		routes["/vault.admin."+name] = post(Admin, "admin."+name, asAdmin(name, h))
	}
}

// Routes returns the paths of the API with the method that each takes, in no
// order.
func Routes() iter.Seq2[string, string] {
	return func(yield func(path, method string) bool) {
		for path, rt := range routes {
			if !yield(path, rt.method) {
				return
			}
		}
	}
}

// Owns reports whether a path is one of the API's, served here or not. Other
// paths are none of the vault's business.
func Owns(path string) bool {
	_, ok := routes[path]
	return ok || strings.HasPrefix(path, "/vault.") || strings.HasPrefix(path, proxyPrefix)
}

// Serve answers a request whose path is one of the API's. openErr says why
// there is no vault, if there is none.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, v *vault.Vault, openErr error) {
	rq := &request{Request: r, w: w, server: s, vault: v, event: "request"}
	rq.caller.Client = clientAddr(r)
	if openErr != nil {
		rq.refuse(refusal.New(refusal.StoreUnavailable, "the vault could not be opened; the server's log says why").WithCause(openErr))
		return
	}
	rt, ok := routes[r.URL.Path]
	if refused := rq.serve(rt, ok && rt.group&s.Groups != 0); refused != nil {
		rq.refuse(refused)
	}
}

func (rq *request) serve(rt route, found bool) *refusal.Refusal {
	if refused := rq.checkBrowser(); refused != nil {
		return refused
	}
	if rq.server.Proxy != "" || strings.HasPrefix(rq.URL.Path, proxyPrefix) && rq.server.Groups&Agent != 0 {
		return rq.proxy()
	}
	if !found {
		return refusal.New("NOT_FOUND", "there is no such route here").
			WithHint("the routes are listed in the documentation of the HTTP API")
	}
	if rq.Method != rt.method && !(rt.method == http.MethodGet && rq.Method == http.MethodHead) {
		rq.w.Header().Set("Allow", rt.method)
		return refusal.New("METHOD_NOT_ALLOWED", "this route takes %s", rt.method)
	}
	if rt.noBody && rt.group != Admin {
		return rt.handler(rq, nil)
	}
	if refused := rq.checkType(rt); refused != nil {
		return refused
	}
	rq.event = rt.event
	if rt.group == Admin {
		// Who is not an administrator does not get to send a body.
		if refused := rq.vault.Authorize(rq.caller, rq.Header); refused != nil {
			return refused
		}
		rq.known = true
	}
	if rt.noBody {
		return rt.handler(rq, nil)
	}
	defer rq.held.Release()
	body, refused := rq.readBody()
	if refused != nil {
		return refused
	}
	return rt.handler(rq, body)
}

// checkType refuses a body of another kind than the route takes.
func (rq *request) checkType(rt route) *refusal.Refusal {
	switch {
	case rt.noBody:
		return nil
	case !rt.form:
		return checkMediaType(rq.Header)
	}
	if _, refused := rq.issuer(); refused != nil {
		return refused
	}
	rq.oauth = true
	return checkFormType(rq.Header)
}

// identify learns who is calling, for the routes that need a known agent.
func (rq *request) identify() *refusal.Refusal { return rq.identifyBy(false) }

// identifyBy is identify for a bearer that was offered (see Asker).
func (rq *request) identifyBy(offered bool) *refusal.Refusal {
	who, trusted, refused := rq.server.Identify.identify(Asker{rq.Request, rq.vault, rq.caller, offered}, rq.local())
	if refused != nil {
		return refused
	}
	if who.Agent != "" {
		rq.agentKnown(who.Agent)
		rq.record.Context = &audit.Context{AgentID: who.Agent}
		if refused := rq.vault.CheckAgent(who.Agent); refused != nil {
			return refused
		}
	}
	rq.caller.Agent, rq.caller.Groups, rq.caller.Trusted = who.Agent, who.Groups, trusted
	rq.known = who.Agent != "" || trusted
	return nil
}

// identifyOrAdmin is identify for routes on which the admin token, too, says
// who is calling. One that is wrong counts as a guess if it says nothing else.
func (rq *request) identifyOrAdmin() *refusal.Refusal {
	if rq.isAdmin() {
		rq.caller.Admin, rq.known = true, true
		return nil
	}
	if refused := rq.identify(); refused != nil {
		return refused
	}
	if rq.caller.Agent == "" && !rq.caller.Trusted && (Asker{Request: rq.Request}).Bearer() != "" {
		if refused := rq.vault.CountGuess(rq.caller); refused != nil {
			return refused
		}
	}
	return nil
}

func (rq *request) agentKnown(agent string) {
	if rq.server.OnAgent != nil {
		rq.server.OnAgent(rq.Request, agent)
	}
}

// allowedHost reports whether a Host, lower case and without port, is one that
// the operator has listed.
func (s *Server) allowedHost(host string) bool { return slices.Contains(s.AllowedHosts, host) }

// requestID returns the name of the request, making one up the first time.
func (rq *request) requestID() string {
	if rq.caller.RequestID == "" {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		rq.caller.RequestID = hex.EncodeToString(b[:])
	}
	return rq.caller.RequestID
}
