package main

import (
	"fmt"
	"strings"
)

// bench is one case: what the vault is asked, and what bare Caddy is asked
// beside it.
type bench struct {
	name  string
	on    string // which of the vaults; see startVault
	conns int
	vault func(s *stage, url string) request
	bare  func(s *stage) request

	// fresh makes about n credentials before each round, one for each request.
	fresh func(s *stage, url string, n int) ([]credential, error)

	// What performance.md aims at; 0 for nothing. Of calls, bare Caddy's
	// requests a second and CPU a request are multiplied with these.
	rate, cpu float64

	// Of latency, what may be added to the median and the 99th percentile.
	p50, p99 float64
}

const small = "/repos/octocat/hello"

// calls are measured by requests a second and CPU a request.
var calls = []bench{
	{name: "vault.call", conns: 32, vault: call, bare: bareGet(small), rate: 0.85, cpu: 1.25},
	{name: "vault.call, audit async", on: "async", conns: 32, vault: call, bare: bareGet(small), rate: 0.92, cpu: 1.15},
	{name: "/proxy/", conns: 32, vault: proxied("svc", small), bare: bareGet(small), rate: 0.90, cpu: 1.25},
	{name: "/proxy/, audit async", on: "async", conns: 32, vault: proxied("svc", small), bare: bareGet(small), rate: 0.95, cpu: 1.15},
	{name: "/proxy/, not scrubbed", conns: 32, vault: proxied("plain", small), bare: bareGet(small)},
	{name: "/proxy/, 1 MB answers", conns: 8, vault: proxied("svc", "/large"), bare: bareGet("/large")},
	{name: "/proxy/, 1 MB, not scrubbed", conns: 8, vault: proxied("plain", "/large"), bare: bareGet("/large")},
	{name: "/proxy/, 1 MB up", conns: 8, vault: upload, bare: bareUpload},
	{name: "/proxy/, streams of 200 events", conns: 8, vault: proxied("svc", "/events"), bare: bareGet("/events")},
	{name: "vault.call, a new token each", conns: 32, vault: freshCall, bare: bareGet(small), fresh: freshTokens},
	{name: "vault.call, a DPoP proof each", conns: 32, vault: freshCall, bare: bareGet(small), fresh: freshProofs},
	{name: "vault.issueToken (beside respond)", conns: 32, vault: issue, bare: respond, rate: 0.5},
	{name: "vault.delegateToken (beside respond)", conns: 32, vault: delegate, bare: respond},
}

// latencies are measured by how long one request takes, one at a time.
var latencies = []bench{
	{name: "vault.call, 1 connection", conns: 1, vault: call, bare: bareGet(small), p50: 0.35, p99: 5},
	{name: "/proxy/, 1 connection", conns: 1, vault: proxied("svc", small), bare: bareGet(small), p50: 0.35, p99: 5},
	{name: "first event of a stream", conns: 1, vault: first(proxied("svc", "/slow")), bare: bareFirst("/slow"), p50: 1},
	{name: "first event of a stream, not scrubbed", conns: 1, vault: first(proxied("plain", "/slow")), bare: bareFirst("/slow"), p50: 1},
}

func call(s *stage, url string) request { return callWith(url, s.tokens[url+"svc"]) }

// freshCall is a call with another token each time.
func freshCall(_ *stage, url string) request { return callWith(url, eachToken) }

func callWith(url, token string) request {
	return post(url+"/vault.call", fmt.Sprintf(`{"token":%q,"service":"svc","action":"small","params":{"owner":"octocat","repo":"hello"}}`, token), "")
}

func proxied(service, path string) func(*stage, string) request {
	return func(s *stage, url string) request {
		return request{Method: "GET", URL: url + "/proxy/" + service + path, Authorization: "Bearer " + s.tokens[url+service]}
	}
}

func first(f func(*stage, string) request) func(*stage, string) request {
	return func(s *stage, url string) request {
		r := f(s, url)
		r.FirstEvent = true
		return r
	}
}

// megabyte is a body of that length.
var megabyte = `"` + strings.Repeat("x", 1<<20-2) + `"`

func upload(s *stage, url string) request {
	return post(url+"/proxy/svc/upload", megabyte, "Bearer "+s.tokens[url+"svc"])
}

func bareUpload(s *stage) request { return post(s.bareURL+"/upload", megabyte, "") }

func issue(_ *stage, url string) request { return issueFor(url, "svc") }

func issueFor(url, service string) request {
	return post(url+"/vault.issueToken", fmt.Sprintf(`{"service":%q,"scope":["s"],"ttl":900}`, service), "")
}

func delegate(s *stage, url string) request {
	return post(url+"/vault.delegateToken", fmt.Sprintf(`{"token":%q,"scope":["s"]}`, s.tokens[url+"svc"]), "")
}

func bareGet(path string) func(*stage) request {
	return func(s *stage) request { return request{Method: "GET", URL: s.bareURL + path} }
}

func bareFirst(path string) func(*stage) request {
	return func(s *stage) request { return request{Method: "GET", URL: s.bareURL + path, FirstEvent: true} }
}

func respond(s *stage) request {
	return post(s.bareURL+"/respond", `{"service":"svc","scope":["s"],"ttl":900}`, "")
}
