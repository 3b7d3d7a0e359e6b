// Package token issues and verifies the vault's tokens: signed JWTs
// (RFC 7519, RFC 7515) that live at most fifteen minutes and say which agent
// may use which service with which scopes, in which session and task.
//
// It promises:
//
//   - The header of a token picks nothing. Its kid selects exactly one pair
//     of algorithm and key that the vault itself holds; a token without a kid
//     is HS256 under the configured signing key, if there is one, and is
//     otherwise refused.
//   - What a signature does not protect against is refused too: unknown
//     header parameters, an absent or fantastic exp, audiences in arrays,
//     duplicate members, base64 that decodes but is not canonical, tokens
//     over 4 KiB.
//   - A verified token is remembered under its whole text, within a bound in
//     bytes. Refusals are not remembered, and the times of a remembered token
//     are looked at on every hit.
//   - No error, refusal or String method shows a token or a key.
//
// It may not know: services, policy, revocations, HTTP, storage. Whoever
// verifies a token asks the revocation index afterwards, each time; a value
// that makes this quick can be computed once per token with Options.Derive.
package token
