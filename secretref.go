package caddyvault

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// referencePattern is what a secret in the configuration may be: a reference
// to an environment variable or to a file. A literal would end up in Caddy's
// autosaved configuration and on its admin API.
var referencePattern = regexp.MustCompile(`^\{(env|file)\.([^{}]+)\}$`)

// checkReference refuses a setting that holds a secret itself. The error does
// not repeat the value.
func checkReference(setting, value string) error {
	if value != "" && !referencePattern.MatchString(value) {
		return fmt.Errorf("%s holds a secret and must be a reference, {env.NAME} or {file./path}, not the secret itself", setting)
	}
	return nil
}

// resolveReference returns the secret that a reference leads to. An unset or
// empty environment variable counts as not set; a file must be there and must
// not be empty.
func resolveReference(setting, value string) (string, error) {
	if value == "" {
		return "", nil
	}
	if err := checkReference(setting, value); err != nil {
		return "", err
	}
	m := referencePattern.FindStringSubmatch(value)
	if m[1] == "env" {
		return os.Getenv(m[2]), nil
	}
	b, err := os.ReadFile(m[2])
	if err != nil {
		return "", fmt.Errorf("%s: %w", setting, err)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" {
		return "", fmt.Errorf("%s: %s is empty", setting, m[2])
	}
	return s, nil
}
