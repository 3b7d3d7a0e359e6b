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
	cmd := t.command("verify <dir> [--key <public key>] [--checkpoint <file>]...", "Check a log, or a copy of one, for changes", 1, 1, func(_ context.Context, cmd *cobra.Command, args []string) error {
		o := audit.VerifyOptions{Progress: t.progress("verifying")}
		key, err := cmd.Flags().GetString("key")
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("key") {
			if _, err := audit.ParseKey(key); err != nil {
				return misuse("--key: %s", err)
			}
			o.Key = key
		}
		files, err := cmd.Flags().GetStringArray("checkpoint")
		if err != nil {
			return err
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			o.Checkpoints = append(o.Checkpoints, string(b))
		}
		report, err := audit.VerifyWith(args[0], o)
		if o.Progress != nil {
			o.Progress(1, 1) // what follows gets a line of its own
		}
		switch {
		case report.Key == "" && len(report.Segments) == 0: // nothing was looked at
		case report.Key == "":
			fmt.Fprintln(t.err, "warning: there is no audit.pub, so that no checkpoint was looked at: only the chain shows changes")
		case report.KeyUnproven:
			fmt.Fprintln(t.err, "warning: the key is the one beside the log; give the one you have kept with --key")
		}
		if err != nil {
			return err
		}
		return t.line(fmt.Appendf(nil, "%d records in %d files, the last has seq %d; %d are under a checkpoint",
			report.Records, len(report.Segments), report.LastSeq, report.Checked))
	})
	cmd.Long = `Check the files of an audit log in <dir>, which may be a copy, without a vault.

The first record that is not what was written ends it with status 1, and is
named by its seq, the kind of damage and the place: altered, missing,
duplicated, reordered, truncated, rolled back, or a forged checkpoint.

--key is the content of audit.pub as you have kept it. --checkpoint is a copy
of audit.checkpoint that was kept elsewhere: it also shows that the whole
directory is an older one, or was written anew.`
	cmd.Flags().String("key", "", "the log's public key; without it <dir>/audit.pub")
	cmd.Flags().StringArray("checkpoint", nil, "a file with a checkpoint that was kept elsewhere; may be given again")
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
