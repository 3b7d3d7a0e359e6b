// Package imports holds which package may know which.
package imports

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/caddyvault/caddyvault"

// free are the packages that know neither Caddy nor what is above them, and
// what of this module each may import.
var free = map[string][]string{
	"/refusal":           nil,
	"/policy":            {"/refusal"},
	"/token":             {"/refusal", "/store/fsx"},
	"/store":             nil,
	"/store/fsx":         nil,
	"/store/file":        {"/store", "/store/fsx"},
	"/store/secrets":     {"/store", "/store/fsx", "/refusal"},
	"/store/revocations": {"/store"},
	"/store/storetest":   {"/store"},
	"/audit":             {"/refusal", "/store/fsx"},
	"/legacy":            {"/store/fsx", "/refusal"},
	"/templates":         {"/policy", "/refusal"},
	"/upstream/scrub":    nil,
	"/vault":             {"/policy", "/token", "/audit", "/refusal", "/store", "/store/file", "/store/fsx", "/store/secrets", "/store/revocations"},
	"/handlers":          {"/vault", "/audit", "/refusal", "/token"},
	"/bench":             nil,
	"/internal/need":     nil,
	"/integration/shell": {"/internal/need"},
	"/integration/docs":  {"/internal/need"},
	"/integration":       {"/audit", "/token", "/internal/need", "/refusal"},
	"/internal/imports":  nil,
	"/cmd/caddyvault":    nil, // knows Caddy; see below
	"/upstream":          nil,
	"/cli":               nil,
	"":                   nil,
}

// caddys are the packages that may import Caddy.
var caddys = []string{"", "/upstream", "/cli", "/cmd/caddyvault"}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, known := free[name]
		if !known {
			t.Errorf("%s: say here what it may import", p.ImportPath)
		}
		mayCaddy := slices.Contains(caddys, name)
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "github.com/caddyserver/") && !mayCaddy {
				t.Errorf("%s imports %s: only the root, upstream and the commands know Caddy", p.ImportPath, imp)
			}
			inner, ours := strings.CutPrefix(imp, module)
			if ours && !mayCaddy && !slices.Contains(allowed, inner) {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
		}
	}
}
