// Package identity knows agents by what others have given them: JWTs of issuers
// that are trusted, and client certificates.
//
// Promises: a JWT proves nothing until its signature, its audience and its time
// hold; what no rule maps is no agent; an issuer can be away, hang or lie, and
// costs no request more than a bounded wait. A name is compared as it stands in
// a certificate, never another spelling of it; two agents in one certificate are
// none. It may not know requests, services or the vault's own tokens.
package identity
