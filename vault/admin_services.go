package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/store"
)

// ServiceInfo is one entry of vault.admin.listServices.
type ServiceInfo struct {
	Service       string              `json:"service"`
	BaseURL       string              `json:"baseUrl"`
	SecretRef     *string             `json:"secretRef"`
	SecretByAgent map[string]string   `json:"secretByAgent,omitempty"`
	AuthHeader    *string             `json:"authHeader"`
	Auth          []policy.Auth       `json:"auth,omitempty"`
	AllowedAgents []string            `json:"allowedAgents"`
	AllowedAction []string            `json:"allowedActions"`
	AllowedScopes []string            `json:"allowedScopes"`
	AgentScopes   map[string][]string `json:"agentScopes,omitempty"`
	EndpointNames []string            `json:"endpointNames"`

	// Error says why a newer version of the service's file is not in use.
	Error string `json:"error,omitempty"`
}

// ListServices returns every service, also those whose file is broken.
func (v *Vault) ListServices() []ServiceInfo {
	all := v.services.all()
	out := make([]ServiceInfo, len(all))
	for i, svc := range all {
		out[i] = ServiceInfo{Service: svc.name, AllowedAgents: []string{}, AllowedAction: []string{}, AllowedScopes: []string{}, EndpointNames: []string{}}
		if svc.err != nil {
			out[i].Error = svc.err.Error()
		}
		c := svc.compiled
		if c == nil {
			continue
		}
		out[i].BaseURL = c.BaseURL
		if c.SecretRef != "" {
			out[i].SecretRef = &c.SecretRef
		}
		if len(c.Secrets()) > 0 && c.AuthHeader != "" {
			out[i].AuthHeader = &c.AuthHeader
		}
		out[i].SecretByAgent, out[i].Auth = c.SecretByAgent, c.Auth
		out[i].AllowedAgents = append(out[i].AllowedAgents, c.AllowedAgents...)
		out[i].AllowedAction = append(out[i].AllowedAction, c.AllowedActions...)
		out[i].AllowedScopes = append(out[i].AllowedScopes, c.AllowedScopes...)
		out[i].AgentScopes = c.AgentScopes
		out[i].EndpointNames = append(out[i].EndpointNames, c.Actions()...)
	}
	return out
}

// GetService returns a service's own JSON with its name as the first member.
func (v *Vault) GetService(ctx context.Context, name string) (jsontext.Value, *refusal.Refusal) {
	entry, refused := v.serviceEntry(ctx, name)
	if refused != nil {
		return nil, refused
	}
	if entry.Value == nil {
		return nil, unknownService(name)
	}
	quoted, err := json.Marshal(name)
	if err != nil {
		return nil, refusal.New("SERVICE_INVALID", "the name is not valid")
	}
	compact := jsontext.Value(entry.Value)
	if err := compact.Compact(); err != nil {
		return nil, refusal.New(refusal.Internal, "the service's file cannot be read").WithCause(err)
	}
	out := append([]byte(`{"service":`), quoted...)
	if len(compact) > 2 { // more than {}
		out = append(out, ',')
	}
	return append(out, compact[1:]...), nil
}

// serviceEntry returns the last good JSON of a service and its revision; an
// Entry without either if there is no such service.
func (v *Vault) serviceEntry(ctx context.Context, name string) (store.Entry, *refusal.Refusal) {
	if !policy.ValidServiceName(name) {
		return store.Entry{}, nil
	}
	entry, err := v.store.Get(ctx, store.Services+name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.Entry{}, storeRefusal(err)
	}
	return entry, nil
}

