package upstream

import (
	"net/http"
	"net/textproto"
	"sync/atomic"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/upstream/scrub"
	"github.com/caddyvault/caddyvault/vault"
)

// An injector adds a service's secret to requests. It is made once, when the
// service is.
type injector struct {
	header string // canonical; "" for a service without a secret
	prefix string // the scheme and a space, or ""
}

func newInjector(svc *policy.Compiled) injector {
	if svc.SecretRef == "" {
		return injector{}
	}
	in := injector{header: textproto.CanonicalMIMEHeaderKey(svc.AuthHeader)}
	if svc.AuthScheme != "" {
		in.prefix = svc.AuthScheme + " "
	}
	return in
}

// apply adds the secret to a request, whose header map must be its own.
func (in *injector) apply(out *http.Request, cred vault.Credential) {
	if in.header != "" {
		out.Header[in.header] = []string{in.prefix + cred.Value}
	}
}

// scrubbers keeps the scrubber of the secret that was used last. Building one
// costs more than a call.
type scrubbers struct {
	kept atomic.Pointer[keptScrubber]
}

// keptScrubber is the scrubber of one version of a service's secret.
type keptScrubber struct {
	ref     string
	version uint64
	*scrub.Scrubber
}

// of returns the scrubber of a secret, nil if there is nothing to look for.
func (s *scrubbers) of(cred vault.Credential) *scrub.Scrubber {
	if cred.Value == "" {
		return nil
	}
	kept := s.kept.Load()
	if kept == nil || kept.ref != cred.Ref || kept.version != cred.Version {
		kept = &keptScrubber{cred.Ref, cred.Version, scrub.New([]scrub.Named{{Ref: cred.Ref, Value: cred.Value}})}
		s.kept.Store(kept)
	}
	return kept.Scrubber
}
