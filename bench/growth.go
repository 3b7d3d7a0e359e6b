package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caddyvault/caddyvault/store/file"
	"github.com/caddyvault/caddyvault/store/revocations"
)

// How much the vaults "many" and "revoked" have.
var (
	manyServices    = 10_000
	manyRevocations = 1_000_000
)

const manyPaths = 100

// growthTable compares a vault that has much with one that has little.
func growthTable(s *stage) (table, error) {
	t := table{title: "Growth", head: []string{"/proxy/ with", "requests/s", "of the vault without", "aim", "added to the start", "aim", "CPU of that", "memory", "live heap each", "aim"}}
	for _, c := range []struct {
		name, on    string
		n           int
		start, each float64 // aims: seconds, bytes
	}{
		{"1,000,000 live revocations", "revoked", manyRevocations, 1, 100},
		{"10,000 services of 100 endpoints", "many", manyServices, 5, 0},
	} {
		if !s.wants(c.name) {
			continue
		}
		few, err := s.on("few")
		if err != nil {
			return t, err
		}
		little, err := s.heap(few)
		if err != nil {
			return t, err
		}
		many, err := s.on(c.on)
		if err != nil {
			return t, err
		}
		much, err := s.heap(many)
		if err != nil {
			return t, err
		}
		memory := many.memory("VmRSS")
		side := func(on string) func() (job, *process, error) {
			return func() (job, *process, error) {
				return s.ofVault(bench{on: on, conns: 32, vault: proxied("svc", small)})
			}
		}
		ours, fews, err := s.pair(side(c.on), side("few"))
		if err != nil {
			return t, err
		}
		t.add(c.name,
			figure("%.0f", median(ours, figures.rate)), atLeast("%.2f", ratio(ours, fews, figures.rate), 0.97),
			atMost("%.1f s", (many.start-few.start).Seconds(), c.start), figure("%.1f s", (many.spent-few.spent).Seconds()),
			mebibytes(memory), atMost("%.0f bytes", float64(much-little)/float64(c.n), c.each))
		s.stop(c.on)
	}
	t.notes = "Memory is what is resident after the start; the live heap is what is left after a collection."
	return t, nil
}

// heap returns what is live in a process's heap, after a collection.
func (s *stage) heap(p *server) (int64, error) {
	out, err := send(request{Method: http.MethodGet, URL: p.admin + "/debug/pprof/heap?gc=1&debug=1"})
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(out), "# HeapAlloc = ")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseInt(line, 10, 64)
	if !ok || err != nil {
		return 0, errors.New("the heap profile does not say how much is live")
	}
	return n, nil
}

// writeServices writes many service files.
func writeServices(dir, upstream string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var endpoints []string
	for i := range manyPaths {
		endpoints = append(endpoints, fmt.Sprintf(`"action%d":{"method":"GET","path":"/things%d/{id}/parts/{part}"}`, i, i))
	}
	body := fmt.Sprintf(`{"baseUrl":%q,"allowedAgents":["*"],"allowedActions":["*"],"allowedScopes":["s"],"endpoints":{%s}}`, upstream, strings.Join(endpoints, ","))
	for i := range manyServices {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("service%d.json", i)), []byte(body), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writeRevocations revokes many tokens, for longer than the run takes.
func writeRevocations(ctx context.Context, dir string) error {
	st, err := file.Open(file.Options{DataDir: dir})
	if err != nil {
		return err
	}
	set, err := revocations.Open(ctx, st, revocations.Options{})
	if err == nil {
		now := time.Now()
		// What waits for the disk at the same time is synced at once.
		err = parallel(manyRevocations, 2000, func(i int) error {
			return set.Save(ctx, revocations.Revocation{
				Kind: revocations.Token, ID: fmt.Sprintf("01890a5d-ac96-774b-bcce-%012x", i), Reason: "lost", Since: now, Expires: now.Add(24 * time.Hour),
			})
		})
	}
	return errors.Join(err, st.Close())
}
