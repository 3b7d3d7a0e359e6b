package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func (t *terminal) auditTailCommand() *cobra.Command {
	cmd := t.command("tail [-f] [-n <records>] "+selectUsage, "Show the newest records, and with -f those to come", 0, 0, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		s, err := t.selection(cmd)
		if err != nil {
			return err
		}
		n, err := cmd.Flags().GetUint64("lines")
		if err != nil {
			return err
		}
		if n > 1000 {
			return misuse("-n is at most 1000")
		}
		follow, err := cmd.Flags().GetBool("follow")
		if err != nil {
			return err
		}
		show := t.recordLines(wantsJSON(cmd))
		st, err := t.stream(s, show)
		if err != nil {
			return err
		}
		st.setLast(n)
		if !follow {
			st.setOnce()
		}
		return st.run(ctx)
	})
	cmd.Long = `Show the newest audit records and, with -f, those to come, with the admin
token. A stream that breaks off goes on where it was.`
	cmd.Flags().BoolP("follow", "f", false, "go on with what comes")
	cmd.Flags().Uint64P("lines", "n", 10, "how many of the newest, at most 1000")
	return jsonFlag(selectFlags(cmd))
}

func (t *terminal) auditQueryCommand() *cobra.Command {
	cmd := t.command("query [--limit <n>] [--before <seq>] "+selectUsage, "Show the newest records that match, the oldest first", 0, 0, func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		s, err := t.selection(cmd)
		if err != nil {
			return err
		}
		return t.queryAudit(ctx, cmd, s.body())
	})
	cmd.Flags().Uint64("limit", 100, "how many records at most")
	cmd.Flags().Uint64("before", 0, "only records before this seq")
	return jsonFlag(selectFlags(cmd))
}

// auditRow is what a line of the screen shows of a record.
type auditRow struct {
	TS         int64          `json:"ts"`
	Seq        uint64         `json:"seq"`
	Event      string         `json:"event"`
	Service    string         `json:"service"`
	Action     string         `json:"action"`
	Status     int            `json:"status"`
	Error      string         `json:"error"`
	DurationMS jsontext.Value `json:"durationMs"`
	AgentID    string         `json:"agentId"`
	SecretRef  string         `json:"secretRef"`
	Name       string         `json:"name"`
	Suppressed int            `json:"suppressed"`
	Context    struct {
		AgentID string `json:"agentId"`
	} `json:"context"`
}

// recordLines returns what prints records as they come: in columns with a
// heading, or as they are.
func (t *terminal) recordLines(raw bool) func(line []byte) error {
	if raw {
		return t.line
	}
	colour := t.colour()
	headed := false
	return func(line []byte) error {
		var r auditRow
		if err := json.Unmarshal(line, &r); err != nil {
			return answerInvalid()
		}
		if !headed {
			headed = true
			if err := t.row(colour, dim, [...]string{"TIME", "EVENT", "AGENT", "SERVICE", "ACTION", "STATUS", "MS", "ERROR"}); err != nil {
				return err
			}
		}
		agent, action, status, said := r.Context.AgentID, r.Action, "", r.Error
		if agent == "" {
			agent = r.AgentID
		}
		if action == "" {
			action = r.SecretRef + r.Name
		}
		if r.Status != 0 {
			status = strconv.Itoa(r.Status)
		}
		if r.Suppressed != 0 {
			said += fmt.Sprintf(" (%d more)", r.Suppressed)
		}
		ms := ""
		if f, err := strconv.ParseFloat(string(r.DurationMS), 64); err == nil {
			ms = strconv.FormatFloat(f, 'f', 1, 64)
		}
		style := ""
		switch {
		case strings.HasSuffix(r.Event, ".denied") || r.Status >= 500:
			style = red
		case r.Error != "" || r.Status >= 400 || r.Event == "proxy.call.unknown" || r.Event == "audit.recovered":
			style = yellow
		case strings.HasSuffix(r.Event, ".started") || strings.HasPrefix(r.Event, "audit."):
			style = dim
		}
		at := time.UnixMilli(r.TS).In(t.now().Location()).Format("2006-01-02 15:04:05.000")
		return t.row(colour, style, [...]string{at, r.Event, agent, r.Service, action, status, ms, said})
	}
}

const (
	red    = "\033[31m"
	yellow = "\033[33m"
	dim    = "\033[2m"
	reset  = "\033[0m"
)

// row prints columns of a fixed width, as what comes later is not known. What
// an agent chose cannot act on the terminal.
func (t *terminal) row(colour bool, style string, cells [8]string) error {
	widths := [...]int{23, 20, 14, 12, 20, 6, 8, 0}
	var b strings.Builder
	for i, cell := range cells {
		cell = plain(cell)
		if cell == "" && i < len(cells)-1 {
			cell = "-"
		}
		b.WriteString(cell)
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cell))+1))
		}
	}
	text := strings.TrimRight(b.String(), " ")
	if colour && style != "" {
		text = style + text + reset
	}
	_, err := fmt.Fprintln(t.out, text)
	return err
}

// colour reports whether the output is a terminal whose owner has nothing
// against colours (https://no-color.org).
func (t *terminal) colour() bool {
	f, ok := t.out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && t.getenv("NO_COLOR") == "" && t.getenv("TERM") != "dumb"
}
