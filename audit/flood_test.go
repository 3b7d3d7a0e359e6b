package audit

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFlood(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Options{Dir: dir})
		refuse := func(client, code string, n int) {
			t.Helper()
			var a netip.Addr
			if client != "" {
				a = netip.MustParseAddr(client)
			}
			for range n {
				if err := l.EnqueueRefusal(a, Entry{Record: Record{Event: "request.denied", Error: code, Client: client}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		count := func(filters ...string) (n int) {
			t.Helper()
			q := Query{Limit: MaxLimit, Filters: map[string]string{"event": "request.denied"}}
			for i := 0; i < len(filters); i += 2 {
				q.Filters[filters[i]] = filters[i+1]
			}
			res, err := l.Query(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			return len(res.Lines)
		}
		refuse("192.0.2.1", "TOKEN_INVALID", 100)
		refuse("::ffff:192.0.2.1", "TOKEN_INVALID", 3) // the same
		refuse("192.0.2.1", "NOT_FOUND", 10)
		refuse("192.0.2.2", "TOKEN_INVALID", 61)
		for i := range 100 { // one /64, and a code with what the client sent
			refuse(fmt.Sprintf("2001:db8::%x", i+1), fmt.Sprintf("FIELD_UNKNOWN:%d", i), 1)
		}
		refuse("", "NOT_FOUND", 70)
		if n := count(); n != 60+10+60+60+60 {
			t.Fatalf("%d records before the minute is over", n)
		}
		time.Sleep(floodWindow + time.Second)
		synctest.Wait()
		for _, c := range [][]string{
			{"client", "192.0.2.1", "error", "TOKEN_INVALID", "suppressed", "43"},
			{"client", "192.0.2.2", "error", "TOKEN_INVALID", "suppressed", "1"},
			{"client", "2001:db8::/64", "error", "FIELD_UNKNOWN", "suppressed", "40"},
			{"error", "NOT_FOUND", "suppressed", "10"},
		} {
			if count(c...) != 1 {
				t.Errorf("no record of %v", c)
			}
		}
		if n := count(); n != 254 {
			t.Fatalf("%d records after the minute", n)
		}
		// It begins anew, and Close tells what it has.
		refuse("192.0.2.1", "TOKEN_INVALID", 65)
		if n := count(); n != 254+60 {
			t.Fatalf("%d records in the next minute", n)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if all := strings.Join(logLines(t, dir), "\n"); !strings.Contains(all, `"client":"192.0.2.1","suppressed":5,`) {
			t.Fatal(all)
		}
	})
}

// TestFloodBounds has more clients than are counted apart.
func TestFloodBounds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Options{Dir: dir})
		const clients = floodClients + 1000
		for i := range clients {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			if err := l.EnqueueRefusal(a, Entry{Record: Record{Event: "request.denied", Error: "NOT_FOUND"}}); err != nil {
				t.Fatal(err)
			}
			if i%500 == 0 {
				synctest.Wait()
			}
		}
		l.flood.mu.Lock()
		n, total := len(l.flood.counts), l.flood.total
		l.flood.mu.Unlock()
		if n > floodClients+1 || total != floodClients+RefusalsPerMinute {
			t.Fatalf("%d counted apart, %d written", n, total)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if all := strings.Join(logLines(t, dir), "\n"); !strings.Contains(all, `"suppressed":940,`) {
			t.Fatal("the rest was not counted")
		}
	})
}

// TestFloodBytes has one client with as many codes as it likes and as long a
// record as there can be, and then many such: the log grows by no more than
// it should, and every refusal is written or counted.
func TestFloodBytes(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Options{Dir: dir, CheckpointEvery: -1})
		long := strings.Repeat("\U000e0001", 2*MaxText)
		refused := 0
		refuse := func(client string, codes, n int) {
			for code := range codes {
				for range n {
					refused++
					if err := l.EnqueueRefusal(netip.MustParseAddr(client), Entry{Record: Record{
						Event: "proxy.call.denied", Error: fmt.Sprint("CODE_", code), Service: long, Action: long, Client: client,
						Context: &Context{AgentID: long, SessionID: long, TaskID: long, SkillID: long, Tool: long},
					}}); err != nil {
						t.Fatal(err)
					}
				}
			}
			synctest.Wait()
		}
		size := func() (n int) {
			for _, line := range logLines(t, dir) {
				n += len(line) + 1
			}
			return n
		}
		refuse("192.0.2.1", 100, 70)
		time.Sleep(floodWindow + time.Second)
		synctest.Wait()
		one := size()
		if one > 1<<20 {
			t.Errorf("%d bytes of one client in a minute", one)
		}
		for i := range 100 {
			refuse(fmt.Sprint("198.51.100.", i), 5, 20)
		}
		time.Sleep(floodWindow + time.Second)
		synctest.Wait()
		if n := size() - one; n > floodTotalBytes+1<<20 {
			t.Errorf("%d bytes of a hundred clients in a minute", n)
		}
		for _, line := range logLines(t, dir) {
			refused--
			var n int
			if i := strings.Index(line, `"suppressed":`); i >= 0 {
				if _, err := fmt.Sscan(line[i+len(`"suppressed":`):strings.LastIndex(line, `,"error"`)], &n); err != nil {
					t.Fatal(line, err)
				}
				refused -= n - 1
			}
		}
		if refused != 0 {
			t.Errorf("%d refusals are neither written nor counted", refused)
		}
	})
}
