package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/caddyvault/caddyvault/refusal"
)

// table writes rows in columns; the first row is the heading.
func (t *terminal) table(rows [][]string) error {
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			if cells[i] = plain(cell); cell == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// line writes an answer as it came, and a newline.
func (t *terminal) line(answer []byte) error {
	_, err := fmt.Fprintf(t.out, "%s\n", answer)
	return err
}

// jsonFlag gives cmd the flag --json.
func jsonFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Bool("json", false, "print the vault's own answer")
	return cmd
}

func wantsJSON(cmd *cobra.Command) bool {
	b, err := cmd.Flags().GetBool("json")
	return err == nil && b
}

// answerInvalid is the refusal of an answer that cannot be a vault's.
func answerInvalid() error {
	return refusal.New("ANSWER_INVALID", "the answer is not the one of a vault").WithHint("does VAULT_URL lead to the vault?")
}

// decodeAnswer reads an answer; fields it does not know are ignored.
func decodeAnswer(answer []byte, into any) error {
	if err := json.Unmarshal(answer, into); err != nil {
		return answerInvalid()
	}
	return nil
}

// maxInput is the most that is read from standard input or a file, in bytes:
// what a request may hold.
const maxInput = 1 << 20

func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(b) > maxInput {
		err = fmt.Errorf("more than %d bytes", maxInput)
	}
	return b, err
}
