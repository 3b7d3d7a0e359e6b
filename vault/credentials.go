package vault

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
)

// credentials appends the secrets of a service for an agent to into, in the
// service's own order, if they may be used there.
func (v *Vault) credentials(svc *policy.Compiled, agent string, into []Credential) ([]Credential, *refusal.Refusal) {
	uses := svc.Secrets()
	for i := range uses {
		c, refused := v.credential(svc, &uses[i], svc.SecretFor(i, agent))
		if refused != nil {
			return into, refused
		}
		into = append(into, c)
	}
	return into, nil
}

// credential returns one secret of a service if it may be used there.
func (v *Vault) credential(svc *policy.Compiled, use *policy.SecretUse, ref string) (Credential, *refusal.Refusal) {
	s, ok := v.secrets.Get(ref)
	if !ok {
		return Credential{}, refusal.New("MISSING_MASTER_SECRET:"+ref, "no secret %q is stored", ref).
			WithHint("an administrator stores it with vault.admin.addSecret")
	}
	if !s.AllowsOrigin(svc.Origin) {
		return Credential{}, refusal.New("SECRET_ORIGIN_MISMATCH:"+ref,
			"the secret %q is not bound to %s", ref, svc.Origin).
			WithHint("an administrator allows it with vault.admin.updateService {\"service\":%q}", svc.Name)
	}
	if why := unfit(use, s.Value); why != "" {
		r := refusal.New("SECRET_INVALID:"+ref, "the secret %q %s", ref, why).
			WithHint("an administrator stores it anew with vault.admin.addSecret")
		r.Status = http.StatusServiceUnavailable
		return Credential{}, r
	}
	return Credential{Ref: s.Ref, Version: s.Version, Value: s.Value}, nil
}

// unfit says why a value cannot be what a service uses it for, "" if it can.
func unfit(use *policy.SecretUse, value string) string {
	switch {
	case use.Plain && !headerSafe(value):
		return "holds a line break, a space at an end, or a character that is not ASCII, and cannot stand in a header or URL"
	case use.InUser && strings.Contains(value, ":"):
		return "holds a colon, and cannot be a user name of Basic authentication"
	case use.InPath && !pathSafe(use.Segment, value):
		return "holds what cannot stand in a path: a piece of dots, or a backslash"
	case use.KeyEncoding != "" && !keyDecodes(use.KeyEncoding, value):
		return "is not written in " + use.KeyEncoding + ", as the service says of its signing key"
	}
	return ""
}

// headerSafe reports whether a secret may stand in a header field.
func headerSafe(value string) bool {
	for i := range len(value) {
		if value[i] >= 0x80 {
			return false
		}
	}
	return httpguts.ValidHeaderFieldValue(value) && strings.TrimSpace(value) == value
}

// pathSafe reports whether a secret may stand in its segment of a path.
func pathSafe(around [2]string, value string) bool {
	b := policy.AppendSegment([]byte("/"+around[0]), value)
	return policy.CheckProxyPath(string(append(b, around[1]...))) == nil
}

func keyDecodes(encoding, value string) bool {
	var n int
	var err error
	if encoding == "hex" {
		var b []byte
		b, err = hex.DecodeString(value)
		n = len(b)
	} else {
		var b []byte
		b, err = base64.StdEncoding.DecodeString(value)
		n = len(b)
	}
	return err == nil && n > 0
}

// refsOf joins the names of secrets for a record.
func refsOf(creds []Credential) string {
	refs := make([]string, len(creds))
	for i := range creds {
		refs[i] = creds[i].Ref
	}
	return strings.Join(refs, ",")
}
