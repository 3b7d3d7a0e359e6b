package integration

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

type signingKeyInfo struct {
	Kid        string `json:"kid"`
	Algorithm  string `json:"algorithm"`
	State      string `json:"state"`
	Created    int64  `json:"created"`
	ActiveFrom int64  `json:"activeFrom"`
	Retired    int64  `json:"retired"`
}

func (s *server) signingKeys() []signingKeyInfo {
	s.t.Helper()
	var list struct {
		Keys []signingKeyInfo `json:"keys"`
	}
	s.ok("/vault.admin.listSigningKeys", "{}", &list)
	return list.Keys
}

// TestSigningKeys rotates and retires keys under way.
func TestSigningKeys(t *testing.T) {
	t.Parallel()
	s := start(t, config{vault: "signing {\n algorithm ES256\n}"})
	repo := func(token string) string {
		r := s.call(token, "github", "repo.get", `{"owner":"o","repo":"r"}`)
		if r.status == 200 {
			return ""
		}
		return r.header.Get("Vault-Error")
	}
	published := func() (kids []string, tag string) {
		r := s.do("GET", "/.well-known/jwks.json", "")
		var set struct {
			Keys []struct{ Kid, Kty, Alg, Use string }
		}
		decode(t, r.body, &set)
		for _, k := range set.Keys {
			kids = append(kids, k.Kid)
			if k.Kty != "EC" || k.Alg != "ES256" || k.Use != "sig" {
				t.Errorf("%+v", k)
			}
		}
		if strings.Contains(r.body, `"d"`) || r.header.Get("Cache-Control") != "public, max-age=300" {
			t.Errorf("%v %s", r.header, r.body)
		}
		return kids, r.header.Get("ETag")
	}
	old := s.issue("tony", "github", "github:repos:read")
	first, tag := published()
	if r := s.do("GET", "/.well-known/jwks.json", "", header("If-None-Match", `"x", `+tag)); r.status != 304 || r.body != "" {
		t.Errorf("not modified: %d %q", r.status, r.body)
	}

	var made struct {
		OK bool `json:"ok"`
		signingKeyInfo
	}
	s.ok("/vault.admin.rotateSigningKey", "{}", &made)
	if made.State != "published" || made.ActiveFrom < made.Created+5*60*1000 {
		t.Errorf("%+v", made)
	}
	if kids, again := published(); len(kids) != 2 || again == tag {
		t.Errorf("published %q", kids)
	}
	s.ok("/vault.admin.rotateSigningKey", `{"now":true}`, &made)
	fresh := s.issue("tony", "github", "github:repos:read")
	if kid := tokenKid(t, fresh); kid != made.Kid {
		t.Errorf("signed with %s, want %s", kid, made.Kid)
	}
	// Neither a reload nor a restart costs a token.
	s.reload(t)
	s.stop()
	s.start()
	if a, b := repo(old), repo(fresh); a != "" || b != "" {
		t.Errorf("old %q, new %q", a, b)
	}
	var states []string
	for _, k := range s.signingKeys() {
		states = append(states, k.State)
	}
	if fmt.Sprint(states) != "[verify-only active published]" {
		t.Errorf("%v", states)
	}

	// Retired, a key takes its tokens and their calls along.
	s.up.answer(oneEvent)
	stream := s.stream(s.base+"/proxy/github/repos/o/r", fresh)
	var retired struct{ OK, Kid, Next any }
	s.ok("/vault.admin.retireSigningKey", `{"kid":"`+made.Kid+`"}`, &retired)
	if _, err := io.Copy(io.Discard, stream); err == nil {
		t.Error("the stream ended as if it were over")
	}
	s.up.answer(nil)
	gone := func() {
		t.Helper()
		s.refused(t, refusal{path: "/vault.call", event: "proxy.call", status: 401, code: "TOKEN_REVOKED", body: `{"token":"` + fresh + `","service":"github","action":"repo.get","params":{"owner":"o","repo":"r"}}`})
	}
	gone()
	if code := repo(old); code != "" {
		t.Errorf("a token of another key: %s", code)
	}
	if code := repo(s.issue("tony", "github", "github:repos:read")); code != "" {
		t.Errorf("a new token: %s", code)
	}
	s.stop()
	s.start()
	gone()

	s.refused(t, refusal{path: "/vault.admin.retireSigningKey", event: "admin.retireSigningKey", status: 404, code: "UNKNOWN_KEY", body: `{"kid":"` + made.Kid + `"}`})
	s.refused(t, refusal{path: "/vault.admin.retireSigningKey", event: "admin.retireSigningKey", status: 400, code: "KID_REQUIRED", body: `{}`})
	s.refused(t, refusal{path: "/vault.admin.rotateSigningKey", event: "admin.rotateSigningKey", status: 400, code: "FIELD_UNKNOWN:at", body: `{"at":1}`})
	s.refused(t, refusal{path: "/vault.admin.rotateSigningKey", event: "admin.rotateSigningKey", status: 401, code: "ADMIN_UNAUTHORIZED", body: `{}`, edits: []edit{bearer(old)}})
	records, _ := s.auditLog(0)
	var events []string
	for _, r := range records {
		if e := r.text("event"); strings.HasPrefix(e, "key.") {
			events = append(events, e+" "+r.text("reason"))
			if r.text("kid") == "" {
				t.Errorf("%v", r)
			}
		}
	}
	if fmt.Sprint(events) != "[key.rotated command key.rotated command key.retired  key.rotated retirement]" {
		t.Errorf("%q", events)
	}
	if kids, _ := published(); len(kids) != 3 || first[0] == made.Kid {
		t.Errorf("published %q", kids)
	}

	both := prepare(t, config{vault: "signing {\n algorithm ES256\n}", env: []string{"VAULT_SIGNING_KEY=" + signingKey}})
	if out := both.startFails(); !strings.Contains(out, "tokens are signed with signing_key; leave one of the two out") {
		t.Errorf("signing beside signing_key: %s", out)
	}
	hs := startHS256(t)
	hs.refused(t, refusal{path: "/vault.admin.rotateSigningKey", event: "admin.rotateSigningKey", status: 409, code: "SIGNING_KEY_CONFIGURED", body: `{}`})
}

// tokenKid returns the key id in a token's header.
func tokenKid(t testing.TB, token string) string {
	t.Helper()
	head, _, _ := strings.Cut(token, ".")
	kid, _ := payload(t, "."+head)["kid"].(string)
	return kid
}
