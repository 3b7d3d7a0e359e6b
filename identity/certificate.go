package identity

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/caddyvault/caddyvault/agents"
)

// Fields of a certificate that a rule may look at.
const (
	SANURI     = "san_uri"
	SANDNS     = "san_dns"
	SANEmail   = "san_email"
	CommonName = "cn"
)

// maxNames bounds how many names of a certificate are looked at.
const maxNames = 256

// CertificateRule says which name in a client certificate is which agent.
type CertificateRule struct {
	field    string
	pattern  string
	segments []segment
	stars    int
	agent    string
}

// segment is one part of a pattern; a star stands for one character or more
// between prefix and suffix.
type segment struct {
	prefix, suffix string
	star           bool
}

// NewCertificateRule reads a rule: names in field that match pattern are the
// agent. In the pattern a * stands for one character or more of one segment;
// in agent, each * stands for what that of the pattern has matched. Without an
// agent, it is that itself, or the whole name if there is no *.
func NewCertificateRule(field, pattern, agent string) (*CertificateRule, error) {
	r := &CertificateRule{field: field, pattern: pattern, agent: agent}
	if field == SANDNS {
		r.pattern = lowerASCII(pattern)
	}
	if err := r.checkPattern(); err != nil {
		return nil, fmt.Errorf("%s %q: %w", field, pattern, err)
	}
	for _, s := range r.split(r.pattern) {
		prefix, suffix, star := strings.Cut(s, "*")
		if strings.Contains(suffix, "*") {
			return nil, fmt.Errorf("%s %q: one * a segment", field, pattern)
		}
		if star {
			r.stars++
		}
		r.segments = append(r.segments, segment{prefix, suffix, star})
	}
	if err := r.checkAgent(); err != nil {
		return nil, fmt.Errorf("%s %q: %w", field, pattern, err)
	}
	return r, nil
}

// checkPattern refuses what no name could match, and what would match more
// than it seems to.
func (r *CertificateRule) checkPattern() error {
	if r.pattern == "" {
		return errors.New("a pattern is missing")
	}
	literal := func(c rune) bool { return c == '*' || r.matchable(c) }
	switch r.field {
	case SANURI:
		scheme, rest, ok := strings.Cut(r.pattern, ":")
		if !ok || !lowerScheme(scheme) {
			return errors.New("a URI begins with a scheme in lower case, without a *")
		}
		if after, hier := strings.CutPrefix(rest, "//"); hier {
			authority, _, path := strings.Cut(after, "/")
			switch {
			case strings.Contains(authority, "*"):
				return errors.New("a * may not stand for a host or trust domain")
			case authority == "" || strings.ContainsAny(authority, "@") || authority != lowerASCII(authority):
				return errors.New("a host or trust domain, in lower case and without user, comes after //")
			case path && strings.HasSuffix(after, "/"):
				return errors.New("it ends with a slash")
			}
		}
		if strings.ContainsFunc(r.pattern, func(c rune) bool { return c != '/' && c != ':' && !literal(c) }) {
			return errors.New("a character that names may not have, such as % ? or #")
		}
	case SANDNS:
		for _, label := range strings.Split(r.pattern, ".") {
			if label == "" {
				return errors.New("an empty label")
			}
		}
		if strings.ContainsFunc(r.pattern, func(c rune) bool { return c != '.' && !literal(c) }) {
			return errors.New("a character that names may not have")
		}
	case SANEmail:
		local, domain, ok := strings.Cut(r.pattern, "@")
		if !ok || local == "" || domain == "" || strings.ContainsFunc(r.pattern, func(c rune) bool { return c != '@' && !literal(c) }) || strings.Contains(domain, "@") {
			return errors.New("an address is a name, one @ and a domain")
		}
		if domain != lowerASCII(domain) {
			return errors.New("write the domain in lower case")
		}
	case CommonName:
		if strings.TrimSpace(r.pattern) != r.pattern || strings.ContainsFunc(r.pattern, func(c rune) bool { return !literal(c) }) {
			return errors.New("spaces around it, or a character that cannot be printed")
		}
	default:
		return errors.New("the field is san_uri, san_dns, san_email or cn")
	}
	return nil
}

