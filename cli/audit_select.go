package cli

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddyvault/caddyvault/audit"
)

// selection is which records of the audit log a command is about.
type selection struct {
	filters      map[string]string
	since, until int64 // milliseconds, 0: not bounded
}

// selectFields are the flags that filter by one field.
var selectFields = map[string]string{
	"event": "event", "agent": "agentId", "session": "sessionId", "task": "taskId", "service": "service", "token-id": "tokenId",
}

const selectUsage = "[--event <event>] [--agent <id>] [--session <id>] [--task <id>] [--service <name>] [--token-id <id>] [--filter <field>=<value>]... [--since <time>] [--until <time>]"

// selectFlags gives cmd the flags that select records.
func selectFlags(cmd *cobra.Command) *cobra.Command {
	for _, flag := range slices.Sorted(maps.Keys(selectFields)) {
		if cmd.Flags().Lookup(flag) == nil {
			cmd.Flags().String(flag, "", "only records with this "+selectFields[flag])
		}
	}
	cmd.Flags().StringArray("filter", nil, "only records with this value of a field; may be given again")
	cmd.Flags().String("since", "", "only records from then on: 2026-01-31, 2026-01-31T12:00:00Z, or 90m, 7d ago")
	cmd.Flags().String("until", "", "only records up to then")
	return cmd
}

// selection reads those flags.
func (t *terminal) selection(cmd *cobra.Command) (s selection, err error) {
	s.filters = make(map[string]string)
	set := func(field, value string) error {
		if _, twice := s.filters[field]; twice {
			return misuse("two filters on %s", field)
		}
		s.filters[field] = value
		return nil
	}
	for flag, field := range selectFields {
		if !cmd.Flags().Changed(flag) {
			continue
		}
		value, err := cmd.Flags().GetString(flag)
		if err != nil {
			return s, err
		}
		if value == "" { // a variable that was not set
			return s, misuse("--%s needs a value", flag)
		}
		if err := set(field, value); err != nil {
			return s, err
		}
	}
	given, err := cmd.Flags().GetStringArray("filter")
	if err != nil {
		return s, err
	}
	for _, kv := range given {
		field, value, ok := strings.Cut(kv, "=")
		if !ok || field == "" {
			return s, misuse("--filter is <field>=<value>")
		}
		if err := set(field, value); err != nil {
			return s, err
		}
	}
	if audit.CheckFilters(s.filters) != nil {
		return s, misuse("--filter names a field of a record, or of its context")
	}
	for flag, into := range map[string]*int64{"since": &s.since, "until": &s.until} {
		text, err := cmd.Flags().GetString(flag)
		if err != nil {
			return s, err
		}
		if text == "" {
			continue
		}
		at, err := parseWhen(text, t.now())
		if err != nil {
			return s, misuse("--%s: %q is no time: give 2026-01-31, 2026-01-31T12:00:00Z, or how long ago, such as 90m or 7d", flag, text)
		}
		*into = max(1, at.UnixMilli())
	}
	return s, nil
}

// parseWhen reads a point in time, or how long before now it was.
func parseWhen(s string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return now.AddDate(0, 0, -int(n)), err
	}
	if d, err := time.ParseDuration(s); err == nil {
		if d < 0 {
			return now, errors.New("negative")
		}
		return now.Add(-d), nil
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return at, nil
	}
	return time.ParseInLocation(time.DateOnly, s, now.Location())
}

// query is the selection as parameters of the stream.
func (s selection) query() url.Values {
	q := url.Values{}
	for field, value := range s.filters {
		q.Set(field, value)
	}
	if s.since != 0 {
		q.Set("since", strconv.FormatInt(s.since, 10))
	}
	if s.until != 0 {
		q.Set("until", strconv.FormatInt(s.until, 10))
	}
	return q
}

// body is the selection as a body of vault.audit.query.
func (s selection) body() object {
	body := object{}
	if len(s.filters) > 0 {
		body["filters"] = s.filters
	}
	if s.since != 0 {
		body["since"] = s.since
	}
	if s.until != 0 {
		body["until"] = s.until
	}
	return body
}
