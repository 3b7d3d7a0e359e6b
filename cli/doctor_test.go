package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const goodConfig = `{"admin":{"listen":"unix/./x.sock|0600"},"apps":{"vault":{"signing_key":"{env.K}"},"http":{"servers":{"s":{
	"listen":["127.0.0.1:8787","[::1]:8787","unix//run/v.sock"],"routes":[{"handle":[{"handler":"subroute","routes":[{"handle":[{"handler":"vault"}]}]}]}]}}}}}`

func TestDoctorOnConfigurations(t *testing.T) {
	t.Setenv("CADDY_ADMIN", "")
	replace := func(old, with string) string {
		if !strings.Contains(goodConfig, old) {
			t.Fatalf("%q is not in the configuration", old)
		}
		return strings.Replace(goodConfig, old, with, 1)
	}
	const certificates = `"agents":{"trust":"none","keys":"off","certificates":[{"field":"cn","pattern":"*"}]},"signing_key"`
	const admin = `"admin":{"listen":"unix/./x.sock|0600"},`
	for name, tc := range map[string]struct {
		config   string
		problems []string
		warnings []string
	}{
		"good":                  {goodConfig, nil, nil},
		"admin by default":      {replace(admin, ""), []string{"admin API is open on localhost:2019 by default"}, nil},
		"admin on TCP":          {replace("unix/./x.sock|0600", "127.0.0.1:2019"), []string{"open on 127.0.0.1:2019"}, nil},
		"admin off":             {replace(`"listen":"unix/./x.sock|0600"`, `"disabled":true`), nil, nil},
		"admin socket open":     {replace("|0600", "|0666"), []string{"mode 0666"}, nil},
		"literal":               {replace("{env.K}", "literal-CANARY"), []string{"signing_key holds a secret"}, nil},
		"trust all":             {replace(`"signing_key"`, `"agents":{"trust":"all"},"signing_key"`), []string{"trust all"}, nil},
		"trust none, keys":      {replace(`"signing_key"`, `"agents":{"trust":"none"},"signing_key"`), nil, nil},
		"trust none, no means":  {replace(`"signing_key"`, `"agents":{"trust":"none","keys":"off"},"signing_key"`), nil, []string{"nobody can get a token"}},
		"certificates":          {strings.Replace(replace(`"signing_key"`, certificates), `"listen":["127.0.0.1:8787"`, `"tls_connection_policies":[{"client_authentication":{"mode":"verify_if_given"}}],"listen":["127.0.0.1:8787"`, 1), nil, nil},
		"no certificates":       {replace(`"signing_key"`, certificates), nil, []string{"no site of the vault asks for one"}},
		"any certificates":      {strings.Replace(replace(`"signing_key"`, certificates), `"listen":["127.0.0.1:8787"`, `"tls_connection_policies":[{"client_authentication":{"mode":"require"}}],"listen":["127.0.0.1:8787"`, 1), []string{"verifies no certificate"}, nil},
		"every address":         {replace("127.0.0.1:8787", ":8787"), []string{":8787 is open to other machines without TLS"}, nil},
		"private address":       {replace("127.0.0.1:8787", "10.0.0.1:8787"), []string{"without TLS"}, nil},
		"TLS policy":            {replace(`"listen":["127.0.0.1:8787"`, `"tls_connection_policies":[{}],"listen":[":8443"`), nil, []string{"admin routes"}},
		"HTTPS port, no admin":  {strings.Replace(replace("127.0.0.1:8787", ":443"), `"handler":"vault"`, `"handler":"vault","routes":["agent"]`, 1), nil, nil},
		"HTTP port":             {replace(`"listen":["127.0.0.1:8787"`, `"tls_connection_policies":[{}],"listen":[":80"`), []string{":80 is open"}, nil},
		"host name":             {strings.Replace(replace("127.0.0.1:8787", ":8443"), `{"handle":[{"handler":"subroute"`, `{"match":[{"host":["v.example.com"]}],"handle":[{"handler":"subroute"`, 1), nil, []string{"admin routes"}},
		"host name without TLS": {strings.Replace(replace(`"listen":["127.0.0.1:8787"`, `"automatic_https":{"disable":true},"listen":[":8443"`), `{"handle":[{"handler":"subroute"`, `{"match":[{"host":["v.example.com"]}],"handle":[{"handler":"subroute"`, 1), []string{"without TLS"}, nil},
		"log_credentials":       {replace(`"listen":["127.0.0.1:8787"`, `"logs":{"should_log_credentials":true},"listen":["127.0.0.1:8787"`), []string{"log_credentials"}, nil},
		"a key anywhere":        {replace(`"handler":"vault"`, `"handler":"vault","x":["ghp_CANARYcanaryCANARYcanary012345"]`), []string{"looks like a key, at /apps/http/servers/s/routes/0"}, nil},
		"no vault":              {replace(`"handler":"vault"`, `"handler":"x"`), []string{"no site serves the vault"}, nil},
		"no app":                {replace(`"vault":{"signing_key":"{env.K}"},`, ``), []string{"has no vault"}, nil},
		"not JSON":              {"{CANARY", []string{"not a JSON object"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "c.json")
			write(t, file, tc.config, 0o600)
			args := []string{"doctor", "--config", file, "--data-dir", filepath.Join(dir, "data"), "--services-dir", filepath.Join(dir, "s")}
			write(t, filepath.Join(dir, "data", "x"), "", 0o600)
			write(t, filepath.Join(dir, "s", "x"), "", 0o600)
			res := shell{environ: []string{"AGENTVAULT_DIR=" + dir}}.run(t, args...)
			if (res.status != 0) != (len(tc.problems) > 0) || strings.Count(res.out, "problem ") != len(tc.problems) || strings.Count(res.out, "warning ") != len(tc.warnings) {
				t.Errorf("status %d\n%s", res.status, res.out)
			}
			mustContain(t, res.out, append(tc.problems, tc.warnings...)...)
			mustNotContain(t, res.out+res.err, "CANARY")

			res = shell{environ: []string{"AGENTVAULT_DIR=" + dir}}.run(t, append(args, "--json")...)
			var report struct {
				OK       bool
				Findings []finding
			}
			if err := json.Unmarshal([]byte(res.out), &report); err != nil || report.OK != (len(tc.problems) == 0) {
				t.Errorf("%v: %s", err, res.out)
			}
		})
	}
}

