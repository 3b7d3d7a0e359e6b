package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/agents"
)

// A name is a field and what stands there, byte for byte.
type name struct{ field, value string }

func uri(s string) name   { return name{SANURI, s} }
func dns(s string) name   { return name{SANDNS, s} }
func email(s string) name { return name{SANEmail, s} }
func cn(s string) name    { return name{CommonName, s} }

// subject gives a certificate names, as they come: crypto/x509 would write
// only some of them.
func subject(t testing.TB, template *x509.Certificate, names ...name) {
	t.Helper()
	var san []asn1.RawValue
	for _, n := range names {
		if n.field == CommonName {
			template.Subject.ExtraNames = append(template.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: oidCommonName, Value: n.value})
			continue
		}
		for tag, field := range sanFields {
			if field == n.field {
				san = append(san, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(n.value)})
			}
		}
	}
	if san == nil {
		return
	}
	der, err := asn1.Marshal(san)
	if err != nil {
		t.Fatal(err)
	}
	template.ExtraExtensions = []pkix.Extension{{Id: oidSubjectAltName, Value: der}}
}

// certificate makes one with names and reads it again; it fails like a
// handshake with what crypto/x509 does not read.
func certificate(t testing.TB, names ...name) (*x509.Certificate, error) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	subject(t, template, names...)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return x509.ParseCertificate(der)
}

func rulesOf(t testing.TB, lines ...string) (rules CertificateRules) {
	t.Helper()
	for _, line := range lines {
		f := strings.Fields(line)
		if err := rules.Add(f[0], f[1], strings.Join(f[2:], " ")); err != nil {
			t.Fatal(err)
		}
	}
	return rules
}

