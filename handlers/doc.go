// Package handlers is the HTTP API: it decodes requests strictly, asks the
// vault, and encodes its answers. Every refusal becomes its answer and its
// audit record in one place, problem.go.
//
// The package knows HTTP and the use cases of package vault, not Caddy: what
// it needs to know of the server in front (who the client is, who Caddy's
// authentication says it is) it is given as functions.
package handlers
