package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddyvault/caddyvault/refusal"
)

// Exit statuses.
const (
	exitFailed = 1
	exitUsage  = 2
)

// Setup makes cmd the command `vault` with its subcommands.
func Setup(cmd *cobra.Command) { newTerminal().setup(cmd) }

// terminal is everything a command knows of the world around it.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
	now      func() time.Time

	// inputIsTerminal says that a person is at the other end of in, and
	// readPassword reads a line from there without showing it.
	inputIsTerminal func() bool
	readPassword    func() ([]byte, error)

	// status is the exit status of the last command.
	status int
}

func newTerminal() *terminal {
	stdin := int(os.Stdin.Fd())
	return &terminal{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		environ:         os.Environ(),
		now:             time.Now,
		inputIsTerminal: func() bool { return term.IsTerminal(stdin) },
		readPassword:    func() ([]byte, error) { return term.ReadPassword(stdin) },
	}
}

// getenv returns the value of an environment variable, "" if it is not set.
func (t *terminal) getenv(name string) string {
	for _, kv := range t.environ {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

const longHelp = `Commands for a vault.

Of a running vault (VAULT_URL, default http://127.0.0.1:8787): health, token,
call, delegate, introspect, revoke and audit for agents; services, templates,
secrets, agents, revocations, unrevoke and keys for administrators. Without a
vault running: init, import, doctor.

A token is had and used like this:

  caddyvault vault token github github:repos:read |
    caddyvault vault call github repo.get --json '{"owner":"O","repo":"R"}'

environment:
  VAULT_URL               http://…, https://… or unix:///path/to/socket
  VAULT_ADMIN_TOKEN       for administrators; else from .env, else from
                          admin.token in the vault's data directory
  VAULT_DATA_DIR          default ./data
  AGENTVAULT_DIR          where .env and data are, default the current directory
  AGENTVAULT_AGENT_ID     default main, or whose the key is
  AGENTVAULT_AGENT_KEY    the agent's key (cva_...) or JWT, where the vault wants one
  AGENTVAULT_TTL          life of a token in seconds, default 300
  AGENTVAULT_SESSION_ID   optional, as is AGENTVAULT_TASK_ID
  AGENTVAULT_TOKEN        for call

exit status: 0 success, 1 refused or failed, 2 wrong usage`

func (t *terminal) setup(cmd *cobra.Command) {
	cmd.Use = "vault <command>"
	cmd.Long = longHelp
	// Errors of flags are found before a command runs.
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return t.finish(c, misuse("%s", err))
	})
	t.group(cmd,
		t.initCommand(), t.importCommand(), t.doctorCommand(),
		t.healthCommand(), t.tokenCommand(), t.callCommand(), t.delegateCommand(), t.introspectCommand(), t.revokeCommand(), t.auditCommand(),
		t.servicesCommand(), t.templatesCommand(), t.secretsCommand(), t.agentsCommand(), t.revocationsCommand(), t.unrevokeCommand(),
		t.keysCommand(),
	)
}

// group makes cmd a command that only has subcommands.
func (t *terminal) group(cmd *cobra.Command, sub ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(sub...)
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return t.finish(cmd, misuse("there is no command %q", args[0]))
		}
		return t.finish(cmd, misuse("a command is missing"))
	}
	return cmd
}

// command makes a command that takes from least to most arguments, any number
// if most is negative.
func (t *terminal) command(use, short string, least, most int, run func(ctx context.Context, cmd *cobra.Command, args []string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return t.finish(cmd, misuse("usage: %s", cmd.UseLine()))
		}
		return t.finish(cmd, run(cmd.Context(), cmd, args))
	}
	return cmd
}

// usageError is a command line that makes no sense.
type usageError struct{ detail string }

func (e *usageError) Error() string { return e.detail }

func misuse(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// errSaid ends a command with status 1 that has already said why.
var errSaid = errors.New("said already")

// finish reports how a command ended, and returns the error that makes Caddy
// exit with the right status.
func (t *terminal) finish(cmd *cobra.Command, err error) error {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err == nil {
		t.status = 0
		return nil
	}
	t.status = exitFailed
	if wrong, ok := errors.AsType[*usageError](err); ok {
		t.status = exitUsage
		fmt.Fprintf(t.err, "%s\nhint: %s --help\n", plain(wrong.detail), cmd.CommandPath())
		// The one way to a status other than 1 that Caddy offers.
		return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return exitUsage, nil })(cmd, nil)
	}
	if r, ok := errors.AsType[*refusal.Refusal](err); ok {
		fmt.Fprintln(t.err, plain(r.Error()))
		if r.Hint != "" {
			fmt.Fprintln(t.err, "hint: "+plain(r.Hint))
		}
		return err
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintln(t.err, "error: "+plain(err.Error()))
	}
	return err
}

// plain replaces control characters: a text may quote what an agent sent, and
// this may be a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return ' '
		}
		return r
	}, s)
}
