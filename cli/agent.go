package cli

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/caddyvault/caddyvault/refusal"
)

// object is a request's body.
type object = map[string]any

const defaultTTL = "300" // seconds

func (t *terminal) healthCommand() *cobra.Command {
	return t.command("health", "Say whether the vault serves calls", 0, 0, func(ctx context.Context, _ *cobra.Command, _ []string) error {
		c, err := t.client()
		if err != nil {
			return err
		}
		answer, _, err := c.api(ctx, "/health", nil, "")
		if err != nil {
			return err
		}
		var ok struct {
			OK bool `json:"ok"`
		}
		if err := decodeAnswer(answer, &ok); err != nil {
			return err
		}
		if !ok.OK {
			return answerInvalid()
		}
		return t.line(answer)
	})
}

func (t *terminal) tokenCommand() *cobra.Command {
	cmd := t.command("token <service> <scope>... [--json <fields>]", "Get a token and print it", 2, -1, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		ttl, err := strconv.ParseUint(cmp.Or(t.setting("AGENTVAULT_TTL"), defaultTTL), 10, 32)
		if err != nil {
			return misuse("AGENTVAULT_TTL must be a number of seconds")
		}
		body, err := fields(cmd)
		if err != nil {
			return err
		}
		for name, value := range (object{
			"service": args[0], "scope": args[1:], "ttl": ttl,
			"tool": "caddyvault vault",
		}) {
			body[name] = value
		}
		id := t.setting("AGENTVAULT_AGENT_ID")
		if id == "" && t.setting("AGENTVAULT_AGENT_KEY") == "" {
			id = "main" // else the key says who it is
		}
		if id != "" {
			body["agentId"] = id
		}
		for field, name := range map[string]string{"sessionId": "AGENTVAULT_SESSION_ID", "taskId": "AGENTVAULT_TASK_ID"} {
			if v := t.setting(name); v != "" {
				body[field] = v
			}
		}
		c, err := t.client()
		if err != nil {
			return err
		}
		answer, _, err := c.asAgent(ctx, "/vault.issueToken", body)
		if err != nil {
			return err
		}
		return t.printToken(answer)
	})
	cmd.Flags().String("json", "{}", "further conditions: actions, params, maxCalls, maxBytes, oneTime")
	return cmd
}

// fields reads the flag --json, an object.
func fields(cmd *cobra.Command) (object, error) {
	text, err := cmd.Flags().GetString("json")
	if err != nil {
		return nil, err
	}
	var raw map[string]jsontext.Value // a number keeps its digits
	if err := json.Unmarshal([]byte(text), &raw); err != nil || raw == nil {
		return nil, misuse("--json must be one JSON object")
	}
	body := object{}
	for name, value := range raw {
		body[name] = value
	}
	return body, nil
}

// printToken prints the token of an answer and nothing else.
func (t *terminal) printToken(answer []byte) error {
	var issued struct {
		Token string `json:"token"`
	}
	if err := decodeAnswer(answer, &issued); err != nil {
		return err
	}
	if issued.Token == "" || !printable(issued.Token) {
		return answerInvalid()
	}
	return t.line([]byte(issued.Token))
}

func (t *terminal) delegateCommand() *cobra.Command {
	cmd := t.command("delegate [--token <token>|-] [--json <fields>]", "Get a token that may do no more than another one", 0, 0, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		token, err := t.callToken(cmd)
		if err != nil {
			return err
		}
		body, err := fields(cmd)
		if err != nil {
			return err
		}
		body["token"] = token
		c, err := t.client()
		if err != nil {
			return err
		}
		answer, _, err := c.asAgent(ctx, "/vault.delegateToken", body)
		if err != nil {
			return err
		}
		return t.printToken(answer)
	})
	cmd.Flags().String("token", "", `the token, or "-" for standard input`)
	cmd.Flags().String("json", "{}", "what is to be less: scope, actions, params, ttl, maxCalls, maxBytes, oneTime, agentId, taskId")
	return cmd
}

