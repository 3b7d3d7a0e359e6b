package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// TestSocketClients drives WebSockets with clients and an upstream that nobody
// here wrote: the packages ws and undici, and OpenAI's own.
func TestSocketClients(t *testing.T) {
	t.Parallel()
	needModules(t)
	s := prepare(t, config{sites: withTLS})
	writeCertificate(t, s.dir)
	s.start()

	up := exec.CommandContext(t.Context(), "node", "sockets-upstream.mjs")
	up.Dir, up.Stderr = "sdk", os.Stderr
	stdin, err := up.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := up.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() {
		t.Fatal("the upstream does not start")
	}
	base := "http://127.0.0.1:" + lines.Text()
	type socket struct {
		Path   string
		Header map[string]string
		Closed int
		Reason string
	}
	var seen []socket
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines.Scan() {
			var one socket
			if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
				t.Errorf("%v: %s", err, lines.Bytes())
			}
			seen = append(seen, one)
		}
	})
	s.ok("/vault.admin.addService", fmt.Sprintf(`{"service":"live","baseUrl":%q,"masterSecret":%s,"allowedAgents":["*"],"allowedActions":["*"],
		"allowedScopes":["use","admin"],"endpoints":{"echo":{"method":"GET","path":"/echo","upgrade":"websocket","requiredScope":["use"]},
		"chat":{"method":"GET","path":"/chat","upgrade":"websocket","subprotocols":["chat"],"requiredScope":["use"]},
		"admin":{"method":"GET","path":"/admin","upgrade":"websocket","requiredScope":["admin"]},"plain":{"method":"GET","path":"/plain"}}}`, base, quote(secret)), nil)
	s.ok("/vault.admin.loadTemplate", `{"template":"openai","masterSecret":`+quote(secret)+`}`, nil)
	s.ok("/vault.admin.updateService", fmt.Sprintf(`{"service":"openai","baseUrl":%q}`, base+"/v1"), nil)
	token := s.issueWith(`"service":"live","scope":["use"],"sessionId":"sockets"`).Token
	openai := s.issueWith(`"service":"openai","scope":["openai:realtime:write"],"sessionId":"realtime"`).Token

	cmd := exec.CommandContext(t.Context(), "node", "sockets.mjs")
	cmd.Dir = "sdk"
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "NODE_EXTRA_CA_CERTS=" + s.dir + "/cert.pem",
		"VAULT_URL=" + s.base, "SOCKET_URL=" + strings.Replace(s.base, "http", "ws", 1) + "/proxy/live", "VAULT_TOKEN=" + token, "SESSION=sockets",
		"OPENAI_BASE_URL=https://127.0.0.1:" + s.port2 + "/proxy/openai", "OPENAI_API_KEY=" + openai,
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, stderr.String())
	}
	compareResults(t, string(out), `{
		"echo": "hé", "empty": "", "binary": "00ff80", "long": true, "order": true,
		"fragments": "one two three", "fragmentsUp": "here are three pieces",
		"pongFromClient": "pong are you there", "pongFromUpstream": "you?",
		"scrubbed": "my key is Bearer [REDACTED:live_secret]",
		"closedByClient": [4002, "by the client"], "closedByUpstream": [4001, "by the upstream"],
		"extensions": "", "uncompressed": "still here",
		"undici": "from fetch’s own", "undiciClosed": [1000, "done", true],
		"subprotocol": ["chat", "offered chat"], "subprotocolAlone": ["chat", "offered chat"],
		"realtime": "response.create",
		"noToken": [401, "TOKEN_REQUIRED"], "noScope": [403, "INSUFFICIENT_SCOPE:admin"], "noSocket": [403, "UPGRADE_DENIED"],
		"revoked": 200, "cut": [1008, "SESSION_REVOKED"], "afterwards": [401, "SESSION_REVOKED"]
	}`)

	stdin.Close()
	reading.Wait()
	_ = up.Wait()
	opened := 0
	for _, one := range seen {
		if one.Closed == 0 {
			opened++
		}
		if one.Header["authorization"] != "Bearer "+secret || one.Header["sec-websocket-extensions"] != "" {
			t.Errorf("%s: %v", one.Path, one.Header)
		}
		if text := fmt.Sprint(one); strings.Contains(text, token) || strings.Contains(text, openai) {
			t.Errorf("the vault's token is in %s", text)
		}
	}
	if opened != 8 {
		t.Errorf("the upstream saw %d sockets: %v", opened, seen)
	}
}
