package token

import (
	"testing"

	"github.com/go-json-experiment/json"
)

// texts are such as need care in JSON.
var texts = []string{"a", "", `"`, `\`, "\n\x00\x1f\x7f", "<&>\u2028", "äöü 日本", "\U0001f600", "\ufffd"}

// TestPayloadEncode holds what is written by hand to what the encoder writes.
func TestPayloadEncode(t *testing.T) {
	for i := range texts {
		at := func(n int) string { return texts[(i+n)%len(texts)] }
		p := payload{
			Service: at(0), IssuedAt: 1795468064, ExpiresAt: -1, Audience: at(1), Issuer: at(2), Subject: at(3), ID: at(4),
			Context: Context{AgentID: at(3), SessionID: at(5), TaskID: at(6), SkillID: at(7), Tool: at(8)},
		}
		for n := range 4 {
			p.Scope = texts[:n:n]
			if n == 0 {
				p.Scope = nil
			}
			agree(t, &p)
		}
		p.MaxCalls = 7
		agree(t, &p)
	}
	if b, err := (&payload{Service: "\xff"}).encode(); err == nil {
		t.Errorf("%q is no UTF-8", b)
	}
}

func agree(t *testing.T, p *payload) {
	t.Helper()
	got, err := p.encode()
	if err != nil {
		t.Fatal(err)
	}
	if want, err := json.Marshal(p); err != nil || string(got) != string(want) {
		t.Errorf("%s\nthe encoder writes\n%s, %v", got, want, err)
	}
}

func FuzzPayloadEncode(f *testing.F) {
	f.Add("svc", "s", "agent")
	f.Fuzz(func(t *testing.T, service, scope, agent string) {
		p := &payload{Service: service, Scope: []string{scope, agent}, Context: Context{AgentID: agent}}
		got, err := p.encode()
		want, werr := json.Marshal(p)
		if (err == nil) != (werr == nil) || err == nil && string(got) != string(want) {
			t.Errorf("%s, %v; the encoder writes %s, %v", got, err, want, werr)
		}
	})
}
