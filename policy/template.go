package policy

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/refusal"
)

// Template is a service file with blanks, and what a person needs to know to
// fill them. It is read-only.
type Template struct {
	// Name of the template, and of the service it makes. Required.
	Name string `json:"name,omitzero"`

	// DisplayName is the vendor's own spelling of it. Default: the name.
	DisplayName string `json:"displayName,omitzero"`

	// Description says in a sentence what the service gives access to.
	Description string `json:"description,omitzero"`

	// SecretHint says where a person finds the key. The older field
	// secretEnvHint is read as this one.
	SecretHint string `json:"secretHint,omitzero"`

	// DefaultScopes are the service's allowedScopes if the template has
	// none. Default: every scope that an endpoint requires.
	DefaultScopes []string `json:"defaultScopes,omitzero"`

	// DefaultAllowedAgents are the service's allowedAgents if the template
	// has none. Default: "*", every agent that may use the vault at all.
	DefaultAllowedAgents []string `json:"defaultAllowedAgents,omitzero"`

	// Variables are the blanks {name} of baseUrl.
	Variables map[string]Variable `json:"variables,omitzero"`

	// SecretRef is the name of the secret, as in a service. Default: the
	// template's name.
	SecretRef string `json:"-"`

	service []member // the rest: a service file
	baseURL string
}

// Variable is a blank in a template's baseUrl.
type Variable struct {
	// Description says what the value is.
	Description string `json:"description,omitzero"`

	// Example is a value as it might be.
	Example string `json:"example,omitzero"`

	// Default is the value if none is given. Default: none, and then one
	// must be given.
	Default string `json:"default,omitzero"`
}

// templateFields are the fields that a template has and a service has not.
var templateFields = []string{
	"name", "displayName", "description", "secretHint", "secretEnvHint", "defaultScopes", "defaultAllowedAgents", "variables",
}

// ParseTemplate reads and validates a template, by the rules of a service
// file. The error is a *refusal.Refusal.
func ParseTemplate(data []byte) (*Template, error) {
	// The members are kept, and the caller may go on using data.
	members, err := readObject(bytes.Clone(data))
	if err != nil {
		return nil, jsonRefusal("the template", err)
	}
	t := &Template{}
	if r := t.read(dropComments(members)); r != nil {
		return nil, r
	}
	// What can go wrong with the endpoints should go wrong here, not when a
	// person has found the key and filled the blanks.
	vars := map[string]string{}
	for name, v := range t.Variables {
		if vars[name] = v.Example; v.Example == "" {
			vars[name] = "example"
		}
	}
	if _, err := t.Instantiate(vars); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Template) read(members []member) *refusal.Refusal {
	var own []member
	for _, m := range members {
		switch {
		case m.name == "secretEnvHint":
			if slices.ContainsFunc(members, func(o member) bool { return o.name == "secretHint" }) {
				continue
			}
			own = append(own, member{"secretHint", m.raw})
		case slices.Contains(templateFields, m.name):
			if m.name == "variables" {
				m.raw = cleanObject(m.raw, func(_ string, v jsontext.Value) jsontext.Value { return cleanObject(v, nil) })
			}
			own = append(own, m)
		default:
			t.service = append(t.service, m)
		}
	}
	if err := json.Unmarshal(writeObject(own), t, json.RejectUnknownMembers(true)); err != nil {
		return fieldRefusal(err)
	}
	if t.Name == "" {
		return refusal.New("NAME_REQUIRED", "the template has no name")
	}
	if !ValidServiceName(t.Name) {
		return invalid("name", "the template's name cannot name a service")
	}
	if t.DisplayName == "" {
		t.DisplayName = t.Name
	}
	svc, r := decodeService(t.Name, writeObject(t.service))
	if r != nil {
		return r
	}
	t.baseURL = svc.BaseURL
	if t.SecretRef = svc.SecretRef; t.SecretRef == "" {
		t.SecretRef = t.Name
	}
	t.fillDefaults(svc)
	return t.checkVariables()
}

// fillDefaults gives the service what a template says once for all.
func (t *Template) fillDefaults(svc *Service) {
	if t.DefaultScopes == nil {
		seen := map[string]struct{}{}
		for _, e := range svc.Endpoints {
			for _, s := range e.RequiredScope {
				seen[s] = struct{}{}
			}
		}
		t.DefaultScopes = slices.Sorted(maps.Keys(seen))
	}
	if t.DefaultAllowedAgents == nil {
		t.DefaultAllowedAgents = []string{wildcard}
	}
	t.setDefault(svc.SecretRef == "", "secretRef", t.SecretRef)
	t.setDefault(svc.AllowedAgents == nil, "allowedAgents", t.DefaultAllowedAgents)
	t.setDefault(svc.AllowedActions == nil, "allowedActions", []string{wildcard})
	t.setDefault(svc.AllowedScopes == nil, "allowedScopes", t.DefaultScopes)
}

func (t *Template) setDefault(absent bool, name string, value any) {
	if !absent {
		return
	}
	raw, _ := json.Marshal(value) // strings and slices of them always encode
	t.service = slices.DeleteFunc(t.service, func(m member) bool { return m.name == name })
	t.service = append(t.service, member{name, raw})
}