func TestCertificateAgent(t *testing.T) {
	spiffe := rulesOf(t, "san_uri spiffe://corp/agents/*")
	host := rulesOf(t, "san_dns *.agents.corp")
	mail := rulesOf(t, "san_email *@agents.corp")
	common := rulesOf(t, "cn *")
	many := rulesOf(t, "san_uri spiffe://corp/ns/*/sa/* */*", "san_uri spiffe://corp/ci/* ci-*", "san_dns build.corp builder", "cn agent:*")
	const refused = ""
	for title, c := range map[string]struct {
		rules CertificateRules
		names []name
		agent string
	}{
		"what * has matched":         {spiffe, []name{uri("spiffe://corp/agents/tony")}, "tony"},
		"other kinds are not looked": {spiffe, []name{dns("x.corp"), email("a@b"), cn("root"), uri("spiffe://corp/agents/tony")}, "tony"},
		"a part of a segment":        {rulesOf(t, "san_uri https://corp:8443/a/agent-*-x"), []name{uri("https://corp:8443/a/agent-7-x")}, "7"},
		"no slashes":                 {rulesOf(t, "san_uri urn:agent:*"), []name{uri("urn:agent:tony")}, "tony"},
		"two stars":                  {many, []name{uri("spiffe://corp/ns/prod/sa/web")}, "prod/web"},
		"a name made of it":          {many, []name{uri("spiffe://corp/ci/web")}, "ci-web"},
		"a name given":               {many, []name{dns("BUILD.corp")}, "builder"},
		"the same agent twice":       {many, []name{dns("build.corp"), cn("agent:builder")}, "builder"},
		"the whole name":             {rulesOf(t, "san_uri spiffe://corp/agents/tony"), []name{uri("spiffe://corp/agents/tony")}, "spiffe://corp/agents/tony"},
		"a host in any case":         {host, []name{dns("Tony.AGENTS.corp")}, "tony"},
		"an address":                 {mail, []name{email("Tony.J@Agents.Corp")}, "Tony.J"},
		"a label of its domain":      {rulesOf(t, "san_email agent@*.corp"), []name{email("agent@tony.corp")}, "tony"},
		"a common name":              {common, []name{cn("Tony Jones, Zürich")}, "Tony Jones, Zürich"},

		"no names":                   {common, nil, refused},
		"another trust domain":       {spiffe, []name{uri("spiffe://corp.evil/agents/tony")}, refused},
		"a longer path":              {spiffe, []name{uri("spiffe://corp/agents/tony/x")}, refused},
		"a shorter path":             {spiffe, []name{uri("spiffe://corp/agents")}, refused},
		"an empty segment":           {spiffe, []name{uri("spiffe://corp/agents/")}, refused},
		"a trailing slash":           {spiffe, []name{uri("spiffe://corp/agents/tony/")}, refused},
		"two slashes":                {spiffe, []name{uri("spiffe://corp//agents/tony")}, refused},
		"upper-case scheme":          {spiffe, []name{uri("SPIFFE://corp/agents/tony")}, refused},
		"upper-case trust domain":    {spiffe, []name{uri("spiffe://Corp/agents/tony")}, refused},
		"user info":                  {spiffe, []name{uri("spiffe://me@corp/agents/tony")}, refused},
		"a port":                     {spiffe, []name{uri("spiffe://corp:1/agents/tony")}, refused},
		"a query":                    {spiffe, []name{uri("spiffe://corp/agents/tony?x=1")}, refused},
		"an empty query":             {spiffe, []name{uri("spiffe://corp/agents/tony?")}, refused},
		"a fragment":                 {spiffe, []name{uri("spiffe://corp/agents/tony#x")}, refused},
		"a percent-encoded letter":   {spiffe, []name{uri("spiffe://corp/agents/t%6Fny")}, refused},
		"a percent-encoded slash":    {spiffe, []name{uri("spiffe://corp/agents%2Ftony")}, refused},
		"a percent-encoded NUL":      {spiffe, []name{uri("spiffe://corp/agents/tony%00")}, refused},
		"dots":                       {spiffe, []name{uri("spiffe://corp/agents/..")}, refused},
		"one dot":                    {spiffe, []name{uri("spiffe://corp/agents/.")}, refused},
		"dots before":                {spiffe, []name{uri("spiffe://corp/x/../agents/tony")}, refused},
		"a wildcard as id":           {spiffe, []name{uri("spiffe://corp/agents/*")}, refused},
		"a backslash":                {spiffe, []name{uri(`spiffe://corp/agents/a\b`)}, refused},
		"a space":                    {spiffe, []name{uri("spiffe://corp/agents/tony ")}, refused},
		"two SPIFFE ids":             {spiffe, []name{uri("spiffe://corp/agents/tony"), uri("spiffe://corp/agents/steve")}, refused},
		"a SPIFFE id beside a URI":   {spiffe, []name{uri("spiffe://corp/agents/tony"), uri("https://corp/")}, refused},
		"a URI as a DNS name":        {spiffe, []name{dns("spiffe://corp/agents/tony")}, refused},
		"a URI as a common name":     {spiffe, []name{cn("spiffe://corp/agents/tony")}, refused},
		"two agents by two rules":    {many, []name{dns("build.corp"), uri("spiffe://corp/ci/x")}, refused},
		"two agents by one rule":     {host, []name{dns("a.agents.corp"), dns("b.agents.corp")}, refused},
		"two agents, one refused":    {many, []name{dns("build.corp"), cn("agent:root")}, refused},
		"a wildcard certificate":     {host, []name{dns("*.agents.corp")}, refused},
		"two labels":                 {host, []name{dns("a.b.agents.corp")}, refused},
		"no label":                   {host, []name{dns("agents.corp")}, refused},
		"an empty label":             {host, []name{dns(".agents.corp")}, refused},
		"the root's dot":             {host, []name{dns("tony.agents.corp.")}, refused},
		"NUL in a host":              {host, []name{dns("tony\x00.agents.corp")}, refused},
		"NUL after a host":           {host, []name{dns("tony.agents.corp\x00.evil")}, refused},
		"NUL in an address":          {mail, []name{email("tony\x00@agents.corp")}, refused},
		"two @":                      {mail, []name{email("tony@evil@agents.corp")}, refused},
		"quoted":                     {mail, []name{email(`"tony@agents.corp"@evil.corp`)}, refused},
		"another domain":             {mail, []name{email("tony@agents.corp.evil")}, refused},
		"an address's own *":         {mail, []name{email("*@agents.corp")}, refused},
		"NUL in a common name":       {common, []name{cn("tony\x00")}, refused},
		"a line in a common name":    {common, []name{cn("tony\nroot")}, refused},
		"an escape in a common name": {common, []name{cn("tony\x1b[2J")}, refused},
		"text that turns":            {common, []name{cn("tony\u202e")}, refused},
		"spaces around":              {common, []name{cn(" tony")}, refused},
		"everybody":                  {common, []name{cn("*")}, refused},
		"a group":                    {common, []name{cn("group:admins")}, refused},
		"nobody":                     {common, []name{cn("")}, refused},
		"two common names":           {common, []name{cn("tony"), cn("steve")}, refused},
		"one twice":                  {common, []name{cn("tony"), cn("tony")}, refused},
		"too long":                   {common, []name{cn(strings.Repeat("a", 257))}, refused},
		"no rules":                   {nil, []name{cn("tony")}, refused},
		"too many names":             {host, slices.Repeat([]name{dns("tony.agents.corp")}, maxNames+1), refused},
	} {
		t.Run(title, func(t *testing.T) {
			cert, err := certificate(t, c.names...)
			if err != nil {
				if c.agent != refused {
					t.Fatal(err)
				}
				return // TLS refuses it before anybody looks
			}
			agent, err := c.rules.Agent(cert)
			if agent != c.agent || (err == nil) != (c.agent != refused) {
				t.Errorf("%q, %v; want %q", agent, err, c.agent)
			}
			for _, n := range Names(cert) {
				if len(n) > 120 {
					t.Errorf("%d bytes of a name", len(n))
				}
			}
		})
	}
}

