package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
)

func (t *terminal) servicesCommand() *cobra.Command {
	add := t.command("add <file.json>|- [--name <name>] [--secret]", "Add a service", 1, 1, t.addService)
	add.Flags().String("name", "", `the service's name (default: the member "service" of the JSON, else the file's name)`)
	add.Flags().Bool("secret", false, "read the service's secret from standard input")
	return t.group(&cobra.Command{Use: "services <command>", Short: "List, show, add, change and remove services"},
		jsonFlag(t.command("list", "List the services", 0, 0, t.listServices)),
		t.command("get <name>", "Print a service", 1, 1, func(ctx context.Context, _ *cobra.Command, args []string) error {
			return t.getService(ctx, args[0])
		}),
		add,
		t.command("update <name> <file.json>|-", "Merge a JSON file into a service", 2, 2, t.updateService),
		t.command("remove <name>", "Remove a service, and its secret unless another service uses it", 1, 1,
			t.simple("removeService", "service", "removed service %s\n")),
	)
}

// simple makes a command that sends its argument as one field.
func (t *terminal) simple(route, field, done string) func(context.Context, *cobra.Command, []string) error {
	return func(ctx context.Context, _ *cobra.Command, args []string) error {
		if _, err := t.admin(ctx, route, object{field: args[0]}); err != nil {
			return err
		}
		_, err := fmt.Fprintf(t.out, done, plain(args[0]))
		return err
	}
}

func (t *terminal) listServices(ctx context.Context, cmd *cobra.Command, _ []string) error {
	answer, err := t.admin(ctx, "listServices", object{})
	if err != nil {
		return err
	}
	var list struct {
		Services []struct {
			Service        string   `json:"service"`
			BaseURL        string   `json:"baseUrl"`
			SecretRef      string   `json:"secretRef"`
			AllowedAgents  []string `json:"allowedAgents"`
			AllowedActions []string `json:"allowedActions"`
			EndpointNames  []string `json:"endpointNames"`
			Error          string   `json:"error"`
		} `json:"services"`
	}
	if err := decodeAnswer(answer, &list); err != nil {
		return err
	}
	if wantsJSON(cmd) {
		return t.line(answer)
	}
	rows := [][]string{{"SERVICE", "BASE URL", "SECRET", "AGENTS", "ENDPOINTS", "ERROR"}}
	for _, s := range list.Services {
		rows = append(rows, []string{
			s.Service, s.BaseURL, s.SecretRef, strings.Join(s.AllowedAgents, ","), fmt.Sprint(len(s.EndpointNames)), s.Error,
		})
	}
	return t.table(rows)
}

func (t *terminal) getService(ctx context.Context, name string) error {
	answer, err := t.admin(ctx, "getService", object{"service": name})
	if err != nil {
		return err
	}
	v := jsontext.Value(answer)
	if err := v.Indent(jsontext.WithIndent("  ")); err != nil {
		return answerInvalid()
	}
	return t.line(v)
}

