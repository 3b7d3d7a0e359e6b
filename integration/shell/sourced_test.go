package shell

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWaysIn: run, linked to, and sourced, all do the same and find the same
// directory.
func TestWaysIn(t *testing.T) {
	const pipe = `"$AV" token github a | "$AV" call github repo.get && "$AV" services`
	const sourced = `TOKEN=$(agentvault_token github a); agentvault_call "$TOKEN" github repo.get; agentvault_services`
	tests := []struct{ name, script string }{
		{"run", `AV=$DIR/agentvault; ` + pipe},
		{"run by bash", `av() { bash "$DIR/agentvault" "$@"; }; av token github a | av call github repo.get && av services`},
		{"run from its own directory", `cd "$DIR"; AV=./agentvault; ` + pipe},
		{"found in PATH", `PATH=$DIR:$PATH; AV=agentvault; ` + pipe},
		{"linked from another directory", `mkdir bin; ln -s "$DIR/agentvault" bin/agentvault; AV=bin/agentvault; ` + pipe},
		{
			"linked by a relative link to a link",
			`mkdir -p a/b; ln -s "$DIR/agentvault" a/first; ln -s ../first a/b/av; PATH=$PWD/a/b:$PATH; AV=av; ` + pipe,
		},
		{"its directory is linked", `ln -s "$DIR" d; AV=d/agentvault; ` + pipe},
		{"sourced", `. "$DIR/agentvault.sh"; ` + sourced},
		{"sourced by its other name", `. "$DIR/agentvault"; ` + sourced},
		{"sourced with arguments of its own", `set -- call x; . "$DIR/agentvault"; ` + sourced},
		{"sourced by a relative name, from elsewhere later", `cd "$DIR"; . ./agentvault.sh; cd /; ` + sourced},
		{"sourced by a bare name, from elsewhere later", `cd "$DIR"; PATH=.:$PATH; . agentvault.sh; cd /; ` + sourced},
		{"sourced through a link", `ln -s "$DIR/agentvault.sh" lib; . ./lib; ` + sourced},
		{"sourced with CDPATH set", `export CDPATH=/tmp:.; cd "$DIR/.." >/dev/null; . "${DIR##*/}/agentvault.sh"; cd / >/dev/null; ` + sourced},
		{"sourced in a function", `f() { . "$DIR/agentvault"; }; f; ` + sourced},
		{"sourced twice", `. "$DIR/agentvault"; . "$DIR/agentvault.sh"; ` + sourced},
		{"used in a subshell of a subshell", `. "$DIR/agentvault"; ( ( ` + sourced + ` ) )`},
	}
	for _, flags := range [][]string{{"-euo", "pipefail"}, {"--posix", "-efCEuo", "pipefail"}} {
		for _, tt := range tests {
			t.Run(strings.Join(append(flags, tt.name), " "), func(t *testing.T) {
				t.Parallel()
				b := newBox(t)
				write(t, filepath.Join(b.dir, "data", "admin.token"), adminToken+"\n", 0o600)
				got := b.script(`DIR=${LIB%/*}; `+tt.script, flags...)
				if got.code != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, `{"full_name":"o/r"}[`) {
					t.Errorf("got %+v", got)
				}
			})
		}
	}
}

// TestNoTrace: after sourcing and use, the shell is as it was.
func TestNoTrace(t *testing.T) {
	for _, flags := range [][]string{{}, {"-euo", "pipefail"}, {"--posix", "-fCu"}} {
		for _, name := range []string{"agentvault", "agentvault.sh"} {
			t.Run(strings.Join(append(flags, name), " "), func(t *testing.T) {
				b := newBox(t)
				b.want(b.script(fmt.Sprintf(`
					readonly token=1 service=2 url=3 body=4
					exec 3>three 4>four 5>five
					trap 'echo err' ERR; trap ': exit' EXIT; IFS=,
					state() {
						printf '%%s\n' "$IFS"; umask; pwd; trap -p; shopt; set -o
						declare -p | grep -v -e ' BASH_' -e ' PIPESTATUS' -e ' _=' -e ' FUNCNAME' -e RANDOM -e SECONDS -e LINENO -e EPOCH -e SRANDOM
					} 2>/dev/null
					state >before
					. "${LIB%%/*}/%s" >out 2>&1
					VAULT_ADMIN_TOKEN=%s agentvault_services >/dev/null
					T=$(agentvault_token github a); agentvault_call "$T" github x >/dev/null; unset T
					agentvault_revoke --agent a >/dev/null; agentvault_audit >/dev/null; agentvault_health >/dev/null
					echo 3 >&3; echo 4 >&4; echo 5 >&5
					state >after
					cmp before after || diff before after
					cat out three four five
				`, name, adminToken), flags...), result{stdout: "3\n4\n5\n"})
			})
		}
	}
}

