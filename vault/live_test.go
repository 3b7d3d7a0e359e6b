package vault

import (
	"context"
	"testing"

	"github.com/caddyvault/caddyvault/refusal"
)

// TestCut: when cut returns, every call that it is about has been ended, with
// its reason and with what was to be done at that, and no other.
func TestCut(t *testing.T) {
	l := newLiveCalls()
	lost, kept := new(tokenKeys), new(tokenKeys)
	type one struct {
		ctx   context.Context
		call  *liveCall
		lost  bool
		hooks int
	}
	all := make([]*one, 1000)
	for i := range all {
		o := &one{lost: i%3 == 0}
		keys := kept
		if o.lost {
			keys = lost
		}
		o.ctx, o.call = l.begin(t.Context(), keys)
		if i%2 == 0 { // as calls do that are long
			o.call.onCut(func() { o.hooks++ })
		}
		all[i] = o
	}
	over := refusal.New("TOKEN_REVOKED", "")
	why := func(keys *tokenKeys) *refusal.Refusal {
		if keys == lost {
			return over
		}
		return nil
	}
	if n := l.cut(why); n != 334 {
		t.Errorf("%d calls were cut", n)
	}
	for i, o := range all {
		want := 0
		if o.lost && i%2 == 0 {
			want = 1
		}
		if (context.Cause(o.ctx) == over) != o.lost || o.hooks != want {
			t.Errorf("call %d: %v, %d hooks, want %d", i, context.Cause(o.ctx), o.hooks, want)
		}
		o.call.end()
	}
	if n := l.cut(why); n != 0 {
		t.Errorf("%d calls were cut that are over", n)
	}
}
