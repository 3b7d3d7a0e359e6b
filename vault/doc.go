// Package vault holds the use cases: issue a token, make a call, revoke, ask
// the audit log, administer. It is the one place where policy, tokens, storage
// and the audit log meet.
//
// State is what outlives a configuration: storage, secrets, revocations, the
// audit log and the compiled services. Vault is one configuration's view of a
// State. Nothing on the path of a call reads a file, parses configuration or
// asks the store: what calls need is in memory, compiled, and swapped whole
// when it changes.
//
// The package knows neither Caddy nor how requests are encoded; calls go out
// through the Upstream interface.
package vault
