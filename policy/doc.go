// Package policy decides: which agent may do what at which service, and what
// request that makes.
//
// A service file (JSON) becomes a *Compiled, which is immutable and safe for
// any number of goroutines. From then on a decision is a few map look-ups and
// a walk over a prebuilt index: nothing is parsed, read or waited for.
//
// The package is pure. It has no clock, opens no file, speaks to no network,
// never sees a secret, and knows nothing of HTTP serving, storage or Caddy.
// Everything it is given is taken to be hostile: service files and templates
// get no more trust than an agent's parameters.
//
// What it promises:
//
//   - Deny by default. An action needs an endpoint and a place in
//     allowedActions, an agent a place in allowedAgents, a scope a place in
//     allowedScopes.
//   - What was matched is what is sent. Paths are compared and sent in their
//     escaped form; none is cleaned, joined or normalised on the way.
//   - A request that an upstream might read as a stricter endpoint than the
//     one it was matched to is refused, however it was spelled.
//   - Every "no" is a *refusal.Refusal that names the rule and, where one
//     exists, the next step.
package policy
