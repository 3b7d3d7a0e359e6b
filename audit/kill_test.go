package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// killDir is set for a child of TestKill.
const killDir = "CADDYVAULT_KILL_DIR"

// child runs the writers of TestKill if this process is to be them.
func child() bool {
	dir := os.Getenv(killDir)
	if dir == "" {
		return false
	}
	l, err := Open(Options{Dir: dir, SegmentSize: 4000, CheckpointEvery: 5 * time.Millisecond, Deadline: closeWait})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	for c := range 64 {
		wg.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), c, i)
				event := EventCallStarted
				if i%10 == 9 {
					event = "token.revoked"
				}
				seq, err := l.Append(context.Background(), Entry{Record: Record{Event: event, CallID: id}})
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				// One write each: lines do not mix.
				_, _ = os.Stdout.WriteString(fmt.Sprintf("%d %s\n", seq, id))
				if i%3 == 0 && event == EventCallStarted {
					_ = l.Enqueue(Entry{Record: Record{Event: EventCall, CallID: id}})
				}
			}
		})
	}
	wg.Wait()
	return true
}

// TestKill kills a process with 64 writers again and again: what it said to
// be durable is in the log, the chain verifies, and every call has an end.
// CADDYVAULT_KILL_ROUNDS is how often.
func TestKill(t *testing.T) {
	rounds := 50
	if s := os.Getenv("CADDYVAULT_KILL_ROUNDS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	acked := map[uint64]string{}
	for round := range rounds {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), killDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Kill after some records: the scheduler makes the moment random.
		until := 1 + rand.IntN(600)
		r := bufio.NewScanner(out)
		for n := 0; r.Scan(); n++ {
			if n == until {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			seq, id, ok := strings.Cut(r.Text(), " ")
			s, err := strconv.ParseUint(seq, 10, 64)
			if !ok || err != nil || id == "" {
				continue // cut by the kill
			}
			if was, ok := acked[s]; ok && was != id {
				t.Fatalf("round %d: seq %d is %s and %s", round, s, was, id)
			}
			acked[s] = id
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || stderr.Len() > 0 {
			t.Fatalf("round %d: %v: %s", round, err, stderr.String())
		}
	}
	l := open(t, Options{Dir: dir})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := verifyOK(t, dir)
	if rounds > 5 && r.Checkpoints == 0 {
		t.Fatal("no checkpoints")
	}
	open := map[string]bool{}
	for i, line := range logLines(t, dir) {
		id, _ := fieldString([]byte(line), callIDKey)
		if want, ok := acked[uint64(i+1)]; ok && want != string(id) {
			t.Fatalf("record %d is %q, and was acknowledged as %q", i+1, id, want)
		}
		delete(acked, uint64(i+1))
		switch _, event, _ := parseHead([]byte(line)); string(event) {
		case EventCallStarted:
			open[string(id)] = true
		case EventCall, EventCallUnknown:
			if !open[string(id)] {
				t.Fatalf("record %d ends a call that is not open: %s", i+1, line)
			}
			delete(open, string(id))
		}
	}
	if len(acked) > 0 || len(open) > 0 {
		t.Fatalf("%d acknowledged records are missing, %d calls are open", len(acked), len(open))
	}
	t.Logf("%d rounds, %d records, %d segments", rounds, r.Records, len(r.Segments))
}
