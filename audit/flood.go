package audit

import (
	"net/netip"
	"sync"
	"time"

	"github.com/caddyvault/caddyvault/refusal"
)

// Limits of refusals before authentication, which anybody can cause.
const (
	// RefusalsPerMinute is how many of one client address and code are
	// written each minute before they are only counted.
	RefusalsPerMinute = 60

	floodClients = 4096   // what is counted apart
	floodTotal   = 10_000 // written each minute of all clients together
	floodWindow  = time.Minute
)

// flood counts refusals. All counting starts anew each minute, which begins
// with the first refusal after the last one.
type flood struct {
	l *Log

	mu     sync.Mutex
	timer  *time.Timer // set while a minute runs
	counts map[floodKey]*floodCount
	total  int
	closed bool
}

// floodKey is what is counted together. Clients beyond floodClients share
// one without an address.
type floodKey struct {
	client netip.Prefix
	event  string
	code   string
}

type floodCount struct {
	written, suppressed int
}

func (f *flood) init(l *Log) {
	f.l = l
	f.counts = make(map[floodKey]*floodCount)
}

// EnqueueRefusal is Enqueue for a refusal before authentication. Past
// RefusalsPerMinute of one client address (an IPv6 client is its /64) and
// code they are counted, and written as one record with Suppressed at the
// end of the minute.
func (l *Log) EnqueueRefusal(client netip.Addr, e Entry) error {
	if !l.flood.admit(client, &e) {
		return nil
	}
	return l.enqueue(&e, 25)
}

// admit reports whether a refusal is to be written by itself.
func (f *flood) admit(client netip.Addr, e *Entry) bool {
	// What follows the colon of a code may be what the client sent.
	key := floodKey{clientPrefix(client), e.Record.Event, refusal.Base(e.Record.Error)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return true
	}
	if f.timer == nil {
		f.timer = time.AfterFunc(floodWindow, f.endOfMinute)
	}
	c := f.counts[key]
	if c == nil {
		if len(f.counts) >= floodClients {
			key = floodKey{}
			c = f.counts[key]
		}
		if c == nil {
			c = new(floodCount)
			f.counts[key] = c
		}
	}
	if c.written >= RefusalsPerMinute || f.total >= floodTotal {
		c.suppressed++
		f.l.stats.suppressed.Add(1)
		return false
	}
	c.written++
	f.total++
	return true
}

func (f *flood) endOfMinute() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.report()
	}
}

// report writes what was counted and begins anew.
func (f *flood) report() {
	for key, c := range f.counts {
		if c.suppressed == 0 {
			continue
		}
		r := Record{Event: key.event, Error: key.code, Suppressed: c.suppressed}
		if r.Event == "" {
			r.Event, r.Reason = "request.denied", "too many different clients to count apart"
		}
		if key.client.IsValid() {
			r.Client = key.client.String()
			if key.client.IsSingleIP() {
				r.Client = key.client.Addr().String()
			}
		}
		// A full queue drops a count of refusals, never a call's record.
		_ = f.l.enqueue(&Entry{Record: r}, 50)
	}
	clear(f.counts)
	f.total, f.timer = 0, nil
}

// close writes what was counted so far. Nothing is counted from then on.
func (f *flood) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer != nil {
		f.timer.Stop()
	}
	f.report()
	f.closed = true
}

// clientPrefix is what counts as one client.
func clientPrefix(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil { // no address
		return netip.Prefix{}
	}
	return p
}
