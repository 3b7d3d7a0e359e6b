package upstream

import (
	"maps"
	"sync/atomic"

	"github.com/caddyvault/caddyvault/upstream/scrub"
	"github.com/caddyvault/caddyvault/vault"
)

// scrubbers keeps the scrubbers of a service's secrets, one for each account
// that is in use. Building one costs more than a call.
type scrubbers struct {
	last atomic.Pointer[keptScrubber]
	all  atomic.Pointer[map[string]*keptScrubber] // by the names of the secrets
}

// keptScrubber is the scrubber of one version of each of some secrets.
type keptScrubber struct {
	creds []vault.Credential // without their values
	*scrub.Scrubber
}

// fits says whether the scrubber is that of these secrets.
func (k *keptScrubber) fits(creds []vault.Credential) bool {
	if k == nil || len(k.creds) != len(creds) {
		return false
	}
	for i := range creds {
		if k.creds[i].Ref != creds[i].Ref || k.creds[i].Version != creds[i].Version {
			return false
		}
	}
	return true
}

// of returns the scrubber of the secrets of a request, nil if there is nothing
// to look for.
func (s *scrubbers) of(creds []vault.Credential) *scrub.Scrubber {
	if len(creds) == 0 {
		return nil
	}
	if kept := s.last.Load(); kept.fits(creds) {
		return kept.Scrubber
	}
	names := ""
	for i := range creds {
		names += creds[i].Ref + ","
	}
	all := s.all.Load()
	if all != nil {
		if kept := (*all)[names]; kept.fits(creds) {
			s.last.Store(kept)
			return kept.Scrubber
		}
	}
	kept := &keptScrubber{}
	var named []scrub.Named
	for _, c := range creds {
		named = append(named, scrub.Named{Ref: c.Ref, Value: c.Value})
		kept.creds = append(kept.creds, vault.Credential{Ref: c.Ref, Version: c.Version})
	}
	kept.Scrubber = scrub.New(named)
	next := map[string]*keptScrubber{}
	if all != nil {
		next = maps.Clone(*all) // as many as the service has accounts
	}
	next[names] = kept
	s.all.Store(&next) // one of another account that comes at this moment is made again
	s.last.Store(kept)
	return kept.Scrubber
}
