package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/caddyvault/caddyvault/refusal"
)

const (
	defaultURL     = "http://127.0.0.1:8787"
	apiTimeout     = time.Minute
	connectTimeout = 10 * time.Second
	maxAnswer      = 64 << 20
)

// client speaks to a running vault.
type client struct {
	t     *terminal
	base  string // for messages
	url   *url.URL
	local bool // the way to the vault does not leave the machine
	http  *http.Client
}

// client returns the client for VAULT_URL.
func (t *terminal) client() (*client, error) {
	base := cmp.Or(t.setting("VAULT_URL"), defaultURL)
	dialer := &net.Dialer{Timeout: connectTimeout}
	transport := &http.Transport{
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: connectTimeout,
		ForceAttemptHTTP2:   true,
		// What an upstream answers is passed on as it came.
		DisableCompression: true,
	}
	c := &client{t: t, base: base}
	if path, ok := strings.CutPrefix(base, "unix://"); ok {
		if path == "" {
			return nil, misuse("VAULT_URL must be like unix:///path/to/socket")
		}
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
		base = "http://localhost"
	}
	u, err := url.Parse(strings.TrimRight(base, "/"))
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return nil, misuse("VAULT_URL must be like %s", defaultURL)
	case u.User != nil:
		return nil, misuse("VAULT_URL may not hold a user or password")
	}
	c.url, c.local = u, isLoopback(u.Hostname())
	if !c.local {
		transport.Proxy = http.ProxyFromEnvironment
	}
	c.http = &http.Client{
		Transport: transport,
		// A token goes nowhere but where VAULT_URL says.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// isLoopback reports whether a host is this machine by its name alone.
func isLoopback(host string) bool {
	host = strings.ToLower(host)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// send sends one request; body nil means GET.
func (c *client) send(ctx context.Context, path string, body []byte, bearer string) (*http.Response, error) {
	return c.sendWith(ctx, path, body, bearer, nil)
}

// get sends a GET with header fields.
func (c *client) get(ctx context.Context, path, bearer string, header http.Header) (*http.Response, error) {
	return c.sendWith(ctx, path, nil, bearer, header)
}

func (c *client) sendWith(ctx context.Context, path string, body []byte, bearer string, header http.Header) (*http.Response, error) {
	method := http.MethodPost
	if body == nil {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url.String()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, header)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
		if c.url.Scheme == "http" && !c.local {
			fmt.Fprintf(c.t.err, "warning: the token travels to %s unencrypted\n", plain(c.url.Host))
		}
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return nil, refusal.New("VAULT_UNREACHABLE", "no answer from %s: %s", c.base, err).
			WithHint("is the vault running there? VAULT_URL says where to look")
	}
	return res, nil
}

// api sends a request and returns the whole answer; every status but 2xx is a
// refusal.
func (c *client) api(ctx context.Context, path string, body any, bearer string) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body, json.Deterministic(true)); err != nil {
			return nil, nil, misuse("what is to be sent is no valid JSON")
		}
	}
	res, err := c.send(ctx, path, raw, bearer)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, nil, refusal.New("ANSWER_INCOMPLETE", "the answer of %s broke off: %s", c.base, err)
	}
	if res.StatusCode/100 != 2 {
		return nil, nil, c.refused(res, answer)
	}
	return bytes.TrimSpace(answer), res.Header, nil
}

// asAgent is api with the agent's key, if there is one.
func (c *client) asAgent(ctx context.Context, path string, body any) ([]byte, http.Header, error) {
	key := strings.TrimSpace(c.t.setting("AGENTVAULT_AGENT_KEY"))
	if key != "" && (!printable(key) || strings.Contains(key, " ")) {
		return nil, nil, misuse("AGENTVAULT_AGENT_KEY is not a key of an agent")
	}
	return c.api(ctx, path, body, key)
}

// call makes a vault.call and streams the answer.
func (c *client) call(ctx context.Context, token string, body any) error {
	raw, err := json.Marshal(body, json.Deterministic(true))
	if err != nil {
		return misuse("the parameters are no valid JSON")
	}
	res, err := c.send(ctx, "/vault.call", raw, token)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.Header.Get("Vault-Error") != "" {
		answer, _ := io.ReadAll(io.LimitReader(res.Body, maxInput))
		return c.refused(res, answer)
	}
	if _, err := io.Copy(c.t.out, res.Body); err != nil {
		return refusal.New("ANSWER_INCOMPLETE", "the answer of %s broke off: %s", c.base, err)
	}
	if res.StatusCode/100 != 2 {
		return refusal.New("UPSTREAM_STATUS", "the service answered with status %d", res.StatusCode)
	}
	return nil
}

// refused makes a refusal of a problem document (RFC 9457) or of what stands
// in its place.
func (c *client) refused(res *http.Response, answer []byte) error {
	var p struct {
		Error  string `json:"error"`
		Title  string `json:"title"`
		Detail string `json:"detail"`
		Hint   string `json:"hint"`
	}
	_ = json.Unmarshal(answer, &p) // an empty one says enough
	code := cmp.Or(p.Error, res.Header.Get("Vault-Error"), fmt.Sprintf("HTTP_%d", res.StatusCode))
	r := refusal.New(code, "%s", cmp.Or(p.Detail, p.Title, fmt.Sprintf("%s answered with status %d", c.base, res.StatusCode)))
	r.Hint = p.Hint
	return r
}

// admin makes a call of vault.admin.<name>.
func (t *terminal) admin(ctx context.Context, name string, body any) ([]byte, error) {
	c, err := t.client()
	if err != nil {
		return nil, err
	}
	token, err := t.adminToken()
	if err != nil {
		return nil, err
	}
	answer, _, err := c.api(ctx, "/vault.admin."+name, body, token)
	return answer, err
}
