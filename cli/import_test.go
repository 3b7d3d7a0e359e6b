package cli

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddyvault/caddyvault/store/file"
	"github.com/caddyvault/caddyvault/store/revocations"
	"github.com/caddyvault/caddyvault/store/secrets"
	"github.com/caddyvault/caddyvault/upstream"
	"github.com/caddyvault/caddyvault/vault"
)

const (
	githubService = `{"baseUrl":"https://api.github.com","secretRef":"github_pat","allowedAgents":["main"],"allowedActions":["issue","repo.get"],` +
		`"allowedScopes":["r"],"endpoints":{"repo.get":{"method":"GET","path":"/repos/{owner}","requiredScope":["r"]}}}`
	githubSecret = "ghp_CANARYcanaryCANARYcanary0123456789"
	otherSecret  = "other-CANARY-secret"
)

// sealV1 writes secrets.enc as the older system does.
func sealV1(t *testing.T, key [32]byte, plain map[string]string) string {
	t.Helper()
	if plain == nil {
		plain = map[string]string{}
	}
	p, err := json.Marshal(plain)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	iv := make([]byte, 12)
	_, _ = rand.Read(iv)
	out := gcm.Seal(nil, iv, p, nil)
	b64 := base64.StdEncoding.EncodeToString
	b, err := json.Marshal(map[string]any{"v": 1, "alg": "aes-256-gcm", "iv": b64(iv), "tag": b64(out[len(out)-16:]), "data": b64(out[:len(out)-16])})
	if err != nil {
		t.Fatal(err)
	}
	return b64(b)
}

// nodeSystem writes an older system and returns its directory and its key.
func nodeSystem(t *testing.T, secrets map[string]string) (dir, hexKey string) {
	t.Helper()
	var key [32]byte
	_, _ = rand.Read(key[:])
	dir, hexKey = t.TempDir(), hex.EncodeToString(key[:])
	write(t, filepath.Join(dir, "data", "secrets.enc"), sealV1(t, key, secrets), 0o600)
	write(t, filepath.Join(dir, "data", ".vault-key"), hexKey, 0o600)
	write(t, filepath.Join(dir, "data", "revocations.json"), `{"jti":["j1","j2"],"sessions":["s1"],"tasks":[],"agents":["evil","bad\u0000id"]}`, 0o600)
	write(t, filepath.Join(dir, "data", "audit.log.jsonl"), "{\"ts\":1,\"event\":\"old\"}\n", 0o644)
	write(t, filepath.Join(dir, "config", "services", "github.json"), githubService, 0o664)
	return dir, hexKey
}

func bothSecrets() map[string]string {
	return map[string]string{"github_pat": githubSecret, "other": otherSecret}
}

