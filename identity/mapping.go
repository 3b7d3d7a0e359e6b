package identity

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// A pattern is what a claim's value may be like: * stands for one character or
// more of one segment, between slashes and colons; ** for one or more of
// anything.
type pattern struct {
	re    *regexp.Regexp // takes linear time, whatever an issuer sends
	stars int            // of one segment
}

// maxPattern is the longest pattern, in bytes.
const maxPattern = 1024

func newPattern(text string) (*pattern, error) {
	if text == "" || len(text) > maxPattern {
		return nil, fmt.Errorf("a pattern has 1 to %d bytes", maxPattern)
	}
	p := new(pattern)
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for rest := text; rest != ""; {
		literal, after, star := strings.Cut(rest, "*")
		b.WriteString(regexp.QuoteMeta(literal))
		switch {
		case !star:
		case strings.HasPrefix(after, "**"):
			return nil, fmt.Errorf("%q: there are * and **, and no more", text)
		case strings.HasPrefix(after, "*"):
			after = after[1:]
			b.WriteString(`.+`)
		default:
			b.WriteString(`([^/:]+)`)
			p.stars++
		}
		rest = after
	}
	b.WriteString(`\z`)
	var err error
	p.re, err = regexp.Compile(b.String())
	return p, err
}

// match returns what the stars of one segment stand for.
func (p *pattern) match(value string) ([]string, bool) {
	m := p.re.FindStringSubmatch(value)
	if m == nil {
		return nil, false
	}
	return m[1:], true
}

// A mapping says which agent the values of a pattern are.
type mapping struct {
	pattern *pattern
	agent   []string // what stands between the stars
}

// errAmbiguous: an agent whose name two values could make.
var errAmbiguous = errors.New("between two * of an agent there is a / or a :, so that no two values make one agent")

func newMapping(text, agent string) (*mapping, error) {
	p, err := newPattern(text)
	if err != nil {
		return nil, err
	}
	m := &mapping{p, strings.Split(agent, "*")}
	stars := len(m.agent) - 1
	switch {
	case agent == "":
		return nil, errors.New("it names no agent")
	case stars > 0 && stars != p.stars:
		return nil, fmt.Errorf("the agent %q has %d *, and the pattern %q has %d", agent, stars, text, p.stars)
	}
	for i := 1; i < stars; i++ {
		if !strings.ContainsAny(m.agent[i], "/:") {
			return nil, errAmbiguous
		}
	}
	return m, nil
}

// apply returns the agent of a value.
func (m *mapping) apply(value string) (string, bool) {
	found, ok := m.pattern.match(value)
	if !ok {
		return "", false
	}
	var b strings.Builder
	b.WriteString(m.agent[0])
	for i, between := range m.agent[1:] {
		b.WriteString(found[i])
		b.WriteString(between)
	}
	return b.String(), true
}
