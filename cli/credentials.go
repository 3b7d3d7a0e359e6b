package cli

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store/fsx"
	"github.com/caddyvault/caddyvault/vault"
)

// homeDir is where .env and the data directory are.
func (t *terminal) homeDir() string { return cmp.Or(t.getenv("AGENTVAULT_DIR"), ".") }

// setting returns a variable of the environment, else of the file .env.
func (t *terminal) setting(name string) string {
	if v := t.getenv(name); v != "" {
		return v
	}
	b, err := os.ReadFile(filepath.Join(t.homeDir(), ".env"))
	if err != nil {
		return ""
	}
	return envFileValue(string(b), name)
}

// dataDir returns the data directory as the environment names it.
func (t *terminal) dataDir() string {
	if dir := t.getenv("VAULT_DATA_DIR"); dir != "" {
		return dir
	}
	dir := cmp.Or(t.setting("VAULT_DATA_DIR"), "data")
	if filepath.IsAbs(dir) {
		return dir
	}
	return filepath.Join(t.homeDir(), dir)
}

// adminToken returns the token of the administrator: what is configured before
// what the vault generated, as the vault itself chooses.
func (t *terminal) adminToken() (string, error) {
	token := strings.TrimSpace(t.setting("VAULT_ADMIN_TOKEN"))
	path := filepath.Join(t.dataDir(), vault.AdminTokenFile)
	if token == "" {
		b, err := fsx.ReadPrivate(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("admin token: %w", err)
		}
		token = strings.TrimSpace(string(b))
	}
	if token == "" {
		return "", refusal.New("ADMIN_TOKEN_REQUIRED", "no VAULT_ADMIN_TOKEN in the environment or in %s, and no %s",
			filepath.Join(t.homeDir(), ".env"), path).
			WithHint("start the vault once, or point VAULT_DATA_DIR at its data directory")
	}
	if !printable(token) {
		return "", refusal.New("ADMIN_TOKEN_INVALID", "the admin token holds a character that cannot stand in a header")
	}
	return token, nil
}

// printable reports whether s can stand in a header.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// envFileValue returns what the text of a .env file sets name to; the last
// setting counts. It is read as dotenv files are, never run. A value in quotes
// may have several lines.
func envFileValue(text, name string) string {
	found := ""
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		key = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(key), "export "))
		value = strings.TrimSpace(value)
		if value != "" && (value[0] == '"' || value[0] == '\'') {
			value, text = quoted(value[:1], value[1:], text)
		} else {
			value, _, _ = strings.Cut(value, "#")
			value = strings.TrimSpace(value)
		}
		if key == name {
			found = value
		}
	}
	return found
}

// quoted returns the value up to its closing quote, which may stand on a later
// line, and the lines after it. A quote behind a backslash belongs to it.
func quoted(quote, line, rest string) (value, after string) {
	var b strings.Builder
	for {
		part, tail, closed := strings.Cut(line, quote)
		switch {
		case closed && strings.HasSuffix(part, `\`):
			b.WriteString(strings.TrimSuffix(part, `\`) + quote)
			line = tail
		case closed:
			b.WriteString(part)
			return b.String(), rest
		case rest == "":
			b.WriteString(part)
			return b.String(), ""
		default:
			b.WriteString(part + "\n")
			line, rest, _ = strings.Cut(rest, "\n")
			line = strings.TrimSuffix(line, "\r")
		}
	}
}

// maxSecret is the largest secret, in bytes.
const maxSecret = 64 << 10

// readSecret reads a secret from standard input: a line without echo if a
// person types it, else everything but one newline at the end.
func (t *terminal) readSecret(what string) (string, error) {
	var b []byte
	var err error
	if t.inputIsTerminal() {
		fmt.Fprintf(t.err, "%s (not shown): ", plain(what))
		b, err = t.readPassword()
		fmt.Fprintln(t.err)
	} else {
		b, err = io.ReadAll(io.LimitReader(t.in, maxSecret+3))
		if trimmed, ok := strings.CutSuffix(string(b), "\n"); ok {
			b = []byte(strings.TrimSuffix(trimmed, "\r"))
		}
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the secret: %w", err)
	case len(b) == 0:
		return "", refusal.New("SECRET_REQUIRED", "there is no secret on standard input").
			WithHint("pipe it in, or type it at a terminal; it is never an argument")
	case len(b) > maxSecret:
		return "", refusal.New("SECRET_INVALID", "the secret is longer than %d bytes", maxSecret)
	}
	return string(b), nil
}

// readToken reads a token, the first line of standard input.
func (t *terminal) readToken() (string, error) {
	if t.inputIsTerminal() {
		return "", misuse("a token is needed: pipe one in, set AGENTVAULT_TOKEN, or give --token")
	}
	line, err := bufio.NewReader(io.LimitReader(t.in, maxInput)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	token := strings.TrimFunc(line, unicode.IsSpace)
	if token == "" {
		return "", refusal.New("TOKEN_REQUIRED", "there is no token on standard input").
			WithHint(`pipe one from "caddyvault vault token <service> <scope…>"`)
	}
	return token, nil
}
