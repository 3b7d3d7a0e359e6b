package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slowClient is a client's connection that can fail.
type slowClient struct {
	bytes.Buffer
	takes   int // bytes, then it fails
	sizes   []int
	flushes int
}

var errGone = errors.New("the client is gone")

func (c *slowClient) Header() http.Header { return nil }
func (c *slowClient) WriteHeader(int)     {}
func (c *slowClient) Flush()              { c.flushes++ }

func (c *slowClient) Write(p []byte) (int, error) {
	c.sizes = append(c.sizes, len(p))
	if n := c.takes - c.Len(); len(p) > n {
		c.Buffer.Write(p[:n])
		return n, errGone
	}
	return c.Buffer.Write(p)
}

// pieces returns the text in pieces of these sizes, and then in any.
func pieces(text string, sizes ...int) func([]byte) (int, error) {
	return func(p []byte) (int, error) {
		if text == "" {
			return 0, io.EOF
		}
		if len(sizes) > 0 {
			p, sizes = p[:min(len(p), sizes[0])], sizes[1:]
		}
		n := copy(p, text)
		text = text[n:]
		return n, nil
	}
}

func alphabet(n int) string {
	return strings.Repeat("abcdefghijklmnopqrstuvwxyz0123456789", n/36+1)[:n]
}

func TestPumpTakesLargerPiecesFromAFastUpstream(t *testing.T) {
	text := alphabet(300 << 10)
	client := &slowClient{takes: len(text)}
	u := newPump(&http.Response{ContentLength: int64(len(text))}, client)
	left, err := u.run(make([]byte, 32<<10), pieces(text, 100, 32<<10, 64<<10, 64<<10, 10))
	if left != nil || err != io.EOF || client.String() != text {
		t.Fatalf("%d bytes left, %v, %d of %d bytes taken", len(left), err, client.Len(), len(text))
	}
	want := []int{100, 32 << 10, 64 << 10, 64 << 10, 10, 32 << 10, 64 << 10}
	if len(client.sizes) != 8 || !slices.Equal(client.sizes[:7], want) {
		t.Errorf("pieces of %d, want %d and the rest", client.sizes, want)
	}
	if client.flushes != 0 {
		t.Errorf("flushed %d times, though the length is known", client.flushes)
	}
}

// What a client does not take goes to the proxy, once and in order, wherever
// the client stops.
func TestPumpOfAClientThatStops(t *testing.T) {
	text := alphabet(200 << 10)
	for _, takes := range []int{0, 1, 100, 32 << 10, 100 << 10, len(text) - 1, len(text)} {
		client := &slowClient{takes: takes}
		body := &answerBody{r: readFunc(pieces(text, 100, 32<<10, 64<<10, 64<<10, 64<<10, 64<<10)), ended: true}
		body.pump = newPump(&http.Response{ContentLength: int64(len(text))}, client)
		rest, err := io.ReadAll(body)
		if err != nil || client.String()+string(rest) != text || client.Len() != takes {
			t.Errorf("%d: the client took %d bytes, the proxy %d of %d, %v", takes, client.Len(), len(rest), len(text), err)
		}
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// An error of the upstream comes behind all that came before it.
func TestPumpOfAnUpstreamThatBreaks(t *testing.T) {
	broken := errors.New("reset")
	client := &slowClient{takes: 1 << 20}
	first := true
	body := &answerBody{ended: true, r: readFunc(func(p []byte) (int, error) {
		if first {
			first = false
			return copy(p, "some"), nil
		}
		return copy(p, " more"), broken
	})}
	body.pump = newPump(&http.Response{ContentLength: 100}, client)
	for range 2 {
		if n, err := body.Read(make([]byte, 512)); n != 0 || err != broken || client.String() != "some more" {
			t.Fatalf("%d, %v, %q", n, err, &client.Buffer)
		}
	}
}

// Without a known length nothing waits for more than a moment, neither the
// header nor a piece that filled the space for it.
func TestPumpFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &slowClient{takes: 1 << 20}
		res := &http.Response{ContentLength: -1}
		u := newPump(res, client)
		if res.ContentLength == -1 {
			t.Error("the proxy will flush, too")
		}
		expect := func(when string, flushes int) {
			t.Helper()
			u.mu.Lock()
			defer u.mu.Unlock()
			if client.flushes != flushes {
				t.Errorf("%s: %d flushes, want %d", when, client.flushes, flushes)
			}
		}
		steps := []func(p []byte) int{
			func(p []byte) int {
				expect("at once", 0)
				time.Sleep(2 * moment)
				expect("header", 1)
				return copy(p, "small")
			},
			func(p []byte) int { expect("small piece", 2); time.Sleep(time.Second); return len(p) },
			func([]byte) int { expect("full piece", 2); return 5 },
			func(p []byte) int { expect("after it", 3); time.Sleep(time.Second); expect("quiet", 3); return len(p) },
			func(p []byte) int { time.Sleep(2 * moment); expect("full piece, nothing after it", 4); return len(p) },
		}
		_, err := u.run(make([]byte, 100), func(p []byte) (int, error) {
			if len(steps) == 0 {
				return 0, io.EOF
			}
			step := steps[0]
			steps = steps[1:]
			return step(p), nil
		})
		if err != io.EOF {
			t.Error(err)
		}
		time.Sleep(time.Second)
		expect("after the end", 4)
	})
}

func TestNoPumpWhereTheProxyFlushes(t *testing.T) {
	for _, h := range []http.Header{
		{"Content-Type": {"text/event-stream"}},
		{"Content-Type": {"Text/Event-Stream;charset=utf-8"}},
		{"Content-Type": {"text/plain", "text/event-stream"}},
		{"Incremental": {"?1"}},
	} {
		if newPump(&http.Response{Header: h}, &slowClient{}) != nil {
			t.Errorf("%v has a pump", h)
		}
	}
	if newPump(&http.Response{Header: http.Header{"Content-Type": {"application/json"}}}, &slowClient{}) == nil {
		t.Error("JSON has none")
	}
}
