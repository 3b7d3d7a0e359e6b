package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (t *terminal) keysCommand() *cobra.Command {
	rotate := t.command("rotate [--now]", "Make a signing key that takes over once it has been published", 0, 0, t.rotateKey)
	rotate.Flags().Bool("now", false, "let it sign at once")
	return t.group(&cobra.Command{Use: "keys <command>", Short: "List, rotate and retire the keys that tokens are signed with"},
		jsonFlag(t.command("list", "List the signing keys", 0, 0, t.listKeys)),
		rotate,
		t.command("retire <kid>", "End a signing key and all its tokens, at once", 1, 1, t.retireKey),
	)
}

func (t *terminal) listKeys(ctx context.Context, cmd *cobra.Command, _ []string) error {
	answer, err := t.admin(ctx, "listSigningKeys", object{})
	if err != nil {
		return err
	}
	var list struct {
		Keys []struct {
			Kid        string `json:"kid"`
			Algorithm  string `json:"algorithm"`
			State      string `json:"state"`
			ActiveFrom int64  `json:"activeFrom"`
		} `json:"keys"`
	}
	if err := decodeAnswer(answer, &list); err != nil {
		return err
	}
	if wantsJSON(cmd) {
		return t.line(answer)
	}
	rows := [][]string{{"KEY", "ALGORITHM", "STATE", "SIGNS FROM"}}
	for _, k := range list.Keys {
		rows = append(rows, []string{k.Kid, k.Algorithm, k.State, millis(k.ActiveFrom)})
	}
	return t.table(rows)
}

func (t *terminal) rotateKey(ctx context.Context, cmd *cobra.Command, _ []string) error {
	now, err := cmd.Flags().GetBool("now")
	if err != nil {
		return err
	}
	answer, err := t.admin(ctx, "rotateSigningKey", object{"now": now})
	if err != nil {
		return err
	}
	var key struct {
		Kid        string `json:"kid"`
		ActiveFrom int64  `json:"activeFrom"`
	}
	if err := decodeAnswer(answer, &key); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "made key %s, which signs from %s\n", plain(key.Kid), millis(key.ActiveFrom))
	return err
}

func (t *terminal) retireKey(ctx context.Context, _ *cobra.Command, args []string) error {
	answer, err := t.admin(ctx, "retireSigningKey", object{"kid": args[0]})
	if err != nil {
		return err
	}
	var key struct {
		Next string `json:"next"`
	}
	if err := decodeAnswer(answer, &key); err != nil {
		return err
	}
	note := ""
	if key.Next != "" {
		note = "; " + plain(key.Next) + " signs in its place"
	}
	_, err = fmt.Fprintf(t.out, "retired key %s%s\n", plain(args[0]), note)
	return err
}