// readJSON reads a JSON object from a file, or from standard input for "-".
func (t *terminal) readJSON(path string) (map[string]jsontext.Value, error) {
	var b []byte
	var err error
	if path == "-" {
		b, err = readAll(t.in)
	} else {
		var f *os.File
		if f, err = os.Open(path); err == nil {
			b, err = readAll(f)
			_ = f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	var members map[string]jsontext.Value
	if err := json.Unmarshal(b, &members); err != nil || members == nil {
		// The decoder's error could quote from the file.
		return nil, fmt.Errorf("%s does not hold one JSON object without duplicate keys", path)
	}
	return members, nil
}

func (t *terminal) addService(ctx context.Context, cmd *cobra.Command, args []string) error {
	path := args[0]
	secret, err := cmd.Flags().GetBool("secret")
	if err != nil {
		return err
	}
	if secret && path == "-" {
		return misuse("standard input cannot hold both the service and its secret")
	}
	members, err := t.readJSON(path)
	if err != nil {
		return err
	}
	if members["masterSecret"] != nil {
		return misuse("a file with a service holds no secret: take masterSecret out and give --secret")
	}
	name, err := cmd.Flags().GetString("name")
	if err != nil {
		return err
	}
	if name == "" {
		if raw := members["service"]; raw != nil {
			if err := json.Unmarshal(raw, &name); err != nil {
				return misuse(`the member "service" must be the service's name`)
			}
		} else if path != "-" {
			name = strings.TrimSuffix(filepath.Base(path), ".json")
		}
	}
	if name == "" {
		return misuse("the service needs a name: give --name")
	}
	body := object{}
	for k, v := range members {
		body[k] = v
	}
	body["service"] = name
	if secret {
		if body["masterSecret"], err = t.readSecret("secret of " + name); err != nil {
			return err
		}
	}
	if _, err := t.admin(ctx, "addService", body); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "added service %s\n", plain(name))
	return err
}

func (t *terminal) updateService(ctx context.Context, _ *cobra.Command, args []string) error {
	members, err := t.readJSON(args[1])
	if err != nil {
		return err
	}
	body := object{}
	for k, v := range members {
		body[k] = v
	}
	body["service"] = args[0]
	if _, err := t.admin(ctx, "updateService", body); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "updated service %s\n", plain(args[0]))
	return err
}

func (t *terminal) templatesCommand() *cobra.Command {
	load := t.command("load <name> [--agent <id>]... [--var <name>=<value>]... [--no-secret]", "Make a service from a template", 1, 1, t.loadTemplate)
	load.Long = `Make a service from a template, or merge the template into the service of
that name. The service's secret is read from standard input: typed at a
terminal, where it is not shown, or piped in.`
	load.Flags().StringArray("agent", nil, "an agent that may use the service (default: those of the template)")
	load.Flags().StringArray("var", nil, "a variable of the template")
	load.Flags().Bool("no-secret", false, "leave the secret as it is, or for later")
	return t.group(&cobra.Command{Use: "templates <command>", Short: "List and load templates of services"},
		jsonFlag(t.command("list", "List the templates", 0, 0, t.listTemplates)),
		load,
	)
}

func (t *terminal) listTemplates(ctx context.Context, cmd *cobra.Command, _ []string) error {
	answer, err := t.admin(ctx, "listTemplates", object{})
	if err != nil {
		return err
	}
	var list struct {
		Templates []string `json:"templates"`
	}
	if err := decodeAnswer(answer, &list); err != nil {
		return err
	}
	if wantsJSON(cmd) {
		return t.line(answer)
	}
	for _, name := range list.Templates {
		fmt.Fprintln(t.out, plain(name))
	}
	return nil
}

func (t *terminal) loadTemplate(ctx context.Context, cmd *cobra.Command, args []string) error {
	body := object{"template": args[0]}
	agents, err := cmd.Flags().GetStringArray("agent")
	if err != nil {
		return err
	}
	if len(agents) > 0 {
		body["allowedAgents"] = agents
	}
	vars, err := cmd.Flags().GetStringArray("var")
	if err != nil {
		return err
	}
	if len(vars) > 0 {
		m := map[string]string{}
		for _, kv := range vars {
			name, value, ok := strings.Cut(kv, "=")
			if !ok || name == "" {
				return misuse("--var is <name>=<value>")
			}
			m[name] = value
		}
		body["variables"] = m
	}
	noSecret, err := cmd.Flags().GetBool("no-secret")
	if err != nil {
		return err
	}
	if !noSecret {
		if body["masterSecret"], err = t.readSecret("secret of " + args[0]); err != nil {
			return err
		}
	}
	answer, err := t.admin(ctx, "loadTemplate", body)
	if err != nil {
		return err
	}
	var loaded struct {
		Service          string `json:"service"`
		SecretConfigured bool   `json:"secretConfigured"`
	}
	if err := decodeAnswer(answer, &loaded); err != nil {
		return err
	}
	note := ""
	if !loaded.SecretConfigured {
		note = ", which has no secret yet"
	}
	_, err = fmt.Fprintf(t.out, "loaded template %s as service %s%s\n", plain(args[0]), plain(loaded.Service), note)
	return err
}

