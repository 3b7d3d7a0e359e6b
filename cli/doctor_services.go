package cli

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/store"
	"github.com/caddyvault/caddyvault/store/fsx"
	"github.com/caddyvault/caddyvault/upstream"
)

// storedSecrets returns the names of the stored secrets, nil if they are not
// known. The values are neither needed nor decrypted, so that this works
// beside a running vault.
func storedSecrets(r *report, dataDir string) map[string]bool {
	path := filepath.Join(dataDir, "secrets.enc")
	b, err := fsx.ReadPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]bool{}
	}
	if err != nil {
		if !errors.Is(err, fsx.ErrInsecure) { // that has been said
			r.problem("%s", err)
		}
		return nil
	}
	names, err := sealedNames(b)
	if err != nil {
		r.problem("%s: %s", path, err)
		return nil
	}
	return names
}

// sealedNames reads the names in secrets.enc.
func sealedNames(b []byte) (map[string]bool, error) {
	var doc struct {
		Entries map[string]jsontext.Value `json:"entries"`
	}
	if err := json.Unmarshal(b, &doc); err != nil || doc.Entries == nil {
		return nil, errors.New("it is damaged, or of another version")
	}
	names := map[string]bool{}
	for key := range doc.Entries {
		if ref, ok := strings.CutPrefix(key, store.Secrets); ok {
			names[ref] = true
		}
	}
	return names, nil
}

// checkServices looks at the service files. secrets are the names of the
// stored secrets, nil if they are not known.
func checkServices(r *report, dir string, secrets map[string]bool) {
	fi, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.warn("the services directory %s does not exist yet", dir)
		return
	case err != nil:
		r.problem("services directory: %s", err)
		return
	}
	d, err := fsx.OpenDir(dir)
	if err != nil {
		r.problem("services directory: %s", err)
		return
	}
	defer d.Close()
	if err := fsx.CheckUnwritable(dir, fi); err != nil {
		r.problem("services directory: %s", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.problem("services directory: %s", err)
		return
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		b, _, err := d.ReadRegular(e.Name(), maxInput)
		if err != nil {
			r.problem("service %s: %s", name, err)
			continue
		}
		svc, err := upstream.ParseService(name, b)
		if err != nil {
			if cause := store.Cause(err); cause != nil {
				r.problem("service %s: %s: %s", name, err, cause)
				continue
			}
			r.problem("service %s: %s", name, err)
			continue
		}
		r.clean("service "+name, func() { checkService(r, svc, secrets) })
	}
}

func checkService(r *report, svc *policy.Compiled, secrets map[string]bool) {
	if slices.Contains(svc.AllowedAgents, "*") {
		r.warn("service %s: every agent may use it (allowedAgents *)", svc.Name)
	}
	if slices.Contains(svc.AllowedActions, "*") {
		r.warn("service %s: every endpoint may be called (allowedActions *)", svc.Name)
	}
	if svc.Base.Scheme == "http" && !isLoopback(svc.Base.Hostname()) {
		r.problem("service %s: its secret travels to %s unencrypted", svc.Name, svc.Origin)
	}
	if svc.Scrub == "off" {
		r.warn("service %s: its secret is not taken out of answers (scrub off)", svc.Name)
	}
	for _, ref := range svc.SecretRefs() {
		if secrets != nil && !secrets[ref] {
			r.warn("service %s: its secret %s is not stored; run: caddyvault vault secrets set %s", svc.Name, ref, ref)
		}
	}
	for _, agent := range slices.Sorted(maps.Keys(svc.SecretByAgent)) {
		if !slices.Contains(svc.AllowedAgents, agent) && !slices.Contains(svc.AllowedAgents, "*") {
			r.warn("service %s: secretByAgent names %s, which is not in allowedAgents", svc.Name, agent)
		}
	}
	for _, agent := range slices.Sorted(maps.Keys(svc.AgentScopes)) {
		if strings.HasPrefix(agent, "group:") || slices.ContainsFunc(svc.AllowedAgents, func(a string) bool { return strings.HasPrefix(a, "group:") }) {
			continue // who is in a group is not known here
		}
		if !slices.Contains(svc.AllowedAgents, agent) && !slices.Contains(svc.AllowedAgents, "*") {
			r.warn("service %s: agentScopes names %s, which is not in allowedAgents", svc.Name, agent)
		}
	}
}
