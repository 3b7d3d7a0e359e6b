package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// request is what the load sends, over and over.
type request struct {
	Method, URL, Body, Authorization string
}

func post(url, body, authorization string) request {
	return request{http.MethodPost, url, body, authorization}
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
	return req, nil
}

// job is what the load process reads from its standard input.
type job struct {
	Request request
	Conns   int
	Length  time.Duration
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

// measure runs the load against a process, in a process of its own.
func (s *stage) measure(r request, conns int, length time.Duration, p *process) (figures, error) {
	self, err := os.Executable()
	if err != nil {
		return figures{}, err
	}
	if _, err := send(r); err != nil { // warm, and right
		return figures{}, err
	}
	in, err := json.Marshal(job{r, conns, length})
	if err != nil {
		return figures{}, err
	}
	cmd := exec.Command(self, "load")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	before := p.cpu()
	profiled := s.profile(p, length)
	out, err := cmd.Output()
	profiled()
	if err != nil {
		return figures{}, err
	}
	var f figures
	if err := json.Unmarshal(out, &f); err != nil {
		return figures{}, err
	}
	f.CPU = p.cpu() - before
	if f.Failed > f.Requests/tolerated || f.Requests == 0 {
		return f, fmt.Errorf("%d of %d requests failed: %s", f.Failed, f.Requests+f.Failed, f.Example)
	}
	return f, nil
}

// tolerated is how many requests there are for one that may fail in a round that
// counts. Where more fail, what was measured is refusals.
var tolerated = 10

// generate is the load process: each connection sends, waits, and sends again.
func generate() {
	var j job
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		panic(err)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: j.Conns, MaxConnsPerHost: j.Conns, DisableCompression: true}}
	var (
		mu  sync.Mutex
		all []time.Duration
		f   figures
		wg  sync.WaitGroup
	)
	start := time.Now()
	for range j.Conns {
		wg.Go(func() {
			var took []time.Duration
			failed, example := 0, ""
			buf := make([]byte, 64<<10)
			for time.Since(start) < j.Length {
				req, err := j.Request.http()
				if err != nil {
					panic(err)
				}
				sent := time.Now()
				res, err := client.Do(req)
				if err != nil {
					failed, example = failed+1, err.Error()
					continue
				}
				_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, res.Body, buf)
				res.Body.Close()
				if err != nil || res.StatusCode != http.StatusOK {
					failed, example = failed+1, fmt.Sprint(res.Status, " ", res.Header.Get("Vault-Error"), " ", err)
					continue
				}
				took = append(took, time.Since(sent))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			f.Failed += failed
			if example != "" {
				f.Example = example
			}
		})
	}
	wg.Wait()
	f.Length, f.Requests = time.Since(start), len(all)
	if len(all) > 0 {
		slices.Sort(all)
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		f.P50, f.P99 = ms(all[len(all)/2]), ms(all[len(all)*99/100])
	}
	if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
		panic(err)
	}
}