func (t *terminal) introspectCommand() *cobra.Command {
	cmd := t.command("introspect [--token <token>|-]", "Say what a token is and what is left of it", 0, 0, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		token, err := t.callToken(cmd)
		if err != nil {
			return err
		}
		c, err := t.client()
		if err != nil {
			return err
		}
		answer, _, err := c.asAgent(ctx, "/vault.introspectToken", object{"token": token})
		if err != nil {
			return err
		}
		return t.line(answer)
	})
	cmd.Flags().String("token", "", `the token, or "-" for standard input`)
	return cmd
}

func (t *terminal) callCommand() *cobra.Command {
	cmd := t.command("call <service> <action> [--token <token>|-] [--json <params>]", "Call a service through the vault", 2, 2, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		token, err := t.callToken(cmd)
		if err != nil {
			return err
		}
		params, err := cmd.Flags().GetString("json")
		if err != nil {
			return err
		}
		raw := jsontext.Value(strings.TrimSpace(params))
		if !raw.IsValid() || raw.Kind() != '{' {
			return misuse("the parameters of a call must be one JSON object")
		}
		c, err := t.client()
		if err != nil {
			return err
		}
		// The parameters go as they are: a number keeps its digits.
		return c.call(ctx, token, object{"service": args[0], "action": args[1], "params": raw})
	})
	cmd.Long = `Call a service through the vault and print its answer.

The token is the one of --token, else of AGENTVAULT_TOKEN, else the first line
of standard input. An argument can be seen by every process of the machine: a
pipe is the better way.`
	cmd.Flags().String("token", "", `the token, or "-" for standard input`)
	cmd.Flags().String("json", "{}", "the parameters, a JSON object")
	return cmd
}

// callToken returns the token for a call.
func (t *terminal) callToken(cmd *cobra.Command) (string, error) {
	token, err := cmd.Flags().GetString("token")
	if err != nil {
		return "", err
	}
	if cmd.Flags().Changed("token") && token == "" {
		return "", misuse("--token needs a value")
	}
	if token == "" {
		token = t.getenv("AGENTVAULT_TOKEN")
	}
	if token == "" || token == "-" {
		if token, err = t.readToken(); err != nil {
			return "", err
		}
	}
	token = strings.TrimSpace(token)
	if token == "" || !printable(token) || strings.Contains(token, " ") {
		return "", refusal.New("TOKEN_INVALID", "what was given is not a token")
	}
	return token, nil
}

// targetFlags gives cmd the flags that name what is revoked.
func targetFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("agent", "", "the id of an agent")
	cmd.Flags().String("session", "", "the id of a session")
	cmd.Flags().String("task", "", "the id of a task")
	cmd.Flags().String("token", "", `the id of a token, or the token itself, or "-" for standard input; only the id is sent`)
	return cmd
}

// targets reads the flags of targetFlags.
func (t *terminal) targets(cmd *cobra.Command) (object, error) {
	body := object{}
	for _, f := range [...]struct{ flag, field string }{
		{"agent", "agentId"}, {"session", "sessionId"}, {"task", "taskId"}, {"token", "tokenId"},
	} {
		if !cmd.Flags().Changed(f.flag) {
			continue
		}
		id, err := cmd.Flags().GetString(f.flag)
		if err != nil {
			return nil, err
		}
		// An empty id is a variable that was not set, and no wish to revoke
		// less.
		if id == "" {
			return nil, misuse("--%s needs a value", f.flag)
		}
		if f.flag == "token" {
			if id == "-" {
				if id, err = t.readToken(); err != nil {
					return nil, err
				}
			}
			if id, err = tokenID(id); err != nil {
				return nil, err
			}
		}
		body[f.field] = id
	}
	if len(body) == 0 {
		return nil, misuse("one of --agent, --session, --task and --token is needed")
	}
	return body, nil
}

// tokenID returns the id in a token, or s if it is none. Nothing is verified:
// the vault revokes what it is told to.
func tokenID(s string) (string, error) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return s, nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		ID string `json:"jti"`
	}
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims.ID == "" {
		return "", refusal.New("TOKEN_INVALID", "the token has no readable id")
	}
	return claims.ID, nil
}

