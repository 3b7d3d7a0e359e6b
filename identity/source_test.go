package identity

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// standIn is an issuer that does as it is told.
type standIn struct {
	mu    sync.Mutex
	keys  *keySet
	err   error
	hangs bool
	asked atomic.Int64
}

func (i *standIn) fetch(ctx context.Context) (*keySet, time.Duration, error) {
	i.asked.Add(1)
	i.mu.Lock()
	keys, err, hangs := i.keys, i.err, i.hangs
	i.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}
	return keys, 0, err
}

func (i *standIn) is(keys *keySet, err error, hangs bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys, i.err, i.hangs = keys, err, hangs
}

var (
	oldKey = header{alg: "EdDSA", kid: "ed", hasKid: true}
	newKey = header{alg: "ES256", kid: "p256", hasKid: true}
	noKey  = header{alg: "ES256", kid: "none", hasKid: true}
	errOut = errors.New("connection refused")
)

// sourceTest runs f in a bubble with a source that is started or not.
func sourceTest(t *testing.T, started bool, f func(t *testing.T, s *Source, i *standIn, log *observer.ObservedLogs)) {
	t.Helper()
	testKeys() // outside of the bubble
	before := mustSet(t, jwksOf("ed"))
	synctest.Test(t, func(t *testing.T) {
		i := &standIn{keys: before}
		s := newSource(testIssuer, i.fetch)
		defer func() { _ = s.Destruct() }()
		core, log := observer.New(zapcore.InfoLevel)
		if started {
			s.Start(zap.New(core), nil)
		}
		f(t, s, i, log)
	})
}

func (s *Source) must(t *testing.T, h header, want error) {
	t.Helper()
	k, err := s.find(t.Context(), h, DefaultMaxStale)
	if want == nil && (err != nil || k == nil || k.kid != h.kid) || want != nil && (k != nil || !errors.Is(err, want)) {
		t.Errorf("%s: %v, %v; want %v", h.kid, k, err, want)
	}
}

// TestRotation: a new key is known as soon as a JWT names it, and an old one is
// forgotten when the keys are fetched anew.
func TestRotation(t *testing.T) {
	sourceTest(t, true, func(t *testing.T, s *Source, i *standIn, _ *observer.ObservedLogs) {
		s.must(t, oldKey, nil)
		i.is(mustSet(t, jwksOf("ed", "p256")), nil, false)
		s.must(t, newKey, nil)
		if n := i.asked.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
		i.is(mustSet(t, jwksOf("p256")), nil, false)
		s.must(t, oldKey, nil)
		time.Sleep(refreshDefault)
		synctest.Wait()
		s.must(t, newKey, nil)
		s.must(t, oldKey, errUnknownKey)
	})
}

// TestFlood: whatever is sent, the issuer is asked twice in ten seconds.
func TestFlood(t *testing.T) {
	sourceTest(t, true, func(t *testing.T, s *Source, i *standIn, _ *observer.ObservedLogs) {
		s.must(t, oldKey, nil)
		var wg sync.WaitGroup
		for range 10 {
			for range 100 {
				wg.Go(func() { s.must(t, noKey, errUnknownKey) })
			}
			wg.Wait()
			time.Sleep(time.Second)
		}
		if n := i.asked.Load(); n > attempts+1 {
			t.Errorf("asked %d times in ten seconds", n)
		}
		// It does not keep a new key away for long.
		i.is(mustSet(t, jwksOf("p256")), nil, false)
		time.Sleep(attemptsIn)
		s.must(t, newKey, nil)
	})
}

// TestOutage: the keys that are there stay good for max_stale, and the source
// recovers by itself.
func TestOutage(t *testing.T) {
	sourceTest(t, true, func(t *testing.T, s *Source, i *standIn, log *observer.ObservedLogs) {
		s.must(t, oldKey, nil)
		i.is(nil, errOut, false)
		time.Sleep(DefaultMaxStale - time.Hour)
		s.must(t, oldKey, nil)
		s.must(t, noKey, errUnavailable) // the issuer might know it
		if n := i.asked.Load(); n < 100 || n > 23*60*10/9+20 {
			t.Errorf("asked %d times in a day", n)
		}
		time.Sleep(2 * time.Hour)
		s.must(t, oldKey, errUnavailable)
		i.is(mustSet(t, jwksOf("p256")), nil, false)
		time.Sleep(retryMost)
		synctest.Wait()
		n := i.asked.Load()
		if s.must(t, newKey, nil); i.asked.Load() != n {
			t.Error("it did not recover by itself")
		}
		var said []string
		for _, e := range log.All() {
			said = append(said, e.Message)
		}
		if len(said) != 2 || !strings.Contains(said[0], "cannot be had") || !strings.Contains(said[1], "again") {
			t.Errorf("the log says %q", said)
		}
	})
}

// TestAwayAtStart: a source whose issuer is away refuses at once, and is asked
// again soon.
func TestAwayAtStart(t *testing.T) {
	sourceTest(t, false, func(t *testing.T, s *Source, i *standIn, _ *observer.ObservedLogs) {
		i.is(nil, errOut, false)
		s.Start(zap.NewNop(), nil)
		synctest.Wait()
		s.must(t, oldKey, errUnavailable)
		i.is(mustSet(t, jwksOf("ed")), nil, false)
		time.Sleep(2 * retryFirst)
		s.must(t, oldKey, nil)
	})
}