func (t *terminal) secretsCommand() *cobra.Command {
	set := t.command("set <secretRef>", "Store or replace a secret, read from standard input", 1, 1, func(ctx context.Context, _ *cobra.Command, args []string) error {
		secret, err := t.readSecret("secret " + args[0])
		if err != nil {
			return err
		}
		answer, err := t.admin(ctx, "addSecret", object{"secretRef": args[0], "secret": secret})
		if err != nil {
			return err
		}
		var stored struct {
			Warning string `json:"warning"`
		}
		if err := decodeAnswer(answer, &stored); err != nil {
			return err
		}
		if stored.Warning != "" {
			fmt.Fprintln(t.err, "warning: "+plain(stored.Warning))
		}
		_, err = fmt.Fprintf(t.out, "stored secret %s\n", plain(args[0]))
		return err
	})
	return t.group(&cobra.Command{Use: "secrets <command>", Short: "List, store and remove secrets; none is ever shown"},
		jsonFlag(t.command("list", "List the names of the secrets", 0, 0, t.listSecrets)),
		set,
		t.command("remove <secretRef>", "Remove a secret", 1, 1, t.simple("removeSecret", "secretRef", "removed secret %s\n")),
	)
}

func (t *terminal) listSecrets(ctx context.Context, cmd *cobra.Command, _ []string) error {
	answer, err := t.admin(ctx, "listSecrets", object{})
	if err != nil {
		return err
	}
	var list struct {
		Secrets []struct {
			SecretRef string   `json:"secretRef"`
			UpdatedAt int64    `json:"updatedAt"`
			UsedBy    []string `json:"usedBy"`
			Warning   string   `json:"warning"`
		} `json:"secrets"`
	}
	if err := decodeAnswer(answer, &list); err != nil {
		return err
	}
	if wantsJSON(cmd) {
		return t.line(answer)
	}
	rows := [][]string{{"SECRET", "UPDATED", "USED BY"}}
	for _, s := range list.Secrets {
		rows = append(rows, []string{s.SecretRef, millis(s.UpdatedAt), strings.Join(s.UsedBy, ",")})
		if s.Warning != "" {
			fmt.Fprintln(t.err, "warning: "+plain(s.SecretRef)+": "+plain(s.Warning))
		}
	}
	return t.table(rows)
}

func (t *terminal) revocationsCommand() *cobra.Command {
	return t.group(&cobra.Command{Use: "revocations <command>", Short: "List what is revoked"},
		jsonFlag(t.command("list", "List what is revoked", 0, 0, t.listRevocations)))
}

func (t *terminal) listRevocations(ctx context.Context, cmd *cobra.Command, _ []string) error {
	answer, err := t.admin(ctx, "listRevocations", object{})
	if err != nil {
		return err
	}
	var list struct {
		Revocations []struct {
			Kind    string `json:"kind"`
			ID      string `json:"id"`
			Reason  string `json:"reason"`
			Since   int64  `json:"since"`
			Expires int64  `json:"expires"`
		} `json:"revocations"`
	}
	if err := decodeAnswer(answer, &list); err != nil {
		return err
	}
	if wantsJSON(cmd) {
		return t.line(answer)
	}
	rows := [][]string{{"KIND", "ID", "SINCE", "UNTIL", "REASON"}}
	for _, r := range list.Revocations {
		rows = append(rows, []string{r.Kind, r.ID, millis(r.Since), millis(r.Expires), r.Reason})
	}
	return t.table(rows)
}

func (t *terminal) unrevokeCommand() *cobra.Command {
	return targetFlags(t.command("unrevoke [--agent <id>] [--session <id>] [--task <id>] [--token <id>]", "Lift revocations", 0, 0, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		body, err := t.targets(cmd)
		if err != nil {
			return err
		}
		answer, err := t.admin(ctx, "unrevoke", body)
		if err != nil {
			return err
		}
		return t.line(answer)
	}))
}
