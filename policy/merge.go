package policy

import (
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// MergePatch applies a JSON merge patch (RFC 7396) to an object: objects merge
// deeply, everything else replaces, null removes. Members keep their order
// and their bytes, new ones come last. The error is a *refusal.Refusal with
// JSON_INVALID or JSON_DUPLICATE_KEY.
func MergePatch(base, patch []byte) ([]byte, error) {
	b, err := readObject(base)
	if err != nil {
		return nil, jsonRefusal("the stored object", err)
	}
	p, err := readObject(patch)
	if err != nil {
		return nil, jsonRefusal("the patch", err)
	}
	return writeObject(merge(b, p)), nil
}

func merge(base, patch []member) []member {
	out := slices.Clone(base)
	for _, p := range patch {
		i := slices.IndexFunc(out, func(m member) bool { return m.name == p.name })
		switch {
		case p.raw.Kind() == 'n':
			if i >= 0 {
				out = slices.Delete(out, i, i+1)
			}
		case p.raw.Kind() == '{':
			var under []member
			if i >= 0 && out[i].raw.Kind() == '{' {
				under = mustObject(out[i].raw)
			}
			// Merging into nothing, too, drops the nulls of the patch.
			merged := member{p.name, writeObject(merge(under, mustObject(p.raw)))}
			if i >= 0 {
				out[i] = merged
			} else {
				out = append(out, merged)
			}
		case i >= 0:
			out[i] = p
		default:
			out = append(out, p)
		}
	}
	return out
}

// mustObject splits an object inside a value that was already read whole, and
// so is known to be valid.
func mustObject(raw jsontext.Value) []member {
	members, err := readObject(raw)
	if err != nil {
		return nil
	}
	return members
}
