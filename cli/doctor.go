package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/caddyvault/caddyvault/legacy"
)

// Levels of a finding.
const (
	levelOK      = "ok"
	levelWarning = "warning"
	levelProblem = "problem"
)

// finding is one line of the doctor's report. It never shows a secret.
type finding struct {
	Level string `json:"level"`
	Text  string `json:"text"`
}

// report gathers findings.
type report struct{ list []finding }

func (r *report) ok(format string, args ...any)      { r.add(levelOK, format, args) }
func (r *report) warn(format string, args ...any)    { r.add(levelWarning, format, args) }
func (r *report) problem(format string, args ...any) { r.add(levelProblem, format, args) }

func (r *report) add(level, format string, args []any) {
	r.list = append(r.list, finding{level, fmt.Sprintf(format, args...)})
}

// clean says text if f finds nothing worse than ok.
func (r *report) clean(text string, f func()) {
	before := len(r.list)
	f()
	for _, found := range r.list[before:] {
		if found.Level != levelOK {
			return
		}
	}
	r.ok("%s", text)
}

func (t *terminal) doctorCommand() *cobra.Command {
	cmd := t.command("doctor [--config <file>] [--adapter <name>] [--data-dir <dir>] [--services-dir <dir>] [--online]", "Look for what makes a vault less safe", 0, 0, t.runDoctor)
	cmd.Long = `Look for what makes a vault less safe, without a vault running and without
changing anything: who can read its files, keys in the environment, listeners
without TLS, an open admin API, services that let everybody in, logs that show
tokens. With --online, trusted issuers are asked for their keys. One line a finding: ok, warning or problem. The exit status is 1 if
there is a problem.`
	cmd.Flags().String("config", "", "the configuration (default: ./Caddyfile if there is one)")
	cmd.Flags().String("adapter", "", "the configuration's adapter (default: by its name)")
	cmd.Flags().String("data-dir", "", "the data directory (default: that of the configuration)")
	cmd.Flags().String("services-dir", "", "the services directory (default: that of the configuration)")
	cmd.Flags().Bool("online", false, "ask the issuers of JWTs for their keys, as the vault would")
	return jsonFlag(cmd)
}

func (t *terminal) runDoctor(ctx context.Context, cmd *cobra.Command, _ []string) error {
	var configFile, adapter, dataDir, servicesDir string
	for name, into := range map[string]*string{"config": &configFile, "adapter": &adapter, "data-dir": &dataDir, "services-dir": &servicesDir} {
		var err error
		if *into, err = cmd.Flags().GetString(name); err != nil {
			return err
		}
	}
	r := &report{}
	r.clean("no keys in the environment", func() { checkEnvironment(r, t.environ) })

	if configFile == "" && exists("Caddyfile") {
		configFile = "Caddyfile"
	}
	var app node
	if configFile == "" {
		r.warn("there is no ./Caddyfile: only files are looked at; --config names the configuration")
	} else if config := loadConfig(r, configFile, adapter); config != nil {
		checkConfig(r, config)
		app = config.at("apps", "vault")
		online, err := cmd.Flags().GetBool("online")
		if err != nil {
			return err
		}
		checkIssuers(ctx, r, app, online)
	}

	if dataDir == "" {
		dataDir = t.doctorDir(app, "data_dir", filepath.Join(caddy.AppDataDir(), "vault"), t.dataDir())
	}
	if servicesDir == "" {
		servicesDir = t.doctorDir(app, "services_dir", filepath.Join(dataDir, "services"), filepath.Join(t.homeDir(), "config", "services"))
	}
	t.checkFiles(r, dataDir, configFile)
	checkServices(r, servicesDir, storedSecrets(r, dataDir))

	return t.showReport(r, wantsJSON(cmd))
}

// doctorDir returns a directory of the app's configuration, its default if the
// configuration has none, or what the environment says without an app.
func (t *terminal) doctorDir(app node, setting, byDefault, without string) string {
	if app == nil {
		return without
	}
	if dir := app.text(setting); dir != "" {
		return caddy.NewReplacer().ReplaceAll(dir, "")
	}
	return byDefault
}

func (t *terminal) showReport(r *report, raw bool) error {
	problems := 0
	for _, f := range r.list {
		if f.Level == levelProblem {
			problems++
		}
		if !raw {
			t.finding(f.Level, f.Text)
		}
	}
	if raw {
		answer, err := json.Marshal(map[string]any{"ok": problems == 0, "findings": r.list}, json.Deterministic(true))
		if err != nil {
			return err
		}
		if err := t.line(answer); err != nil {
			return err
		}
	}
	if problems > 0 {
		return errSaid
	}
	return nil
}

