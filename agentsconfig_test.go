package caddyvault

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddyvault/caddyvault/handlers"
)

// TestIdentityPlaceholder holds the setting to what only a request can fill:
// anything else would name an agent for whoever asks, authenticated or not.
func TestIdentityPlaceholder(t *testing.T) {
	for _, ok := range []string{"{http.auth.user.id}", "{http.request.header.Remote-User}", "{http.vars.agent}"} {
		id, err := (&Agents{Identity: ok, Trust: "none"}).identifier()
		if err != nil {
			t.Errorf("%s: %v", ok, err)
			continue
		}
		if got := id.Means[len(id.Means)-1]; got != handlers.Means(placeholderIdentity(strings.Trim(ok, "{}"))) {
			t.Errorf("%s: the last means is %#v", ok, got)
		}
	}
	for _, wrong := range []string{
		"{http.auth.user.id", "http.auth.user.id}", "http.auth.user.id", "main", "*", " ", "{}", "{http.}", "{http}",
		"x-{http.auth.user.id}", "{http.auth.user.id}-x", "{http.auth.user.id} ", "{http.auth.user.id}\n",
		"{http.auth.user.id}{http.request.host}", "{{http.auth.user.id}}", "{http.vars.{http.vars.x}}", `\{http.auth.user.id}`,
		"{http.auth user.id}", "{env.USER}", "{$USER}", "{system.hostname}", "{file./etc/hostname}", "{time.now}", "{HTTP.auth.user.id}", "{vars.agent}",
	} {
		// As JSON has it, which no Caddyfile has looked at.
		err := (&App{Agents: &Agents{Identity: wrong}}).Provision(caddy.Context{Context: t.Context()})
		if err == nil || !strings.Contains(err.Error(), "agents: identity is one placeholder") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}
