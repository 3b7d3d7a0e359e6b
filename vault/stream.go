package vault

import (
	"crypto/sha256"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyvault/caddyvault/audit"
	"github.com/caddyvault/caddyvault/refusal"
)

// maxWatchers is how many may follow the audit log at the same time.
const maxWatchers = 256

// watchers counts who follows the audit log, and knows whose admin token is
// still a configuration's.
type watchers struct {
	n atomic.Int64

	mu     sync.Mutex
	admins map[[sha256.Size]byte]int
}

// HoldAdmin makes the admin token of this configuration one that streams go
// on under, until release is called.
func (v *Vault) HoldAdmin() (release func()) {
	w := &v.State.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.admins == nil {
		w.admins = make(map[[sha256.Size]byte]int)
	}
	w.admins[v.admin.digest]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.admins[v.admin.digest]--; w.admins[v.admin.digest] <= 0 {
			delete(w.admins, v.admin.digest)
		}
	}
}

// AdminCurrent reports whether the admin token of this configuration is that
// of one that is running: a stream may be older than the token's change.
func (v *Vault) AdminCurrent() bool {
	w := &v.State.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.admins[v.admin.digest] > 0
}

// Follow follows the audit log. done ends it.
func (v *Vault) Follow(o audit.FollowOptions) (f *audit.Follower, done func(), _ *refusal.Refusal) {
	n := &v.State.watchers.n
	if n.Add(1) > maxWatchers {
		n.Add(-1)
		r := refusal.New("RATE_LIMITED", "%d are following the audit log already", maxWatchers)
		r.RetryAfter = 5 * time.Second
		return nil, nil, r
	}
	f, err := v.audit.Follow(o)
	if err != nil {
		n.Add(-1)
		if errors.Is(err, audit.ErrFilter) {
			return nil, nil, filtersInvalid()
		}
		return nil, nil, auditRefusal(err)
	}
	return f, func() { f.Close(); n.Add(-1) }, nil
}

func filtersInvalid() *refusal.Refusal {
	return refusal.New("FILTERS_INVALID", "a filter names a field of a record or of its context")
}