func (t *terminal) revokeCommand() *cobra.Command {
	cmd := t.command("revoke [--agent <id>] [--session <id>] [--task <id>] [--token <id>] [--reason <text>]", "End tokens at once", 0, 0, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		body, err := t.targets(cmd)
		if err != nil {
			return err
		}
		if reason, err := cmd.Flags().GetString("reason"); err == nil && reason != "" {
			body["reason"] = reason
		}
		c, err := t.client()
		if err != nil {
			return err
		}
		answer, _, err := c.asAgent(ctx, "/vault.revoke", body)
		if err != nil {
			return err
		}
		return t.line(answer)
	})
	cmd.Flags().String("reason", "", "why, for the audit log")
	return targetFlags(cmd)
}

func (t *terminal) auditCommand() *cobra.Command {
	cmd := t.command("audit [--limit <n>] [--event <event>] [--agent <id>] [--before <seq>]", "Show audit records, the oldest first", 0, 0, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		body, filters := object{}, object{}
		for flag, field := range map[string]string{"event": "event", "agent": "agentId"} {
			v, err := cmd.Flags().GetString(flag)
			if err != nil {
				return err
			}
			if v != "" {
				filters[field] = v
			}
		}
		if len(filters) > 0 {
			body["filters"] = filters
		}
		return t.queryAudit(ctx, cmd, body)
	})
	cmd.Flags().Uint64("limit", 100, "how many records at most")
	cmd.Flags().Uint64("before", 0, "only records before this seq")
	cmd.Flags().String("event", "", "only records of this event")
	cmd.Flags().String("agent", "", "only records of this agent")
	cmd.AddCommand(t.auditVerifyCommand(), t.auditProveCommand(), t.auditTailCommand(), t.auditQueryCommand(), t.auditExportCommand())
	return jsonFlag(cmd)
}

// queryAudit makes a vault.audit.query and shows the answer.
func (t *terminal) queryAudit(ctx context.Context, cmd *cobra.Command, body object) error {
	for _, name := range [...]string{"limit", "before"} {
		if !cmd.Flags().Changed(name) {
			continue
		}
		n, err := cmd.Flags().GetUint64(name)
		if err != nil {
			return err
		}
		body[name] = n
	}
	c, err := t.client()
	if err != nil {
		return err
	}
	answer, header, err := c.asAgent(ctx, "/vault.audit.query", body)
	if err != nil {
		return err
	}
	if err := t.showAudit(answer, wantsJSON(cmd)); err != nil {
		return err
	}
	if next := header.Get("Vault-Audit-Next"); next != "" {
		fmt.Fprintf(t.err, "hint: the search stopped at a bound; for what is older add --before %s\n", plain(next))
	}
	return nil
}

// showAudit prints records as a table, or the answer as it is.
func (t *terminal) showAudit(answer []byte, raw bool) error {
	var records []struct {
		TS        int64  `json:"ts"`
		Seq       uint64 `json:"seq"`
		Event     string `json:"event"`
		Service   string `json:"service"`
		Action    string `json:"action"`
		Status    int    `json:"status"`
		Error     string `json:"error"`
		AgentID   string `json:"agentId"`
		SecretRef string `json:"secretRef"`
		Context   struct {
			AgentID string `json:"agentId"`
		} `json:"context"`
	}
	if err := decodeAnswer(answer, &records); err != nil {
		return err
	}
	if raw {
		return t.line(answer)
	}
	rows := [][]string{{"SEQ", "TIME", "EVENT", "AGENT", "SERVICE", "ACTION", "RESULT"}}
	for _, r := range records {
		result := r.Error
		if result == "" && r.Status != 0 {
			result = strconv.Itoa(r.Status)
		}
		rows = append(rows, []string{
			strconv.FormatUint(r.Seq, 10), millis(r.TS), r.Event,
			cmp.Or(r.Context.AgentID, r.AgentID), r.Service, cmp.Or(r.Action, r.SecretRef), result,
		})
	}
	return t.table(rows)
}

// millis writes a time in milliseconds as people read it.
func millis(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).Local().Format("2006-01-02 15:04:05")
}
