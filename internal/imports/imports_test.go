// Package imports holds which package may know which.
package imports

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/caddyvault/caddyvault"

// free are the packages that know neither Caddy nor what is above them, and
// what of this module each may import.
var free = map[string][]string{
	"/refusal":                nil,
	"/policy":                 {"/refusal", "/internal/plainjson"},
	"/agents":                 {"/policy"},
	"/identity":               {"/agents", "/policy", "/refusal", "/token/strict"},
	"/token":                  {"/refusal", "/store/fsx", "/token/strict"},
	"/token/strict":           nil,
	"/store":                  nil,
	"/store/fsx":              nil,
	"/store/file":             {"/store", "/store/fsx"},
	"/store/secrets":          {"/store", "/store/fsx", "/refusal"},
	"/store/revocations":      {"/store"},
	"/store/storetest":        {"/store"},
	"/audit/ordercheck":       nil,
	"/audit":                  {"/refusal", "/store/fsx"},
	"/legacy":                 {"/store/fsx", "/refusal"},
	"/templates":              {"/policy", "/refusal"},
	"/upstream/scrub":         nil,
	"/vault":                  {"/policy", "/agents", "/token", "/audit", "/refusal", "/store", "/store/file", "/store/fsx", "/store/secrets", "/store/revocations"},
	"/handlers":               {"/vault", "/agents", "/identity", "/policy", "/audit", "/refusal", "/token", "/internal/plainjson"},
	"/bench":                  {"/store/file", "/store/revocations"}, // and drives a binary
	"/internal/need":          nil,
	"/internal/plainjson":     nil,
	"/integration/shell":      nil,
	"/integration/docs":       nil, // these are tests, and what they drive is a binary
	"/integration":            nil,
	"/integration/durability": nil,
	"/integration/node":       nil,
	"/internal/imports":       nil,
	"/cmd/caddyvault":         nil, // knows Caddy; see below
	"/upstream":               nil,
	"/cli":                    nil,
	"":                        nil,
}

// caddys are the packages that may import Caddy.
var caddys = []string{"", "/upstream", "/cli", "/cmd/caddyvault"}

// TestImports reads the sources itself, as go list would: what a test opens,
// go test's cache knows of, and what a command it runs opens, it does not.
func TestImports(t *testing.T) {
	const root = "../.."
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		name := strings.TrimSuffix("/"+filepath.ToSlash(dir), "/.")
		allowed, known := free[name]
		if !known && !seen[name] {
			t.Errorf("%s: say here what it may import", name)
		}
		seen[name] = true
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		mayCaddy := slices.Contains(caddys, name)
		for _, spec := range file.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if strings.HasPrefix(imp, "github.com/caddyserver/") && !mayCaddy {
				t.Errorf("%s imports %s: only the root, upstream and the commands know Caddy", path, imp)
			}
			inner, ours := strings.CutPrefix(imp, module)
			if ours && !mayCaddy && !slices.Contains(allowed, inner) {
				t.Errorf("%s imports %s", path, imp)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range free {
		if !seen[name] {
			t.Errorf("%s is listed here and does not exist", name)
		}
	}
}