// loadConfig reads a configuration as Caddy would, without running it.
func loadConfig(r *report, path, adapter string) node {
	b, err := os.ReadFile(path)
	if err != nil {
		r.problem("%s", err)
		return nil
	}
	base := strings.ToLower(filepath.Base(path))
	if adapter == "" && (strings.HasPrefix(base, "caddyfile") || strings.HasSuffix(base, ".caddyfile")) {
		adapter = "caddyfile"
	}
	if adapter != "" {
		a := caddyconfig.GetAdapter(adapter)
		if a == nil {
			r.problem("%s: there is no configuration adapter %q", path, adapter)
			return nil
		}
		if b, _, err = a.Adapt(b, map[string]any{"filename": path}); err != nil {
			r.problem("%s: %s", path, err)
			return nil
		}
	}
	var config map[string]any
	if err := json.Unmarshal(b, &config); err != nil || config == nil {
		r.problem("%s is not a JSON object", path) // the decoder might quote a secret
		return nil
	}
	return config
}

// knownKeys are variables that hold keys of services that agents use.
var knownKeys = map[string]bool{
	"GITHUB_TOKEN": true, "GH_TOKEN": true, "GITLAB_TOKEN": true, "NPM_TOKEN": true, "HF_TOKEN": true,
	"SLACK_BOT_TOKEN": true, "SLACK_TOKEN": true, "NOTION_TOKEN": true, "RAILWAY_TOKEN": true, "VERCEL_TOKEN": true,
	"CLOUDFLARE_API_TOKEN": true, "CF_API_TOKEN": true, "DIGITALOCEAN_ACCESS_TOKEN": true, "TWILIO_AUTH_TOKEN": true,
	"SHOPIFY_ACCESS_TOKEN": true, "ANTHROPIC_AUTH_TOKEN": true, "REPLICATE_API_TOKEN": true, "TELEGRAM_BOT_TOKEN": true,
	"AWS_SECRET_ACCESS_KEY": true, "AWS_SESSION_TOKEN": true, "AWS_BEARER_TOKEN_BEDROCK": true,
	"STRIPE_KEY": true, "STRIPE_SECRET": true,
}

// isKeyVariable reports whether a variable's name is one of a key.
func isKeyVariable(name string) bool {
	name = strings.ToUpper(name)
	for _, suffix := range [...]string{"_API_KEY", "_APIKEY", "_SECRET_KEY", "_PERSONAL_ACCESS_TOKEN", "_API_TOKEN"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return knownKeys[name]
}

// checkEnvironment looks for keys that an agent started from this shell would
// inherit.
func checkEnvironment(r *report, environ []string) {
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case value == "":
		case name == "VAULT_ADMIN_TOKEN" || name == "VAULT_ENCRYPTION_KEY" || name == "VAULT_SIGNING_KEY":
			r.warn("%s is in the environment: an agent started from this shell would have it", name)
		case isKeyVariable(name):
			r.warn("%s is in the environment: an agent started from this shell can read it past the vault; store it with caddyvault vault secrets set, and unset it", name)
		}
	}
}

// checkFiles looks at who can read what the vault keeps.
func (t *terminal) checkFiles(r *report, dataDir, configFile string) {
	for _, path := range []string{filepath.Join(t.homeDir(), ".env"), configFile} {
		if fi, err := os.Stat(path); path != "" && err == nil {
			if filepath.Base(path) == ".env" && fi.Mode().Perm()&0o077 != 0 {
				r.problem("%s can be read by others (mode %04o), run: chmod 600 %s", path, fi.Mode().Perm(), shellQuote(path))
			}
			if path == configFile && fi.Mode().Perm()&0o022 != 0 {
				r.problem("%s can be written by others (mode %04o), run: chmod go-w %s", path, fi.Mode().Perm(), shellQuote(path))
			}
		}
	}
	fi, err := os.Stat(dataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.warn("the data directory %s does not exist yet", dataDir)
		return
	case err != nil:
		r.problem("data directory: %s", err)
		return
	case !fi.IsDir():
		r.problem("the data directory %s is not a directory", dataDir)
		return
	}
	if legacy.Detect(dataDir) {
		r.problem("%s is a data directory of the older Node system; run: caddyvault vault import %s", dataDir, shellQuote(dataDir))
	}
	r.clean("only the owner can read "+dataDir, func() {
		if fi.Mode().Perm()&0o077 != 0 {
			r.problem("the data directory %s can be entered by others (mode %04o), run: chmod 700 %s", dataDir, fi.Mode().Perm(), shellQuote(dataDir))
		}
		entries, err := os.ReadDir(dataDir)
		if err != nil {
			r.problem("data directory: %s", err)
			return
		}
		for _, e := range entries {
			checkDataFile(r, filepath.Join(dataDir, e.Name()))
		}
	})
}

// checkDataFile looks at one name in the data directory.
func checkDataFile(r *report, path string) {
	fi, err := os.Lstat(path)
	switch {
	case err != nil:
		r.warn("%s", err)
	case fi.Mode()&fs.ModeSymlink != 0:
		r.problem("%s is a link; the vault does not follow links in its data directory", path)
	case fi.IsDir(), fi.Mode()&fs.ModeSocket != 0:
	case !fi.Mode().IsRegular():
		r.problem("%s is neither a file nor a directory", path)
	case fi.Mode().Perm()&0o077 != 0:
		r.problem("%s can be read or written by others (mode %04o), run: chmod 600 %s", path, fi.Mode().Perm(), shellQuote(path))
	}
}
