package handlers

import (
	"github.com/caddyvault/caddyvault/agents"
	"github.com/caddyvault/caddyvault/identity"
	"github.com/caddyvault/caddyvault/refusal"
)

// Issuers is the means of JWTs of issuers that are trusted.
type Issuers struct{ Trusted *identity.Issuers }

// Agent implements Means. It leaves a JWT of anybody else alone: what stands in
// front of the vault may have judged it. See ForeignJWT.
func (m Issuers) Agent(ask Asker) (Identity, bool, *refusal.Refusal) {
	raw := ask.Bearer()
	if agents.LooksLikeKey(raw) || !identity.LooksLikeJWT(raw) {
		return Identity{}, false, nil
	}
	who, known, refused := m.Trusted.Agent(ask.Context(), raw)
	return Identity{Agent: who.ID, Groups: who.Groups}, known, refused
}

// ForeignJWT is the last of the means where issuers are trusted: it refuses a
// JWT that none of the means before has judged, rather than taking who sends it
// for somebody else. The vault's own tokens are no proof of who asks, and say
// nothing here.
type ForeignJWT struct{ Trusted *identity.Issuers }

// Agent implements Means.
func (m ForeignJWT) Agent(ask Asker) (Identity, bool, *refusal.Refusal) {
	raw := ask.Bearer()
	if agents.LooksLikeKey(raw) || !identity.LooksLikeJWT(raw) {
		return Identity{}, false, nil
	}
	if iss, ok := identity.Issuer(raw); ok && (iss == "" || iss == ask.Vault.Issuer) {
		return Identity{}, false, nil
	}
	return Identity{}, true, m.Trusted.Foreign(raw)
}
