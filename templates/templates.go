// Package templates holds the service templates that are built in: for each
// API its base URL, the header that carries its key, its endpoints and their
// scopes, as the vendor documents them.
//
// The templates are JSON files beside this one, read by the same strict rules
// as any other (policy.ParseTemplate), and get no more trust. The package
// opens no file and speaks to no network.
package templates

import (
	"embed"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/caddyvault/caddyvault/policy"
)

//go:embed *.json
var files embed.FS

// builtin reads the embedded templates once, when the first is asked for.
var builtin = sync.OnceValue(func() map[string]*policy.Template {
	all, err := load()
	if err != nil {
		// The files are compiled in and a test reads them all, so this is a
		// broken build and not something to go on with.
		panic(err)
	}
	return all
})

func load() (map[string]*policy.Template, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("list the built-in templates: %w", err)
	}
	all := make(map[string]*policy.Template, len(entries))
	for _, entry := range entries {
		data, err := files.ReadFile(entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read the built-in template %s: %w", entry.Name(), err)
		}
		t, err := policy.ParseTemplate(data)
		if err != nil {
			return nil, fmt.Errorf("parse the built-in template %s: %w", entry.Name(), err)
		}
		if t.Name != strings.TrimSuffix(entry.Name(), ".json") {
			return nil, fmt.Errorf("the built-in template %s calls itself %s", entry.Name(), t.Name)
		}
		all[t.Name] = t
	}
	return all, nil
}

// Builtin returns the built-in templates by name, in a map of the caller's.
// The templates themselves are read-only.
func Builtin() map[string]*policy.Template { return maps.Clone(builtin()) }

// Names returns the names of the built-in templates, sorted.
func Names() []string { return slices.Sorted(maps.Keys(builtin())) }

// Get returns the built-in template of that name, if there is one.
func Get(name string) (*policy.Template, bool) {
	t, ok := builtin()[name]
	return t, ok
}
