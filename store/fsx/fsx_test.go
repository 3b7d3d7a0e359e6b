package fsx

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's here")
	if err := MakePrivateDir(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "key")
	if _, err := ReadPrivate(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("missing: %v", err)
	}
	if err := WriteAtomic(dir, "key", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadPrivate(path); err != nil || string(b) != "x" {
		t.Fatalf("%q, %v", b, err)
	}
	if err := os.Symlink("key", path+".link"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path + ".link", dir} {
		if _, err := ReadPrivate(name); !errors.Is(err, ErrInsecure) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPrivate(path); !errors.Is(err, ErrInsecure) || !strings.Contains(err.Error(), `chmod 600 '`+strings.ReplaceAll(path, "'", `'\''`)+`'`) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// TestWriteFaults fails each step of a write: the old content or, once it
// has its name, the new one is there, and nothing is left over.
func TestWriteFaults(t *testing.T) {
	for _, step := range []Step{StepCreate, StepWrite, StepSync, StepRename, StepSyncDir} {
		dir := t.TempDir()
		d, err := OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.WriteAtomic("f", []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		injected := errors.New("injected")
		d.SetFault(func(s Step, _ string) error {
			if s == step {
				return injected
			}
			return nil
		})
		err = d.WriteAtomic("f", []byte("new"), 0o600)
		var uncertain *UncertainError
		if !errors.Is(err, injected) || errors.As(err, &uncertain) != (step == StepSyncDir) {
			t.Errorf("%s: %v", step, err)
		}
		want := "old"
		if step == StepSyncDir {
			want = "new"
		}
		names, _ := os.ReadDir(dir)
		if b, _ := os.ReadFile(filepath.Join(dir, "f")); string(b) != want || len(names) != 1 {
			t.Errorf("%s: %q, %v", step, b, names)
		}
		d.Close()
	}
}

func TestWriteNew(t *testing.T) {
	d, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.WriteNew("f", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteNew("f", nil, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
}

func TestIsTemp(t *testing.T) {
	for name, want := range map[string]bool{
		".tmp-f-0123456789abcdef": true, ".tmp-f-0123456789abcdeg": false, ".tmp-f": false,
		"f": false, ".tmp-0123456789abcdef": false, "": false,
	} {
		if IsTemp(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
