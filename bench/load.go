package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// eachToken stands in a request for the token of the credential whose turn it
// is.
const eachToken = "{each token}"

// request is what the load sends, over and over.
type request struct {
	Method, URL, Body, Authorization, Proof string

	// Each, if there are any, are used one after the other, each once.
	Each []credential

	// FirstEvent: the time counts until the first event of a stream is there.
	FirstEvent bool
}

func post(url, body, authorization string) request {
	return request{Method: http.MethodPost, URL: url, Body: body, Authorization: authorization}
}

// with returns the request with a credential.
func (r request) with(c credential) request {
	r.Body, r.Proof = strings.ReplaceAll(r.Body, eachToken, c.Token), c.Proof
	return r
}

func (r request) http() (*http.Request, error) {
	req, err := http.NewRequest(r.Method, r.URL, strings.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	if r.Body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.Authorization != "" {
		req.Header.Set("Authorization", r.Authorization)
	}
	if r.Proof != "" {
		req.Header.Set("DPoP", r.Proof)
	}
	return req, nil
}

// job is what the load process reads from its standard input. It ends with
// Length, Count requests if that is not 0, or the last credential.
type job struct {
	Request request
	Conns   int
	Length  time.Duration
	Count   int
}

// figures is what it answers; latencies are in milliseconds.
type figures struct {
	Requests int
	Failed   int
	Example  string // of a failure
	Length   time.Duration
	P50, P99 float64
	CPU      time.Duration // of the measured process
}

func (f figures) rate() float64 { return float64(f.Requests) / f.Length.Seconds() }

// cpu is the measured process's CPU time a request, in microseconds.
func (f figures) cpu() float64 { return float64(f.CPU.Microseconds()) / float64(f.Requests) }

func (f figures) p50() float64 { return f.P50 }
func (f figures) p99() float64 { return f.P99 }

// patience is how long anything may take beyond what it is meant to, before
// the whole run fails.
const patience = time.Minute

// measure runs the load against a process, in a process of its own.
func (s *stage) measure(j job, p *process) (figures, error) {
	self, err := os.Executable()
	if err != nil {
		return figures{}, err
	}
	warm := j.Request
	if each := warm.Each; len(each) > 0 {
		warm, j.Request.Each = warm.with(each[0]), each[1:]
	}
	if _, err := send(warm); err != nil { // and right
		return figures{}, err
	}
	in, err := json.Marshal(j)
	if err != nil {
		return figures{}, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, j.Length+patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "load")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	before := p.cpu()
	profiled := s.profile(p, j.Length)
	out, err := cmd.Output()
	profiled()
	if err != nil {
		return figures{}, fmt.Errorf("load: %w", err)
	}
	var f figures
	if err := json.Unmarshal(out, &f); err != nil {
		return figures{}, err
	}
	f.CPU = p.cpu() - before
	if all := f.Failed + f.Requests; all == 0 || float64(f.Failed) > tolerated*float64(all) {
		return f, fmt.Errorf("%d of %d requests failed: %s", f.Failed, f.Requests+f.Failed, f.Example)
	}
	return f, nil
}

// tolerated is the share of requests that may fail in a round that counts.
// Where more fail, what was measured is refusals.
var tolerated = 0.1

// load is the state of the load process.
type load struct {
	job
	client *http.Client
	start  time.Time
	turn   atomic.Int64
}

// next returns the next request, or false if it was the last.
func (l *load) next() (request, bool) {
	r, i := l.Request, int(l.turn.Add(1))-1
	over := time.Since(l.start) >= l.Length && i >= l.Conns // on a slow machine, too, each sends one
	if over || l.Count > 0 && i >= l.Count {
		return r, false
	}
	if len(r.Each) > 0 {
		if i >= len(r.Each) {
			return r, false
		}
		return r.with(r.Each[i]), true
	}
	return r, true
}

// one makes a request and returns how long it took.
func (l *load) one(r request, buf []byte) (time.Duration, error) {
	req, err := r.http()
	if err != nil {
		return 0, err
	}
	sent := time.Now()
	res, err := l.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return 0, errors.New(res.Status + " " + res.Header.Get("Vault-Error"))
	}
	var took time.Duration
	if r.FirstEvent {
		for n := 0; !bytes.Contains(buf[:n], []byte("\n\n")); {
			m, err := res.Body.Read(buf[n:])
			if err != nil {
				return 0, fmt.Errorf("no event: %w", err)
			}
			n += m
		}
		took = time.Since(sent)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, res.Body, buf); err != nil {
		return 0, err
	}
	if !r.FirstEvent {
		took = time.Since(sent)
	}
	return took, nil
}

// generate is the load process: each connection sends, waits, and sends again.
func generate() {
	l := load{}
	if err := json.NewDecoder(os.Stdin).Decode(&l.job); err != nil {
		panic(err)
	}
	l.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: l.Conns, MaxConnsPerHost: l.Conns, DisableCompression: true}}
	var (
		mu  sync.Mutex
		all []time.Duration
		f   figures
		wg  sync.WaitGroup
	)
	l.start = time.Now()
	for range l.Conns {
		wg.Go(func() {
			var took []time.Duration
			var failed int
			var last error
			buf := make([]byte, 64<<10)
			for r, ok := l.next(); ok; r, ok = l.next() {
				d, err := l.one(r, buf)
				if err != nil {
					failed, last = failed+1, err
					continue
				}
				took = append(took, d)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			f.Failed += failed
			if last != nil {
				f.Example = last.Error()
			}
		})
	}
	wg.Wait()
	f.Length, f.Requests = time.Since(l.start), len(all)
	if len(all) > 0 {
		slices.Sort(all)
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		f.P50, f.P99 = ms(all[len(all)/2]), ms(all[len(all)*99/100])
	}
	if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
		panic(err)
	}
}
