package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Service is a service file: one upstream API, who may use it, and which of
// its endpoints. In JSON a key that starts with an underscore is a comment;
// any other key that is not a field below is an error.
type Service struct {
	// The name of the service, which is its file's name without ".json".
	Name string `json:"-"`

	// The upstream's base URL, as the vendor's own SDK would take it.
	// Required. It must be https, or http to a loopback address or
	// localhost, or http anywhere with allowPlaintext. User information, a
	// query and a fragment are refused. Its path may hold one {secret} (or
	// {secret:name}) where auth has an entry "path".
	BaseURL string `json:"baseUrl,omitzero"`

	// The name of the secret that is added to each request. Default: none,
	// and then nothing is added.
	SecretRef string `json:"secretRef,omitzero"`

	// For each agent named here, the name of the secret that is used in
	// place of secretRef: one service, several accounts. An agent without an
	// entry has secretRef, and if there is none may not use the service.
	// Default: none.
	SecretByAgent map[string]string `json:"secretByAgent,omitzero"`

	// Where the secret goes, if that is not one header: see Auth. Default: the
	// header that authHeader and authScheme say.
	Auth []Auth `json:"auth,omitzero"`

	// The request header that carries the secret. Default: Authorization.
	AuthHeader string `json:"authHeader,omitzero"`

	// The authentication scheme written before the secret, with a space.
	// Default: Bearer if authHeader is Authorization, none for any other
	// header. An empty string means none.
	AuthScheme *string `json:"authScheme,omitzero"`

	// Request headers to send by default. A header of the same name that
	// the client may pass wins. A header that carries a credential, frames
	// the message or says where a request came from is refused. Default: none.
	Headers map[string]string `json:"headers,omitzero"`

	// Names of request headers that may pass from the client to the
	// upstream, besides those that always may. Default: none.
	PassHeaders []string `json:"passHeaders,omitzero"`

	// Names of headers that are removed, from the client's request and from
	// the upstream's answer. Default: none.
	DropHeaders []string `json:"dropHeaders,omitzero"`

	// The agents that may use the service, by name or as "group:<name>", or
	// "*" for all. Required; an empty list lets nobody in.
	AllowedAgents []string `json:"allowedAgents,omitzero"`

	// The actions that are allowed: names of endpoints, and "issue", without
	// which no token can be had. "*" stands for every endpoint and issue.
	// Required; an empty list allows nothing.
	AllowedActions []string `json:"allowedActions,omitzero"`

	// The scopes that a token for the service may have. Default: none, and
	// then no token is issued.
	AllowedScopes []string `json:"allowedScopes,omitzero"`

	// For each agent or "group:<name>" named here, the only scopes it may
	// have, out of allowedScopes. An agent's own entry counts alone; without
	// one, it may have what any of its groups may. Default: an agent without
	// an entry may have any of them.
	AgentScopes map[string][]string `json:"agentScopes,omitzero"`

	// The endpoints of the service by the name of their action. Required.
	Endpoints map[string]Endpoint `json:"endpoints,omitzero"`

	// Whether baseUrl may be http to a host that is not loopback, which
	// sends the secret in the clear. Default: false.
	AllowPlaintext bool `json:"allowPlaintext,omitzero"`

	// Whether the upstream's Set-Cookie headers reach the client. Default:
	// false.
	PassSetCookie bool `json:"passSetCookie,omitzero"`

	// What to do with the secret found in an upstream's answer: "on" puts a
	// placeholder in its place, "block" ends the answer there, "off" lets it
	// pass. Default: on.
	Scrub string `json:"scrub,omitzero"`

	// Whether an answer that is a stream, a download or a WebSocket goes on
	// after its token has expired. Default: false. A revoked token ends it
	// always.
	StreamsOutliveToken bool `json:"streamsOutliveToken,omitzero"`

	// How long to wait for the upstream, by kind of wait.
	Timeouts Timeouts `json:"timeouts,omitzero"`

	// Settings of Caddy's own reverse_proxy handler for this service, in
	// Caddy's JSON, without placeholders: flush_interval, load_balancing
	// (retries, try_duration, try_interval), health_checks, stream_timeout,
	// stream_close_delay, stream_buffer_size and transport (protocol http).
	// Default: none.
	ReverseProxy jsontext.Value `json:"reverseProxy,omitzero"`
}

