package cli

import (
	"encoding/csv"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// csvColumns are the columns of an export: a name, and where in a record the
// value is.
var csvColumns = [...]struct{ name, path string }{
	{"seq", "seq"},
	{"time", "ts"},
	{"event", "event"},
	{"agentId", "context.agentId"},
	{"sessionId", "context.sessionId"},
	{"taskId", "context.taskId"},
	{"skillId", "context.skillId"},
	{"tool", "context.tool"},
	{"service", "service"},
	{"action", "action"},
	{"method", "method"},
	{"upstream", "upstream"},
	{"status", "status"},
	{"error", "error"},
	{"durationMs", "durationMs"},
	{"requestBytes", "requestBytes"},
	{"responseBytes", "responseBytes"},
	{"redactions", "redactions"},
	{"client", "client"},
	{"tokenId", "tokenId"},
	{"parentId", "parentId"},
	{"scope", "scope"},
	{"callId", "callId"},
	{"requestId", "requestId"},
	{"reason", "reason"},
	{"targetAgentId", "agentId"},
	{"targetSessionId", "sessionId"},
	{"targetTaskId", "taskId"},
	{"secretRef", "secretRef"},
	{"secretVersion", "secretVersion"},
	{"template", "template"},
	{"kid", "kid"},
	{"count", "count"},
	{"ttl", "ttl"},
	{"suppressed", "suppressed"},
	{"name", "name"},
	{"size", "size"},
	{"sha256", "sha256"},
	{"firstSeq", "firstSeq"},
	{"lastSeq", "lastSeq"},
	{"prev", "prev"},
}

// csvWriter returns what writes records as CSV (RFC 4180).
func csvWriter(w io.Writer) func(line []byte) error {
	out := csv.NewWriter(w)
	row := make([]string, len(csvColumns))
	for i, c := range csvColumns {
		row[i] = c.name
	}
	headed := false
	return func(line []byte) error {
		if !gjson.ValidBytes(line) {
			return answerInvalid()
		}
		if !headed {
			headed = true
			if err := out.Write(row); err != nil {
				return fmt.Errorf("writing: %w", err)
			}
		}
		for i, c := range csvColumns {
			v := gjson.GetBytes(line, c.path)
			switch {
			case c.path == "ts":
				row[i] = isoTime(v.Int())
			case v.IsArray():
				var all []string
				for _, e := range v.Array() {
					all = append(all, e.String())
				}
				row[i] = noFormula(strings.Join(all, " "))
			case v.Type == gjson.String:
				row[i] = noFormula(v.Str)
			default:
				row[i] = v.Raw
			}
		}
		if err := out.Write(row); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
		out.Flush()
		if err := out.Error(); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
		return nil
	}
}

func isoTime(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

// noFormula puts an apostrophe before a text that a spreadsheet would take for
// a formula, and makes it one line: what an agent chose is not to be run by
// who reads about it.
func noFormula(s string) string {
	s = plain(s)
	r, _ := utf8.DecodeRuneInString(strings.TrimSpace(s))
	if strings.ContainsRune("=+-@＝＋－＠", r) && s != "" {
		return "'" + s
	}
	return s
}

// appendCEF appends a record in the Common Event Format (ArcSight, revision
// 25, without a syslog header).
func appendCEF(dst, line []byte) ([]byte, error) {
	if !gjson.ValidBytes(line) {
		return nil, answerInvalid()
	}
	get := func(path string) gjson.Result { return gjson.GetBytes(line, path) }
	event := get("event").String()
	severity := "3"
	switch {
	case event == "proxy.call.unknown" || event == "audit.recovered":
		severity = "7"
	case strings.HasSuffix(event, ".denied"):
		severity = "5"
	}
	dst = append(dst, "CEF:0|caddyvault|caddyvault|1|"...)
	dst = append(dst, cefHeader.Replace(plain(event))...)
	dst = append(dst, '|')
	dst = append(dst, cefHeader.Replace(plain(event))...)
	dst = append(dst, '|')
	dst = append(dst, severity...)
	dst = append(dst, '|')
	first := true
	put := func(key, value string) {
		if value == "" {
			return
		}
		if !first {
			dst = append(dst, ' ')
		}
		first = false
		dst = append(append(dst, key...), '=')
		dst = append(dst, cefValue.Replace(plain(value))...)
	}
	put("rt", get("ts").Raw)
	put("externalId", get("seq").Raw)
	agent := get("context.agentId").String()
	if agent == "" {
		agent = get("agentId").String()
	}
	put("suser", agent)
	put("app", get("service").String())
	put("act", get("action").String())
	put("requestMethod", get("method").String())
	put("request", get("upstream").String())
	put("outcome", get("status").Raw)
	put("reason", get("error").String())
	put("msg", get("reason").String())
	put("cnt", get("suppressed").Raw)
	put("in", get("responseBytes").Raw)
	put("out", get("requestBytes").Raw)
	if client := get("client").String(); client != "" {
		if a, err := netip.ParseAddr(client); err == nil && a.Is4() {
			put("src", client)
		} else if err == nil {
			put("c6a2", client)
			put("c6a2Label", "client")
		} else {
			put("shost", client)
		}
	}
	for i, f := range [...]struct{ label, path string }{
		{"tokenId", "tokenId"},
		{"callId", "callId"},
		{"sessionId", "context.sessionId"},
		{"taskId", "context.taskId"},
		{"secretRef", "secretRef"},
		{"prev", "prev"},
	} {
		if v := get(f.path).String(); v != "" {
			put(fmt.Sprintf("cs%d", i+1), v)
			put(fmt.Sprintf("cs%dLabel", i+1), f.label)
		}
	}
	return dst, nil
}

var (
	cefHeader = strings.NewReplacer(`\`, `\\`, `|`, `\|`)
	cefValue  = strings.NewReplacer(`\`, `\\`, `=`, `\=`)
)
