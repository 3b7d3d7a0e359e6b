package caddyvault

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddyvault/caddyvault/cli"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:      "vault",
		Short:     "Sets up, uses and administers a vault",
		CobraFunc: cli.Setup,
	})
}
