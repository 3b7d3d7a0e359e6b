// Package plainjson reads JSON objects of the plainest kind, which is that of
// nearly every request, several times as fast as a whole decoder does: printable
// ASCII, no escapes, few members, little nesting. It knows when a text is not of
// that kind, and then its caller asks a decoder. Whatever it takes, the decoder
// takes as well and finds the same in.
package plainjson

// Bounds of what is plain: members of one object and of those around it, and
// depth.
const (
	maxMembers = 16
	maxDepth   = 4
)

// Member is a member of an object. Both are parts of the text: the name without
// its quotes, the value as it stands.
type Member struct{ Name, Value []byte }

// Text returns the value of a member that is a string.
func (m Member) Text() (text []byte, ok bool) {
	if m.Value[0] != '"' {
		return nil, false
	}
	return m.Value[1 : len(m.Value)-1], true
}

// Texts returns the elements of a member that is a list of strings.
func (m Member) Texts() (texts []string, ok bool) {
	v := m.Value
	if v[0] != '[' {
		return nil, false
	}
	texts = make([]string, 0, 4)
	for i := space(v, 1); v[i] != ']'; i = space(v, i+1) {
		end, ok := text(v, i)
		if !ok {
			return nil, false
		}
		texts = append(texts, string(v[i+1:end-1]))
		if i = space(v, end); v[i] == ']' {
			break
		}
	}
	return texts, true
}

// Object is what stands in an object. It is large, and kept on the stack.
type Object struct {
	members [maxMembers]Member
	n       int
}

// Members are the object's, in the order they stand.
func (o *Object) Members() []Member { return o.members[:o.n] }

// Read reads the object that data is. It is not ok if data is anything else,
// or not plain; a name that stands twice, at any depth, is not plain.
func (o *Object) Read(data []byte) (ok bool) {
	end, ok := o.object(data, space(data, 0), 1)
	return ok && space(data, end) == len(data)
}

// space returns where what is not white space goes on.
func space(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\n' || data[i] == '\r' || data[i] == '\t') {
		i++
	}
	return i
}

// object reads an object that begins at i, and returns where it ends. Its
// members are left behind those of the object around it.
func (o *Object) object(data []byte, i, depth int) (end int, ok bool) {
	if i >= len(data) || data[i] != '{' || depth > maxDepth {
		return 0, false
	}
	i = space(data, i+1)
	if i < len(data) && data[i] == '}' {
		return i + 1, true
	}
	first := o.n
	for {
		nameEnd, ok := text(data, i)
		if !ok || o.n == maxMembers {
			return 0, false
		}
		name := data[i+1 : nameEnd-1]
		for _, m := range o.members[first:o.n] {
			if string(m.Name) == string(name) {
				return 0, false
			}
		}
		i = space(data, nameEnd)
		if i >= len(data) || data[i] != ':' {
			return 0, false
		}
		i = space(data, i+1)
		at := o.n
		o.n++
		if end, ok = o.value(data, i, depth); !ok {
			return 0, false
		}
		o.members[at], o.n = Member{name, data[i:end:end]}, at+1 // less what is inside the value
		i = space(data, end)
		if i >= len(data) {
			return 0, false
		}
		switch data[i] {
		case ',':
			i = space(data, i+1)
		case '}':
			return i + 1, true
		default:
			return 0, false
		}
	}
}

// value returns where the value ends that begins at i.
func (o *Object) value(data []byte, i, depth int) (end int, ok bool) {
	if i >= len(data) {
		return 0, false
	}
	switch c := data[i]; {
	case c == '"':
		return text(data, i)
	case c == '{':
		return o.object(data, i, depth+1)
	case c == '[':
		return o.array(data, i, depth+1)
	case c == '-' || c >= '0' && c <= '9':
		return number(data, i)
	case c == 't':
		return word(data, i, "true")
	case c == 'f':
		return word(data, i, "false")
	case c == 'n':
		return word(data, i, "null")
	}
	return 0, false
}

func (o *Object) array(data []byte, i, depth int) (end int, ok bool) {
	if depth > maxDepth {
		return 0, false
	}
	i = space(data, i+1)
	if i < len(data) && data[i] == ']' {
		return i + 1, true
	}
	for around := o.n; ; o.n = around {
		if i, ok = o.value(data, i, depth); !ok {
			return 0, false
		}
		i = space(data, i)
		if i >= len(data) {
			return 0, false
		}
		switch data[i] {
		case ',':
			i = space(data, i+1)
		case ']':
			return i + 1, true
		default:
			return 0, false
		}
	}
}

// text returns where a string ends, behind its quote.
func text(data []byte, i int) (end int, ok bool) {
	if i >= len(data) || data[i] != '"' {
		return 0, false
	}
	for i++; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			return i + 1, true
		case c < 0x20 || c > 0x7e || c == '\\':
			return 0, false
		}
	}
	return 0, false
}

// number reads a number by the grammar of RFC 8259, section 6.
func number(data []byte, i int) (end int, ok bool) {
	digits := func() bool {
		from := i
		for i < len(data) && data[i] >= '0' && data[i] <= '9' {
			i++
		}
		return i > from
	}
	if data[i] == '-' {
		i++
	}
	if i < len(data) && data[i] == '0' {
		i++
	} else if !digits() {
		return 0, false
	}
	if i < len(data) && data[i] == '.' {
		if i++; !digits() {
			return 0, false
		}
	}
	if i < len(data) && (data[i] == 'e' || data[i] == 'E') {
		if i++; i < len(data) && (data[i] == '+' || data[i] == '-') {
			i++
		}
		if !digits() {
			return 0, false
		}
	}
	return i, true
}

func word(data []byte, i int, w string) (end int, ok bool) {
	if len(data)-i < len(w) || string(data[i:i+len(w)]) != w {
		return 0, false
	}
	return i + len(w), true
}
