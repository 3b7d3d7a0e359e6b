package vault

import (
	"strings"
	"testing"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/store"
)

func TestCompilations(t *testing.T) {
	const first = `{"baseUrl":"https://one.example","allowedAgents":["*"],"allowedActions":["*"],"endpoints":{"get":{"method":"GET","path":"/"}}}`
	second := strings.Replace(first, "one", "two", 1)
	var s services
	s.compile = &compilations{parse: policy.ParseService, inForce: s.inForce}
	c := s.compile
	if err := c.validate("api", []byte(first)); err != nil {
		t.Fatal(err)
	}
	if err := c.validate("broken", []byte(`{}`)); err == nil || len(c.m) != 1 {
		t.Fatalf("%v, %d kept", err, len(c.m))
	}
	kept := c.m["api"].compiled

	// What was validated is used, once.
	got, err := c.compile("api", []byte(first))
	if err != nil || got.compiled != kept || len(c.m) != 0 {
		t.Fatalf("%v, %v, %d kept", got, err, len(c.m))
	}
	// Other bytes are another service.
	if err := c.validate("api", []byte(first)); err != nil {
		t.Fatal(err)
	}
	if got, err = c.compile("api", []byte(second)); err != nil || got.compiled.Origin != "https://two.example" || len(c.m) != 0 {
		t.Fatalf("%v, %v", got, err)
	}
	// A service that goes leaves nothing.
	if err := c.validate("api", []byte(first)); err != nil {
		t.Fatal(err)
	}
	entry := store.Entry{Key: store.Services + "api", Value: []byte(first), Rev: 1}
	s.apply(store.Event{Type: store.Put, Entry: entry})
	inForce := s.get("api").compiled
	if err := c.validate("api", []byte(second)); err != nil {
		t.Fatal(err)
	}
	s.apply(store.Event{Type: store.Delete, Entry: store.Entry{Key: entry.Key, Rev: 2}})
	if len(c.m) != 0 || s.get("api") != nil {
		t.Error("a service that is gone is kept")
	}

	// A file that is read again as it is in force is not compiled again, by
	// whichever way it comes.
	entry.Rev = 3
	s.apply(store.Event{Type: store.Put, Entry: entry})
	if inForce == s.get("api").compiled {
		t.Fatal("the service that was removed is back")
	}
	inForce = s.get("api").compiled
	told := 0
	defer s.subscribe(func(string) { told++ })()
	if err := c.validate("api", []byte(first)); err != nil || len(c.m) != 0 {
		t.Fatalf("%v, %d kept", err, len(c.m))
	}
	entry.Rev = 4
	if now, _ := s.apply(store.Event{Type: store.Put, Entry: entry}); now.compiled != inForce || now.rev != 4 || told != 0 {
		t.Errorf("compiled again, or told %d times", told)
	}
	entry.Rev, entry.Value = 5, []byte(second)
	if now, _ := s.apply(store.Event{Type: store.Put, Entry: entry}); now.compiled == inForce || told != 1 {
		t.Errorf("another content is not compiled, or told %d times", told)
	}
}
