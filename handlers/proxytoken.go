package handlers

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
)

// tokenHeader may carry the vault's token beside the places where the
// service's own key would stand.
const tokenHeader = "Vault-Token"

// A carried request is one whose token has been taken out.
type carried struct {
	token string
	path  string // below the service
	query string
}

// takeToken finds the vault's token where clients put an API key: wherever the
// service's own key would stand, in Authorization with any scheme, in
// Vault-Token, or among the subprotocols that a WebSocket offers, which is all
// that a browser lets a page set; never in a body, which streams. Two different ones are refused:
// which of them counts must not be a matter of order. svc is nil if there is
// no such service.
func takeToken(h http.Header, svc *policy.Compiled, path, query string) (carried, *refusal.Refusal) {
	c := carried{path: path, query: query}
	two := false
	add := func(found string) {
		if found == "" {
			return
		}
		two = two || c.token != "" && c.token != found
		c.token = found
	}
	for _, value := range h[tokenHeader] {
		fromHeader(value, add)
	}
	for _, list := range h["Sec-Websocket-Protocol"] {
		for offered := range strings.SplitSeq(list, ",") {
			add(fromSubprotocol(strings.TrimSpace(offered)))
		}
	}
	own := false // whether Authorization is among the service's own
	if svc != nil {
		for i := range svc.Places {
			p := &svc.Places[i]
			if p.In != policy.InHeader && p.In != policy.InBasic {
				continue
			}
			own = own || p.Name == "Authorization"
			for _, value := range h[p.Name] {
				fromHeader(within(value, p.Value), add)
			}
		}
		rest, values, refused := svc.TakeQuery(query)
		if refused != nil {
			return c, refused
		}
		c.query = rest
		for _, value := range values {
			add(value)
		}
		if below, token, ok := svc.TakePath(path); ok {
			c.path = below
			add(token)
		}
		if len(svc.Places) == 0 && svc.AuthHeader != "Authorization" {
			// Without a secret there is no place, and still a header that
			// the service's clients know.
			for _, value := range h[svc.AuthHeader] {
				fromHeader(value, add)
			}
		}
	}
	if !own {
		for _, value := range h["Authorization"] {
			fromHeader(value, add)
		}
	}
	if two {
		return c, refusal.New("TOKEN_INVALID", "the request carries two different tokens").
			WithHint("send the vault's token in one place")
	}
	return c, nil
}

// within returns what stands in a header where its secret would: "token=" and
// the like are the vendor's own words around it.
func within(value string, text policy.Text) string {
	if len(text) == 0 || text[0].Var != policy.VarSecret {
		return value
	}
	before := text[0].Lit
	if strings.IndexByte(before, ' ') == len(before)-1 {
		before = "" // a scheme, in place of which a client may use another
	}
	value = strings.TrimPrefix(value, before)
	if len(text) == 2 && text[1].Var == policy.VarNone {
		value = strings.TrimSuffix(value, text[1].Lit)
	}
	return value
}

// fromSubprotocol returns the token that a subprotocol ends in, alone or behind
// a dot: "openai-insecure-api-key." and the like are the vendor's own words.
func fromSubprotocol(offered string) string {
	i := strings.Index("."+offered, "."+tokenStart)
	if i < 0 || !policy.LooksLikeToken(offered[i:]) {
		return ""
	}
	return offered[i:]
}

// fromHeader adds the token in a header's value: after a scheme, if there is
// one, and out of the user name or the password of Basic.
func fromHeader(value string, add func(string)) {
	value = strings.TrimSpace(value)
	scheme, rest, ok := strings.Cut(value, " ")
	if !ok {
		add(value)
		return
	}
	rest = strings.TrimSpace(rest)
	if !strings.EqualFold(scheme, "Basic") {
		add(rest)
		return
	}
	b, err := base64.StdEncoding.DecodeString(rest)
	if err != nil {
		add(rest)
		return
	}
	user, password, _ := strings.Cut(string(b), ":")
	isUser, isPassword := policy.LooksLikeToken(user), policy.LooksLikeToken(password)
	if isUser || !isPassword && user != "" {
		add(user)
	}
	if isPassword || user == "" {
		add(password)
	}
}