// checkVariables holds the variables and the blanks of baseUrl to each other.
func (t *Template) checkVariables() *refusal.Refusal {
	used := t.blanks()
	for _, name := range used {
		if _, ok := t.Variables[name]; !ok {
			return invalid("variables", "baseUrl has the blank {%s}, which variables does not describe", shown(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Variables)) {
		if !validParamName(name) {
			return invalid("variables", "a variable's name is not letters, digits, _ and -: %s", shown(name))
		}
		if !slices.Contains(used, name) {
			return invalid("variables", "the variable %s is not in baseUrl", name)
		}
	}
	return nil
}

// blanks returns the names in braces in baseUrl, in order, each once.
func (t *Template) blanks() []string {
	var names []string
	rest := t.baseURL
	for {
		_, after, ok := strings.Cut(rest, "{")
		name, next, closed := strings.Cut(after, "}")
		if !ok || !closed {
			return names
		}
		if !slices.Contains(names, name) && !isSecretBlank(name) {
			names = append(names, name)
		}
		rest = next
	}
}

// isSecretBlank says whether a blank is the place of the secret.
func isSecretBlank(name string) bool { return name == "secret" || strings.HasPrefix(name, "secret:") }

// Instantiate fills the template's blanks and returns the JSON of a service
// file, which ParseService accepts. The error is a *refusal.Refusal:
// VARIABLES_REQUIRED:name, VARIABLES_INVALID:name, FIELD_UNKNOWN:name.
//
// A value is one label of a host name, or, where the template leaves the
// whole host open, a host name; it can add neither a port nor a path, and
// what the template itself says of the host stays its end.
func (t *Template) Instantiate(vars map[string]string) ([]byte, error) {
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if _, ok := t.Variables[name]; !ok {
			return nil, refusal.New("FIELD_UNKNOWN:"+safeName(name), "the template %s has no variable %s", t.Name, shown(name)).
				WithHint("variables of the template: %s", listed(slices.Sorted(maps.Keys(t.Variables))))
		}
	}
	base, r := t.fill(vars)
	if r != nil {
		return nil, r
	}
	service := slices.Clone(t.service)
	for i, m := range service {
		if m.name == "baseUrl" {
			raw, _ := json.Marshal(base) // base is ASCII
			service[i].raw = raw
		}
	}
	out := writeObject(service)
	if err := out.Indent(jsontext.WithIndent("  ")); err != nil {
		return nil, jsonRefusal("the template", err)
	}
	if _, err := ParseService(t.Name, out); err != nil {
		return nil, err
	}
	return append(bytes.TrimSpace(out), '\n'), nil
}

// fill returns baseUrl with its blanks filled.
func (t *Template) fill(vars map[string]string) (string, *refusal.Refusal) {
	base := t.baseURL
	for _, name := range t.blanks() {
		v := t.Variables[name]
		value := vars[name]
		if value == "" {
			value = v.Default
		}
		if value == "" {
			return "", refusal.New("VARIABLES_REQUIRED:"+safeName(name), "the template %s needs the variable %s: %s", t.Name, name, v.Description).
				WithHint(`give it as "variables":{"%s":"%s"}`, name, v.Example)
		}
		if !validVariable(value, t.wholeHost(name)) {
			return "", refusal.New("VARIABLES_INVALID:"+safeName(name), "the value of the variable %s is not letters, digits and inner hyphens: %s", name, v.Description).
				WithHint("a value looks like %s", v.Example)
		}
		base = strings.ReplaceAll(base, "{"+name+"}", value)
	}
	marked := &Compiled{Service: Service{BaseURL: base}}
	url, err := marked.markPath()
	if err != nil {
		return "", refusal.New("BASEURL_INVALID", "baseUrl %s", err)
	}
	u, r := parseBaseURL(url, true)
	if r != nil {
		return "", r
	}
	// The end of the host, behind the last blank, is the template's word.
	if host := t.fixedHostEnd(); host != "" {
		if got := u.Hostname(); !strings.HasSuffix(got, strings.ToLower(host)) {
			return "", refusal.New("BASEURL_INVALID", "the host is not under %s, as the template says", host)
		}
	}
	return base, nil
}

// host returns the template's baseUrl between "://" and the path.
func (t *Template) host() string {
	_, rest, _ := strings.Cut(t.baseURL, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

func (t *Template) wholeHost(name string) bool { return t.host() == "{"+name+"}" }

// fixedHostEnd returns what stands behind the last blank of the host, without
// a port.
func (t *Template) fixedHostEnd() string {
	host := t.host()
	if i := strings.LastIndexByte(host, '}'); i >= 0 {
		host = host[i+1:]
	}
	host, _, _ = strings.Cut(host, ":")
	return host
}

// validVariable says whether a value can stand in a host name.
func validVariable(value string, wholeHost bool) bool {
	if wholeHost {
		host, addr, err := canonicalHost(value)
		return err == nil && host == value && !addr.IsValid()
	}
	return validLabel(strings.ToLower(value)) && !strings.Contains(value, "_")
}
