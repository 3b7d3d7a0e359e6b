package caddyvault

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func adapt(input string) (map[string]any, error) {
	adapter := caddyfile.Adapter{ServerType: httpcaddyfile.ServerType{}}
	out, _, err := adapter.Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return nil, err
	}
	var cfg map[string]any
	return cfg, json.Unmarshal(out, &cfg)
}

func TestCaddyfileAdapts(t *testing.T) {
	cfg, err := adapt(`{
		vault {
			data_dir ./data
			services_dir ./services
			templates_dir ./templates
			audience a
			issuer i
			token_ttl 5m
			token_ttl_max 10m
			signing_key {env.K}
			encryption_key {file./run/secrets/k}
			admin_token {env.A}
			allowed_hosts vault.internal v2.internal
			allow_private 10.0.0.0/8
			body_memory 64MiB
			revocations_keep 1d
			dpop_nonce on
			signing {
				algorithm ES256
				rotate_every 30d
				publish_for 1h
			}
			agents {
				certificates san_uri spiffe://corp/agents/*
				certificates cn build builder
				identity {http.auth.user.id}
				trust none
			}
			audit {
				durability async
				segment_size 1MiB
				checkpoint_every 2s
				keep 90d
				checkpoint_url https://w.example.com/a
				keep 10GiB
				mirror audit.mirror
				on_full refuse
			}
		}
	}
	:8787 {
		vault
	}
	:8788 {
		vault agent
		respond "next"
	}
	:8789 {
		vault proxy stripe
	}
	:8790 {
		vault_auth intranet intranet:read intranet:write
		respond "in"
	}`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(cfg["apps"].(map[string]any)["vault"])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"admin_token":"{env.A}","agents":{"certificates":[{"field":"san_uri","pattern":"spiffe://corp/agents/*"},{"agent_id":"builder","field":"cn","pattern":"build"}],"identity":"{http.auth.user.id}","trust":"none"},` +
		`"allow_private":["10.0.0.0/8"],"allowed_hosts":["vault.internal","v2.internal"],"audience":"a","audit":{"checkpoint_every":"2s","checkpoint_url":"https://w.example.com/a","durability":"async","keep":["90d","10GiB"],"mirror":"audit.mirror","on_full":"refuse","segment_size":1048576},"body_memory":67108864,"data_dir":"./data","dpop_nonce":true,` +
		`"encryption_key":"{file./run/secrets/k}","issuer":"i","revocations_keep":86400000000000,"services_dir":"./services",` +
		`"signing":{"algorithm":"ES256","publish_for":3600000000000,"rotate_every":2592000000000000},"signing_key":"{env.K}","templates_dir":"./templates","token_ttl":300000000000,"token_ttl_max":600000000000}`
	if string(got) != want {
		t.Errorf("app:\n got %s\nwant %s", got, want)
	}
	site, err := json.Marshal(cfg["apps"].(map[string]any)["http"])
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`{"handler":"vault"}`, `{"handler":"vault","proxy":"stripe"}`, `{"handler":"vault","routes":["agent"]}`, `{"handler":"vault_auth","scope":["intranet:read","intranet:write"],"service":"intranet"}`} {
		if !strings.Contains(string(site), part) {
			t.Errorf("no %s in %s", part, site)
		}
	}
	// The directive comes before what answers everything.
	if s := string(site); strings.Index(s, `"routes":["agent"]`) > strings.Index(s, `"handler":"static_response"`) {
		t.Errorf("vault is ordered behind respond: %s", s)
	}
}

// TestCaddyfileRefuses holds every mistake to an error that says where it is
// and what is wrong, and that does not repeat a secret.
func TestCaddyfileRefuses(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	app := func(lines string) string { return "{\n\tvault {\n" + lines + "\n\t}\n}\n" }
	tests := []struct{ name, input, want string }{
		{"unknown setting", app("data_dri ./x"), `unknown setting "data_dri"`},
		{"no argument", app("data_dir"), "wrong argument count"},
		{"two arguments", app("data_dir a b"), "wrong argument count"},
		{"a block where none is", app("data_dir a {\nb\n}"), "unexpected block"},
		{"given twice", app("audience a\naudience b"), "audience is given twice"},
		{"option given twice", "{\nvault\nvault\n}\n", "vault is given twice"},
		{"argument of the option", "{\nvault x\n}\n", "wrong argument count"},
		{"no duration", app("token_ttl soon"), `"soon" is not a duration`},
		{"negative duration", app("token_ttl -5m"), "shorter than a second"},
		{"literal signing key", app("signing_key " + secret), "must be a reference"},
		{"literal admin token", app("admin_token " + secret), "must be a reference"},
		{"literal encryption key", app("encryption_key " + secret), "must be a reference"},
		{"half a reference", app("signing_key x{env.K}"), "must be a reference"},
		{"another placeholder", app("signing_key {http.request.header.K}"), "must be a reference"},
		{"unknown trust", app("agents {\ntrust some\n}"), `not "some"`},
		{"identity without a brace", app("agents {\nidentity {http.auth.user.id\n}"), `not "{http.auth.user.id"`},
		{"identity that is a constant", app("agents {\ntrust none\nidentity main\n}"), "one placeholder of a request"},
		{"unknown algorithm", app("signing {\nalgorithm RS256\n}"), `not "RS256"`},
		{"rotating all the time", app("signing {\nrotate_every 1m\n}"), "shorter than 1h"},
		{"published too shortly", app("signing {\npublish_for 1m\n}"), "shorter than 5m"},
		{"published for ever", app("signing {\nrotate_every 1h\npublish_for 2h\n}"), "not longer than publish_for"},
		{"unknown signing setting", app("signing {\nkeys 3\n}"), `unknown setting "keys" of signing`},
		{"signing setting twice", app("signing {\nalgorithm EdDSA\nalgorithm ES256\n}"), "algorithm is given twice"},
		{"argument of signing", app("signing ES256"), "wrong argument count"},
		{"a nonce of another kind", app("dpop_nonce always"), `not "always"`},
		{"a guard without a scope", ":80 {\nvault_auth intranet\n}", "wrong argument count"},
		{"a guard of no name", ":80 {\nvault_auth A/b read\n}", `"A/b" cannot be the name of a service`},
		{"a guard of a scope that is none", ":80 {\nvault_auth a \"x y\"\n}", "cannot be a scope"},
		{"a block in a guard", ":80 {\nvault_auth a b {\nc\n}\n}", "unexpected block"},
		{"unknown agents setting", app("agents {\nkey on\n}"), `unknown setting "key" of agents`},
		{"certificate field", app("agents {\ncertificates ip 10.0.0.1\n}"), `san_uri, san_dns, san_email or cn`},
		{"certificate pattern", app("agents {\ncertificates san_uri spiffe://*/x\n}"), `may not stand for a host`},
		{"certificate rule twice", app("agents {\ncertificates cn a\ncertificates cn a b\n}"), `given twice`},
		{"certificate rule, short", app("agents {\ncertificates cn\n}"), `wrong argument count`},
		{"certificate rule, long", app("agents {\ncertificates cn a b c\n}"), `wrong argument count`},
		{"agent keys", app("agents {\nkeys maybe\n}"), `not "maybe"`},
		{"agent keys without on or off", app("agents {\nkeys\n}"), `wrong argument count`},
		{"unknown durability", app("audit {\ndurability maybe\n}"), `not "maybe"`},
		{"unknown audit setting", app("audit {\nsegments 3\n}"), `unknown setting "segments" of audit`},
		{"no size", app("audit {\nsegment_size big\n}"), `"big" is not a size`},
		{"negative size", app("audit {\nsegment_size -1MiB\n}"), `"-1MiB" is not a size`},
		{"tiny segments", app("audit {\nsegment_size 1kB\n}"), "not between 4KiB and 1GiB"},
		{"audit setting twice", app("audit {\ndurability sync\ndurability async\n}"), "durability is given twice"},
		{"argument of audit", app("audit sync"), "wrong argument count"},
		{"checkpoint_url in the clear", app("audit {\ncheckpoint_url http://w.example.com/\n}"), "does not begin with https://"},
		{"checkpoint_url nonsense", app("audit {\ncheckpoint_url witness\n}"), "is not a URL"},
		{"checkpoint_url with a password", app("audit {\ncheckpoint_url https://a:b@w.example.com/\n}"), "has a user"},
		{"checkpoint_url and no checkpoints", app("audit {\ncheckpoint_every off\ncheckpoint_url https://w.example.com/\n}"), "nothing to send"},
		{"keep nonsense", app("audit {\nkeep some\n}"), `"some" is neither a duration`},
		{"keep minutes", app("audit {\nkeep 30m\n}"), "shorter than an hour"},
		{"keep twice", app("audit {\nkeep 90d\nkeep 80d\n}"), "second duration"},
		{"keep two sizes", app("audit {\nkeep 9GiB\nkeep 1GiB\n}"), "second size"},
		{"keep little", app("audit {\nkeep 9kB\n}"), "less than 1MiB"},
		{"keep without checkpoints", app("audit {\ncheckpoint_every off\nkeep 90d\n}"), "keep needs checkpoints"},
		{"no logger", app("audit {\nmirror a/b\n}"), `"a/b" is not the name of a logger`},
		{"no interval", app("audit {\ncheckpoint_every never\n}"), `"never" is not off`},
		{"unknown on_full", app("audit {\non_full drop\n}"), `not "drop"`},
		{"no hosts", app("allowed_hosts"), "wrong argument count"},
		{"unknown routes", ":80 {\nvault agents\n}", `unknown group of routes "agents"`},
		{"proxy without a service", ":80 {\nvault proxy\n}", "the name of one service"},
		{"proxy of two", ":80 {\nvault proxy a b\n}", "the name of one service"},
		{"proxy beside routes", ":80 {\nvault agent proxy a\n}", `unknown group of routes "proxy"`},
		{"proxy of no name", ":80 {\nvault proxy A/b\n}", `"A/b" cannot be the name of a service`},
		{"proxy of a placeholder", ":80 {\nvault proxy {labels.1}\n}", "cannot be the name of a service"},
		{"block of proxy", ":80 {\nvault proxy a {\nadmin\n}\n}", "unexpected block"},
		{"block of the directive", ":80 {\nvault {\nadmin\n}\n}", "unexpected block"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := adapt(tt.input)
			if err == nil {
				t.Fatal("adapts")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
			if !strings.Contains(err.Error(), "Caddyfile:") {
				t.Errorf("error %q does not say where", err)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("error %q repeats the secret", err)
			}
		})
	}
}
