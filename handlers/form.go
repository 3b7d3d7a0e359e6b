package handlers

import (
	"encoding/base64"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyvault/caddyvault/refusal"
)

// Limits of a form.
const (
	maxForm       = 64 << 10 // bytes
	maxFormFields = 64
)

// checkFormType refuses a request whose body is not a plain form. A page of
// another site can send one unasked: checkBrowser is what keeps it out.
func checkFormType(h http.Header) *refusal.Refusal {
	types := h["Content-Type"]
	if len(types) == 1 {
		mt, params, err := mime.ParseMediaType(types[0])
		charset, has := params["charset"]
		if err == nil && mt == "application/x-www-form-urlencoded" && (len(params) == 0 || has && len(params) == 1 && strings.EqualFold(charset, "utf-8")) && h["Content-Encoding"] == nil {
			return nil
		}
	}
	return refusal.New("UNSUPPORTED_MEDIA_TYPE", "the body of this route is application/x-www-form-urlencoded").
		WithHint("send the header content-type: application/x-www-form-urlencoded")
}

// parseForm reads a form strictly: UTF-8, every name once (RFC 6749, section
// 3.2), no semicolons between fields. An empty field is as if it were absent.
func parseForm(body []byte) (map[string]string, *refusal.Refusal) {
	bad := func(detail string) (map[string]string, *refusal.Refusal) {
		return nil, refusal.New("FORM_INVALID", "%s", detail)
	}
	if len(body) > maxForm {
		return bad("the form is too large")
	}
	form := map[string]string{}
	for piece := range strings.SplitSeq(string(body), "&") {
		if piece == "" {
			continue
		}
		if strings.Contains(piece, ";") {
			return bad("a semicolon in a form is encoded as %3B")
		}
		name, value, _ := strings.Cut(piece, "=")
		name, err := url.QueryUnescape(name)
		if err == nil {
			value, err = url.QueryUnescape(value)
		}
		if err != nil || !plainText(name) || !plainText(value) {
			return bad("the form is not encoded correctly")
		}
		if _, twice := form[name]; twice {
			return nil, refusal.New("FORM_INVALID:"+printable(name, 64), "a field stands more than once")
		}
		if form[name] = value; len(form) > maxFormFields {
			return bad("the form has too many fields")
		}
	}
	for name, value := range form {
		if value == "" {
			delete(form, name)
		}
	}
	return form, nil
}

// plainText reports whether s is UTF-8 without control characters.
func plainText(s string) bool {
	return strings.ToValidUTF8(s, "") == s && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// clientSecret returns who a client of the standard endpoints says it is, by
// client_secret_basic or client_secret_post (RFC 6749, section 2.3.1): one of
// the two.
func clientSecret(h http.Header, form map[string]string) (id, secret string, _ *refusal.Refusal) {
	id, secret = form["client_id"], form["client_secret"]
	if form["client_assertion"] != "" || form["client_assertion_type"] != "" {
		// An agent's own JWT (RFC 7523, section 2.2).
		if secret != "" || form["client_assertion_type"] != typeAssertion || form["client_assertion"] == "" {
			return "", "", refusal.New("AGENT_UNAUTHENTICATED", "the client authenticates in two ways, or with no JWT").WithChallenge(`Basic realm="caddyvault"`)
		}
		secret = form["client_assertion"]
	}
	auth := h["Authorization"]
	if len(auth) == 0 {
		return id, secret, nil
	}
	scheme, rest, _ := strings.Cut(auth[0], " ")
	if len(auth) > 1 {
		return "", "", refusal.New("AGENT_UNAUTHENTICATED", "there are two Authorization headers").WithChallenge(`Basic realm="caddyvault"`)
	}
	if !strings.EqualFold(scheme, "Basic") {
		return id, secret, nil
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(rest))
	user, password, ok := strings.Cut(string(b), ":")
	if err == nil && ok {
		// Each half is form-encoded within (RFC 6749, section 2.3.1).
		if user, err = url.QueryUnescape(user); err == nil {
			password, err = url.QueryUnescape(password)
		}
	}
	switch {
	case err != nil || !ok || !plainText(user) || !plainText(password):
		return "", "", refusal.New("AGENT_UNAUTHENTICATED", "the Authorization header cannot be read").WithChallenge(`Basic realm="caddyvault"`)
	case secret != "" || id != "" && id != user:
		return "", "", refusal.New("AGENT_UNAUTHENTICATED", "the client authenticates in two ways").WithChallenge(`Basic realm="caddyvault"`)
	}
	return user, password, nil
}
