package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/caddyvault/caddyvault/audit"
)

func (t *terminal) auditProveCommand() *cobra.Command {
	cmd := t.command("prove <seq> <dir> | prove --check <file> --key <public key>", "Prove that a record is in the log", 0, 2, func(_ context.Context, cmd *cobra.Command, args []string) error {
		key, err := cmd.Flags().GetString("key")
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("key") {
			if _, err := audit.ParseKey(key); err != nil {
				return misuse("--key: %s", err)
			}
		}
		if cmd.Flags().Changed("check") {
			file, err := cmd.Flags().GetString("check")
			if err != nil {
				return err
			}
			if len(args) > 0 || key == "" {
				return misuse("--check needs --key, and takes no arguments")
			}
			return t.checkProof(file, key)
		}
		if len(args) != 2 {
			return misuse("usage: %s", cmd.UseLine())
		}
		seq, err := strconv.ParseUint(args[0], 10, 62)
		if err != nil || seq == 0 {
			return misuse("%q is not the seq of a record", args[0])
		}
		proof, err := audit.Prove(args[1], seq, audit.VerifyOptions{Key: key, Progress: t.progress("proving")})
		if err != nil {
			return err
		}
		b, err := json.MarshalIndent(proof, "", "  ")
		if err != nil {
			return err
		}
		return t.line(b)
	})
	cmd.Long = `Verify the log in <dir>, which may be a copy, and print a proof that the record
with a seq is in it: the record, the hashes from it to the root of the Merkle
tree (RFC 6962), and the signed checkpoint.

--check <file> checks such a proof. It needs the log's public key, and no log.`
	cmd.Flags().String("key", "", "the log's public key; without it <dir>/audit.pub")
	cmd.Flags().String("check", "", "a file with a proof to be checked")
	return cmd
}

// checkProof checks a proof that prove has printed.
func (t *terminal) checkProof(file, key string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var p audit.Proof
	if err := json.Unmarshal(b, &p); err != nil {
		return fmt.Errorf("%s is not a proof: %w", file, err)
	}
	if err := p.Check(key); err != nil {
		return err
	}
	return t.line(fmt.Appendf(nil, "record %d is in the log:\n%s", p.Seq, p.Record))
}
