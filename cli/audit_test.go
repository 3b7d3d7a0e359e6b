package cli_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/audit"
)

// TestVerifyAndProve runs the commands on a log, on a copy with one letter
// changed, and on an older copy.
func TestVerifyAndProve(t *testing.T) {
	dir := t.TempDir()
	log := func(n int) string {
		l, err := audit.Open(audit.Options{Dir: dir, Deadline: time.Minute, CheckpointEvery: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			if _, err := l.Append(context.Background(), audit.Entry{Record: audit.Record{Event: "test", Service: "github"}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "audit.log.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	old := log(5)
	oldCheckpoint, err := os.ReadFile(filepath.Join(dir, "audit.checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	all := log(3)
	key, err := os.ReadFile(filepath.Join(dir, "audit.pub"))
	if err != nil {
		t.Fatal(err)
	}
	k := strings.TrimSpace(string(key))
	copyOf := func(log string, checkpoint []byte) string {
		c := t.TempDir()
		for name, b := range map[string][]byte{"audit.log.jsonl": []byte(log), "audit.checkpoint": checkpoint, "audit.pub": key} {
			if err := os.WriteFile(filepath.Join(c, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	out, err := vault(t, "audit", "verify", dir, "--key", k)
	if err != nil || !strings.Contains(out, "8 records in 1 files, the last has seq 8; 8 are under a checkpoint") {
		t.Fatalf("%v\n%s", err, out)
	}
	kept := filepath.Join(dir, "audit.checkpoint")
	for _, c := range []struct {
		dir  string
		args []string
		want string
	}{
		{copyOf(strings.Replace(all, "github", "gitlab", 1), oldCheckpoint), nil, "record 1 is altered"},
		{copyOf(old, oldCheckpoint), []string{"--checkpoint", kept}, "rolled back, records 6 to 8 are missing"},
		{copyOf(old, []byte("x")), nil, "audit.checkpoint is a forged checkpoint"},
		{dir, []string{"--key", "x"}, "not the public key of an audit log"},
	} {
		if _, err := vault(t, append([]string{"audit", "verify", c.dir}, c.args...)...); err == nil {
			t.Errorf("%s: verified", c.want)
		} else if _, lib := audit.VerifyWith(c.dir, audit.VerifyOptions{}); c.args == nil && !strings.Contains(lib.Error(), c.want) {
			t.Errorf("%v, want %s", lib, c.want)
		}
	}
	proof, err := vault(t, "audit", "prove", "4", dir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "proof.json")
	for content, good := range map[string]bool{proof: true, strings.Replace(proof, "github", "gitlab", 1): false, "{}": false} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := vault(t, "audit", "prove", "--check", file, "--key", k); (err == nil) != good || good && !strings.Contains(out, "record 4 is in the log") {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