// TestFailuresEndScripts: a caller with set -e stops where a refusal is, and one
// without sees the status.
func TestFailuresEndScripts(t *testing.T) {
	b := newBox(t)
	b.vault.answer("/vault.issueToken", refusing(403, "POLICY_DENY", "no", "ask"))
	const stderr = "agentvault: POLICY_DENY: no\nhint: ask\n"
	b.want(b.script(`set -e; . "$LIB"; T=$(agentvault_token github a); echo on "$T"`), result{code: 1, stderr: stderr})
	b.want(b.script(`. "$LIB"; T=$(agentvault_token github a) || echo "status $?" "[$T]"`), result{stdout: "status 1 []\n", stderr: stderr})
	b.want(b.script(`. "$LIB"; agentvault_token github || echo "status $?"`), result{
		stdout: "status 2\n", stderr: "agentvault: token needs a service and at least one scope\nhint: agentvault help\n",
	})
	b.want(b.script(`. "$LIB"; agentvault_call "" github x || echo "status $?"`), result{
		stdout: "status 1\n", stderr: "agentvault: TOKEN_REQUIRED: the token is empty\nhint: get one with agentvault_token SERVICE SCOPE...\n",
	})
}

// TestInputIsLeftAlone: a loop that reads lines keeps them.
func TestInputIsLeftAlone(t *testing.T) {
	b := newBox(t)
	b.want(b.script(fmt.Sprintf(`set -euo pipefail; . "$LIB"
		printf '%%s\n' a b c | while read -r line; do
			agentvault_health >/dev/null; T=$(agentvault_token github "$line")
			agentvault_call "$T" github x >/dev/null; agentvault_audit >/dev/null
			VAULT_ADMIN_TOKEN=%s agentvault_services >/dev/null; agentvault_revoke --task "$line" >/dev/null
			echo "$line"
		done`, adminToken)), result{stdout: "a\nb\nc\n"})
}

// TestParameters: what is given as JSON arrives as it was given.
func TestParameters(t *testing.T) {
	values := []string{
		`{}`,
		` { "n" : 12345678901234567890 , "f":1.10, "e":1E400 } `,
		`{"a":"it's \"quoted\" \\ $(touch pwned) ` + "`id`" + ` %s %n !! * ~"}`,
		`{"a":"line\nbreak","b":"ünïcode ☃ 𝄞 \u0000","": [1,[],{}]}`,
		"{\n\t\"a\": \"spread over\",\n\t\"b\": \"lines\"\n}",
		`{"token":"x","service":"y","--json":"-"}`,
		`{"content":"` + strings.Repeat("0123456789abcdef", 40_000) + `"}`, // more than one argument can hold
	}
	for i, value := range values {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			write(t, filepath.Join(b.home, "params"), value, 0o600)
			got := b.script(fmt.Sprintf(`set -eu; . "$LIB"; agentvault_call %s 'git"hub' 'a b' "$(cat params)"`, agentToken))
			b.want(got, result{stdout: `{"full_name":"o/r"}`})
			r := b.vault.only(t)
			if got := r.field(t, "params"); got != strings.TrimSpace(value) {
				t.Errorf("params arrived as %.200s", got)
			}
			if r.field(t, "service") != `"git\"hub"` || r.field(t, "action") != `"a b"` || r.field(t, "token") != `"`+agentToken+`"` {
				t.Errorf("body %.300s", r.body)
			}
			if _, err := os.Stat(filepath.Join(b.home, "pwned")); err == nil {
				t.Error("a parameter was run")
			}
			if !json.Valid(r.body) {
				t.Error("the body is not JSON")
			}
		})
	}
}

// TestCallHeaders: curl's own Accept would win over the service's default.
func TestCallHeaders(t *testing.T) {
	b := newBox(t)
	b.run(agentToken, "call", "github", "x")
	h := b.vault.only(t).header
	for _, name := range []string{"Accept", "Authorization", "Expect"} {
		if v, ok := h[name]; ok {
			t.Errorf("%s: %q was sent", name, v)
		}
	}
}
