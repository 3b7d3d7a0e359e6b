package main

import (
	"fmt"
	"time"
)

// idleLoad is how long the processes work whose memory is compared.
var idleLoad = 30 * time.Second

// memoryTable compares what is resident, of processes that have done nothing
// yet, and of the same after some load.
func memoryTable(s *stage) (table, error) {
	t := table{title: "Memory", head: []string{"resident", "vault", "bare Caddy", "of bare Caddy", "aim"}}
	const start = "memory after the start"
	load := fmt.Sprintf("memory after %s of /proxy/", idleLoad)
	wantsStart, wantsLoad := s.wants(start), s.wants(load)
	if !wantsStart && !wantsLoad {
		return t, nil
	}
	bare, err := s.startBare("idle")
	if err != nil {
		return t, err
	}
	defer bare.stop()
	v, err := s.on("idle")
	if err != nil {
		return t, err
	}
	defer s.stop("idle")
	compare := func(name string) {
		our, their := v.memory("VmRSS"), bare.memory("VmRSS")
		t.add(name, mebibytes(our), mebibytes(their), atMost("%.2f", float64(our)/float64(their), 1.15))
	}
	if wantsStart {
		compare(start)
	}
	if !wantsLoad {
		return t, nil
	}
	if _, err := s.measure(job{Request: proxied("svc", small)(s, v.url), Conns: 32, Length: idleLoad}, v.process); err != nil {
		return t, err
	}
	if _, err := s.measure(job{Request: request{Method: "GET", URL: bare.url + small}, Conns: 32, Length: idleLoad}, bare.process); err != nil {
		return t, err
	}
	compare(load)
	return t, nil
}

// flatCalls are a tenth of the calls of -flat.
var flatCalls = 100_000

// flatTable shows whether memory grows with calls.
func flatTable(s *stage) (table, error) {
	t := table{title: "Memory over calls", head: []string{"vault.call", "resident", "live heap", "requests/s"}}
	s.running = "-flat"
	for i := range 10 {
		v, err := s.on("")
		if err != nil {
			return t, err
		}
		f, err := s.measure(job{Request: call(s, v.url), Conns: 32, Length: time.Hour, Count: flatCalls}, v.process)
		if err != nil {
			return t, err
		}
		resident := v.memory("VmRSS")
		heap, err := s.heap(v)
		if err != nil {
			return t, err
		}
		t.add(fmt.Sprintf("after %d", (i+1)*flatCalls), mebibytes(resident), mebibytes(heap), figure("%.0f", f.rate()))
	}
	return t, nil
}
