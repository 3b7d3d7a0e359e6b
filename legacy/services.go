package legacy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddyvault/caddyvault/store/fsx"
)

// readConfig reads the services in a config directory and reports whether
// there were any.
func (s *System) readConfig(dir string) (bool, error) {
	found, err := s.readServices(filepath.Join(dir, "services"))
	if err != nil {
		return false, err
	}
	old, err := s.readPolicy(dir)
	if err != nil {
		return false, err
	}
	slices.SortFunc(s.Services, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	return found || old, nil
}

func (s *System) readServices(dir string) (bool, error) {
	d, err := fsx.OpenDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer d.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	found := false
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || name == "" || strings.HasPrefix(name, ".") {
			continue
		}
		data, err := readFile(d, e.Name())
		if err != nil {
			return false, err
		}
		path := filepath.Join(dir, e.Name())
		if fi, err := d.Root().Lstat(e.Name()); err == nil {
			s.warnMode(path, fi, false)
		}
		s.Services = append(s.Services, Service{Name: name, Path: path, JSON: data})
		found = true
	}
	if found {
		s.ServicesDir = dir
	}
	return found, nil
}

// readPolicy reads config/policy.json, where services were kept together
// before each had its file. A service with a file is not taken from there.
func (s *System) readPolicy(dir string) (bool, error) {
	d, err := fsx.OpenDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer d.Close()
	data, err := readFile(d, policyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	path := filepath.Join(dir, policyFile)
	list, err := ParsePolicy(data)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	if fi, err := d.Root().Lstat(policyFile); err == nil {
		s.warnMode(path, fi, false)
	}
	for _, svc := range list {
		if slices.ContainsFunc(s.Services, func(o Service) bool { return o.Name == svc.Name }) {
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s: service %q is also a file in services, which counts", path, svc.Name))
			continue
		}
		svc.Path = path
		s.Services = append(s.Services, svc)
	}
	return len(list) > 0, nil
}

// ErrPolicy: policy.json is not what the older system wrote.
var ErrPolicy = errors.New(`not a JSON object with the member "services"`)

// ParsePolicy reads policy.json: {"services": {name: service}}. What else
// stands beside services is not looked at.
func ParsePolicy(file []byte) ([]Service, error) {
	var p struct {
		Services map[string]jsontext.Value `json:"services"`
	}
	if err := json.Unmarshal(bytes.TrimSpace(file), &p); err != nil || p.Services == nil {
		return nil, ErrPolicy
	}
	list := make([]Service, 0, len(p.Services))
	for name, raw := range p.Services {
		list = append(list, Service{Name: name, JSON: raw})
	}
	slices.SortFunc(list, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
