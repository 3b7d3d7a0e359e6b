// Command caddyvault is Caddy with its standard modules and the vault.
package main

import (
	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddyvault/caddyvault"
)

func main() {
	caddy.CustomBinaryName = "caddyvault"
	caddycmd.Main()
}