// AddService adds a service that does not exist yet. body is the service's
// JSON; secret, if not nil, is stored under its secretRef (or one made from
// the name) and bound to its origin.
func (v *Vault) AddService(ctx context.Context, name string, body jsontext.Value, secret *string, rec *audit.Record) *refusal.Refusal {
	rec.Service = name
	if refused := v.writable(); refused != nil {
		return refused
	}
	v.admins.Lock()
	defer v.admins.Unlock()
	if v.services.get(name) != nil {
		return refusal.New("SERVICE_ALREADY_EXISTS", "there is a service %q already", clip(name)).
			WithHint("change it with vault.admin.updateService")
	}
	if secret != nil {
		var err error
		var has struct {
			SecretRef string `json:"secretRef"`
		}
		_ = json.Unmarshal(body, &has)
		if has.SecretRef == "" {
			patch, _ := json.Marshal(map[string]string{"secretRef": name + "_secret"})
			if body, err = mergePatch(body, patch); err != nil {
				return asRefusal(err)
			}
		}
	}
	return v.putService(ctx, name, body, 0, secret, rec)
}

// UpdateService merges a patch into a service.
func (v *Vault) UpdateService(ctx context.Context, name string, patch jsontext.Value, rec *audit.Record) *refusal.Refusal {
	rec.Service = name
	if refused := v.writable(); refused != nil {
		return refused
	}
	v.admins.Lock()
	defer v.admins.Unlock()
	svc := v.services.get(name)
	if svc == nil {
		return unknownService(name)
	}
	entry, refused := v.serviceEntry(ctx, name)
	if refused != nil {
		return refused
	}
	if entry.Value == nil {
		return refusal.New("SERVICE_INVALID", "the file of service %q is not valid: %s", name, svc.err).
			WithHint("mend the file, or remove the service and add it anew")
	}
	merged, err := mergePatch(entry.Value, patch)
	if err != nil {
		return asRefusal(err)
	}
	return v.putService(ctx, name, merged, entry.Rev, nil, rec)
}

// putService validates a service, binds its secret to its origin, writes it,
// and puts it into force.
func (v *Vault) putService(ctx context.Context, name string, body jsontext.Value, ifRev store.Rev, secret *string, rec *audit.Record) *refusal.Refusal {
	compiled, err := v.services.compile.parse(name, body)
	if err != nil {
		return asRefusal(err)
	}
	if v.CheckService != nil {
		if refused := v.CheckService(ctx, compiled); refused != nil {
			return refused
		}
	}
	rec.SecretRef = strings.Join(compiled.SecretRefs(), ",")
	if secret != nil {
		if compiled.SecretRef == "" {
			return refusal.New("SECRETREF_REQUIRED", "a secret is given, and the service has no secretRef to store it under").
				WithHint("store the secrets that auth and secretByAgent name with vault.admin.addSecret")
		}
		if refused := checkSecret(*secret, compiled.UsesFor(compiled.SecretRef)); refused != nil {
			return refused
		}
		if refused := v.setSecret(ctx, compiled.SecretRef, *secret, []string{compiled.Origin}); refused != nil {
			return refused
		}
	}
	for _, ref := range compiled.SecretRefs() {
		if s, ok := v.secrets.Get(ref); ok && !s.AllowsOrigin(compiled.Origin) {
			// The administrator says so: that is what binds a secret anew.
			if err := v.secrets.Bind(ctx, ref, compiled.Origin); err != nil {
				return storeRefusal(err)
			}
		}
	}

	pretty := slices.Clone(body)
	if err := pretty.Indent(jsontext.WithIndent("  ")); err != nil {
		return asRefusal(err)
	}
	pretty = append(pretty, '\n')
	key := store.Services + name
	v.services.writing.Lock()
	v.services.compile.keep(name, compilation{sha256.Sum256(pretty), compiled})
	rev, err := v.store.Put(ctx, key, pretty, ifRev, noExpiry)
	if err == nil {
		v.services.apply(store.Event{Type: store.Put, Entry: store.Entry{Key: key, Value: pretty, Rev: rev}})
	}
	v.services.writing.Unlock()
	switch {
	case errors.Is(err, store.ErrConflict):
		return refusal.New("SERVICE_ALREADY_EXISTS", "the service %q was changed meanwhile", name).WithHint("look at it and try again")
	case err != nil:
		return storeRefusal(err)
	}
	return nil
}

