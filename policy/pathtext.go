package policy

import "strings"

// What follows reads the path of a compiled endpoint, which parsePattern has
// found to be right, without keeping it in pieces.

// cutParam cuts a segment before and behind its first parameter.
func cutParam(seg string) (lit, name, rest string, found bool) {
	open := strings.IndexByte(seg, '{')
	if open < 0 {
		return seg, "", "", false
	}
	closing := open + strings.IndexByte(seg[open:], '}')
	return seg[:open], seg[open+1 : closing], seg[closing+1:], true
}

// several returns the name of a parameter that takes several segments, and
// which kind of segment it is.
func several(seg string) (name string, k kind, ok bool) {
	if seg == starParam {
		return starParam, subtree, true
	}
	if name, ok := strings.CutSuffix(seg, "...}"); ok {
		return name[1:], multi, true
	}
	return "", literal, false
}

// pathParams returns the names of the parameters of a path.
func pathParams(path string) []string {
	var names []string
	for seg := range strings.SplitSeq(path, "/") {
		if name, _, ok := several(seg); ok {
			names = append(names, name)
			continue
		}
		for {
			_, name, rest, ok := cutParam(seg)
			if !ok {
				break
			}
			names, seg = append(names, name), rest
		}
	}
	return names
}

// pathValues calls f with the parameters of an escaped path that the path of
// an endpoint matches, still escaped, and reports whether it does.
func pathValues(pattern, path string, f func(name, value string)) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	rest, more := path[1:], true
	pattern, patternMore := pattern[1:], true
	for patternMore {
		if !more {
			return false
		}
		var seg string
		seg, pattern, patternMore = strings.Cut(pattern, "/")
		if name, k, ok := several(seg); ok {
			if k == subtree {
				f(name, rest)
				return true
			}
			// What follows has one piece a segment; the rest is the value.
			pieces, behind := strings.Split(rest, "/"), 0
			if patternMore {
				behind = 1 + strings.Count(pattern, "/")
			}
			cut := len(pieces) - behind
			if cut < 1 {
				return false
			}
			f(name, strings.Join(pieces[:cut], "/"))
			rest, more = strings.Join(pieces[cut:], "/"), cut < len(pieces)
			continue
		}
		var piece string
		piece, rest, more = strings.Cut(rest, "/")
		if !segmentValues(seg, piece, f) {
			return false
		}
	}
	return !more
}

// segmentValues calls f with the parameters of a piece that a segment matches,
// and reports whether it does. Each text between parameters is taken at its
// first place, as the index does.
func segmentValues(seg, piece string, f func(name, value string)) bool {
	first, name, rest, ok := cutParam(seg)
	if !ok {
		return piece == seg
	}
	last := seg[strings.LastIndexByte(seg, '}')+1:]
	if len(piece) < len(first)+len(last)+1 || !strings.HasPrefix(piece, first) || !strings.HasSuffix(piece, last) {
		return false
	}
	piece = piece[len(first) : len(piece)-len(last)]
	for {
		lit, next, behind, ok := cutParam(rest)
		if !ok {
			f(name, piece)
			return piece != ""
		}
		if piece == "" {
			return false
		}
		at := strings.Index(piece[1:], lit)
		if at < 0 {
			return false
		}
		f(name, piece[:1+at])
		piece = piece[1+at+len(lit):]
		name, rest = next, behind
	}
}
