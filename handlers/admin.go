package handlers

import (
	"context"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/vault"
)

// adminRoute does one admin call and returns its answer. What it changed is
// recorded by asAdmin.
type adminRoute func(rq *request, body []byte) (answer any, _ *refusal.Refusal)

// adminRoutes are the calls of vault.admin.* by name (wire.md).
var adminRoutes = map[string]adminRoute{
	"listTemplates":   listTemplates,
	"loadTemplate":    loadTemplate,
	"addService":      addService,
	"updateService":   updateService,
	"removeService":   removeService,
	"listServices":    listServices,
	"getService":      getService,
	"addSecret":       addSecret,
	"removeSecret":    removeSecret,
	"listSecrets":     listSecrets,
	"listRevocations": listRevocations,
	"addAgent":        addAgent,
	"updateAgent":     updateAgent,
	"rotateAgentKey":  rotateAgentKey,
	"disableAgent":    disableAgent,
	"removeAgent":     removeAgent,
	"listAgents":      listAgents,
	"unrevoke":        unrevoke,

	"listSigningKeys":  listSigningKeys,
	"rotateSigningKey": rotateSigningKey,
	"retireSigningKey": retireSigningKey,
}

// asAdmin records the call before it is answered.
func asAdmin(name string, h adminRoute) func(*request, []byte) *refusal.Refusal {
	return func(rq *request, body []byte) *refusal.Refusal {
		// A change that has begun is finished and recorded, though whoever
		// asked for it may be gone.
		rq.Request = rq.WithContext(context.WithoutCancel(rq.Context()))
		answer, refused := h(rq, body)
		if refused != nil {
			return refused
		}
		rq.record.Event = "admin." + name
		rq.record.Client = rq.clientText()
		if refused := rq.vault.RecordAdmin(rq.Context(), rq.record); refused != nil {
			return refused
		}
		return rq.answer(answer)
	}
}

type okService struct {
	OK      bool   `json:"ok"`
	Service string `json:"service"`
}

type okSecret struct {
	OK        bool   `json:"ok"`
	SecretRef string `json:"secretRef"`
	Warning   string `json:"warning,omitempty"`
}

// empty decodes the body of a call that takes no fields.
func empty(body []byte) *refusal.Refusal { return decode(body, &struct{}{}, true) }

func listTemplates(rq *request, body []byte) (any, *refusal.Refusal) {
	if refused := empty(body); refused != nil {
		return nil, refused
	}
	names, refused := rq.vault.ListTemplates()
	if refused != nil {
		return nil, refused
	}
	rq.count(len(names))
	return struct {
		Templates []string `json:"templates"`
	}{names}, nil
}

func (rq *request) count(n int) { rq.record.Count = &n }

func loadTemplate(rq *request, body []byte) (any, *refusal.Refusal) {
	var in struct {
		Template      string            `json:"template"`
		MasterSecret  *string           `json:"masterSecret"`
		AllowedAgents []string          `json:"allowedAgents"`
		Variables     map[string]string `json:"variables"`
	}
	if refused := decode(body, &in, true); refused != nil {
		return nil, refused
	}
	name := strings.ToLower(strings.TrimSpace(in.Template))
	if name == "" {
		return nil, refusal.New("TEMPLATE_REQUIRED", "name the template in the field template")
	}
	service, configured, refused := rq.vault.LoadTemplate(rq.Context(), vault.TemplateRequest{
		Template:      name,
		MasterSecret:  in.MasterSecret,
		AllowedAgents: in.AllowedAgents,
		Variables:     in.Variables,
	}, &rq.record)
	if refused != nil {
		return nil, refused
	}
	return struct {
		OK               bool   `json:"ok"`
		Service          string `json:"service"`
		Template         string `json:"template"`
		SecretConfigured bool   `json:"secretConfigured"`
	}{true, service, name, configured}, nil
}

func addService(rq *request, body []byte) (any, *refusal.Refusal) {
	taken, rest, refused := take(body, "service", "masterSecret")
	if refused != nil {
		return nil, refused
	}
	name, refused := requiredField(taken, "service")
	if refused != nil {
		return nil, refused
	}
	secret, refused := stringField(taken, "masterSecret")
	if refused != nil {
		return nil, refused
	}
	// A service file may leave these out or empty, which lets nobody in; who
	// adds a service by hand hardly means that.
	var lists map[string]jsontext.Value
	if refused := decode(rest, &lists, false); refused != nil {
		return nil, refused
	}
	for _, field := range [...]string{"allowedAgents", "allowedActions", "allowedScopes"} {
		if v := lists[field]; v == nil || v.Kind() == 'n' || string(v) == "[]" {
			rq.record.Service = name
			return nil, refusal.New(strings.ToUpper(field)+"_REQUIRED", "the field %q is missing or empty", field)
		}
	}
	if refused := rq.vault.AddService(rq.Context(), name, rest, secret, &rq.record); refused != nil {
		return nil, refused
	}
	return okService{true, name}, nil
}

