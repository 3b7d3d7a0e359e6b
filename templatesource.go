package caddyvault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/templates"
)

// templateName is what a template's file may be called, less ".json". It keeps
// a name from a request from leading anywhere else.
var templateName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// maxTemplate is the largest template file, in bytes.
const maxTemplate = 1 << 20

// template returns the template of a name: the one in templates_dir, else the
// built-in one, else nil. Administrators ask for one now and then; it is read
// anew each time.
func (a *App) template(name string) (*policy.Template, error) {
	if !templateName.MatchString(name) {
		return nil, nil
	}
	if a.TemplatesDir != "" {
		t, err := a.readTemplate(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return t, err
		}
	}
	t, ok := templates.Get(name)
	if !ok {
		return nil, nil
	}
	return t, nil
}

func (a *App) readTemplate(name string) (*policy.Template, error) {
	root, err := os.OpenRoot(a.TemplatesDir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(name + ".json")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxTemplate+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxTemplate {
		return nil, fmt.Errorf("template %s is larger than %d bytes", name, maxTemplate)
	}
	return policy.ParseTemplate(data)
}

// templateNames returns the names of all templates, in order.
func (a *App) templateNames() ([]string, error) {
	names := make(map[string]bool)
	for _, name := range templates.Names() {
		names[name] = true
	}
	if a.TemplatesDir != "" {
		entries, err := os.ReadDir(a.TemplatesDir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && templateName.MatchString(name) {
				names[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}