// imported checks what an import must have made, by opening it.
func imported(t *testing.T, dataDir, servicesDir, encryptionKey string) {
	t.Helper()
	ctx := context.Background()
	// The server's own start: the log and the secrets agree.
	st, err := vault.OpenState(ctx, vault.StateOptions{DataDir: dataDir, ServicesDir: servicesDir, EncryptionKey: encryptionKey, ParseService: upstream.ParseService, Logger: zap.NewNop(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	store, err := file.Open(file.Options{DataDir: dataDir, ServicesDir: servicesDir})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	kek, err := secrets.KEKFromString(encryptionKey)
	if encryptionKey == "" {
		kek, err = secrets.LoadKEKFile(filepath.Join(dataDir, ".vault-key"))
	}
	if err != nil {
		t.Fatal(err)
	}
	sec, err := secrets.Open(ctx, store, kek, secrets.Options{MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer sec.Close()
	if s, ok := sec.Get("github_pat"); !ok || s.Value != githubSecret || !slices.Equal(s.Origins, []string{"https://api.github.com"}) {
		t.Errorf("github_pat: %t, bound to %v", ok, s)
	}
	if s, ok := sec.Get("other"); !ok || s.Value != otherSecret || len(s.Origins) != 0 {
		t.Errorf("other: %t, bound to %v", ok, s)
	}
	rev, err := revocations.Open(ctx, store, revocations.Options{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := rev.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range list {
		got = append(got, r.Kind.String()+":"+r.ID)
	}
	slices.Sort(got)
	if want := []string{"agent:evil", "session:s1", "token:j1", "token:j2"}; !slices.Equal(got, want) {
		t.Errorf("revoked %v, want %v", got, want)
	}
	mustContain(t, read(t, filepath.Join(servicesDir, "github.json")), "https://api.github.com")
	if got := read(t, filepath.Join(dataDir, "audit.legacy.jsonl")); got != "{\"ts\":1,\"event\":\"old\"}\n" {
		t.Errorf("older audit log: %q", got)
	}
	log := read(t, filepath.Join(dataDir, "audit.log.jsonl"))
	mustContain(t, log, "secret.set", "token.revoked", "admin.addService", "admin.addSecret", importReason)
	mustNotContain(t, log, "CANARY")
	privateAndWhole(t, dataDir)
}

// privateAndWhole checks that nothing is left over or open to others.
func privateAndWhole(t *testing.T, dataDir string) {
	t.Helper()
	err := filepath.WalkDir(dataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %04o", path, fi.Mode().Perm())
		}
		if strings.HasPrefix(d.Name(), ".import-") || strings.HasPrefix(d.Name(), ".tmp-") {
			t.Errorf("%s is left over", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImportElsewhere(t *testing.T) {
	old, _ := nodeSystem(t, bothSecrets())
	before := tree(t, old)
	dir := t.TempDir()
	data, services := filepath.Join(dir, "data"), filepath.Join(dir, "services")
	res := shell{}.ok(t, "import", old, "--data-dir", data, "--services-dir", services)
	imported(t, data, services, "")
	if !maps.Equal(before, tree(t, old)) {
		t.Error("the older system was changed")
	}
	mustContain(t, res.out, "github_pat, for https://api.github.com", "other, which no service uses", "could be written by others", "is no valid id")
	mustNotContain(t, res.out+res.err, "CANARY")
	if strings.TrimSpace(read(t, filepath.Join(data, ".vault-key"))) == before["data/.vault-key"] {
		t.Error("the old key is still in use")
	}

	// A second one changes nothing.
	before = tree(t, dir)
	res = shell{}.run(t, "import", old, "--data-dir", data, "--services-dir", services)
	if res.status != exitFailed || !maps.Equal(before, tree(t, dir)) {
		t.Errorf("status %d", res.status)
	}
	mustContain(t, res.err, "DATA_NOT_EMPTY", "--merge")
	// With --merge, what there is is kept.
	res = shell{}.ok(t, "import", old, "--data-dir", data, "--services-dir", services, "--merge")
	mustContain(t, res.out, "kept     service github", "kept     secret other")
}

func TestImportInPlace(t *testing.T) {
	old, hexKey := nodeSystem(t, bothSecrets())
	data, services := filepath.Join(old, "data"), filepath.Join(old, "config", "services")
	if err := os.Chmod(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(services, 0o775); err != nil {
		t.Fatal(err)
	}
	shell{environ: []string{"AGENTVAULT_DIR=" + old}}.ok(t, "import", old)
	imported(t, data, services, "")
	kept, err := filepath.Glob(filepath.Join(data, "legacy-*", ".vault-key"))
	if err != nil || len(kept) != 1 || read(t, kept[0]) != hexKey {
		t.Errorf("the old key is at %v", kept)
	}
	if got := read(t, filepath.Join(services, "github.json")); got != githubService {
		t.Error("the service file was rewritten")
	}
}

func TestImportAfterInit(t *testing.T) {
	old, _ := nodeSystem(t, bothSecrets())
	dir := t.TempDir()
	shell{}.ok(t, "init", "--dir", dir)
	data := filepath.Join(dir, "data")
	keys := tree(t, data)
	shell{environ: []string{"AGENTVAULT_DIR=" + dir}}.ok(t, "import", old)
	imported(t, data, filepath.Join(dir, "config", "services"), "")
	for name, content := range keys {
		if tree(t, data)[name] != content {
			t.Errorf("%s was changed", name)
		}
	}
}

func TestImportKeys(t *testing.T) {
	passphrase := sha256.Sum256([]byte("correct horse"))
	other := strings.Repeat("ab", 32)
	for name, tc := range map[string]struct {
		env    []string
		args   []string
		newKey string
		want   string
	}{
		"hex in the environment":        {[]string{"VAULT_ENCRYPTION_KEY=" + hex.EncodeToString(passphrase[:])}, nil, hex.EncodeToString(passphrase[:]), ""},
		"base64 in the environment":     {[]string{"VAULT_ENCRYPTION_KEY=" + base64.StdEncoding.EncodeToString(passphrase[:])}, nil, hex.EncodeToString(passphrase[:]), ""},
		"passphrase in the environment": {[]string{"VAULT_ENCRYPTION_KEY=correct horse"}, nil, "", "unset it"},
		"another variable, a new key":   {[]string{"OLD=correct horse", "VAULT_ENCRYPTION_KEY=" + other}, []string{"--key-env", "OLD"}, other, ""},
	} {
		t.Run(name, func(t *testing.T) {
			old, _ := nodeSystem(t, nil)
			write(t, filepath.Join(old, "data", "secrets.enc"), sealV1(t, passphrase, bothSecrets()), 0o600)
			dir := t.TempDir()
			res := shell{environ: append(tc.env, "AGENTVAULT_DIR="+dir)}.ok(t, append([]string{"import", old}, tc.args...)...)
			imported(t, filepath.Join(dir, "data"), filepath.Join(dir, "config", "services"), tc.newKey)
			mustContain(t, res.out, tc.want)
			mustNotContain(t, res.out+res.err, "correct horse", "CANARY", other)
		})
	}
}

func TestImportDoesNothingHalf(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, old, dir string)
		secrets map[string]string
		args    []string
		want    string
		ok      bool
	}{
		"dry run":         {args: []string{"--dry-run"}, secrets: bothSecrets(), want: "nothing was done", ok: true},
		"unknown field":   {prepare: addFile("x.json", strings.Replace(githubService, `"secretRef"`, `"wrongField":1,"secretRef"`, 1)), want: "wrongField"},
		"plaintext":       {prepare: addFile("x.json", strings.Replace(githubService, "https:", "http:", 1)), want: "BASEURL_INVALID"},
		"name":            {prepare: addFile("BAD name.json", githubService), want: "BAD name"},
		"not JSON":        {prepare: addFile("x.json", "{"), want: "x.json"},
		"secret's name":   {secrets: map[string]string{"../x": "y"}, want: "../x"},
		"empty secret":    {secrets: map[string]string{"x": ""}, want: "empty"},
		"header break-in": {secrets: map[string]string{"github_pat": "CANARY\r\nX: y"}, want: "line break"},
		"wrong key": {prepare: func(t *testing.T, old, _ string) {
			write(t, filepath.Join(old, "data", ".vault-key"), "wrong", 0o600)
		}, want: "KEY_INVALID"},
		"damaged revocations": {prepare: func(t *testing.T, old, _ string) {
			write(t, filepath.Join(old, "data", "revocations.json"), "", 0o600)
		}, want: "revocations.json"},
		"a vault that runs": {prepare: func(t *testing.T, _, dir string) {
			if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
				t.Fatal(err)
			}
			unlock, err := file.Lock(filepath.Join(dir, "data"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(unlock)
		}, want: "in use"},
		"a service in the way": {prepare: func(t *testing.T, _, dir string) {
			write(t, filepath.Join(dir, "config", "services", "github.json"), "{}", 0o600)
		}, want: "DATA_NOT_EMPTY"},
	} {
		t.Run(name, func(t *testing.T) {
			old, _ := nodeSystem(t, tc.secrets)
			dir := t.TempDir()
			if tc.prepare != nil {
				tc.prepare(t, old, dir)
			}
			before, beforeOld := tree(t, dir), tree(t, old)
			res := shell{environ: []string{"AGENTVAULT_DIR=" + dir}}.run(t, append([]string{"import", old}, tc.args...)...)
			if (res.status == 0) != tc.ok {
				t.Errorf("status %d", res.status)
			}
			mustContain(t, res.out+res.err, tc.want)
			mustNotContain(t, res.out+res.err, "CANARY")
			after := tree(t, dir)
			delete(after, "data") // an empty directory may have been made
			delete(before, "data")
			if !maps.Equal(before, after) || !maps.Equal(beforeOld, tree(t, old)) {
				t.Errorf("something was changed: %v", sortedKeys(after))
			}
		})
	}
}

func addFile(name, content string) func(*testing.T, string, string) {
	return func(t *testing.T, old, _ string) {
		write(t, filepath.Join(old, "config", "services", name), content, 0o600)
	}
}

func TestImportSkipsInvalid(t *testing.T) {
	s := bothSecrets()
	s["bad name"] = "CANARY"
	old, _ := nodeSystem(t, s)
	addFile("broken.json", "{}")(t, old, "")
	dir := t.TempDir()
	res := shell{environ: []string{"AGENTVAULT_DIR=" + dir}}.ok(t, "import", old, "--skip-invalid")
	imported(t, filepath.Join(dir, "data"), filepath.Join(dir, "config", "services"), "")
	mustContain(t, res.out, "broken.json", "bad name")
	if exists(filepath.Join(dir, "config", "services", "broken.json")) {
		t.Error("the broken service was imported")
	}
}

func TestImportPolicyFile(t *testing.T) {
	old, _ := nodeSystem(t, bothSecrets())
	if err := os.RemoveAll(filepath.Join(old, "config", "services")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(old, "config", "policy.json"), `{"services":{"github":`+githubService+`}}`, 0o600)
	shell{environ: []string{"AGENTVAULT_DIR=" + old}}.ok(t, "import", old)
	imported(t, filepath.Join(old, "data"), filepath.Join(old, "config", "services"), "")
}

// What comes in with a merge cannot send a key that is here already somewhere
// else.
func TestMergeDoesNotBindStoredSecrets(t *testing.T) {
	first, _ := nodeSystem(t, bothSecrets())
	dir := t.TempDir()
	env := []string{"AGENTVAULT_DIR=" + dir}
	shell{environ: env}.ok(t, "import", first)
	second, _ := nodeSystem(t, nil)
	addFile("evil.json", strings.Replace(githubService, "api.github.com", "evil.example", 1))(t, second, "")
	before := tree(t, filepath.Join(dir, "config"))
	res := shell{environ: env}.run(t, "import", second, "--merge")
	if res.status != exitFailed || !maps.Equal(before, tree(t, filepath.Join(dir, "config"))) {
		t.Errorf("status %d", res.status)
	}
	mustContain(t, res.err, "SECRET_ORIGIN_MISMATCH", "evil.example")
	imported(t, filepath.Join(dir, "data"), filepath.Join(dir, "config", "services"), "")
}

// An error at any step of the last part moves everything back.
func TestMoverUndoes(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "a", 0o644)
	write(t, filepath.Join(dir, "b"), "b", 0o600)
	before := tree(t, dir)
	m := &mover{}
	for _, step := range []error{
		m.mkdir(filepath.Join(dir, "old")),
		m.rename(filepath.Join(dir, "a"), filepath.Join(dir, "old", "a")),
		m.chmod(filepath.Join(dir, "old", "a"), 0o600),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	if err := m.rename(filepath.Join(dir, "b"), filepath.Join(dir, "old", "a")); err == nil {
		t.Error("a file was replaced")
	}
	if err := m.undo(); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(before, tree(t, dir)) {
		t.Errorf("%v", tree(t, dir))
	}
	if fi, err := os.Stat(filepath.Join(dir, "a")); err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", fi, err)
	}
}
