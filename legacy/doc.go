// Package legacy reads what the older Node system has kept: its encrypted
// secrets (secrets.enc, version 1), its revocations (revocations.json), its
// services (config/services/*.json, or before that config/policy.json), and
// where its audit log is.
//
// Promises: it only reads; it follows no links and reads no more than a bound
// from any file; no error, warning or print shows a secret or a key. What it
// returns is what the files said and no more to be believed than a request:
// whether a service or a name is valid is for the caller to decide. It may
// not know the new system's store, nor Caddy.
package legacy
