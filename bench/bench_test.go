package main

import (
	"io"
	"os"
	"testing"
	"time"
)

// TestMain lets the test binary be the processes that the program starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "upstream" {
		serveUpstream(os.Args[2])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "load" {
		generate()
		return
	}
	os.Exit(m.Run())
}

// TestEveryCaseRuns runs each case for a moment. It judges no figure.
func TestEveryCaseRuns(t *testing.T) {
	manyServices = 50
	tolerated = 1 // where tests run side by side, a disk may keep the vault waiting for too long
	if err := run(1, 50*time.Millisecond, "", "", io.Discard); err != nil {
		t.Fatal(err)
	}
}
