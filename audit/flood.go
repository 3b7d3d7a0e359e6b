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

	// What is written each minute, in bytes: a record may hold much that a
	// client chose, and a client may earn many codes.
	floodBytes      = 512 << 10 // of one client
	floodTotalBytes = 16 << 20  // of all together

	floodWindow = time.Minute
)

// flood counts refusals. All counting starts anew each minute, which begins
// with the first refusal after the last one.
type flood struct {
	l *Log

	mu     sync.Mutex
	timer  *time.Timer // set while a minute runs
	counts map[floodKey]*floodCount
	bytes  map[netip.Prefix]int64 // written, by client
	total  int
	size   int64 // written
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
	f.bytes = make(map[netip.Prefix]int64)
}

// EnqueueRefusal is Enqueue for a refusal before authentication. Past
// RefusalsPerMinute of one client address (an IPv6 client is its /64) and
// code, or half a megabyte of one client, they are counted, and written as one
// record with Suppressed at the end of the minute.
func (l *Log) EnqueueRefusal(client netip.Addr, e Entry) error {
	if l.damaged.Load() {
		return l.Err()
	}
	p := l.encode(&e)
	if !l.flood.admit(client, &e, p.size()) {
		l.pool.put(p)
		return nil
	}
	if err := l.queue.push(p, 25); err != nil {
		l.pool.put(p)
		return err
	}
	return nil
}

// admit reports whether a refusal, of about size bytes, is to be written by
// itself.
func (f *flood) admit(client netip.Addr, e *Entry, size int64) bool {
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
	from := key.client
	if _, known := f.bytes[from]; !known && len(f.bytes) >= floodClients {
		from = netip.Prefix{}
	}
	if c.written >= RefusalsPerMinute || f.total >= floodTotal ||
		f.bytes[from]+size > floodBytes || f.size+size > floodTotalBytes {
		c.suppressed++
		f.l.stats.suppressed.Add(1)
		return false
	}
	c.written++
	f.total++
	f.bytes[from] += size
	f.size += size
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
	clear(f.bytes)
	f.total, f.size, f.timer = 0, 0, nil
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