// RemoveService removes a service, and its secret unless another service
// refers to it.
func (v *Vault) RemoveService(ctx context.Context, name string, rec *audit.Record) *refusal.Refusal {
	rec.Service = name
	if refused := v.writable(); refused != nil {
		return refused
	}
	v.admins.Lock()
	defer v.admins.Unlock()
	svc := v.services.get(name)
	if svc == nil {
		return unknownService(name)
	}
	key := store.Services + name
	v.services.writing.Lock()
	rev, err := v.store.Delete(ctx, key, store.AnyRev)
	if err == nil {
		v.services.apply(store.Event{Type: store.Delete, Entry: store.Entry{Key: key, Rev: rev}})
	}
	v.services.writing.Unlock()
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return storeRefusal(err)
	}
	if svc.compiled == nil {
		return nil
	}
	refs := svc.compiled.SecretRefs()
	rec.SecretRef = strings.Join(refs, ",")
	for _, ref := range refs {
		if _, ok := v.secrets.Get(ref); !ok || len(v.usedBy(ref)) > 0 {
			continue
		}
		if refused := v.removeSecret(ctx, ref); refused != nil {
			return refused
		}
	}
	return nil
}

// ListTemplates returns the names of the templates.
func (v *Vault) ListTemplates() ([]string, *refusal.Refusal) {
	names, err := v.TemplateNames()
	if err != nil {
		return nil, refusal.New(refusal.Internal, "the templates could not be read").WithCause(err)
	}
	return names, nil
}

// TemplateRequest asks for a service made from a template.
type TemplateRequest struct {
	Template      string
	MasterSecret  *string
	AllowedAgents []string
	Variables     map[string]string
}

// LoadTemplate makes a service from a template, or merges the template into
// the service of that name. It returns the service's name and whether its
// secret is stored.
func (v *Vault) LoadTemplate(ctx context.Context, req TemplateRequest, rec *audit.Record) (name string, secretConfigured bool, _ *refusal.Refusal) {
	rec.Template = req.Template
	if refused := v.writable(); refused != nil {
		return "", false, refused
	}
	tmpl, err := v.Templates(req.Template)
	if err != nil {
		return "", false, asRefusal(err)
	}
	if tmpl == nil {
		return "", false, refusal.New("UNKNOWN_TEMPLATE", "there is no template %q", clip(req.Template)).
			WithHint("vault.admin.listTemplates names them")
	}
	rec.Service = tmpl.Name
	body, err := tmpl.Instantiate(req.Variables)
	if err != nil {
		return "", false, asRefusal(err)
	}
	if len(req.AllowedAgents) > 0 {
		agents, err := json.Marshal(map[string][]string{"allowedAgents": req.AllowedAgents})
		if err != nil {
			return "", false, asRefusal(err)
		}
		if body, err = mergePatch(body, agents); err != nil {
			return "", false, asRefusal(err)
		}
	}

	v.admins.Lock()
	defer v.admins.Unlock()
	entry, refused := v.serviceEntry(ctx, tmpl.Name)
	if refused != nil {
		return "", false, refused
	}
	if entry.Value != nil {
		if body, err = mergePatch(entry.Value, body); err != nil {
			return "", false, asRefusal(err)
		}
	}
	if refused := v.putService(ctx, tmpl.Name, body, entry.Rev, req.MasterSecret, rec); refused != nil {
		return "", false, refused
	}
	secretConfigured = true
	for _, ref := range v.Policy(tmpl.Name).SecretRefs() {
		_, stored := v.secrets.Get(ref)
		secretConfigured = secretConfigured && stored
	}
	return tmpl.Name, secretConfigured, nil
}

// mergePatch is policy.MergePatch for JSON values.
func mergePatch(base, patch []byte) (jsontext.Value, error) {
	merged, err := policy.MergePatch(base, patch)
	return jsontext.Value(merged), err
}

// asRefusal returns err as the refusal it is, or as JSON_INVALID.
func asRefusal(err error) *refusal.Refusal {
	if r, ok := errors.AsType[*refusal.Refusal](err); ok {
		return r
	}
	return refusal.New("JSON_INVALID", "the request could not be understood").WithCause(err)
}
