package ordercheck

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	const revoke = `{"event":"token.revoked","sessionId":"s","seq":1}` + "\n"
	for _, c := range []struct{ name, log, err string }{
		{"in order", `{"event":"proxy.call.started","tokenId":"t","seq":1}` + "\n" + `{"event":"token.revoked","tokenId":"t","seq":2}`, ""},
		{"token", `{"event":"token.revoked","tokenId":"t","seq":1}` + "\n" + `{"event":"proxy.call.started","tokenId":"t","seq":2}`, `record 2 starts a call of the token "t", which record 1 revoked`},
		{"session", revoke + `{"event":"proxy.call.started","context":{"sessionId":"s"},"seq":2}`, `session "s"`},
		{"another kind", revoke + `{"event":"proxy.call.started","context":{"taskId":"s"},"seq":2}`, ""},
		{"unrevoked", revoke + `{"event":"admin.unrevoke","sessionId":"s","seq":2}` + "\n" + `{"event":"proxy.call.started","context":{"sessionId":"s"},"seq":3}`, ""},
		{"denied", revoke + `{"event":"proxy.call.denied","context":{"sessionId":"s"},"seq":2}`, ""},
		{"no record", "x", "record behind number 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Check(strings.NewReader(c.log)); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatal(err)
			}
		})
	}
}
