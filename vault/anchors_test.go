package vault

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/policy"
	"go.uber.org/zap"
)

// TestCarried sees that what the vault replays from its log, and needs for
// longer than a token lives, outlives the segment it is in.
func TestCarried(t *testing.T) {
	short := map[string]bool{"proxy.call.started": true, "proxy.call": true, siteEvent: true, "admin.addAgent": true, "admin.removeAgent": true, "agent.changed": true}
	st := &State{anchored: anchors{secrets: map[string]uint64{}}}
	for event := range st.replayed(new(budgetReplay), new(recentAgents)) {
		if carried[event] == nil && !short[event] {
			t.Errorf("%s is replayed, and gone when its segment is dropped", event)
		}
	}
	for event, line := range map[string]string{
		"secret.set":    `{"secretRef":"a","secretVersion":2}`,
		"key.retired":   `{"kid":"k"}`,
		"token.revoked": `{"tokenId":"t"}`,
		"token.issued":  `{"kid":"k"}`,
	} {
		if key, keep := carried[event]([]byte(line)); key == "" || !keep {
			t.Errorf("%s is not kept: %q, %v", event, key, keep)
		}
	}
	set, _ := carried["secret.set"]([]byte(`{"secretRef":"a"}`))
	if key, keep := carried["secret.remove"]([]byte(`{"secretRef":"a"}`)); key != set || keep {
		t.Error("a removed secret is kept")
	}
}

// TestEmptiedLog empties the log, and everything of its own beside it.
func TestEmptiedLog(t *testing.T) {
	dir := t.TempDir()
	st := newTestState(t, dir)
	if _, err := st.secrets.Set(t.Context(), "a", "a secret value"); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	for _, name := range []string{"audit.checkpoint", "audit.key", "audit.pub"} {
		_ = os.Remove(filepath.Join(data, name))
	}
	if err := os.Truncate(filepath.Join(data, "audit.log.jsonl"), 0); err != nil {
		t.Fatal(err)
	}
	_, err := OpenState(t.Context(), StateOptions{DataDir: data, ServicesDir: filepath.Join(dir, "services"), ParseService: policy.ParseService, Logger: zap.NewNop(), Now: time.Now})
	if err == nil || !strings.Contains(err.Error(), "audit.log.jsonl is empty, though there are secrets") {
		t.Fatal(err)
	}
}
