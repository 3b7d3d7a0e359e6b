package vault

import (
	"testing"
	"time"

	"github.com/caddyvault/caddyvault/audit"
)

// TestRotationSchedule rotates keys as a clock moves.
func TestRotationSchedule(t *testing.T) {
	st := newTestState(t, t.TempDir())
	defer st.Close()
	clock := time.Now()
	v := newVaultOn(t, st)
	v.signing.mu.Lock()
	c := SigningConfig{Algorithm: "EdDSA", RotateEvery: 24 * time.Hour, PublishFor: 10 * time.Minute}
	v.signing.plans["EdDSA"] = c
	v.signing.mu.Unlock()
	st.now = func() time.Time { return clock } // the ring goes on with its own

	if wait := st.rotateDue(t.Context()); wait < 23*time.Hour || wait > 24*time.Hour {
		t.Errorf("the next in %s", wait)
	}
	if n := len(st.signing.ring.List()); n != 1 {
		t.Fatalf("%d keys", n)
	}
	clock = clock.Add(23*time.Hour + 51*time.Minute)
	wait := st.rotateDue(t.Context())
	keys := st.signing.ring.List()
	if len(keys) != 2 || !keys[1].ActiveFrom.Equal(keys[0].ActiveFrom.Add(24*time.Hour)) && keys[1].ActiveFrom.Before(clock.Add(c.PublishFor)) {
		t.Errorf("keys %+v", keys)
	}
	if wait < 23*time.Hour || wait > 25*time.Hour {
		t.Errorf("the next in %s", wait)
	}
	if st.rotateDue(t.Context()); len(st.signing.ring.List()) != 2 {
		t.Error("rotated twice")
	}
	res, err := st.audit.Query(t.Context(), audit.Query{Limit: 10, Filters: map[string]string{"event": "key.rotated"}})
	if err != nil || len(res.Lines) != 1 {
		t.Errorf("%d records, %v", len(res.Lines), err)
	}
}
