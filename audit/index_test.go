package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// An oracle answers queries by decoding every line.
type oracle []oracleLine

type oracleLine struct {
	line            string
	ts, seq         int64
	fields, context map[string]string
}

func newOracle(t testing.TB, lines []string) oracle {
	t.Helper()
	texts := func(m map[string]any) map[string]string {
		out := map[string]string{}
		for k, v := range m {
			switch v := v.(type) {
			case string:
				out[k] = v
			case json.Number:
				out[k] = v.String()
			}
		}
		return out
	}
	out := make(oracle, len(lines))
	for i, line := range lines {
		var r map[string]any
		d := json.NewDecoder(strings.NewReader(line))
		d.UseNumber()
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		within, _ := r["context"].(map[string]any)
		o := oracleLine{line: line, fields: texts(r), context: texts(within)}
		o.ts, _ = r["ts"].(json.Number).Int64()
		o.seq, _ = r["seq"].(json.Number).Int64()
		out[i] = o
	}
	return out
}

func (o *oracleLine) has(field, value string) bool {
	top, ok := o.fields[field]
	within, inside := o.context[field]
	return ok && top == value || inside && within == value
}

func (o *oracleLine) match(q *Query) bool {
	for field, value := range q.Filters {
		if !o.has(field, value) {
			return false
		}
	}
	return (q.Agents == nil || slices.ContainsFunc(q.Agents, func(a string) bool { return o.has("agentId", a) })) &&
		(q.Since == 0 || o.ts >= q.Since) && (q.Until == 0 || o.ts <= q.Until) && (q.Before == 0 || uint64(o.seq) < q.Before)
}

func (o oracle) answer(q Query) (want [][]byte) {
	for i := len(o) - 1; i >= 0 && len(want) < q.Limit; i-- {
		if o[i].match(&q) {
			want = append(want, []byte(o[i].line))
		}
	}
	slices.Reverse(want)
	return want
}