// Endpoint is one action of a service: a method, a path, and what it needs.
type Endpoint struct {
	// GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS. Required.
	Method string `json:"method,omitzero"`

	// The path under baseUrl, beginning with a slash. {name} takes one
	// segment or a part of one, {name...} several segments; a last segment *
	// takes everything below, and in vault.call the parameter "*". Required.
	Path string `json:"path,omitzero"`

	// Parameters that the query of a request must have, with these values:
	// what tells actions of one method and path apart. Among them, the one
	// with most of them wins. A request may have each of them once, spelled
	// plainly; vault.call adds them by itself. Default: none.
	Query map[string]string `json:"query,omitzero"`

	// The scopes that a token must have, all of them. Default: none, so
	// that any token for the service will do.
	RequiredScope []string `json:"requiredScope,omitzero"`

	// Where parameters go that are not in the path: "query", "json", "form",
	// or "none" to refuse them. Default: query for GET and HEAD, json for
	// the rest.
	Body string `json:"body,omitzero"`

	// Request headers to send by default, in place of the service's of the
	// same name. The same rules hold. Default: none.
	Headers map[string]string `json:"headers,omitzero"`

	// Whether the client's Range header passes. Default: false.
	Range bool `json:"range,omitzero"`

	// The protocol that a client may switch to: "websocket". Default: none.
	Upgrade string `json:"upgrade,omitzero"`

	// The subprotocols of a WebSocket that a client may ask for; others are
	// not asked for, as some APIs take a key there. Default: none.
	Subprotocols []string `json:"subprotocols,omitzero"`

	// Whether redirects to other origins reach the client as they are.
	// Default: false.
	PassRedirects bool `json:"passRedirects,omitzero"`
}

// Timeouts says how long to wait for an upstream. Durations are written as
// "300ms", "10s", "1m30s" or "1d".
type Timeouts struct {
	// Resolving the name and connecting. Default: 10s.
	Connect Duration `json:"connect,omitzero"`

	// The TLS handshake. Default: 10s.
	TLS Duration `json:"tls,omitzero"`

	// From the end of the request to the first byte of the answer.
	// Default: 10m, as a language model may think that long.
	FirstByte Duration `json:"firstByte,omitzero"`

	// Silence in a request's body, in an answer that has begun, or both ways
	// in a WebSocket. Default: 5m.
	Idle Duration `json:"idle,omitzero"`

	// The whole of a call whose answer is neither a stream (by its media
	// type: text/event-stream, application/x-ndjson and its like) nor an
	// upgrade. Default: 30m.
	Total Duration `json:"total,omitzero"`
}

// DefaultTimeouts are those of a service that sets none.
var DefaultTimeouts = Timeouts{
	Connect:   Duration(10 * time.Second),
	TLS:       Duration(10 * time.Second),
	FirstByte: Duration(10 * time.Minute),
	Idle:      Duration(5 * time.Minute),
	Total:     Duration(30 * time.Minute),
}

// Duration is a time.Duration that JSON writes as a string, in Go's syntax
// and with "d" for days, as Caddy does.
type Duration time.Duration

// maxDuration bounds what a setting may say; more is surely a slip.
const maxDuration = 30 * 24 * time.Hour

// UnmarshalText reads a duration from its text. It must be above zero and at
// most 30 days.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	var v time.Duration
	var err error
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		if err == nil && (n < 0 || n > 365) {
			err = errors.New("out of range")
		}
		v = time.Duration(n) * 24 * time.Hour
	} else {
		v, err = time.ParseDuration(s)
	}
	if err != nil {
		return fmt.Errorf("not a duration: %q", s)
	}
	if v <= 0 || v > maxDuration {
		return fmt.Errorf("duration %q is not above zero and at most 30 days", s)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes the duration as Go does.
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).String()), nil
}

// orDefaults returns t with every unset value taken from DefaultTimeouts.
func (t Timeouts) orDefaults() Timeouts {
	or := func(v *Duration, def Duration) {
		if *v == 0 {
			*v = def
		}
	}
	or(&t.Connect, DefaultTimeouts.Connect)
	or(&t.TLS, DefaultTimeouts.TLS)
	or(&t.FirstByte, DefaultTimeouts.FirstByte)
	or(&t.Idle, DefaultTimeouts.Idle)
	or(&t.Total, DefaultTimeouts.Total)
	return t
}
