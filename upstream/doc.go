// Package upstream sends admitted calls to the services' APIs through Caddy's
// reverse proxy, one embedded handler a service.
//
// Its transport is the only place where a secret meets a request: it takes a
// copy of the request that the proxy logs and retries, strips it down to what
// may pass, adds the secret, and sends that copy. On the way back it takes out
// of the answer what must not reach a client. It also decides which network
// addresses may be dialled.
//
// Together with the root package it is all that knows Caddy.
package upstream
