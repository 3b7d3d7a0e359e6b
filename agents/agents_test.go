package agents

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func TestFileName(t *testing.T) {
	for id, name := range map[string]string{
		"tony":                  "tony",
		"Tony":                  "%54ony",
		"a.b_c-d@corp.example":  "a.b_c-d@corp.example",
		".hidden":               "%2Ehidden",
		"spiffe://corp/agent/x": "spiffe%3A%2F%2Fcorp%2Fagent%2Fx",
		"100%":                  "100%25",
		"é":                     "%C3%A9",
	} {
		if got := FileName(id); got != name {
			t.Errorf("%q is in %q, want %q", id, got, name)
		}
		if got, ok := fileID(name); !ok || got != id {
			t.Errorf("%q is of %q, %v", name, got, ok)
		}
	}
	for _, name := range []string{"Tony", "%74ony", "a%2f", "a%", "a%5", "%2Ea%zz", ".a", "-a", "a b"} {
		if id, ok := fileID(name); ok {
			t.Errorf("%q is taken for the file of %q", name, id)
		}
	}
}

func TestRecord(t *testing.T) {
	_, k1 := NewKey(epoch)
	_, k2 := NewKey(epoch)
	k2.Until = epoch.Add(time.Hour)
	r := &Record{ID: "Tony", Groups: []string{"ci", "ops team"}, ExpiresAt: epoch, Binding: AnyProof, Disabled: true, Keys: []Key{k1, k2}, CreatedAt: epoch, UpdatedAt: epoch}
	b, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("%54ony", b)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("read back: %+v, %v\nwant %+v", got, err, r)
	}
	if got, err := Parse("a", []byte(`{"_comment":{"x":1}}`)); err != nil || got.ID != "a" {
		t.Errorf("an empty record: %+v, %v", got, err)
	}
	key := fmt.Sprintf(`{"id":%q,"digest":%q}`, k1.ID, k1.Digest)
	for name, text := range map[string]string{
		"unknown field":          `{"group":["a"]}`,
		"unknown field of a key": `{"keys":[{"id":"0123456789abcdef","digest":"` + k1.Digest + `","secret":"x"}]}`,
		"case":                   `{"Groups":["a"]}`,
		"duplicate":              `{"disabled":true,"disabled":false}`,
		"another agent":          `{"agentId":"b"}`,
		"no object":              `[]`,
		"null":                   `null`,
		"trailing data":          `{}{}`,
		"empty group":            `{"groups":[""]}`,
		"group of a group":       `{"groups":["group:a"]}`,
		"every group":            `{"groups":["*"]}`,
		"control character":      `{"groups":["a\u0000"]}`,
		"groups is a string":     `{"groups":"a"}`,
		"too many groups":        `{"groups":["a"` + strings.Repeat(`,"a"`, MaxGroups) + `]}`,
		"binding":                `{"binding":"DPoP"}`,
		"disabled is a string":   `{"disabled":"false"}`,
		"expiresAt":              `{"expiresAt":"tomorrow"}`,
		"expiresAt is a number":  `{"expiresAt":1}`,
		"key without digest":     `{"keys":[{"id":"0123456789abcdef"}]}`,
		"key with a short id":    `{"keys":[{"id":"0","digest":"` + k1.Digest + `"}]}`,
		"upper case digest":      `{"keys":[{"id":"0123456789abcdef","digest":"` + strings.ToUpper(k1.Digest) + `"}]}`,
		"three keys":             `{"keys":[` + key + `,` + strings.Replace(key, k1.ID, "0123456789abcdef", 1) + `,` + key + `]}`,
		"one key twice":          `{"keys":[` + key + `,` + key + `]}`,
	} {
		if _, err := Parse("a", []byte(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, id := range []string{"", "*", "group:a", "a\n", "\xff", strings.Repeat("a", 241), strings.Repeat("A", 81)} {
		if ValidID(id) {
			t.Errorf("%q can have a record", id)
		}
	}
}

func TestKeys(t *testing.T) {
	text, k := NewKey(epoch)
	old, k2 := NewKey(epoch)
	k2.Until = epoch.Add(time.Minute)
	copied := &Agent{Record: Record{ID: "copy", Keys: []Key{k2}}, Used: new(atomic.Int64)}
	a := &Agent{Record: Record{ID: "a", Keys: []Key{k, k2}}, Used: new(atomic.Int64)}
	x := NewIndex([]*Agent{a})
	if x.ByKey(text, epoch) != a || x.ByKey(old, epoch) != a || x.ByKey(old, k2.Until) != nil {
		t.Error("keys and their overlap")
	}
	if strings.Contains(fmt.Sprintf("%+v", k), text[len(text)-64:]) {
		t.Error("the key is kept")
	}
	other, _ := NewKey(epoch)
	for _, wrong := range []string{
		"", "cva_", "cva__", other, text[:len(text)-1], text + "0", strings.ToUpper(text), "CVA_" + text[4:], " " + text, text + "\n",
		text[:len(text)-1] + string(text[len(text)-1]^1), "cva_" + k.ID + "_" + strings.Repeat("0", 64), "cva_" + k.ID + "_" + k.Digest, "cva_" + k.Digest,
		"cva_" + k.ID + "_" + other[len(other)-64:], strings.Replace(text, "_", "-", 2),
	} {
		if x.ByKey(wrong, epoch) != nil {
			t.Errorf("%q is taken for a key", wrong)
		}
	}
	if x := NewIndex([]*Agent{a, copied}); x.ByKey(old, epoch) != nil || x.ByKey(text, epoch) != a {
		t.Error("a key that two agents have")
	}
	if x := x.Without("a"); x.Get("a") != nil || x.ByKey(text, epoch) != nil {
		t.Error("a removed agent")
	}
	if x := x.With(copied); len(x.All()) != 2 || x.Get("copy") != copied {
		t.Error("an added agent")
	}
	both := x.With(copied)
	if both.ByKey(old, epoch) != nil || x.ByKey(old, epoch) != a || both.Without("copy").ByKey(old, epoch) != a {
		t.Error("a key that two agents have for a while")
	}
	if n := testing.AllocsPerRun(100, func() { x.Get("a") }); n != 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}

// TestIndexChanges makes many changes and compares with an index made at once.
func TestIndexChanges(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	x, now := NewIndex(nil), map[string]*Agent{}
	var keys []Key
	var texts []string
	for range 64 {
		text, k := NewKey(epoch)
		keys, texts = append(keys, k), append(texts, text)
	}
	for range 2000 {
		before, id := x, fmt.Sprint(rnd.IntN(40))
		old := before.Get(id)
		if rnd.IntN(3) == 0 {
			x = x.Without(id)
			delete(now, id)
		} else {
			a := &Agent{Record: Record{ID: id, Keys: []Key{keys[rnd.IntN(len(keys))]}}, Used: new(atomic.Int64)}
			x, now[id] = x.With(a), a
		}
		if before.Get(id) != old {
			t.Fatal("a change shows in the index before it")
		}
	}
	fresh := NewIndex(slices.Collect(maps.Values(now)))
	if !slices.Equal(x.All(), fresh.All()) || len(x.All()) != len(now) {
		t.Errorf("%d agents, want %d", len(x.All()), len(now))
	}
	for _, text := range texts {
		if x.ByKey(text, epoch) != fresh.ByKey(text, epoch) {
			t.Error("a key of another agent")
		}
	}
}

// BenchmarkAdd adds one agent to many.
func BenchmarkAdd(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			all := make([]*Agent, n)
			for i := range all {
				_, k := NewKey(epoch)
				all[i] = &Agent{Record: Record{ID: fmt.Sprint(i), Keys: []Key{k}}, Used: new(atomic.Int64)}
			}
			x := NewIndex(all)
			for b.Loop() {
				x = x.With(all[0])
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a", []byte(`{"agentId":"a","groups":["g"],"binding":"mtls","expiresAt":"2030-01-02T03:04:05Z","_c":1}`))
	f.Add("%54ony", []byte(`{"keys":[{"id":"0123456789abcdef","digest":"`+strings.Repeat("0", 64)+`"}]}`))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		r, err := Parse(name, data)
		if err != nil {
			return
		}
		if FileName(r.ID) != name {
			t.Fatalf("%q is in %q", r.ID, name)
		}
		b, err := r.Marshal()
		if err != nil {
			t.Fatalf("cannot be written again: %v", err)
		}
		again, err := Parse(name, b)
		if err != nil || again.ID != r.ID || again.Disabled != r.Disabled || again.Binding != r.Binding || len(again.Keys) != len(r.Keys) || !again.ExpiresAt.Equal(r.ExpiresAt) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}

func FuzzKey(f *testing.F) {
	text, k := NewKey(epoch)
	x := NewIndex([]*Agent{{Record: Record{ID: "a", Keys: []Key{k}}, Used: new(atomic.Int64)}})
	f.Add(text)
	f.Add("cva_" + k.ID + "_")
	f.Fuzz(func(t *testing.T, s string) {
		if found := x.ByKey(s, epoch); (found != nil) != (s == text) {
			t.Fatalf("%q: %v", s, found)
		}
	})
}
