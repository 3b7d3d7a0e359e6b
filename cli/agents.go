package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
)

func (t *terminal) agentsCommand() *cobra.Command {
	const settings = " [--group <name>]... [--expires <time>] [--binding dpop|mtls|any|none]"
	add := t.command("add <agentId>"+settings, "Add an agent and print its key, this once", 1, 1, t.addAgent)
	update := t.command("update <agentId>"+settings, "Change an agent; what is not given stays", 1, 1, t.updateAgent)
	for _, cmd := range []*cobra.Command{add, update} {
		cmd.Flags().StringArray("group", nil, `a group of the agent, instead of those it has; "" for none`)
		cmd.Flags().String("expires", "", "when the agent ends: 2030-12-31, 2030-12-31T12:00:00Z, from now on as in 90d, or never")
		cmd.Flags().String("binding", "", "what its tokens have to be bound to: dpop, mtls, any, or none")
	}
	rotate := t.command("rotate-key <agentId> [--overlap <duration>]", "Make a new key for an agent and print it, this once", 1, 1, t.rotateAgentKey)
	rotate.Flags().String("overlap", "0s", "how long the key before works on, as in 24h")
	return t.group(&cobra.Command{Use: "agents <command>", Short: "List, add, change and remove agents, and make their keys"},
		jsonFlag(t.command("list", "List the agents that have a record", 0, 0, t.listAgents)),
		jsonFlag(add), update, jsonFlag(rotate),
		t.command("disable <agentId>", "Refuse an agent everything and cut its calls, until it is enabled", 1, 1,
			t.simple("disableAgent", "agentId", "disabled agent %s\n")),
		t.command("enable <agentId>", "Let a disabled agent go on", 1, 1, t.enableAgent),
		t.command("remove <agentId>", "Remove an agent; its key and its tokens end", 1, 1,
			t.simple("removeAgent", "agentId", "removed agent %s\n")),
	)
}

func (t *terminal) listAgents(ctx context.Context, cmd *cobra.Command, _ []string) error {
	answer, err := t.admin(ctx, "listAgents", object{})
	if err != nil {
		return err
	}
	var list struct {
		Agents []struct {
			AgentID   string   `json:"agentId"`
			Groups    []string `json:"groups"`
			ExpiresAt int64    `json:"expiresAt"`
			Binding   string   `json:"binding"`
			Disabled  bool     `json:"disabled"`
			Keys      []struct {
				ID string `json:"id"`
			} `json:"keys"`
			LastUse int64  `json:"lastUse"`
			Error   string `json:"error"`
		} `json:"agents"`
	}
	if err := decodeAnswer(answer, &list); err != nil {
		return err
	}
	if wantsJSON(cmd) {
		return t.line(answer)
	}
	rows := [][]string{{"AGENT", "STATE", "GROUPS", "BINDING", "KEYS", "EXPIRES", "LAST USE", "ERROR"}}
	for _, a := range list.Agents {
		state := "enabled"
		switch {
		case a.Disabled:
			state = "disabled"
		case a.ExpiresAt != 0 && a.ExpiresAt <= t.now().UnixMilli():
			state = "expired"
		}
		keys := make([]string, len(a.Keys))
		for i, k := range a.Keys {
			keys[i] = k.ID
		}
		rows = append(rows, []string{
			a.AgentID, state, strings.Join(a.Groups, ","), a.Binding, strings.Join(keys, ","), millis(a.ExpiresAt), millis(a.LastUse), a.Error,
		})
	}
	return t.table(rows)
}

// agentSettings reads the flags of add and update that were given.
func (t *terminal) agentSettings(cmd *cobra.Command, id string) (object, error) {
	body := object{"agentId": id}
	flags := cmd.Flags()
	if flags.Changed("group") {
		given, err := flags.GetStringArray("group")
		if err != nil {
			return nil, err
		}
		groups := []string{}
		for _, g := range given {
			if g != "" {
				groups = append(groups, g)
			}
		}
		body["groups"] = groups
	}
	if flags.Changed("expires") {
		text, err := flags.GetString("expires")
		if err != nil {
			return nil, err
		}
		if body["expiresAt"], err = t.expiry(text); err != nil {
			return nil, err
		}
	}
	if flags.Changed("binding") {
		binding, err := flags.GetString("binding")
		if err != nil {
			return nil, err
		}
		body["binding"] = binding
	}
	return body, nil
}

// expiry reads when an agent ends, for the field expiresAt.
func (t *terminal) expiry(text string) (any, error) {
	if text == "never" {
		return nil, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC().Format(time.RFC3339), nil
		}
	}
	if d, err := caddy.ParseDuration(text); err == nil && d > 0 {
		return t.now().Add(d).UTC().Format(time.RFC3339), nil
	}
	return nil, misuse("--expires is a time as in 2030-12-31 or 2030-12-31T12:00:00Z, a duration from now on as in 90d, or never")
}

func (t *terminal) addAgent(ctx context.Context, cmd *cobra.Command, args []string) error {
	body, err := t.agentSettings(cmd, args[0])
	if err != nil {
		return err
	}
	return t.agentKey(ctx, cmd, "addAgent", body, "added agent %s; its key is shown this once:\n")
}

func (t *terminal) rotateAgentKey(ctx context.Context, cmd *cobra.Command, args []string) error {
	text, err := cmd.Flags().GetString("overlap")
	if err != nil {
		return err
	}
	overlap, err := caddy.ParseDuration(text)
	if err != nil || overlap < 0 {
		return misuse("--overlap is a duration as in 24h")
	}
	body := object{"agentId": args[0], "overlap": int64(overlap / time.Second)}
	return t.agentKey(ctx, cmd, "rotateAgentKey", body, "made a key for agent %s, which is shown this once:\n")
}

// agentKey makes a call whose answer has an agent's key. The key alone goes to
// standard output, so that it can be piped to where it is kept.
func (t *terminal) agentKey(ctx context.Context, cmd *cobra.Command, route string, body object, done string) error {
	answer, err := t.admin(ctx, route, body)
	if err != nil {
		return err
	}
	var made struct {
		AgentID  string `json:"agentId"`
		AgentKey string `json:"agentKey"`
	}
	if err := decodeAnswer(answer, &made); err != nil {
		return err
	}
	if made.AgentKey == "" {
		return answerInvalid()
	}
	if wantsJSON(cmd) {
		return t.line(answer)
	}
	fmt.Fprintf(t.err, done, plain(made.AgentID))
	_, err = fmt.Fprintln(t.out, plain(made.AgentKey))
	return err
}

func (t *terminal) updateAgent(ctx context.Context, cmd *cobra.Command, args []string) error {
	body, err := t.agentSettings(cmd, args[0])
	if err != nil {
		return err
	}
	if len(body) == 1 {
		return misuse("there is nothing to change: give --group, --expires or --binding")
	}
	if _, err := t.admin(ctx, "updateAgent", body); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "updated agent %s\n", plain(args[0]))
	return err
}

func (t *terminal) enableAgent(ctx context.Context, _ *cobra.Command, args []string) error {
	if _, err := t.admin(ctx, "updateAgent", object{"agentId": args[0], "disabled": false}); err != nil {
		return err
	}
	_, err := fmt.Fprintf(t.out, "enabled agent %s\n", plain(args[0]))
	return err
}
