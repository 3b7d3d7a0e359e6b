package vault

import (
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault/store"
)

func TestCompilations(t *testing.T) {
	const first = `{"baseUrl":"https://one.example","allowedAgents":["*"],"allowedActions":["*"],"endpoints":{"get":{"method":"GET","path":"/"}}}`
	second := strings.Replace(first, "one", "two", 1)
	var c compilations
	if err := c.validate("api", []byte(first)); err != nil {
		t.Fatal(err)
	}
	if err := c.validate("broken", []byte(`{}`)); err == nil || len(c.m) != 1 {
		t.Fatalf("%v, %d kept", err, len(c.m))
	}
	kept := c.m["api"].compiled

	// What was validated is used, once.
	got, err := c.compile("api", []byte(first))
	if err != nil || got != kept || len(c.m) != 0 {
		t.Fatalf("%v, %v, %d kept", got, err, len(c.m))
	}
	// Other bytes are another service.
	if err := c.validate("api", []byte(first)); err != nil {
		t.Fatal(err)
	}
	if got, err = c.compile("api", []byte(second)); err != nil || got.Origin != "https://two.example" || len(c.m) != 0 {
		t.Fatalf("%v, %v", got, err)
	}
	// A service that goes leaves nothing.
	if err := c.validate("api", []byte(first)); err != nil {
		t.Fatal(err)
	}
	s := services{compile: &c}
	s.current.Store(&map[string]*service{"api": {name: "api", rev: 1}})
	s.apply(store.Event{Type: store.Delete, Entry: store.Entry{Key: store.Services + "api", Rev: 2}})
	if len(c.m) != 0 {
		t.Error("a service that is gone is kept")
	}
}
