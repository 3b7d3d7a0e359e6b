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
	l, err := Open(Options{Dir: dir, SegmentSize: 1500, CheckpointEvery: 5 * time.Millisecond, Deadline: closeWait})
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

// killsPerLog is after how many kills a log is looked at in whole and another
// begun, so that a round costs the same however many there are.
const killsPerLog = 50

// TestKill kills a process with 64 writers again and again, while segments
// are sealed every few records: what it said to be durable is in the log, the
// chain verifies, and every call has an end. CADDYVAULT_KILL_ROUNDS is how
// often.
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
	start := time.Now()
	var records, acknowledged, segments int
	for left := rounds; left > 0; left -= killsPerLog {
		n := min(left, killsPerLog)
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		acked := map[uint64]string{}
		for range n {
			killOnce(t, exe, dir, acked)
		}
		acknowledged += len(acked)
		r := checkKilled(t, dir, acked)
		if n > 5 && r.Checkpoints == 0 {
			t.Fatal("no checkpoints")
		}
		records += int(r.Records)
		segments += len(r.Segments)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d rounds, %d records, %d of them acknowledged and none lost, %d segments, %.1f s",
		rounds, records, acknowledged, segments, time.Since(start).Seconds())
}

// killOnce lets the writers go on with the log in dir, kills them after some
// records, and notes what they were told to be durable.
func killOnce(t *testing.T, exe, dir string, acked map[uint64]string) {
	t.Helper()
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
	until := 1 + rand.IntN(400)
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
			t.Fatalf("seq %d is %s and %s", s, was, id)
		}
		acked[s] = id
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || stderr.Len() > 0 {
		t.Fatalf("%v: %s", err, stderr.String())
	}
}

// checkKilled holds a log to what was said to be durable.
func checkKilled(t *testing.T, dir string, acked map[uint64]string) Report {
	t.Helper()
	l := open(t, Options{Dir: dir})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := verifyOK(t, dir)
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
	return r
}
