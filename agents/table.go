package agents

import (
	"hash/maphash"
	"maps"
)

// tableParts is a power of two: a change copies this many pointers and one
// part of a table, rather than all of it.
const tableParts = 1024

// A table is a map in parts. Its zero value is empty; copies of it share what
// is the same.
type table[V any] [tableParts]map[string]V

var tableSeed = maphash.MakeSeed()

func part(key string) uint64 { return maphash.String(tableSeed, key) % tableParts }

func (t *table[V]) get(key string) V { return t[part(key)][key] }

// put writes to a table that nobody shares yet.
func (t *table[V]) put(key string, v V) {
	p := &t[part(key)]
	if *p == nil {
		*p = make(map[string]V)
	}
	(*p)[key] = v
}

// set writes to a copy of a table: the part that it shares is copied, too.
func (t *table[V]) set(key string, v V) {
	t.own(key)
	t.put(key, v)
}

// drop is set for a key that goes.
func (t *table[V]) drop(key string) {
	t.own(key)
	delete(t[part(key)], key)
}

func (t *table[V]) own(key string) {
	p := &t[part(key)]
	*p = maps.Clone(*p)
}