// checkAgent holds the agent to what tells different names apart.
func (r *CertificateRule) checkAgent() error {
	stars := strings.Count(r.agent, "*")
	switch {
	case r.agent == "" && r.stars > 1:
		return errors.New("with more than one *, say which agent it is, for example */*")
	case stars != 0 && stars != r.stars:
		return errors.New("the agent has another number of * than the pattern")
	}
	if parts := strings.Split(r.agent, "*"); stars > 1 {
		for _, between := range parts[1 : len(parts)-1] {
			// a-b and c must not look like a and b-c.
			if !strings.ContainsFunc(between, func(c rune) bool { return !r.matchable(c) }) {
				return errors.New("between two * of the agent there has to be a character that neither stands for, such as /")
			}
		}
	}
	if r.agent != "" && !agents.ValidID(strings.ReplaceAll(r.agent, "*", "x")) {
		return errors.New("the agent is not the id of one")
	}
	if r.agent == "" && r.stars == 0 && !agents.ValidID(r.pattern) {
		return errors.New("the name is not the id of an agent; say which agent it is")
	}
	return nil
}

// split cuts a name into segments, none of which a * reaches beyond.
func (r *CertificateRule) split(name string) []string {
	switch r.field {
	case SANURI:
		return strings.Split(name, "/")
	case SANDNS:
		return strings.Split(name, ".")
	case SANEmail:
		local, domain, ok := strings.Cut(name, "@")
		if !ok {
			return []string{name}
		}
		return append([]string{local}, strings.Split(domain, ".")...)
	}
	return []string{name}
}

// matchable reports whether a * may stand for a character. What could be read
// in two ways, such as an escape or a *, is not among them.
func (r *CertificateRule) matchable(c rune) bool {
	plain := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_'
	upper := c >= 'A' && c <= 'Z'
	switch r.field {
	case SANURI:
		return plain || upper || strings.ContainsRune(".~@+=", c)
	case SANDNS:
		return plain
	case SANEmail:
		return plain || upper || strings.ContainsRune(".~+=", c)
	}
	return unicode.IsPrint(c) && c != '*' && c != unicode.ReplacementChar
}

// match returns the agent that a name is.
func (r *CertificateRule) match(name string) (string, bool) {
	switch r.field {
	case SANDNS:
		name = lowerASCII(name)
	case SANEmail:
		if at := strings.LastIndexByte(name, '@'); at >= 0 {
			name = name[:at] + lowerASCII(name[at:])
		}
	}
	parts := r.split(name)
	if len(parts) != len(r.segments) {
		return "", false
	}
	var found []string
	for i, s := range r.segments {
		if !s.star {
			if parts[i] != s.prefix {
				return "", false
			}
			continue
		}
		middle, ok := strings.CutPrefix(parts[i], s.prefix)
		if ok {
			middle, ok = strings.CutSuffix(middle, s.suffix)
		}
		if !ok || middle == "" || parts[i] == "." || parts[i] == ".." ||
			strings.TrimSpace(middle) != middle || strings.ContainsFunc(middle, func(c rune) bool { return !r.matchable(c) }) {
			return "", false
		}
		found = append(found, middle)
	}
	switch {
	case r.agent == "" && r.stars == 0:
		return name, true
	case r.agent == "":
		return found[0], true
	case !strings.Contains(r.agent, "*"):
		return r.agent, true
	}
	var agent strings.Builder
	for i, part := range strings.Split(r.agent, "*") {
		if i > 0 {
			agent.WriteString(found[i-1])
		}
		agent.WriteString(part)
	}
	return agent.String(), true
}

// CertificateRules are tried on every name of a certificate.
type CertificateRules []*CertificateRule