// randomRecord is about few agents, services and sessions, on a clock that
// steps.
func randomRecord(r *rand.Rand, i int) Record {
	pick := func(name string, n int) string { return fmt.Sprintf("%s-%d", name, r.IntN(n)) }
	rec := Record{
		Time: time.UnixMilli(1_000_000 + int64(i)*10 - int64(r.IntN(20)*r.IntN(500))), Event: pick("event", 4), Service: pick("service", 5),
		TokenID: pick("token", 300), CallID: fmt.Sprint(i),
		Context: &Context{AgentID: pick("agent", 9), SessionID: pick("s", 40), TaskID: `t"\` + pick("é\n", 3), Tool: strings.Repeat("x", r.IntN(200))},
	}
	switch r.IntN(5) {
	case 0:
		rec.Context = nil
	case 1:
		rec.AgentID = pick("agent", 9)
	case 2:
		rec.Reason = `said "agentId":"agent-1" in vain`
	}
	return rec
}

func randomQuery(r *rand.Rand, n int) Query {
	q := Query{Limit: 1 + r.IntN(60)}
	all := map[string]string{
		"event": fmt.Sprintf("event-%d", r.IntN(4)), "service": fmt.Sprintf("service-%d", r.IntN(6)), "agentId": fmt.Sprintf("agent-%d", r.IntN(9)),
		"tokenId": fmt.Sprintf("token-%d", r.IntN(300)), "sessionId": fmt.Sprintf("s-%d", r.IntN(41)), "taskId": fmt.Sprintf("t\"\\é\n-%d", r.IntN(3)),
		"callId": fmt.Sprint(r.IntN(n)), "seq": fmt.Sprint(r.IntN(n)),
	}
	q.Filters = map[string]string{}
	for field := range maps.Keys(all) {
		if r.IntN(4) == 0 {
			q.Filters[field] = all[field]
		}
	}
	at := func() int64 { return 1_000_000 + int64(r.IntN(n))*10 }
	if r.IntN(3) == 0 {
		q.Since = at()
	}
	if r.IntN(3) == 0 {
		q.Until = at()
	}
	if r.IntN(3) == 0 {
		q.Before = 1 + uint64(r.IntN(n))
	}
	switch r.IntN(6) {
	case 0:
		q.Agents = []string{"agent-1"}
	case 1:
		q.Agents = []string{"agent-1", "agent-2", "nobody"}
	case 2:
		q.Agents = []string{}
	}
	return q
}

// waitIndexed waits until every sealed segment has its index.
func waitIndexed(t testing.TB, l *Log) {
	t.Helper()
	if err := l.barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		l.index.poke()
		missing := 0
		v := l.view.snapshot()
		for _, p := range v.sealed {
			l.index.mu.Lock()
			if l.index.heads[p.first] == nil {
				missing++
			}
			l.index.mu.Unlock()
		}
		v.cur.release()
		if missing == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d segments without an index", missing)
		}
		time.Sleep(time.Millisecond) // the interval of polling
	}
}

func checkQueries(t *testing.T, l *Log, o oracle, r *rand.Rand, n int) {
	t.Helper()
	for range n {
		q := randomQuery(r, len(o))
		res, err := l.Query(context.Background(), q)
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		want := o.answer(q)
		if !slices.EqualFunc(res.Lines, want, bytes.Equal) {
			t.Fatalf("%+v:\ngot  %d: %q\nwant %d: %q", q, len(res.Lines), res.Lines, len(want), want)
		}
	}
}

// TestIndex compares with decoding every line, on segments that have a file,
// have one in memory, and have none.
func TestIndex(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	const n = 6000
	l := open(t, Options{Dir: dir, SegmentSize: 150_000, CheckpointEvery: -1})
	for i := range n {
		if err := l.Enqueue(Entry{Record: randomRecord(r, i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.barrier(context.Background()); err != nil {
		t.Fatal(err)
	}
	lines := newOracle(t, logLines(t, dir))
	checkQueries(t, l, lines, r, 300)
	waitIndexed(t, l)
	checkQueries(t, l, lines, r, 300)
	names, _ := filepath.Glob(filepath.Join(dir, "*.idx"))
	if len(names) < 10 {
		t.Fatalf("%d indexes", len(names))
	}
	for _, name := range names {
		if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, fi.Mode(), err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	// The files that are there are used, and nothing is made anew.
	core, logged := observer.New(zap.WarnLevel)
	before := modTimes(t, names)
	l = open(t, Options{Dir: dir, SegmentSize: 150_000, CheckpointEvery: -1, Logger: zap.New(core)})
	waitIndexed(t, l)
	checkQueries(t, l, lines, r, 200)
	if logged.Len() > 0 || !maps.Equal(before, modTimes(t, names)) {
		t.Errorf("made anew: %v", logged.All())
	}
	// One that disappears is made anew, one that nobody needs is removed.
	stray := filepath.Join(dir, "audit.log.999999.idx")
	if err := errors.Join(os.Remove(names[3]), os.WriteFile(stray, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	checkQueries(t, l, lines, r, 100)
	waitIndexed(t, l)
	if _, err := os.Stat(names[3]); err != nil {
		t.Error(err)
	}
	_ = l.Close()
	if _, err := os.Stat(stray); err == nil {
		t.Errorf("%s is still there", stray)
	}
}

func modTimes(t *testing.T, names []string) map[string]time.Time {
	t.Helper()
	out := map[string]time.Time{}
	for _, name := range names {
		fi, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = fi.ModTime()
	}
	return out
}

// TestIndexDamaged damages an index in every way: the answers stay true, and
// it is made anew.
func TestIndexDamaged(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(3, 4))
	l := open(t, Options{Dir: dir, SegmentSize: 150_000, CheckpointEvery: -1})
	for i := range 3000 {
		if err := l.Enqueue(Entry{Record: randomRecord(r, i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.barrier(context.Background()); err != nil {
		t.Fatal(err)
	}
	waitIndexed(t, l)
	_ = l.Close()
	lines := newOracle(t, logLines(t, dir))
	names, _ := filepath.Glob(filepath.Join(dir, "*.idx"))
	slices.Sort(names)
	name := names[1]
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 1 << r.IntN(8)
		return b
	}
	swap := func() []byte { // two pages, each good for itself
		b := bytes.Clone(good)
		copy(b[indexPage:], good[2*indexPage:3*indexPage])
		copy(b[2*indexPage:], good[indexPage:2*indexPage])
		return b
	}
	cases := map[string][]byte{
		"empty": {}, "short": good[:len(good)/2], "cut": good[:len(good)-1], "long": append(bytes.Clone(good), 0), "of another segment": other,
		"pages swapped": swap(), "zeros": make([]byte, len(good)), "head": flip(20), "last byte": flip(len(good) - 1),
	}
	for i := range 20 {
		at := r.IntN(len(good))
		cases[fmt.Sprintf("bit %d of %d", i, at)] = flip(at)
	}
	for what, content := range cases {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, Options{Dir: dir, SegmentSize: 150_000, CheckpointEvery: -1})
		checkQueries(t, l, lines, r, 60)
		// Whoever reads the damaged page says so; all are read here.
		for i := range 41 {
			q := Query{Filters: map[string]string{"sessionId": fmt.Sprintf("s-%d", i)}, Limit: MaxLimit}
			if _, err := l.Query(context.Background(), q); err != nil {
				t.Fatal(err)
			}
		}
		waitIndexed(t, l)
		checkQueries(t, l, lines, r, 60)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatal(what)
		}
	}
	// One that others can write is not believed.
	if err := os.Chmod(name, 0o666); err != nil {
		t.Fatal(err)
	}
	l = open(t, Options{Dir: dir, SegmentSize: 150_000, CheckpointEvery: -1})
	waitIndexed(t, l)
	_ = l.Close()
	if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

// TestIndexOfOtherContent has a segment of the same number and size, but with
// other records: a copy that was put back.
func TestIndexOfOtherContent(t *testing.T) {
	make := func(agent string) string {
		dir := t.TempDir()
		l := open(t, Options{Dir: dir, SegmentSize: 2000, CheckpointEvery: -1})
		for i := range 30 {
			appendOK(t, l, Record{Time: time.UnixMilli(int64(1000 + i)), Event: "test", Context: &Context{AgentID: agent}})
		}
		waitIndexed(t, l)
		_ = l.Close()
		return dir
	}
	a, b := make("anna"), make("otto")
	const name = "audit.log.1.idx"
	index, err := os.ReadFile(filepath.Join(a, name))
	if err == nil {
		err = os.WriteFile(filepath.Join(b, name), index, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{Dir: b, SegmentSize: 2000, CheckpointEvery: -1})
	res, err := l.Query(context.Background(), Query{Filters: map[string]string{"agentId": "otto", "event": "test"}})
	if err != nil || len(res.Lines) != 30 {
		t.Fatalf("%d records, %v", len(res.Lines), err)
	}
}

// TestIndexFaults fails operations while segments are sealed: what an index
// cannot have costs time and nothing else.
func TestIndexFaults(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, op := range []string{"create", "write", "rename", "open", "read", "list"} {
		dir := t.TempDir()
		d, err := openDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		fails := &indexFaultFS{fsys: d, op: op}
		l := open(t, Options{Dir: dir, SegmentSize: 50_000, CheckpointEvery: -1, fs: fails, index: true})
		for i := range 1500 {
			if err := l.Enqueue(Entry{Record: randomRecord(r, i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.barrier(context.Background()); err != nil {
			t.Fatal(err)
		}
		lines := newOracle(t, logLines(t, dir))
		checkQueries(t, l, lines, r, 100)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		verifyOK(t, dir)
	}
}

// indexFaultFS fails one kind of operation on indexes.
type indexFaultFS struct {
	fsys
	op string
}

func (f *indexFaultFS) fails(op, name string) error {
	if op == f.op && (strings.HasSuffix(name, indexSuffix) || strings.HasPrefix(name, tempPrefix+"index-")) {
		return syscall.EIO
	}
	return nil
}

func (f *indexFaultFS) wrap(name string, file file, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return &indexFaultFile{file, f, name}, nil
}

func (f *indexFaultFS) OpenRead(name string) (file, error) {
	if err := f.fails("open", name); err != nil {
		return nil, err
	}
	file, err := f.fsys.OpenRead(name)
	return f.wrap(name, file, err)
}

func (f *indexFaultFS) Create(name string) (file, error) {
	if err := f.fails("create", name); err != nil {
		return nil, err
	}
	file, err := f.fsys.Create(name)
	return f.wrap(name, file, err)
}

func (f *indexFaultFS) Rename(from, to string) error {
	return errors.Join(f.fails("rename", to), f.fsys.Rename(from, to))
}

type indexFaultFile struct {
	file
	fs   *indexFaultFS
	name string
}

func (f *indexFaultFile) Write(b []byte) (int, error) {
	if err := f.fs.fails("write", f.name); err != nil {
		return 0, err
	}
	return f.file.Write(b)
}

func (f *indexFaultFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.fs.fails("read", f.name); err != nil {
		return 0, err
	}
	return f.file.ReadAt(b, off)
}

// TestIndexWhileSealing queries while segments are sealed under it.
func TestIndexWhileSealing(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir(), SegmentSize: 20_000, Durability: Async})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				agent := fmt.Sprint("agent-", c)
				if err := l.Enqueue(Entry{Record: Record{Event: "test", CallID: fmt.Sprint(i), Context: &Context{AgentID: agent}}}); err != nil {
					t.Error(err)
					return
				}
				limit := 1 + i%50
				res, err := l.Query(context.Background(), Query{Filters: map[string]string{"agentId": agent}, Limit: limit})
				if err != nil || len(res.Lines) != min(limit, i+1) {
					t.Errorf("%d: %d of %d records, %v", i, len(res.Lines), min(limit, i+1), err)
					return
				}
				for j, line := range res.Lines {
					if id, _ := fieldString(line, callIDKey); string(id) != fmt.Sprint(i-len(res.Lines)+1+j) {
						t.Errorf("%d: record %d is %s", i, j, id)
						return
					}
				}
			}
		})
	}
	for l.Opens() < 60 && !t.Failed() {
		time.Sleep(time.Millisecond) // the interval of polling
	}
	close(stop)
	wg.Wait()
}

func FuzzIndexFile(f *testing.F) {
	x := &memIndex{seed: 7}
	var c chain = newChain()
	var lines []byte
	for i := range 40 {
		r := Record{Time: time.UnixMilli(int64(i)), Event: "e", Context: &Context{AgentID: fmt.Sprint(i % 3)}}
		lines = appendOwn(lines, &c, new([][32]byte), r.Time, &r)
	}
	x.add(lines)
	p := part{"audit.log.1.jsonl", 1, int64(len(lines))}
	f.Add(encodeIndex(x, p, c.hash))
	f.Add([]byte(indexMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Checksums would keep the fuzzer out.
		for at := 0; at+indexPage <= len(b); at += indexPage {
			copy(b[at:], seal(bytes.Clone(b[:at+indexPayload]), at)[at:])
		}
		h, err := readHead(closableReader{bytes.NewReader(b)}, int64(len(b)))
		if err != nil {
			return
		}
		defer h.close()
		for _, agent := range []string{"0", "1", "nobody"} {
			list, err := h.find([]byte("agentId"), []byte(agent))
			if err != nil {
				continue
			}
			blocks, _ := h.times()
			s := search{ctx: context.Background(), limit: 10, budget: 1 << 20, since: 3}
			s.filters, _ = newFilters(map[string]string{"agentId": agent}, nil)
			_ = s.hits(bytes.NewReader(lines), []postings{list}, int64(len(lines)), blocks)
			for _, line := range s.found { // whatever the index says
				if !bytes.Contains(lines, append(bytes.Clone(line), '\n')) || !s.match(line) {
					t.Fatalf("found %q", line)
				}
			}
		}
	})
}

type closableReader struct{ *bytes.Reader }

func (closableReader) Close() error { return nil }

// FuzzFieldsOf compares with a real decoder on lines as they are written.
func FuzzFieldsOf(f *testing.F) {
	f.Add("tony", `a"b\`, "\u2028,\"agentId\":\"x\"", 3)
	f.Add(`\`, `\\"`, "", 0)
	f.Fuzz(func(t *testing.T, agent, session, reason string, status int) {
		r := Record{Event: "e", Context: &Context{AgentID: agent, SessionID: session}, AgentID: session, Reason: reason, Status: status}
		line := r.AppendJSON(nil)
		got := map[string]bool{}
		for key, text := range fieldsOf(line) {
			got[string(key)+"="+string(text)] = true
		}
		for field, value := range map[string]string{"agentId": agent, "sessionId": session, "reason": reason} {
			m, err := newMatcher(field, value)
			if err != nil {
				t.Fatal(err)
			}
			key, text := m.key()
			if m.match(line) && !got[string(key)+"="+string(text)] {
				t.Fatalf("%s=%q is not found in %s", field, value, line)
			}
		}
	})
}

func TestSortEntries(t *testing.T) {
	for _, n := range []int{0, 1, 2, 1000, indexRun} {
		for _, hashes := range []uint32{1, 7, math.MaxUint32} {
			entries := make([]uint64, n)
			for i := range entries {
				entries[i] = uint64(rand.Uint32N(hashes))<<32 | uint64(i)
			}
			want := slices.Sorted(slices.Values(entries))
			if sortEntries(entries); !slices.Equal(entries, want) {
				t.Errorf("%d entries of %d hashes are not in order", n, hashes)
			}
		}
	}
}
