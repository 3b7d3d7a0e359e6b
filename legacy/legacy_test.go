package legacy

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const canary = "ghp_CANARYcanaryCANARYcanary0123456789"

// seal writes secrets.enc as the older system does.
func seal(t testing.TB, key [32]byte, plain string) (envelope string) {
	t.Helper()
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
	out := gcm.Seal(nil, iv, []byte(plain), nil)
	data, tag := out[:len(out)-16], out[len(out)-16:]
	b, err := json.Marshal(map[string]any{
		"v": 1, "alg": "aes-256-gcm",
		"iv":   base64.StdEncoding.EncodeToString(iv),
		"tag":  base64.StdEncoding.EncodeToString(tag),
		"data": base64.StdEncoding.EncodeToString(data),
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func randomKey() (k [32]byte) {
	_, _ = rand.Read(k[:])
	return k
}

func TestOpenSecrets(t *testing.T) {
	key := randomKey()
	plain := fmt.Sprintf(`{"github_pat":%q,"sp ce":"ü"}`, canary)
	hexKey, b64 := hex.EncodeToString(key[:]), base64.StdEncoding.EncodeToString(key[:])
	passphrase := sha256.Sum256([]byte("correct horse"))
	raw := seal(t, key, plain)
	for name, tc := range map[string]struct {
		file, key string
		want      error
	}{
		"raw JSON, hex key":          {raw, hexKey, nil},
		"hex key in upper case":      {raw, strings.ToUpper(hexKey), nil},
		"key with a newline":         {raw, hexKey + "\n", nil},
		"base64 key":                 {raw, b64, nil},
		"base64 key without padding": {raw, strings.TrimRight(b64, "="), nil},
		"passphrase":                 {seal(t, passphrase, plain), "correct horse", nil},
		"file in base64":             {base64.StdEncoding.EncodeToString([]byte(raw)) + "\n", hexKey, nil},
		"wrong key":                  {raw, "correct horse", ErrWrongKey},
		"empty":                      {"", hexKey, ErrNotV1},
		"not base64":                 {"%%%", hexKey, ErrNotV1},
		"version 2":                  {strings.Replace(raw, `"v":1`, `"v":2`, 1), hexKey, ErrNotV1},
		"other cipher":               {strings.Replace(raw, "gcm", "cbc", 1), hexKey, ErrNotV1},
		"duplicate member":           {strings.Replace(raw, `"v":1`, `"v":1,"v":1`, 1), hexKey, ErrNotV1},
		"tag cut short":              {`{"v":1,"alg":"aes-256-gcm","iv":"AAAAAAAAAAAAAAAA","tag":"AAAA","data":""}`, hexKey, ErrNotV1},
		"no iv":                      {`{"v":1,"alg":"aes-256-gcm","iv":"","tag":"AAAAAAAAAAAAAAAAAAAAAA==","data":""}`, hexKey, ErrNotV1},
		"content no object":          {seal(t, key, `["`+canary+`"]`), hexKey, ErrContent},
		"content null":               {seal(t, key, `null`), hexKey, ErrContent},
		"value no string":            {seal(t, key, `{"a":{"value":"`+canary+`"}}`), hexKey, ErrContent},
		"content cut short":          {seal(t, key, `{"a":"`+canary), hexKey, ErrContent},
		"duplicate name":             {seal(t, key, `{"a":"`+canary+`","a":"x"}`), hexKey, ErrContent},
	} {
		t.Run(name, func(t *testing.T) {
			secrets, err := OpenSecrets([]byte(tc.file), tc.key)
			if !errors.Is(err, tc.want) {
				t.Fatalf("error %v, want %v", err, tc.want)
			}
			if tc.want == nil && (len(secrets) != 2 || secrets["github_pat"] != canary) {
				t.Error("the secrets are not those that were written")
			}
			b, _ := json.Marshal(secrets)
			if s := fmt.Sprintf("%v %+v %#v %s %s %s", err, secrets, secrets, secrets, b, fmt.Sprint(struct{ S any }{secrets})); strings.Contains(s, "CANARY") {
				t.Errorf("a print shows the secret: %s", s)
			}
		})
	}
}

func TestFlippedBitIsRefused(t *testing.T) {
	key := randomKey()
	file := seal(t, key, `{"a":"b"}`)
	var e map[string]any
	if err := json.Unmarshal([]byte(file), &e); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"iv", "tag", "data"} {
		was := e[field].(string)
		b, _ := base64.StdEncoding.DecodeString(was)
		b[0] ^= 1
		e[field] = base64.StdEncoding.EncodeToString(b)
		flipped, _ := json.Marshal(e)
		if _, err := OpenSecrets(flipped, hex.EncodeToString(key[:])); !errors.Is(err, ErrWrongKey) {
			t.Errorf("%s: error %v, want ErrWrongKey", field, err)
		}
		e[field] = was
	}
}

func TestParseRevocations(t *testing.T) {
	for name, tc := range map[string]struct {
		file string
		len  int
		ok   bool
	}{
		"all":           {`{"jti":["a","b"],"sessions":["s"],"tasks":["t"],"agents":["g"]}`, 5, true},
		"missing":       {`{"jti":["a"]}`, 1, true},
		"duplicates":    {`{"jti":["b","a","b",""]}`, 2, true},
		"none":          {`{}`, 0, true},
		"empty file":    {``, 0, false},
		"null":          {`null`, 0, false},
		"array":         {`[]`, 0, false},
		"number":        {`{"jti":[1]}`, 0, false},
		"unknown":       {`{"tokens":["a"]}`, 0, false},
		"cut short":     {`{"jti":["a"`, 0, false},
		"trailing data": {`{"jti":[]} x`, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ParseRevocations([]byte(tc.file))
			if (err == nil) != tc.ok || r.Len() != tc.len {
				t.Errorf("%d entries, error %v", r.Len(), err)
			}
		})
	}
}

func write(t testing.TB, path, content string, perm os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), perm); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, perm); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	key := randomKey()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "data", SecretsFile), seal(t, key, `{"a":"b"}`), 0o644)
	write(t, filepath.Join(dir, "data", KeyFile), hex.EncodeToString(key[:]), 0o600)
	write(t, filepath.Join(dir, "data", RevocationsFile), `{"agents":["evil"]}`, 0o600)
	write(t, filepath.Join(dir, "data", AuditFile), "{}\n", 0o600)
	write(t, filepath.Join(dir, "config", "services", "one.json"), `{"from":"file"}`, 0o600)
	write(t, filepath.Join(dir, "config", "services", ".hidden.json"), `{}`, 0o600)
	write(t, filepath.Join(dir, "config", "services", "README.md"), `no`, 0o600)
	write(t, filepath.Join(dir, "config", "policy.json"), `{"services":{"one":{"from":"policy"},"two":{"from":"policy"}},"other":1}`, 0o600)

	for _, from := range []string{dir, filepath.Join(dir, "data")} {
		// A key that does not open the file is not the last word.
		s, err := Read(from, "", "not the key")
		if err != nil {
			t.Fatal(err)
		}
		if s.Secrets["a"] != "b" || !slices.Equal(s.Revocations.Agents, []string{"evil"}) {
			t.Errorf("%+v", s)
		}
		if len(s.Services) != 2 || string(s.Services[0].JSON) != `{"from":"file"}` || s.Services[1].Name != "two" {
			t.Errorf("services %+v", s.Services)
		}
		if len(s.Files) != 4 || s.DataDir != filepath.Join(dir, "data") {
			t.Errorf("files %v in %s", s.Files, s.DataDir)
		}
		if w := strings.Join(s.Warnings, "\n"); len(s.Warnings) != 2 || !strings.Contains(w, "0644") || !strings.Contains(w, `"one"`) {
			t.Errorf("warnings %q", s.Warnings)
		}
	}

	if !Detect(filepath.Join(dir, "data")) || Detect(dir) || Detect(filepath.Join(dir, "none")) {
		t.Error("Detect is wrong")
	}
	if _, err := Read(t.TempDir()); !errors.Is(err, ErrNotFound) {
		t.Errorf("empty directory: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "data", KeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); !errors.Is(err, ErrNoKey) {
		t.Errorf("without a key: %v", err)
	}
	if _, err := Read(dir, "not the key"); !errors.Is(err, ErrWrongKey) {
		t.Errorf("with a wrong key: %v", err)
	}
}

