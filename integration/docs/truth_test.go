package docs

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault"
	"github.com/caddyvault/caddyvault/policy"
)

func page(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestSettings sees that every setting of the app is on the page about them,
// and in the syntax that the README shows.
func TestSettings(t *testing.T) {
	settings := page(t, "docs/configuration.md")
	readme := page(t, "README.md")
	names := jsonNames(reflect.TypeFor[caddyvault.App]())
	if len(names) < 12 {
		t.Fatalf("the app has the settings %q", names)
	}
	for _, name := range names {
		if !strings.Contains(settings, "`"+name) {
			t.Errorf("docs/configuration.md has no %s", name)
		}
		if !regexp.MustCompile(`(?m)^ +` + name + ` `).MatchString(readme) {
			t.Errorf("README.md has no %s", name)
		}
	}
	for _, name := range jsonNames(reflect.TypeFor[caddyvault.Agents]()) {
		if !strings.Contains(settings, "`agents."+name+"`") {
			t.Errorf("docs/configuration.md has no agents.%s", name)
		}
	}
	for _, name := range jsonNames(reflect.TypeFor[caddyvault.Audit]()) {
		if !strings.Contains(settings, "`audit."+name+"`") {
			t.Errorf("docs/configuration.md has no audit.%s", name)
		}
	}
}

// TestServiceFields does the same for what a service file may say.
func TestServiceFields(t *testing.T) {
	services := page(t, "docs/services.md")
	for _, of := range []reflect.Type{
		reflect.TypeFor[policy.Service](), reflect.TypeFor[policy.Endpoint](),
		reflect.TypeFor[policy.Timeouts](), reflect.TypeFor[policy.Auth](), reflect.TypeFor[policy.Template](),
	} {
		for _, name := range jsonNames(of) {
			if !strings.Contains(services, "`"+name+"`") && !strings.Contains(services, `"`+name+`"`) {
				t.Errorf("docs/services.md has no %s", name)
			}
		}
	}
}

func jsonNames(of reflect.Type) (names []string) {
	for f := range of.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// TestServiceExamples reads every service that a page shows.
func TestServiceExamples(t *testing.T) {
	read := 0
	for _, path := range pages(t) {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // TestLinksAndCaddyfiles says so
		}
		for _, m := range block.FindAllSubmatch(b, -1) {
			if string(m[2]) != "json" || !bytes.Contains(m[3], []byte(`"endpoints"`)) {
				continue
			}
			read++
			if _, err := policy.ParseService("example", m[3]); err != nil {
				t.Errorf("%s: %v\n%s", path, err, m[3])
			}
		}
	}
	if read < 2 {
		t.Errorf("only %d services were found", read)
	}
}

// TestCodes sees that the page of the HTTP API has every code a refusal can
// carry, and no other.
func TestCodes(t *testing.T) {
	api := page(t, "docs/http-api.md")
	made := regexp.MustCompile(`(?:refusal\.New\(|refusal\.Refusal\{Code: )"([A-Z_]+)`)
	named := regexp.MustCompile(`\b[A-Z][A-Z_]*[A-Z]\b`)
	known := map[string]bool{}
	text := ""
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case "cli", "legacy", "integration", "node_modules", ".git": // the command line's own are not the API's
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text += string(b)
		for _, m := range made.FindAllSubmatch(b, -1) {
			known[string(m[1])] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// <FIELD>_REQUIRED and <FIELD>_INVALID stand for many.
	generic := func(code string) bool {
		return strings.HasSuffix(code, "_REQUIRED") || strings.HasSuffix(code, "_INVALID")
	}
	for code := range known {
		if !generic(code) && !strings.Contains(api, "`"+code+"`") {
			t.Errorf("docs/http-api.md has no %s", code)
		}
	}
	_, table, _ := strings.Cut(api, "| status | codes |")
	for _, code := range named.FindAllString(table, -1) {
		if strings.Contains(code, "_") && !generic(code) && !strings.Contains(text, `"`+code) {
			t.Errorf("docs/http-api.md has %s, which nothing says", code)
		}
	}
}

// TestDependencies holds the list of direct dependencies to go.mod.
func TestDependencies(t *testing.T) {
	list := page(t, "docs/dependencies.md")
	if _, err := os.ReadFile(filepath.Join(root, "go.mod")); err != nil { // for go test's cache
		t.Fatal(err)
	}
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	var direct []string
	for _, r := range mod.Require {
		if !r.Indirect {
			direct = append(direct, r.Path)
		}
	}
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(list, -1) {
		listed = append(listed, m[1])
	}
	slices.Sort(direct)
	slices.Sort(listed)
	if !slices.Equal(direct, listed) {
		t.Errorf("go.mod requires\n%q, docs/dependencies.md lists\n%q", direct, listed)
	}
}

// TestMetrics sees that the page about operation lists the metrics that the
// program has, and no others.
func TestMetrics(t *testing.T) {
	name := regexp.MustCompile("[\"`](caddyvault_[a-z_]+)[\"`]")
	var source []string
	files, err := filepath.Glob(filepath.Join(root, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		for _, m := range name.FindAllStringSubmatch(page(t, filepath.Base(f)), -1) {
			source = append(source, m[1])
		}
	}
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(caddyvault_[a-z_]+)` \\|").FindAllStringSubmatch(page(t, "docs/operations.md"), -1) {
		listed = append(listed, m[1])
	}
	slices.Sort(source)
	slices.Sort(listed)
	if len(source) < 7 || !slices.Equal(source, listed) {
		t.Errorf("the program has the metrics\n%q\nand docs/operations.md lists\n%q", source, listed)
	}
}
