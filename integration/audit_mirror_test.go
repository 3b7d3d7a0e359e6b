package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// mirrored returns the seqs in the files of a mirror, in the order of the
// files, and holds every record to the log's.
func (s *server) mirrored(t *testing.T, log string) (seqs []uint64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.dir, "mirror*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b = b[:bytes.LastIndexByte(b, '\n')+1]
		for line := range bytes.Lines(b) {
			var m struct {
				Logger string          `json:"logger"`
				Msg    string          `json:"msg"`
				Seq    uint64          `json:"seq"`
				Record json.RawMessage `json:"record"`
			}
			if err := json.Unmarshal(line, &m); err != nil {
				t.Fatalf("%v: %q", err, line)
			}
			if m.Logger != "vault-audit" || !strings.Contains(log, string(m.Record)+"\n") || !strings.Contains(string(m.Record), `"event":"`+m.Msg+`"`) {
				t.Errorf("%s has %s", filepath.Base(name), line)
			}
			seqs = append(seqs, m.Seq)
		}
	}
	return seqs
}

// all reports whether the seqs from 1 to n are there.
func all(seqs []uint64, n int) bool {
	seqs = slices.Clone(seqs)
	slices.Sort(seqs)
	seqs = slices.Compact(seqs)
	return len(seqs) >= n && seqs[0] == 1 && seqs[n-1] == uint64(n)
}

// TestAuditMirror mirrors into a file that is rolled, over a reload, a crash
// and a restart, and nothing is missing.
func TestAuditMirror(t *testing.T) {
	t.Parallel()
	s := prepare(t, config{vault: "audit {\nmirror vault-audit\n}"})
	text := strings.Replace(s.read("Caddyfile"), "	log default {", `	log mirrored {
		output file `+s.dir+`/mirror.log {
			roll_size 1MiB
			roll_uncompressed
		}
		include vault-audit
	}
	log default {
		exclude vault-audit`, 1)
	s.write(s.file, text)
	s.start()
	s.addService("github", s.githubService(), secret)
	token := s.issue("main", "github", "github:repos:read")
	n := 0
	round := func() {
		for range 20 {
			if r := s.call(token, "github", "public.get", "null"); r.status != 200 {
				t.Fatalf("%d %s", r.status, r.body)
			}
		}
		n += 40
		eventually(t, "the mirror has what the log has", func() bool {
			return all(s.mirrored(t, s.read("data/audit.log.jsonl")), n)
		})
	}
	round()
	s.reload(t)
	round()
	s.signal(syscall.SIGKILL)
	s.start()
	round()
	s.stop()
	s.start()
	round()
	if strings.Contains(s.read("caddy.log"), `"logger":"vault-audit"`) {
		t.Error("the default log has the records, too")
	}
}

// TestAuditMirrorBlocked mirrors into a pipe that nobody reads: calls go on,
// the server reloads and ends, and what was not taken comes later.
func TestAuditMirrorBlocked(t *testing.T) {
	t.Parallel()
	s := prepare(t, config{vault: "audit {\nmirror vault-audit\n}"})
	pipe := filepath.Join(s.dir, "mirror.pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip("no FIFOs here:", err)
	}
	// Somebody has it open, so that opening it does not block, and reads nothing.
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	plain := s.read("Caddyfile")
	s.write(s.file, strings.Replace(plain, "	log default {", `	log mirrored {
		output file `+pipe+` {
			roll_disabled
		}
		include vault-audit
	}
	log default {
		exclude vault-audit`, 1))
	s.start()
	s.addService("github", s.githubService(), secret)
	token := s.issue("main", "github", "github:repos:read")
	for range 200 { // far more than a pipe holds
		if r := s.call(token, "github", "public.get", "null"); r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	s.write(s.file, strings.Replace(plain, "	log default {", `	log mirrored {
		output file `+s.dir+`/mirror.log {
			roll_disabled
		}
		include vault-audit
	}
	log default {
		exclude vault-audit`, 1))
	s.reload(t)
	eventually(t, "the mirror goes on with another writer", func() bool {
		return strings.Contains(s.read("mirror.log"), `"seq":400,`)
	})
}
