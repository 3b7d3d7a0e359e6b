package vault

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
)

// Upstream sends an admitted call to the service's API and streams the answer
// back. It is the one way out of the vault, declared here so that the use
// cases need not know what proxies the call.
type Upstream interface {
	// Do sends out and writes the answer to w as it comes. ctx is the
	// call's, and descends from that of r, the client's request. It fills in
	// result as it goes, so that the caller has the figures even when Do
	// ends with a panic, as a proxy does to break off an answer whose
	// status has been sent (http.ErrAbortHandler).
	//
	// A returned refusal means that nothing was written to w.
	Do(ctx context.Context, w http.ResponseWriter, r *http.Request, out *Outbound, result *Result) *refusal.Refusal
}

// Outbound is a request that the policy has admitted, on its way out. It does
// not hold the secret.
type Outbound struct {
	// Service is the compiled service, and Endpoint the one of its endpoints
	// that admitted the request.
	Service  *policy.Compiled
	Endpoint *policy.CompiledEndpoint

	// Method and EscapedPath are what reaches the wire, byte for byte; the
	// path includes that of the service's base URL, in which {secret} stands
	// for a secret.
	Method      string
	EscapedPath string
	RawQuery    string

	// Header is what the client sent; the transport takes from it what may
	// pass (security.md, "Headers"). With Envelope, which a vault.call is,
	// what it says of a body is not about the one that goes out.
	Header   http.Header
	Envelope bool

	// Body is the request's body, nil for none, and ContentLength its length
	// in bytes, -1 if it is not known.
	Body          io.ReadCloser
	ContentLength int64

	// Upgrade says that the client asks for a WebSocket and that the endpoint
	// allows it.
	Upgrade bool

	// ContentType replaces the client's Content-Type unless it is empty.
	ContentType string

	// Whole is the body, and where the credential goes into it, if the
	// service's credential depends on the body; else nil.
	Whole *policy.BodyPlan

	// Prefix is the service's path on the gateway, for example /proxy/github;
	// empty if it is the site's root.
	Prefix string

	// Spend, if it is set, is told the bytes of either body as they pass. An
	// error means that there are no more to spend: what was told of may pass,
	// and then the call ends with it.
	Spend func(n int) error

	// Cut ends the context of the call with a refusal as its cause. The
	// upstream uses it for what takes too long.
	Cut context.CancelCauseFunc

	// OnCut, if it is set, has f called when a revocation ends the call, as
	// part of that: before what waits for the call's context has its turn. f
	// must not wait.
	OnCut func(f func())

	// Expires is when the token stops being good, and with it a stream that
	// was opened with it; zero if streams go on.
	Expires time.Time

	// Authorize is asked once for each attempt, right before the secret is
	// added: whether the token is still good, and what the secret is now.
	// It appends the secrets to into, in the order of Service.Secrets.
	Authorize func(into []Credential) ([]Credential, *refusal.Refusal)
}

// Credential is a secret of one attempt.
type Credential struct {
	// Ref is the name of the secret, which stands in its place wherever it
	// is taken out of an answer.
	Ref string

	// Version tells one value under that name from the next.
	Version uint64

	// Value is the secret itself.
	Value string
}

// Result is what came of a call, for its audit record.
type Result struct {
	// Status is the upstream's HTTP status, 0 if it did not answer.
	Status int

	// Code says why an answer broke off after its status, or that the client
	// left before there was one; empty if neither happened.
	Code string

	// RequestBytes and ResponseBytes are the bodies' lengths as they passed.
	// A transport may still be reading the request's body when the answer is
	// over.
	RequestBytes  atomic.Int64
	ResponseBytes atomic.Int64

	// Redactions is how often the secret was found in the answer and taken
	// out.
	Redactions int

	// Sent is when the request was handed to the transport, the zero Time if
	// it was not, and Latency how long the upstream took from then to its
	// response header.
	Sent    time.Time
	Latency time.Duration

	// End, if set, is called once when the answer's last bytes have been read
	// from the upstream and before they are written to the client, so that
	// whoever has seen the whole answer also finds its record.
	End func()
}
