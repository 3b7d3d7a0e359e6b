package integration

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"testing"
	"time"

	"github.com/google/uuid"
)

// claims are a token's payload.
type claims map[string]any

// goodClaims are those of a token that the vault accepts.
func goodClaims() claims {
	now := time.Now().Unix()
	return claims{
		"sub": "tony", "aud": "agentic-credential-vault-proxy", "iss": "caddyvault", "jti": uuid.NewString(),
		"iat": now, "exp": now + 300, "service": "github", "scope": []string{"github:repos:read"},
		"ctx": map[string]string{"agentId": "tony", "sessionId": "s1", "taskId": "t1", "skillId": "k1", "tool": "vault.issueToken"},
	}
}

// with returns a copy with some claims set; nil removes one.
func (c claims) with(pairs ...any) claims {
	out := maps.Clone(c)
	for i := 0; i < len(pairs); i += 2 {
		name := pairs[i].(string)
		if out[name] = pairs[i+1]; pairs[i+1] == nil {
			delete(out, name)
		}
	}
	return out
}

var hs256 = map[string]any{"alg": "HS256", "typ": "JWT"}

// sign makes a token as somebody who knows a key could.
func sign(t testing.TB, header map[string]any, c claims, key string) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(header) + "." + part(c)
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
