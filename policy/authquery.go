package policy

import (
	"net/url"
	"strings"

	"github.com/caddyvault/caddyvault/refusal"
)

// TakeQuery takes out of a query what stands in the parameters of the
// service's own credential, where a client puts what it takes for its key,
// and returns the rest as it was sent and the values, decoded. Another
// spelling of such a parameter, which some server takes for the same, is
// refused: PARAM_INVALID:name.
func (c *Compiled) TakeQuery(raw string) (rest string, values []string, _ *refusal.Refusal) {
	if len(c.reserved) == 0 || raw == "" {
		return raw, nil, nil
	}
	var kept []string
	taken := false
	for pair := range strings.SplitSeq(raw, "&") {
		own := false
		// Some servers end a parameter at ";", too.
		for piece := range strings.SplitSeq(pair, ";") {
			name, value, _ := strings.Cut(piece, "=")
			shown, reserved := c.reservedName(name)
			if !reserved {
				continue
			}
			if own = piece == pair && c.isQueryPlace(name); !own {
				return "", nil, paramInvalid(shown, "is where the vault puts the credential; leave it out")
			}
			if v, err := url.QueryUnescape(value); err == nil {
				value = v
			}
			if value != "" {
				values = append(values, value)
			}
		}
		if taken = taken || own; !own {
			kept = append(kept, pair)
		}
	}
	if !taken {
		return raw, nil, nil
	}
	return strings.Join(kept, "&"), values, nil
}

// isQueryPlace says whether an escaped name is a query parameter that carries
// the credential, in any case.
func (c *Compiled) isQueryPlace(escaped string) bool {
	name, err := url.QueryUnescape(escaped)
	if err != nil {
		return false
	}
	for i := range c.Places {
		if c.Places[i].In == InQuery && strings.EqualFold(c.Places[i].Name, name) {
			return true
		}
	}
	return false
}

// RedactQuery returns a query with the values of every parameter that may
// carry the credential replaced.
func (c *Compiled) RedactQuery(raw, by string) string {
	if len(c.reserved) == 0 || raw == "" {
		return raw
	}
	pairs := strings.Split(raw, "&")
	for i, pair := range pairs {
		for piece := range strings.SplitSeq(pair, ";") {
			name, _, _ := strings.Cut(piece, "=")
			if _, reserved := c.reservedName(name); reserved {
				name, _, _ = strings.Cut(pair, "=")
				pairs[i] = name + "=" + by
				break
			}
		}
	}
	return strings.Join(pairs, "&")
}

// DropQuery returns a query of the upstream's own without the parameters of
// the credential: a link to the next page repeats what was sent.
func (c *Compiled) DropQuery(raw string) string {
	if len(c.reserved) == 0 || raw == "" {
		return raw
	}
	var kept []string
	for pair := range strings.SplitSeq(raw, "&") {
		if name, _, _ := strings.Cut(pair, "="); !c.isQueryPlace(name) {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}

// TakePath takes a token out of an escaped path below the service, if one
// stands where the secret stands in the service's baseUrl, and returns the
// path below that. Clients that know the vendor's own scheme send
// /bot<token>/sendMessage; others leave that part of the path to the vault.
func (c *Compiled) TakePath(escaped string) (rest, token string, ok bool) {
	before, after, has := c.PathAround()
	if !has {
		return "", "", false
	}
	// All of the baseUrl's path, or what begins with the secret's segment.
	for _, start := range [...]string{before, before[strings.LastIndexByte(before, '/'):]} {
		below, ok := strings.CutPrefix(escaped, start)
		if !ok {
			continue
		}
		end := strings.IndexByte(below, '/')
		if end < 0 {
			end = len(below)
		}
		token, ok := strings.CutSuffix(below[:end], c.pathSegment[1])
		if token = unescapeLenient(token); !ok || !LooksLikeToken(token) {
			continue
		}
		rest, ok := strings.CutPrefix(below[end:], after[len(c.pathSegment[1]):])
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		if rest == "" {
			rest = "/"
		}
		return rest, token, true
	}
	return "", "", false
}

// LooksLikeToken says whether s has the shape of a signed JWT: three parts in
// base64url between dots (RFC 7515 section 7.1).
func LooksLikeToken(s string) bool {
	parts, length := 1, 0
	for i := range len(s) {
		switch b := s[i]; {
		case b == '.':
			if length == 0 {
				return false
			}
			parts, length = parts+1, 0
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '-', b == '_':
			length++
		default:
			return false
		}
	}
	return parts == 3 && length > 0
}
