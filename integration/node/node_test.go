// Package node holds the vault's tokens to the library that the existing Node
// system uses.
package node

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/internal/need"
	"github.com/caddyvault/caddyvault/token"
)

const (
	key      = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	audience = "agentic-credential-vault-proxy"
)

func node(t *testing.T, args ...string) []byte {
	t.Helper()
	need.Programs(t, "node")
	if _, err := os.Stat("node_modules/jsonwebtoken"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("NOT TESTED: run npm ci in integration/node")
	}
	cmd := exec.Command("node", append([]string{"tokens.js"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func authority(t *testing.T) *token.Authority {
	t.Helper()
	k, err := token.HMACKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := token.New(k, nil, token.Options{Audience: audience, Issuer: "caddyvault"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestTheirTokensVerifyHere(t *testing.T) {
	claims := `{"sub":"tony","aud":"` + audience + `","jti":"6b2f5a0e-6b0f-4bd0-9a55-6a2a3f0a7f11","service":"github","scope":["github:repos:read"],
		"ctx":{"agentId":"tony","sessionId":"s1","taskId":"auto-0a1b2c3d","skillId":"default","tool":"vault.issueToken"}}`
	v, refused := authority(t).Verify(string(node(t, "sign", key, claims, "600")))
	if refused != nil {
		t.Fatal(refused)
	}
	if v.Subject != "tony" || v.Service != "github" || !slices.Equal(v.Scope, []string{"github:repos:read"}) || v.Context.SessionID != "s1" {
		t.Errorf("read as %+v", v.Claims)
	}
	if _, refused := authority(t).Verify(string(node(t, "sign", key+"x", claims, "600"))); refused == nil || refused.Code != "TOKEN_INVALID" {
		t.Errorf("under another key: %v", refused)
	}
}

func TestOurTokensVerifyThere(t *testing.T) {
	raw, err := authority(t).Issue(token.Claims{
		Subject: "tony", Audience: audience, Issuer: "caddyvault", ID: token.NewID(),
		IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute), Service: "github", Scope: []string{"a", "b"},
		Context: token.Context{AgentID: "tony", SessionID: "s", TaskID: "t", SkillID: "k", Tool: "x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Sub, Aud, Service string
		Scope             []string
		Ctx               map[string]string
	}
	if err := json.Unmarshal(node(t, "verify", key, audience, raw), &got); err != nil {
		t.Fatal(err)
	}
	if got.Sub != "tony" || got.Aud != audience || got.Service != "github" || !slices.Equal(got.Scope, []string{"a", "b"}) || got.Ctx["taskId"] != "t" {
		t.Errorf("read as %+v", got)
	}
}
