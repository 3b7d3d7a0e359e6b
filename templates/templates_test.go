package templates

import "testing"

func TestLoad(t *testing.T) {
	all, err := load()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"agentmail", "anthropic", "github", "openai", "posthog", "railway", "shopify", "stripe"}
	got := Names()
	if len(got) != len(want) || len(all) != len(want) {
		t.Fatalf("names: %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("name %d: got %s, want %s", i, got[i], want[i])
		}
	}
}
