package vault

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/caddyvault/caddyvault/refusal"
)

func newBodies(limit int64) *Vault {
	v := new(Vault)
	v.bodies.init(limit)
	return v
}

func (b *bodies) held() int64 { return b.known.used.Load() + b.unknown.used.Load() }

// TestBodyRead reads bodies of all sizes as they may come.
func TestBodyRead(t *testing.T) {
	const most = 300_000
	rng := rand.New(rand.NewPCG(5, 6))
	for _, size := range []int{0, 1, 511, 512, 513, freeBody - 1, freeBody, freeBody + 1, 100_000, most - 1, most, most + 1, most + 70_000} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(rng.Uint32())
		}
		for name, reader := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader, "with the end": iotest.DataErrReader,
		} {
			for _, length := range []int64{int64(size), -1} {
				v := newBodies(MinBodyMemory)
				h := v.HoldBody()
				got, err := h.Read(reader(bytes.NewReader(body)), length, most, nil)
				if size > most {
					if !errors.Is(err, ErrBodyTooLarge) {
						t.Errorf("%d bytes, %s: %v", size, name, err)
					}
				} else if err != nil || !bytes.Equal(got, body) {
					t.Errorf("%d bytes, %s: %d, %v", size, name, len(got), err)
				}
				if held := v.bodies.held(); size > freeBody && err == nil && held < int64(size) || size < freeBody-1 && held != 0 || held > most+freeBody {
					t.Errorf("%d bytes, %s: %d are held", size, name, held)
				}
				h.Release()
				h.Release()
				if held := v.bodies.held(); held != 0 {
					t.Errorf("%d bytes, %s: %d stay held", size, name, held)
				}
			}
		}
	}
}

// What a client says it will send takes no room before it comes.
func TestBodySaid(t *testing.T) {
	v := newBodies(MinBodyMemory)
	h := v.HoldBody()
	failed := errors.New("gone")
	waited := 0
	body := io.MultiReader(strings.NewReader(strings.Repeat("a", 40_000)), iotest.ErrReader(failed))
	if _, err := h.Read(body, 8<<20, 8<<20, func() { waited++ }); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	if held := v.bodies.held(); held > 100_000 || waited != 1 {
		t.Errorf("%d bytes are held, waited %d times", held, waited)
	}
}

// Outsiders fill their part and no more, and who is known has the rest.
func TestBodiesExhausted(t *testing.T) {
	v := newBodies(MinBodyMemory)
	body := strings.Repeat("a", 1<<20)
	read := func(known bool) (*BodyHold, error) {
		h := v.HoldBody()
		if known {
			if refused := h.Known(); refused != nil {
				t.Fatal(refused)
			}
		}
		_, err := h.Read(strings.NewReader(body), int64(len(body)), 1<<20, nil)
		return &h, err
	}
	var held []*BodyHold
	fill := func(known bool) (n int) {
		for {
			h, err := read(known)
			if err != nil {
				if r, ok := errors.AsType[*refusal.Refusal](err); !ok || r.Code != "BODY_MEMORY_EXHAUSTED" || r.Status != 503 || r.RetryAfter == 0 || r.Hint == "" {
					t.Fatal(err)
				}
				h.Release() // what it had so far
				return n
			}
			held, n = append(held, h), n+1
		}
	}
	if n := fill(false); n != 7 { // a MiB takes a byte more, to see its end
		t.Errorf("outsiders have %d bodies", n)
	}
	if n := fill(true); n != 31 {
		t.Errorf("those who are known have %d bodies", n)
	}
	// One that shows who it is needs room among those who are known.
	before := v.bodies.held()
	if refused := held[0].Known(); refused == nil || v.bodies.held() != before {
		t.Errorf("%v, %d of %d held", refused, v.bodies.held(), before)
	}
	held[len(held)-1].Release()
	if refused := held[0].Known(); refused != nil {
		t.Error(refused)
	}
	if _, err := read(false); err != nil {
		t.Errorf("the room that it had is not free: %v", err)
	}
	// Small bodies need no room.
	small := v.HoldBody()
	if _, err := small.Read(strings.NewReader("{}"), 2, 1<<20, nil); err != nil {
		t.Error(err)
	}
}

func TestBodiesAtOnce(t *testing.T) {
	v := newBodies(MinBodyMemory)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for range 50 {
				h := v.HoldBody()
				if i%2 == 0 {
					_ = h.Known()
				}
				_, _ = h.Read(strings.NewReader(strings.Repeat("a", 200_000)), -1, 1<<20, nil)
				_ = h.Known()
				h.Release()
			}
		})
	}
	wg.Wait()
	if held := v.bodies.held(); held != 0 {
		t.Errorf("%d bytes stay held", held)
	}
}
