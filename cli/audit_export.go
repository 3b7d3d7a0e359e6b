package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/caddyvault/caddyvault/audit"
)

func (t *terminal) auditExportCommand() *cobra.Command {
	cmd := t.command("export [--format jsonl|csv|cef] [--dir <data dir>] "+selectUsage, "Write records out, the oldest first", 0, 0, t.exportAudit)
	cmd.Long = `Write audit records to standard output, the oldest first: from a running vault,
with the admin token, or with --dir from the files of a log or of a copy.

jsonl  the records, byte for byte
csv    one row a record, with a heading; a text that a spreadsheet would take
       for a formula has an apostrophe before it
cef    Common Event Format, for a SIEM

Status 0 says that all there was is written.`
	cmd.Flags().String("format", "jsonl", "jsonl, csv or cef")
	cmd.Flags().String("dir", "", "read the files in this directory, without a vault")
	return selectFlags(cmd)
}

func (t *terminal) exportAudit(ctx context.Context, cmd *cobra.Command, _ []string) error {
	s, err := t.selection(cmd)
	if err != nil {
		return err
	}
	format, err := cmd.Flags().GetString("format")
	if err != nil {
		return err
	}
	dir, err := cmd.Flags().GetString("dir")
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(t.out, 64<<10)
	var write func(line []byte) error
	switch format {
	case "jsonl":
		write = func(line []byte) error { return writeLine(out, line) }
	case "csv":
		write = csvWriter(out)
	case "cef":
		write = func(line []byte) error {
			cef, err := appendCEF(nil, line)
			if err != nil {
				return err
			}
			return writeLine(out, cef)
		}
	default:
		return misuse("--format is jsonl, csv or cef")
	}
	switch {
	case cmd.Flags().Changed("dir") && dir == "":
		return misuse("--dir needs a value")
	case dir != "":
		err = audit.ReadDir(ctx, dir, audit.FollowOptions{Filters: s.filters, Since: s.since, Until: s.until}, write)
	default:
		var st *auditStream
		if st, err = t.stream(s, write); err == nil {
			st.setOnce()
			err = st.run(ctx)
		}
	}
	if err != nil {
		_ = out.Flush()
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

func writeLine(w io.Writer, line []byte) error {
	if _, err := w.Write(line); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	if _, err := w.Write([]byte{'\n'}); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}