func TestCertificateRules(t *testing.T) {
	for line, ok := range map[string]bool{
		"san_uri spiffe://corp/agents/*":               true,
		"san_uri spiffe://corp/agents/* agent-*":       true,
		"san_uri spiffe://corp/ns/*/sa/* one":          true,
		"san_uri spiffe://corp/ns/*/sa/* */*":          true,
		"san_uri spiffe://corp/ns/*/sa/*":              false, // whose?
		"san_uri spiffe://corp/ns/*/sa/* *-*":          false, // a-b, c is a, b-c
		"san_uri spiffe://corp/ns/*/sa/* **":           false,
		"san_uri spiffe://corp/ns/*/sa/* x/*":          false,
		"san_uri spiffe://corp/*-*":                    false,
		"san_uri spiffe://*/agents/x":                  false,
		"san_uri spiffe://*.corp/agents/*":             false,
		"san_uri *://corp/agents/x":                    false,
		"san_uri SPIFFE://corp/agents/*":               false,
		"san_uri spiffe://Corp/agents/*":               false,
		"san_uri spiffe://me@corp/agents/*":            false,
		"san_uri spiffe:///agents/*":                   false,
		"san_uri spiffe://corp/agents/*/":              false,
		"san_uri spiffe://corp/agents/*?a":             false,
		"san_uri spiffe://corp/%61gents/*":             false,
		"san_uri /agents/*":                            false,
		"san_uri agents":                               false,
		"san_dns *.agents.corp":                        true,
		"san_dns agent-*.corp":                         true,
		"san_dns *.Corp":                               true,
		"san_dns *..corp":                              false,
		"san_dns corp.":                                false,
		"san_dns a/b":                                  false,
		"san_dns **.corp":                              false,
		"san_dns *.*.corp *-*":                         false,
		"san_dns *.*.corp *.*":                         true,
		"san_email *@corp":                             true,
		"san_email *@*.corp *@*":                       true,
		"san_email *@Corp":                             false,
		"san_email corp":                               false,
		"san_email @corp":                              false,
		"san_email a@b@c":                              false,
		"cn *":                                         true,
		"cn agent-*":                                   true,
		"cn tony *":                                    false,
		"cn * group:x":                                 false,
		"cn group:x":                                   false,
		"cn x group:x":                                 false,
		"cn * group:*":                                 false,
		"sub *":                                        false,
		"san_ip 10.0.0.1":                              false,
		"san_dns x.corp " + strings.Repeat("a", 300):   false,
		"san_uri x://corp/" + strings.Repeat("a", 300): false,
	} {
		f := strings.Fields(line)
		if _, err := NewCertificateRule(f[0], f[1], strings.Join(f[2:], " ")); (err == nil) != ok {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, cn := range []string{"", " x", "x ", "a\x00b", "a\u202eb"} {
		if _, err := NewCertificateRule("cn", cn, "tony"); err == nil {
			t.Errorf("cn %q is taken", cn)
		}
	}
	rules := rulesOf(t, "san_dns a.corp tony")
	if err := rules.Add("san_dns", "A.corp", "steve"); err == nil {
		t.Error("a rule given twice is taken")
	}
}

// FuzzCertificateAgent gives a rule names of which a part is an attacker's.
func FuzzCertificateAgent(f *testing.F) {
	rules := rulesOf(f, "san_uri spiffe://corp/agents/*", "san_uri spiffe://corp/ns/*/sa/* */*", "san_dns *.agents.corp", "san_email *@agents.corp", "cn agent-*")
	f.Add("spiffe://corp/agents/tony")
	f.Add("spiffe://corp/ns/a/sa/b")
	f.Add("a@agents.corp")
	f.Add("Tony.agents.corp")
	f.Add("agent-7")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range rules {
			id, ok := r.match(text)
			if !ok {
				continue
			}
			// The name follows from the id, but for case: no two names of
			// one pattern are one agent.
			var back string
			switch r.field + r.agent {
			case SANURI:
				back = "spiffe://corp/agents/" + id
			case SANURI + "*/*":
				ns, sa, _ := strings.Cut(id, "/")
				back = "spiffe://corp/ns/" + ns + "/sa/" + sa
			case SANDNS:
				back, text = id+".agents.corp", lowerASCII(text)
			case SANEmail:
				back = id + "@agents.corp"
				text = strings.Replace(text, text[len(id):], lowerASCII(text[len(id):]), 1)
			case CommonName:
				back = "agent-" + id
			}
			if back != text {
				t.Errorf("%q is %q of %s", text, id, r.pattern)
			}
			if strings.ContainsAny(id, "%?#\\\x00*") && r.field != CommonName || !agents.ValidID(id) && len(id) < 80 {
				t.Errorf("%q is the id of an agent", id)
			}
		}
	})
}

// FuzzCertificateNames reads lists of names that nobody should write.
func FuzzCertificateNames(f *testing.F) {
	for _, names := range [][]name{{dns("a.corp"), uri("x://y")}, {email("a@b")}} {
		var template x509.Certificate
		subject(f, &template, names...)
		f.Add(template.ExtraExtensions[0].Value)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		cert := &x509.Certificate{Extensions: []pkix.Extension{{Id: oidSubjectAltName, Value: der}}}
		names, err := certificateNames(cert)
		for _, list := range names {
			for _, n := range list {
				if !strings.Contains(string(der), n) {
					t.Fatalf("%q is not in it", n)
				}
			}
		}
		if err == nil && len(names) > len(sanFields) {
			t.Fatal(names)
		}
		_ = Names(cert)
	})
}
