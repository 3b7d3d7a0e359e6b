package token

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// payload is the claims as they are signed, in the order in which the
// existing system writes them.
type payload struct {
	Service   string   `json:"service"`
	Scope     []string `json:"scope"`
	Context   Context  `json:"ctx"`
	IssuedAt  int64    `json:"iat"`
	ExpiresAt int64    `json:"exp"`
	Audience  string   `json:"aud"` // a string: that system compares it with ===
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	ID        string   `json:"jti"`
	Groups    []string `json:"groups,omitempty"`

	// What the existing system does not know is written only where a token
	// has it.
	Actions  []string            `json:"actions,omitzero"`
	Params   map[string][]string `json:"params,omitzero"`
	MaxCalls int64               `json:"maxCalls,omitzero"`
	MaxBytes int64               `json:"maxBytes,omitzero"`
	OneTime  bool                `json:"oneTime,omitzero"`
	Actor    *actor              `json:"act,omitzero"`
	Chain    []link              `json:"anc,omitzero"`
	Bound    *confirmation       `json:"cnf,omitzero"`
}

// narrowed says whether a token has what only some have.
func (p *payload) narrowed() bool {
	return p.Groups != nil || p.Actions != nil || p.Params != nil || p.MaxCalls != 0 || p.MaxBytes != 0 || p.OneTime ||
		p.Actor != nil || p.Chain != nil || p.Bound != nil
}

// encode returns the payload in JSON. What every token has is written here, as
// the encoder would: issuing is a signature and little else.
func (p *payload) encode() ([]byte, error) {
	if p.narrowed() {
		return json.Marshal(p)
	}
	w := writer{b: make([]byte, 0, 512)}
	w.text(`{"service":`, p.Service)
	w.b = append(w.b, `,"scope":[`...)
	for i, s := range p.Scope {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.text("", s)
	}
	w.text(`],"ctx":{"agentId":`, p.Context.AgentID)
	w.text(`,"sessionId":`, p.Context.SessionID)
	w.text(`,"taskId":`, p.Context.TaskID)
	w.text(`,"skillId":`, p.Context.SkillID)
	w.text(`,"tool":`, p.Context.Tool)
	w.b = strconv.AppendInt(append(w.b, `},"iat":`...), p.IssuedAt, 10)
	w.b = strconv.AppendInt(append(w.b, `,"exp":`...), p.ExpiresAt, 10)
	w.text(`,"aud":`, p.Audience)
	w.text(`,"iss":`, p.Issuer)
	w.text(`,"sub":`, p.Subject)
	w.text(`,"jti":`, p.ID)
	return append(w.b, '}'), w.err
}

// writer writes JSON, until there is an error.
type writer struct {
	b   []byte
	err error
}

// text appends what stands before a text, and the text.
func (w *writer) text(before, text string) {
	if w.err == nil {
		w.b, w.err = jsontext.AppendQuote(append(w.b, before...), text)
	}
}

// actor is the claim "act" (RFC 8693, section 4.1): who uses the token, and
// inside it who used the one it was derived from.
type actor struct {
	Subject string `json:"sub"`
	Prior   *actor `json:"act,omitzero"`
}

// link is an entry of the claim "anc", the parent first.
type link struct {
	ID       string `json:"jti"`
	TaskID   string `json:"task,omitzero"`
	MaxCalls int64  `json:"maxCalls,omitzero"`
	MaxBytes int64  `json:"maxBytes,omitzero"`
}

// confirmation is the claim "cnf".
type confirmation struct {
	JKT string `json:"jkt,omitzero"`
	X5T string `json:"x5t#S256,omitzero"`
}

// narrow fills in what only some tokens have.
func (p *payload) narrow(c *Claims) {
	if l := c.Limits; l != nil {
		p.Actions, p.Params = l.Actions, l.Params
		p.MaxCalls, p.MaxBytes, p.OneTime = l.MaxCalls, l.MaxBytes, l.OneTime
	}
	if b := c.Bound; b != nil {
		p.Bound = &confirmation{b.JKT, b.X5T}
	}
	if len(c.Chain) == 0 {
		return
	}
	p.Actor = &actor{Subject: c.Subject}
	at := p.Actor
	for _, a := range c.Chain {
		p.Chain = append(p.Chain, link{a.ID, a.TaskID, a.MaxCalls, a.MaxBytes})
		at.Prior = &actor{Subject: a.AgentID}
		at = at.Prior
	}
}

// Issue is Sign for who need not know the key.
func (a *Authority) Issue(c Claims) (string, error) {
	raw, _, err := a.Sign(c)
	return raw, err
}

// Sign signs c and returns with which key. Audience and Issuer are the authority's own, an absent
// IssuedAt is now, and an absent Subject is Context.AgentID. A token that
// Verify would refuse is an error, ErrTooLong if it is its length.
func (a *Authority) Sign(c Claims) (string, Key, error) {
	if c.IssuedAt.IsZero() {
		c.IssuedAt = a.opts.Now()
	}
	if c.Subject == "" {
		c.Subject = c.Context.AgentID
	}
	p := payload{
		Service:   c.Service,
		Scope:     c.Scope,
		Context:   c.Context,
		IssuedAt:  c.IssuedAt.Unix(),
		ExpiresAt: c.ExpiresAt.Unix(),
		Audience:  a.opts.Audience,
		Issuer:    a.opts.Issuer,
		Subject:   c.Subject,
		ID:        c.ID,
		Groups:    c.Groups,
	}
	p.narrow(&c)
	switch life := time.Duration(p.ExpiresAt-p.IssuedAt) * time.Second; {
	case p.ID == "" || p.Subject == "" || p.Service == "":
		return "", Key{}, errors.New("issue token: id, subject and service are required")
	case slices.Contains(p.Scope, ""):
		return "", Key{}, errors.New("issue token: an empty scope")
	case slices.Contains(p.Groups, ""):
		return "", Key{}, errors.New("issue token: an empty group")
	case p.Subject != p.Context.AgentID:
		return "", Key{}, errors.New("issue token: the subject is not the context's agent")
	case len(p.Chain) > MaxDepth:
		return "", Key{}, errors.New("issue token: too many ancestors")
	case life <= 0 || life > a.opts.MaxTTL:
		return "", Key{}, fmt.Errorf("issue token: a life of %v, up to %v is possible", life, a.opts.MaxTTL)
	}
	body, err := p.encode()
	if err != nil {
		// Not wrapped: the encoder quotes what it cannot encode.
		return "", Key{}, errors.New("issue token: a claim is not valid UTF-8")
	}
	key := a.current().signing
	if key == nil {
		return "", Key{}, errors.New("issue token: there is no key that signs")
	}
	raw := append(make([]byte, 0, len(key.header)+2*len(body)+128), key.header...)
	raw = base64.RawURLEncoding.AppendEncode(append(raw, '.'), body)
	sig, err := key.method.Sign(string(raw), key.sign)
	if err != nil {
		return "", Key{}, fmt.Errorf("issue token: %w", err)
	}
	raw = base64.RawURLEncoding.AppendEncode(append(raw, '.'), sig)
	if len(raw) > MaxLength {
		return "", Key{}, fmt.Errorf("issue token: %w", ErrTooLong)
	}
	text := string(raw)
	a.signed.add(text)
	return text, Key{key}, nil
}
