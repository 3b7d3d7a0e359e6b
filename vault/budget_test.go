package vault

import (
	"fmt"
	"testing"
	"time"
)

// TestBudgetMemory sees that a budget is forgotten after its token, and not
// before.
func TestBudgetMemory(t *testing.T) {
	clock := time.Now()
	b := newBudgets(func() time.Time { return clock })
	count := func() (n int) {
		for i := range b.shards {
			n += len(b.shards[i].m)
		}
		return n
	}
	kept := b.of("kept", clock.Add(15*time.Minute))
	kept.calls = 7
	for round := range 20 {
		for i := range 5000 {
			b.of(fmt.Sprintf("%d-%d", round, i), clock.Add(time.Minute))
		}
		clock = clock.Add(40 * time.Second)
	}
	// Of five rounds at once some are alive, and a sweep waits for as many
	// again.
	if n := count(); n > 60_000 {
		t.Errorf("%d budgets are remembered of 100,000, most of them over", n)
	}
	if b.of("kept", time.Time{}).calls != 7 {
		t.Error("forgotten before its token's end")
	}
}