// TestHang: an issuer that does not answer holds no request up for longer than
// a bound, and many no longer than one.
func TestHang(t *testing.T) {
	sourceTest(t, false, func(t *testing.T, s *Source, i *standIn, _ *observer.ObservedLogs) {
		i.is(nil, nil, true)
		begin := time.Now()
		for range 50 {
			s.must(t, oldKey, errUnavailable)
		}
		if took := time.Since(begin); took > waitFor {
			t.Errorf("50 requests waited %s", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		time.Sleep(fetchTimeout + attemptsIn)
		begin = time.Now()
		if _, err := s.find(ctx, oldKey, DefaultMaxStale); !errors.Is(err, errUnavailable) || time.Since(begin) != 0 {
			t.Errorf("a client that has left waits: %v", err)
		}
		time.Sleep(fetchTimeout)
		synctest.Wait()
		i.is(mustSet(t, jwksOf("ed")), nil, false)
		time.Sleep(attemptsIn)
		s.must(t, oldKey, nil)
		i.is(nil, nil, true)
		s.must(t, oldKey, nil) // what is known needs nobody
	})
}

// TestNotStarted: requests that come before the source is started, or after it
// has ended, are served as far as that goes.
func TestNotStarted(t *testing.T) {
	sourceTest(t, false, func(t *testing.T, s *Source, i *standIn, _ *observer.ObservedLogs) {
		s.must(t, oldKey, nil)
		if err := s.Destruct(); err != nil {
			t.Error(err)
		}
		s.must(t, oldKey, nil)
		n := i.asked.Load()
		s.must(t, newKey, errUnknownKey)
		s.Start(zap.NewNop(), nil)
		synctest.Wait()
		if i.asked.Load() != n {
			t.Error("a source that has ended asks")
		}
	})
}

// TestEmptySet: an issuer that withdraws all its keys is believed.
func TestEmptySet(t *testing.T) {
	sourceTest(t, true, func(t *testing.T, s *Source, i *standIn, log *observer.ObservedLogs) {
		s.must(t, oldKey, nil)
		i.is(mustSet(t, `{"keys":[]}`), nil, false)
		time.Sleep(refreshDefault)
		synctest.Wait()
		s.must(t, oldKey, errUnknownKey)
		if log.Len() == 0 || !strings.Contains(log.All()[0].Message, "no key that can be used") {
			t.Errorf("the log says %v", log.All())
		}
	})
}

// TestFault: a fault in reading an answer is a failure like any other.
func TestFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(testIssuer, func(context.Context) (*keySet, time.Duration, error) { panic("a fault") })
		defer func() { _ = s.Destruct() }()
		s.must(t, oldKey, errUnavailable)
	})
}

// BenchmarkAgent is about a JWT whose key is known.
func BenchmarkAgent(b *testing.B) {
	for name, alg := range map[string]string{"ed": "EdDSA", "p256": "ES256", "rsa": "RS256"} {
		x := NewIssuers([]*TrustedIssuer{newTrusted(b, Rules{}, fixed(b, jwksOf("rsa", "p256", "ed")))})
		raw := sign(alg, testKeys()[name], `{"alg":"`+alg+`","kid":"`+name+`"}`, goodClaims(nil))
		b.Run(alg, func(b *testing.B) {
			for b.Loop() {
				if _, _, refused := x.Agent(b.Context(), raw); refused != nil {
					b.Fatal(refused)
				}
			}
		})
	}
}

// TestNoKeyIDs: an issuer that names no keys can rotate them all the same.
func TestNoKeyIDs(t *testing.T) {
	unnamed := func(name string) string {
		return `{"keys":[` + strings.Replace(jwkOf(name), `"kid":"`+name+`",`, "", 1) + `]}`
	}
	raw := func(name, alg string) string {
		return sign(alg, testKeys()[name], `{"alg":"`+alg+`"}`, goodClaims(nil))
	}
	testKeys()
	synctest.Test(t, func(t *testing.T) {
		i := &standIn{keys: mustSet(t, unnamed("rsa"))}
		s := newSource(testIssuer, i.fetch)
		defer func() { _ = s.Destruct() }()
		trusted := newTrusted(t, Rules{}, s)
		must := func(raw string, ok bool) {
			t.Helper()
			if _, refused := trusted.agent(t.Context(), raw); (refused == nil) != ok {
				t.Errorf("%v", refused)
			}
		}
		must(raw("rsa", "RS256"), true)
		must(raw("other", "RS256"), false)
		i.is(mustSet(t, unnamed("other")), nil, false)
		time.Sleep(attemptsIn)
		must(raw("other", "RS256"), true)
		must(raw("rsa", "RS256"), false)
		// And no flood either.
		n := i.asked.Load()
		for range 100 {
			must(raw("rsa", "RS256"), false)
		}
		if more := i.asked.Load() - n; more > attempts {
			t.Errorf("asked %d times", more)
		}
		if at, good := s.State(); at.IsZero() || !good {
			t.Errorf("%v, %v", at, good)
		}
		i.is(nil, errOut, false)
		time.Sleep(attemptsIn)
		must(raw("rsa", "RS256"), false)
		if _, good := s.State(); good {
			t.Error("an issuer that is away is there")
		}
	})
}
