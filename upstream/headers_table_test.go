package upstream

import (
	"net/http"
	"strings"
	"testing"
)

// TestNamesToUpstream is what passes of a header with only that name in it.
func TestNamesToUpstream(t *testing.T) {
	names := map[bool]string{
		true: `Accept Accept-Charset Accept-Datetime Accept-Language accept-language Accept-Patch Accept-Post ACCEPT Content-Type
			content-type Content-Encoding Content-Language Content-Range Content-MD5 Digest User-Agent If-Match If-None-Match
			If-Modified-Since If-Unmodified-Since If-Range Idempotency-Key idempotency-key Prefer traceparent tracestate
			X-Stainless-Lang x-stainless-retry-count X-Stainless-OS X-Listed x-listed`,
		false: `Authorization authorization AUTHORIZATION Authorization_ Proxy-Authorization proxy-authorization Proxy_Authorization
			Proxy-Connection Proxy-Anything Cookie cookie Cookie2 Set-Cookie Connection Keep-Alive TE Trailer Transfer-Encoding
			transfer_encoding Content-Length content_length Upgrade Expect Host HTTP2-Settings Forwarded Via X-Forwarded-For
			X_Forwarded_For X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Prefix X-Forwarded X-Original-URL X-Original-Method
			X-Rewrite-URL X-HTTP-Method X-HTTP-Method-Override X_HTTP_Method_Override X-Method-Override X-Real-IP X-Client-IP
			X-Cluster-Client-IP True-Client-IP CF-Connecting-IP Origin Referer Sec-Fetch-Site Sec-Fetch-Mode Sec-WebSocket-Key
			Sec-WebSocket-Extensions Sec-WebSocket-Protocol Sec-WebSocket-Version Accept-Encoding Vault-Token vault-token Vault_Token
			Early-Data :path :authority :protocol X-Api-Key x-api-key X_Api_Key Api-Key X-Auth-Token X-Goog-Api-Key Private-Token
			X-Amz-Security-Token X-GitHub-Token Range X-Unlisted X-Listed_ X_Listed X-Stainless Stripe-Account OpenAI-Organization
			DNT Pragma Cache-Control Date Save-Data Access-Control-Request-Method`,
	}
	f := newRequestFilter([]string{"X-Listed"}, nil)
	n := 0
	for want, list := range names {
		for _, name := range strings.Fields(list) {
			n++
			if got := len(f.apply(http.Header{name: {"v"}}, false, false)) > 0; got != want {
				t.Errorf("%s passes to the upstream: %v", name, got)
			}
			// What Connection names belongs to the connection.
			if out := f.apply(http.Header{name: {"v"}, "Connection": {"close, " + strings.ToUpper(name)}}, false, false); len(out) > 0 {
				t.Errorf("%s passes though Connection names it", name)
			}
		}
	}
	if n < 80 {
		t.Errorf("only %d names", n)
	}
}

// TestNamesToClient is the same for an upstream's header.
func TestNamesToClient(t *testing.T) {
	names := map[bool]string{
		true: `Accept-Ranges Age Allow Cache-Control Content-Disposition Content-Encoding Content-Language Content-Length Content-Range
			Content-Type Date Deprecation Etag Expires Last-Modified Pragma Retry-After Sunset Vary Warning Www-Authenticate
			X-Ratelimit-Limit X-Ratelimit-Remaining X-Ratelimit-Reset X-Request-Id X-Github-Request-Id Request-Id Openai-Model
			Openai-Processing-Ms Anthropic-Ratelimit-Requests-Limit Stripe-Version Idempotency-Key Server-Timing Traceparent
			X-Oauth-Scopes X-Accepted-Oauth-Scopes X-Poll-Interval Cf-Ray X-Cache Grpc-Status Grpc-Message X-Powered-By X-Frame-Options`,
		false: `Connection Keep-Alive Proxy-Connection Proxy-Authenticate Proxy-Authentication-Info Te Trailer Transfer-Encoding Upgrade
			Vault-Error Set-Cookie Set-Cookie2 Alt-Svc Strict-Transport-Security Public-Key-Pins Clear-Site-Data Server Via Refresh Nel
			Report-To Reporting-Endpoints Service-Worker-Allowed Content-Security-Policy-Report-Only Access-Control-Allow-Origin
			Access-Control-Allow-Credentials Access-Control-Allow-Headers Access-Control-Allow-Methods Access-Control-Expose-Headers
			Access-Control-Max-Age Access-Control-Allow-Private-Network X-Hop`,
	}
	n := 0
	for want, list := range names {
		for _, name := range strings.Fields(list) {
			n++
			h := http.Header{name: {"v"}, "Connection": {"x-hop"}}
			filterResponse(h, false)
			if got := h[name] != nil; got != want {
				t.Errorf("%s passes to the client: %v", name, got)
			}
		}
	}
	if n < 74 {
		t.Errorf("only %d names", n)
	}
	for name, want := range map[string]string{"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff"} {
		h := http.Header{name: {"the upstream's own"}}
		filterResponse(h, false)
		if got := strings.Join(h[name], "|"); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestEnvelopeHeaders holds back what a client of vault.call says of its own
// body, also where the service lists it.
func TestEnvelopeHeaders(t *testing.T) {
	var pass []string
	for name := range ofEnvelope {
		pass = append(pass, name)
	}
	f := newRequestFilter(append(pass, "Accept"), nil)
	in := http.Header{"Accept": {"*/*"}, "User-Agent": {"a"}}
	for _, name := range pass {
		in[name] = []string{"v"}
	}
	if out := f.apply(in, false, true); len(out) != 1 || out["User-Agent"] == nil {
		t.Errorf("of an envelope passed %v", out)
	}
	if out := f.apply(in, false, false); len(out) != len(in) {
		t.Errorf("of a request passed %v, want all of %v", out, in)
	}
	in["Accept"] = []string{"text/csv"}
	if out := f.apply(in, false, true); out.Get("Accept") != "text/csv" {
		t.Errorf("what the client accepts did not pass: %v", out)
	}
}