func TestReadFollowsNoLinks(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	write(t, filepath.Join(other, "f"), `{"jti":[]}`, 0o600)
	if err := os.Symlink(filepath.Join(other, "f"), filepath.Join(dir, RevocationsFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); err == nil {
		t.Error("a link was followed")
	}
}

func FuzzOpenSecrets(f *testing.F) {
	key := sha256.Sum256([]byte("k"))
	good := seal(f, key, `{"a":"b"}`)
	f.Add([]byte(good))
	f.Add([]byte(base64.StdEncoding.EncodeToString([]byte(good))))
	f.Add([]byte(`{"v":1,"alg":"AES-256-GCM","iv":"AAAAAAAAAAAAAAAAAAAAAA==","tag":"AAAAAAAAAAAAAAAAAAAAAA==","data":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := OpenSecrets(b, "k")
		if (err == nil) != (s != nil) {
			t.Errorf("%v and %v", s, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"jti":["a"],"sessions":[],"tasks":[],"agents":[]}`))
	f.Add([]byte(`{"services":{"a":{"baseUrl":"https://x"}}}`))
	f.Add([]byte(`{"a":"b"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRevocations(b); err == nil && slices.Contains(r.Tokens, "") {
			t.Error("an empty id")
		}
		if list, err := ParsePolicy(b); err == nil && !slices.IsSortedFunc(list, func(a, b Service) int { return strings.Compare(a.Name, b.Name) }) {
			t.Error("not in order")
		}
		_, _ = parseSecrets(b)
	})
}
