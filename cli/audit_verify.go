package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddyvault/caddyvault/audit"
)

func (t *terminal) auditVerifyCommand() *cobra.Command {
	cmd := t.command("verify <dir>", "Check a log, or a copy of one, for changes", 1, 1, func(_ context.Context, _ *cobra.Command, args []string) error {
		report, err := audit.Verify(args[0], t.progress("verifying"))
		if err != nil {
			return err
		}
		return t.line(fmt.Appendf(nil, "%d records in %d files, the last has seq %d", report.Records, len(report.Segments), report.LastSeq))
	})
	cmd.Long = `Check the files of an audit log in <dir>, which may be a copy, without a vault.

The first record that is not what was written ends it with status 1, and is
named by its seq, the kind of damage and the place.`
	return cmd
}

// progress returns what shows a person how far something long has come; nil
// if standard error is no terminal.
func (t *terminal) progress(what string) func(done, total int64) {
	f, ok := t.err.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	last := t.now()
	shown := false
	return func(done, total int64) {
		switch now := t.now(); {
		case done >= total && shown:
			fmt.Fprint(f, "\r\033[K")
		case now.Sub(last) >= 200*time.Millisecond && total > 0:
			last, shown = now, true
			fmt.Fprintf(f, "\r\033[K%s: %d of %d MB (%d%%)", what, done/1e6, total/1e6, 100*done/total)
		}
	}
}