func updateService(rq *request, body []byte) (any, *refusal.Refusal) {
	taken, rest, refused := take(body, "service", "masterSecret", "secret")
	if refused != nil {
		return nil, refused
	}
	for _, field := range [...]string{"masterSecret", "secret"} {
		if taken[field] != nil {
			return nil, refusal.New("FIELD_NOT_ALLOWED:"+field, "a secret is not part of a service").
				WithHint("store it with vault.admin.addSecret")
		}
	}
	name, refused := requiredField(taken, "service")
	if refused != nil {
		return nil, refused
	}
	if refused := rq.vault.UpdateService(rq.Context(), name, rest, &rq.record); refused != nil {
		return nil, refused
	}
	return okService{true, name}, nil
}

// serviceName decodes the body of a call that takes the name of a service.
func serviceName(rq *request, body []byte) (string, *refusal.Refusal) {
	taken, refused := only(body, "service")
	if refused != nil {
		return "", refused
	}
	name, refused := requiredField(taken, "service")
	rq.record.Service = name
	return name, refused
}

// only is take for a body that has no other members.
func only(body []byte, names ...string) (map[string]jsontext.Value, *refusal.Refusal) {
	taken, rest, refused := take(body, names...)
	if refused != nil {
		return nil, refused
	}
	return taken, decode(rest, &struct{}{}, true)
}

func removeService(rq *request, body []byte) (any, *refusal.Refusal) {
	name, refused := serviceName(rq, body)
	if refused != nil {
		return nil, refused
	}
	if refused := rq.vault.RemoveService(rq.Context(), name, &rq.record); refused != nil {
		return nil, refused
	}
	return okService{true, name}, nil
}

func listServices(rq *request, body []byte) (any, *refusal.Refusal) {
	if refused := empty(body); refused != nil {
		return nil, refused
	}
	list := rq.vault.ListServices()
	rq.count(len(list))
	return struct {
		Services []vault.ServiceInfo `json:"services"`
	}{list}, nil
}

func getService(rq *request, body []byte) (any, *refusal.Refusal) {
	name, refused := serviceName(rq, body)
	if refused != nil {
		return nil, refused
	}
	return rq.vault.GetService(rq.Context(), name)
}

func addSecret(rq *request, body []byte) (any, *refusal.Refusal) {
	taken, refused := only(body, "secretRef", "secret")
	if refused != nil {
		return nil, refused
	}
	ref, refused := requiredField(taken, "secretRef")
	if refused != nil {
		return nil, refused
	}
	rq.record.SecretRef = ref
	secret, refused := requiredField(taken, "secret")
	if refused != nil {
		return nil, refused
	}
	if refused := rq.vault.AddSecret(rq.Context(), ref, secret, &rq.record); refused != nil {
		return nil, refused
	}
	return okSecret{OK: true, SecretRef: ref, Warning: rq.vault.SecretWarning(ref)}, nil
}

func removeSecret(rq *request, body []byte) (any, *refusal.Refusal) {
	taken, refused := only(body, "secretRef")
	if refused != nil {
		return nil, refused
	}
	ref, refused := requiredField(taken, "secretRef")
	if refused != nil {
		return nil, refused
	}
	if refused := rq.vault.RemoveSecret(rq.Context(), ref, &rq.record); refused != nil {
		return nil, refused
	}
	return okSecret{OK: true, SecretRef: ref}, nil
}

func listSecrets(rq *request, body []byte) (any, *refusal.Refusal) {
	if refused := empty(body); refused != nil {
		return nil, refused
	}
	list := rq.vault.ListSecrets()
	rq.count(len(list))
	return struct {
		Secrets []vault.SecretInfo `json:"secrets"`
	}{list}, nil
}

func listRevocations(rq *request, body []byte) (any, *refusal.Refusal) {
	if refused := empty(body); refused != nil {
		return nil, refused
	}
	list, refused := rq.vault.ListRevocations(rq.Context())
	if refused != nil {
		return nil, refused
	}
	rq.count(len(list))
	return struct {
		Revocations []vault.RevocationInfo `json:"revocations"`
	}{list}, nil
}

func unrevoke(rq *request, body []byte) (any, *refusal.Refusal) {
	var in struct {
		vault.RevokeTargets
		Owner string `json:"owner"`
	}
	if refused := decode(body, &in, true); refused != nil {
		return nil, refused
	}
	if refused := rq.vault.Unrevoke(rq.Context(), in.RevokeTargets, in.Owner, &rq.record); refused != nil {
		return nil, refused
	}
	return struct {
		OK bool `json:"ok"`
	}{true}, nil
}
