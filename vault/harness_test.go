package vault

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
)

// stubUpstream answers every call that the vault lets out.
type stubUpstream struct{}

func (stubUpstream) Do(_ context.Context, w http.ResponseWriter, _ *http.Request, out *Outbound, result *Result) *refusal.Refusal {
	if _, refused := out.Authorize(nil); refused != nil {
		return refused
	}
	result.Status = 200
	w.WriteHeader(200)
	return nil
}

var local = Caller{Trusted: true, Client: netip.MustParseAddr("127.0.0.1")}

// newTestState opens a state in a directory of its own.
func newTestState(t testing.TB, dir string) *State {
	t.Helper()
	st, err := OpenState(context.Background(), StateOptions{
		DataDir:     filepath.Join(dir, "data"),
		ServicesDir: filepath.Join(dir, "services"),
		// A busy machine is not what is tested.
		Audit:  audit.Options{Deadline: time.Minute, Durability: audit.Async},
		Logger: zap.NewNop(),
		Now:    time.Now,

		ParseService: policy.ParseService,
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// newTestVault opens a vault with the service api.
func newTestVault(t testing.TB) *Vault {
	t.Helper()
	st := newTestState(t, t.TempDir())
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	st.proofs.since = time.Time{} // as if it had run for long
	v := newVaultOn(t, st)
	if refused := v.AddService(t.Context(), "api", []byte(`{"baseUrl":"https://api.example.com",
		"allowedAgents":["a","b","c","d"],"allowedActions":["*"],"allowedScopes":["s1","s2","s3"],"agentScopes":{"d":["s1"]},
		"endpoints":{
			"one":{"method":"GET","path":"/one/{x}","requiredScope":["s1"]},
			"two":{"method":"GET","path":"/two/{x}","requiredScope":["s2"]},
			"three":{"method":"GET","path":"/three/{x}/{y}","requiredScope":["s1","s3"]}}}`), nil, new(audit.Record)); refused != nil {
		t.Fatal(refused)
	}
	return v
}

func newVaultOn(t testing.TB, st *State) *Vault {
	t.Helper()
	v, err := New(st, Config{
		Audience:        "aud",
		Issuer:          "iss",
		TokenTTL:        10 * time.Minute,
		TokenTTLMax:     15 * time.Minute,
		Signing:         SigningConfig{Algorithm: "EdDSA", PublishFor: 10 * time.Minute},
		AdminToken:      strings.Repeat("a", 32),
		RevocationsKeep: time.Hour,
		Templates:       func(string) (*policy.Template, error) { return nil, nil },
		TemplateNames:   func() ([]string, error) { return nil, nil },
		Upstream:        stubUpstream{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// callCode makes a call and returns the code of its refusal, "" for none.
func (v *Vault) callCode(raw, action, params string) string {
	req := CallRequest{Token: raw, Service: "api", Action: action, Params: []byte(params)}
	rec := new(audit.Record)
	t, refused := v.Admit(req, rec)
	if refused == nil {
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/vault.call", nil)
		refused = v.Call(w, r, t, req, rec)
	}
	if refused != nil {
		return refused.Code
	}
	return ""
}