func TestDoctorOnFilesAndEnvironment(t *testing.T) {
	dir := t.TempDir()
	data, services := filepath.Join(dir, "data"), filepath.Join(dir, "services")
	config := filepath.Join(dir, "c.json")
	write(t, config, goodConfig, 0o600)
	write(t, filepath.Join(data, "secrets.enc"), `{"v":2,"rev":3,"entries":{"keyset/secrets":{},"secrets/github_pat":{}}}`, 0o600)
	write(t, filepath.Join(data, ".vault-key"), "CANARY", 0o600)
	write(t, filepath.Join(services, "github.json"), githubService, 0o600)
	doctor := func(env ...string) result {
		t.Helper()
		return shell{environ: append(env, "AGENTVAULT_DIR="+dir, "HOME=/x", "EMPTY_API_KEY=")}.run(t,
			"doctor", "--config", config, "--data-dir", data, "--services-dir", services)
	}
	if res := doctor(); res.status != 0 || strings.Contains(res.out, "warning") || strings.Contains(res.out, "problem") {
		t.Fatalf("status %d\n%s", res.status, res.out)
	} else {
		mustContain(t, res.out, "ok       service github", "ok       no keys in the environment")
	}

	res := doctor("OPENAI_API_KEY=CANARY", "AWS_SECRET_ACCESS_KEY=CANARY", "STRIPE_SECRET_KEY=CANARY", "GITHUB_TOKEN=CANARY", "VAULT_ADMIN_TOKEN=CANARY")
	if res.status != 0 || strings.Count(res.out, "warning ") != 5 {
		t.Errorf("status %d\n%s", res.status, res.out)
	}
	mustNotContain(t, res.out, "CANARY")

	chmod := func(path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	chmod(filepath.Join(data, ".vault-key"), 0o640)
	chmod(data, 0o750)
	chmod(config, 0o666)
	write(t, filepath.Join(dir, ".env"), "VAULT_ADMIN_TOKEN=CANARY", 0o644)
	write(t, filepath.Join(services, "wild.json"), strings.NewReplacer(`["main"]`, `["*"]`, `["issue","repo.get"]`, `["*"]`, "github_pat", "missing").Replace(githubService), 0o600)
	write(t, filepath.Join(services, "plain.json"), strings.Replace(githubService, `"baseUrl":"https:`, `"allowPlaintext":true,"baseUrl":"http:`, 1), 0o600)
	write(t, filepath.Join(services, "broken.json"), `{"baseUrl":1}`, 0o600)
	write(t, filepath.Join(services, "wrong.json"), strings.Replace(githubService, "{", `{"reverseProxy":{"flush_interval":"abc"},`, 1), 0o600)
	write(t, filepath.Join(services, "shared.json"), githubService, 0o664)
	if err := os.Symlink("/etc/hostname", filepath.Join(data, "link")); err != nil {
		t.Fatal(err)
	}
	res = doctor()
	if res.status != exitFailed {
		t.Errorf("status %d", res.status)
	}
	mustContain(t, res.out,
		"chmod 600 "+filepath.Join(data, ".vault-key"), "chmod 700 "+data, "chmod go-w "+config, "chmod 600 "+filepath.Join(dir, ".env"),
		"every agent may use it", "every endpoint may be called", "secret missing is not stored", "travels to http://api.github.com unencrypted",
		"service broken: ", "service wrong: REVERSEPROXY_INVALID: reverseProxy.flush_interval must be", "service shared: ", "link is a link")
	mustNotContain(t, res.out+res.err, "CANARY")
}

func TestDoctorFindsOlderData(t *testing.T) {
	old, _ := nodeSystem(t, bothSecrets())
	dir := t.TempDir()
	config := filepath.Join(dir, "c.json")
	write(t, config, goodConfig, 0o600)
	res := shell{environ: []string{"AGENTVAULT_DIR=" + dir}}.run(t, "doctor", "--config", config, "--data-dir", filepath.Join(old, "data"), "--services-dir", dir)
	mustContain(t, res.out, "vault import")
}

func FuzzDoctorConfig(f *testing.F) {
	f.Add([]byte(goodConfig))
	f.Add([]byte(`{"admin":{"listen":"tcp/:99999"},"apps":{"http":{"http_port":8080,"servers":{"s":{"listen":[":1-2",7],"routes":{"handler":"vault"},"trusted_proxies":{"ranges":["::/0"]}}}}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var config map[string]any
		if json.Unmarshal(b, &config) == nil {
			r := &report{}
			checkConfig(r, config)
			if len(r.list) == 0 {
				t.Error("nothing was found")
			}
		}
		_, _ = sealedNames(b)
	})
}

func TestDoctorOnIssuers(t *testing.T) {
	t.Setenv("CADDY_ADMIN", "")
	const set = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/none":
			_, _ = io.WriteString(w, `{"keys":[]}`)
		case "/good":
			_, _ = io.WriteString(w, set)
		default:
			http.NotFound(w, r)
		}
	}))
	defer issuer.Close()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "keys.json"), set, 0o600)
	for name, tc := range map[string]struct {
		issuer string
		online bool
		want   string // a line of the report; "" for none about it
		status int
	}{
		"a file":           {`{"issuer":"a","keys":` + strconv.Quote(filepath.Join(dir, "keys.json")) + `}`, false, "ok       issuer a: keys can be had (1)", 0},
		"no file":          {`{"issuer":"a","keys":` + strconv.Quote(filepath.Join(dir, "none.json")) + `}`, false, "warning  issuer a: there is no file of its keys yet", 0},
		"a broken file":    {`{"issuer":"a","keys":` + strconv.Quote(filepath.Join(dir, "c.json")) + `}`, false, "problem  issuer a: its keys cannot be had", 1},
		"not asked":        {`{"issuer":"` + issuer.URL + `"}`, false, "", 0},
		"asked":            {`{"issuer":"` + issuer.URL + `","keys":"` + issuer.URL + `/good"}`, true, "keys can be had (1)", 0},
		"without keys":     {`{"issuer":"a","keys":"` + issuer.URL + `/none"}`, true, "it publishes no key that can be used", 1},
		"no discovery":     {`{"issuer":"` + issuer.URL + `"}`, true, "answers with status 404", 1},
		"no URL":           {`{"issuer":"a"}`, false, "problem  issuer a: issuer: is not a URL", 1},
		"metadata service": {`{"issuer":"https://169.254.169.254"}`, true, "metadata", 1},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, "c.json")
			write(t, file, strings.Replace(goodConfig, `"signing_key"`, `"agents":{"issuers":[`+tc.issuer+`]},"signing_key"`, 1), 0o600)
			args := []string{"doctor", "--config", file, "--data-dir", filepath.Join(dir, "data"), "--services-dir", filepath.Join(dir, "s")}
			if tc.online {
				args = append(args, "--online")
			}
			res := shell{environ: []string{"AGENTVAULT_DIR=" + dir}}.run(t, args...)
			if res.status != tc.status || !strings.Contains(res.out, tc.want) || tc.want == "" && strings.Contains(res.out, "issuer") {
				t.Errorf("status %d, want %d and %q\n%s", res.status, tc.status, tc.want, res.out)
			}
		})
	}
}
