package integration

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// longForm says that the long forms are wanted (CONTRIBUTING.md).
var longForm = os.Getenv("CADDYVAULT_BIG") != ""

// raced says that the program under test watches itself, which takes memory
// and bounds its goroutines.
var raced = os.Getenv("CADDYVAULT_RACE") != ""

// memory returns a figure of a process in KiB, as /proc has it.
func (s *server) memory(name string) int {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			if err != nil {
				s.t.Fatal(err)
			}
			return n
		}
	}
	s.t.Fatalf("no %s in /proc", name)
	return 0
}

// forgetPeak makes the peak of a process what it has now.
func (s *server) forgetPeak() {
	s.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.cmd.Process.Pid), []byte("5"), 0); err != nil {
		s.t.Fatal(err)
	}
}

// onLinux skips what is measured where only Linux shows it.
func onLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: there is no /proc")
	}
}

// pattern is an endless text without the secret in it.
type pattern struct{ at int }

var patternText = func() []byte {
	b := make([]byte, 1<<20)
	fill(b)
	return b
}()

func (p *pattern) Read(b []byte) (int, error) {
	n := copy(b, patternText[p.at%len(patternText):])
	p.at += n
	return n, nil
}

// sameAs counts what is read and compares it with the pattern.
func sameAs(r io.Reader) (n int64, err error) {
	var p pattern
	buf, want := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		k, err := r.Read(buf)
		if _, perr := io.ReadFull(&p, want[:k]); perr != nil {
			return n, perr
		}
		if !bytes.Equal(buf[:k], want[:k]) {
			return n, fmt.Errorf("other bytes than were sent, after %d", n)
		}
		n += int64(k)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// TestLargeBodies sends much both ways, and looks at what memory it takes.
func TestLargeBodies(t *testing.T) {
	onLinux(t)
	size := int64(64 << 20)
	if longForm {
		size = 1 << 30
	}
	s := prepare(t, config{})
	s.start()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			n, err := sameAs(r.Body)
			fmt.Fprintf(w, "%d %v", n, err)
			return
		}
		var out io.Writer = w
		switch r.URL.Query().Get("as") {
		case "length":
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		case "gzip":
			w.Header().Set("Content-Encoding", "gzip")
			z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // a level that exists
			defer z.Close()
			out = z
		}
		_, _ = io.CopyN(out, new(pattern), size) // the client's loss
	}))
	t.Cleanup(up.Close)
	s.ok("/vault.admin.addService", fmt.Sprintf(`{"service":"big","baseUrl":%q,"masterSecret":%s,"allowedAgents":["*"],"allowedActions":["*"],
		"allowedScopes":["x"],"endpoints":{"get":{"method":"GET","path":"/*"},"put":{"method":"PUT","path":"/*"}}}`, up.URL, quote(secret)), nil)
	token := s.issue("main", "big", "x")

	for _, c := range []struct{ name, method, query string }{
		{"up, of known length", "PUT", ""},
		{"up, in chunks", "PUT", ""},
		{"down, of known length", "GET", "?as=length"},
		{"down, in chunks", "GET", ""},
		{"down, compressed", "GET", "?as=gzip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var body io.Reader
			if c.method == "PUT" {
				body = io.LimitReader(new(pattern), size)
			}
			req, err := http.NewRequest(c.method, s.base+"/proxy/big/x"+c.query, body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+token)
			if c.name == "up, of known length" {
				req.ContentLength = size
			}
			s.forgetPeak()
			before := s.memory("VmRSS")
			start := time.Now()
			res, err := s.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if c.method == "PUT" {
				b, err := io.ReadAll(res.Body)
				if want := fmt.Sprintf("%d <nil>", size); err != nil || string(b) != want {
					t.Fatalf("%d %s %v, want %s", res.StatusCode, b, err, want)
				}
			} else if n, err := sameAs(res.Body); n != size || err != nil {
				t.Fatalf("%d: %d bytes of %d, %v", res.StatusCode, n, size, err)
			}
			took := time.Since(start)
			peak := s.memory("VmHWM")
			t.Logf("%d MiB %s: %.1f s, %.0f MiB/s; memory %d MiB before, %d MiB at most", size>>20, c.name,
				took.Seconds(), float64(size>>20)/took.Seconds(), before>>10, peak>>10)
			if grown := (peak - before) >> 10; grown > 32 && !raced {
				t.Errorf("memory has grown by %d MiB", grown)
			}
		})
	}
}