// Add adds a rule, unless there is one for the same names.
func (rules *CertificateRules) Add(field, pattern, agent string) error {
	r, err := NewCertificateRule(field, pattern, agent)
	if err != nil {
		return err
	}
	for _, other := range *rules {
		if other.field == r.field && other.pattern == r.pattern {
			return fmt.Errorf("%s %q is given twice", field, pattern)
		}
	}
	*rules = append(*rules, r)
	return nil
}

// Errors of a certificate that is no agent's. They may be shown to whoever
// shows the certificate.
var (
	ErrNoRule    = errors.New("no rule is for a name in it")
	ErrAmbiguous = errors.New("the rules make two agents of its names")
	errMalformed = errors.New("its names cannot be read")
)

// Agent returns the agent that a certificate is of. Whether the certificate is
// good is for the caller to know.
func (rules CertificateRules) Agent(cert *x509.Certificate) (string, error) {
	names, err := certificateNames(cert)
	if err != nil {
		return "", err
	}
	agent := ""
	for _, r := range rules {
		for _, name := range names[r.field] {
			id, ok := r.match(name)
			switch {
			case !ok:
				continue
			case r.field == SANURI && strings.HasPrefix(name, "spiffe:") && len(names[SANURI]) > 1:
				return "", errors.New("it is no SPIFFE id, for it has several URIs")
			case r.field == CommonName && len(names[CommonName]) > 1:
				return "", errors.New("its subject has several common names")
			case !agents.ValidID(id):
				return "", errors.New("the name in it is not the id of an agent")
			case agent != "" && agent != id:
				return "", ErrAmbiguous
			}
			agent = id
		}
	}
	if agent == "" {
		return "", ErrNoRule
	}
	return agent, nil
}

// Names lists some of the names that rules could look at, for whoever wonders
// why none matches.
func Names(cert *x509.Certificate) []string {
	const most = 4
	names, err := certificateNames(cert)
	if err != nil {
		return nil
	}
	var out []string
	for _, field := range []string{SANURI, SANDNS, SANEmail, CommonName} {
		for _, name := range names[field] {
			if len(name) > 100 {
				name = name[:100] + "..."
			}
			if out = append(out, field+" "+name); len(out) == most {
				return out
			}
		}
	}
	return out
}

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidCommonName     = asn1.ObjectIdentifier{2, 5, 4, 3}

	// sanFields are the kinds of names by their tags (RFC 5280, section
	// 4.2.1.6).
	sanFields = map[int]string{1: SANEmail, 2: SANDNS, 6: SANURI}
)

// certificateNames returns the names in a certificate by field, byte for byte:
// what crypto/x509 makes of a URI is another spelling of it.
func certificateNames(cert *x509.Certificate) (map[string][]string, error) {
	names := make(map[string][]string)
	for _, attribute := range cert.Subject.Names {
		if !attribute.Type.Equal(oidCommonName) {
			continue
		}
		cn, ok := attribute.Value.(string)
		if !ok {
			return nil, errMalformed
		}
		names[CommonName] = append(names[CommonName], cn)
	}
	count := 0
	for _, extension := range cert.Extensions {
		if !extension.Id.Equal(oidSubjectAltName) {
			continue
		}
		var list []asn1.RawValue
		rest, err := asn1.Unmarshal(extension.Value, &list)
		if err != nil || len(rest) > 0 {
			return nil, errMalformed
		}
		if count += len(list); count > maxNames {
			return nil, fmt.Errorf("it has more than %d names", maxNames)
		}
		for _, v := range list {
			if field := sanFields[v.Tag]; field != "" && v.Class == asn1.ClassContextSpecific && !v.IsCompound {
				names[field] = append(names[field], string(v.Bytes))
			}
		}
	}
	return names, nil
}

func lowerScheme(s string) bool {
	for i := range len(s) {
		c := s[i]
		if letter := c >= 'a' && c <= 'z'; !letter && (i == 0 || (c < '0' || c > '9') && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return s != ""
}

// lowerASCII lowers the letters that host names are compared without case in.
func lowerASCII(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, s)
}
