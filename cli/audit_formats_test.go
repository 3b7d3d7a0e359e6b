package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault/audit"
)

// A record with text of somebody's choosing wherever that may be.
func hostileRecord(agent, action, reason string) []byte {
	r := audit.Record{
		Event: "proxy.call.denied", Service: "github", Action: action, Reason: reason, Error: "POLICY_DENY", Client: "192.0.2.7", Status: 403,
		Context: &audit.Context{AgentID: agent, SessionID: reason, TaskID: action}, Scope: []string{agent, reason},
	}
	line := r.AppendJSON(nil)
	return append(line[:len(line)-1], `,"seq":42,"prev":"AAAA"}`...)
}

func TestCSV(t *testing.T) {
	var out bytes.Buffer
	write := csvWriter(&out)
	for _, line := range [][]byte{hostileRecord(`=cmd|'/C calc'!A0`, " +1", "a,\"b\"\nc\x1b[31m"), hostileRecord("tony", "repo.get", "")} {
		if err := write(line); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := csv.NewReader(&out).ReadAll()
	if err != nil || len(rows) != 3 || rows[0][0] != "seq" || rows[1][0] != "42" {
		t.Fatalf("%q, %v", rows, err)
	}
	at := map[string]int{}
	for i, name := range rows[0] {
		at[name] = i
	}
	for name, want := range map[string]string{
		"agentId": `'=cmd|'/C calc'!A0`, "action": "' +1", "reason": `a,"b" c [31m`, "status": "403", "prev": "AAAA",
	} {
		if rows[1][at[name]] != want {
			t.Errorf("%s is %q", name, rows[1][at[name]])
		}
	}
}

func FuzzCSV(f *testing.F) {
	f.Add("=1", "-2", "\t=3")
	f.Add(`"`, "a\r\nb", ",")
	f.Fuzz(func(t *testing.T, agent, action, reason string) {
		var out bytes.Buffer
		if err := csvWriter(&out)(hostileRecord(agent, action, reason)); err != nil {
			t.Fatal(err)
		}
		if strings.Count(out.String(), "\n") != 2 {
			t.Fatalf("not two lines: %q", out.String())
		}
		rows, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(rows) != 2 || len(rows[1]) != len(csvColumns) {
			t.Fatalf("%q, %v", rows, err)
		}
		for _, cell := range rows[1] {
			if s := strings.TrimSpace(cell); s != "" && strings.ContainsRune("=+-@＝＋－＠", []rune(s)[0]) {
				t.Fatalf("a formula: %q", cell)
			}
		}
	})
}

// cefExtension is one field of the extension: a key, and a value in which
// equals signs and backslashes are escaped.
var cefExtension = regexp.MustCompile(`^([A-Za-z0-9]+)=((?:[^\\=]|\\[\\=])*?)(?: ([A-Za-z0-9]+=.*))?$`)

// parseCEF reads an event as its consumers do.
func parseCEF(t *testing.T, s string) (header []string, fields map[string]string) {
	t.Helper()
	unescape := strings.NewReplacer(`\\`, `\`, `\|`, `|`, `\=`, `=`)
	var b strings.Builder
	for i := 0; i < len(s) && len(header) < 7; i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			b.WriteString(s[i : i+2])
			i++
		case s[i] == '|':
			header = append(header, unescape.Replace(b.String()))
			b.Reset()
			if len(header) == 7 {
				s = s[i+1:]
			}
		default:
			b.WriteByte(s[i])
		}
	}
	fields = map[string]string{}
	for s != "" {
		m := cefExtension.FindStringSubmatch(s)
		if m == nil {
			t.Fatalf("no field at %q", s)
		}
		if _, twice := fields[m[1]]; twice {
			t.Fatalf("%s twice", m[1])
		}
		fields[m[1]] = unescape.Replace(m[2])
		s = m[3]
	}
	return header, fields
}

func FuzzCEF(f *testing.F) {
	f.Add("tony|x", `a=b\`, "line\nsuser=root")
	f.Add(`\=`, " src=1.2.3.4", "")
	f.Fuzz(func(t *testing.T, agent, action, reason string) {
		line := hostileRecord(agent, action, reason)
		out, err := appendCEF(nil, line)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(out, "\r\n\x1b") {
			t.Fatalf("not one line: %q", out)
		}
		header, fields := parseCEF(t, string(out))
		var r struct {
			Context struct {
				AgentID string `json:"agentId"`
			} `json:"context"`
			Action string `json:"action"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		if len(header) != 7 || header[0] != "CEF:0" || header[4] != "proxy.call.denied" || fields["externalId"] != "42" ||
			fields["suser"] != plain(r.Context.AgentID) || fields["act"] != plain(r.Action) || fields["src"] != "192.0.2.7" {
			t.Fatalf("%q %q", header, fields)
		}
	})
}
