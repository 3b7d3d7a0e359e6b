package identity

import (
	"errors"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// shelf is a Keeper that a test looks into.
type shelf struct {
	mu    sync.Mutex
	text  string
	saved int
	err   error
}

func (k *shelf) Load() ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.text == "" {
		return nil, fs.ErrNotExist
	}
	return []byte(k.text), nil
}

func (k *shelf) Save(text []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	k.text = string(text)
	k.saved++
	return nil
}

func (k *shelf) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.saved
}

// TestKept: a process that starts while the issuer is away goes on with the keys
// that the one before had, for as long as that one would have.
func TestKept(t *testing.T) {
	sourceTest(t, false, func(t *testing.T, first *Source, i *standIn, _ *observer.ObservedLogs) {
		k := &shelf{}
		first.Start(zap.NewNop(), k)
		time.Sleep(time.Second)
		if err := first.Destruct(); err != nil || k.count() != 1 || !strings.HasSuffix(k.text, "}\n") {
			t.Fatalf("kept %d times: %s, %v", k.count(), k.text, err)
		}

		i.is(nil, errOut, false)
		time.Sleep(DefaultMaxStale / 2)
		core, log := observer.New(zapcore.InfoLevel)
		s := newSource(testIssuer, i.fetch)
		defer func() { _ = s.Destruct() }()
		asked := i.asked.Load()
		s.Start(zap.New(core), k)
		s.must(t, oldKey, nil)
		s.must(t, newKey, errUnavailable) // the issuer might know it
		time.Sleep(time.Second)
		s.must(t, oldKey, nil)
		if i.asked.Load() == asked {
			t.Error("the issuer is not asked")
		}
		if at, good := s.State(); good || time.Since(at) < DefaultMaxStale/2 {
			t.Errorf("%s, %t", at, good)
		}
		if log.FilterLevelExact(zapcore.WarnLevel).Len() != 1 {
			t.Errorf("the log says %v", log.All())
		}
		time.Sleep(DefaultMaxStale / 2)
		s.must(t, oldKey, errUnavailable)

		// It comes back with another key, which alone is good then, and kept.
		i.is(mustSet(t, jwksOf("p256")), nil, false)
		time.Sleep(2 * retryMost)
		s.must(t, newKey, nil)
		s.must(t, oldKey, errUnknownKey)
		if k.count() < 2 || !strings.Contains(k.text, `"p256"`) || strings.Contains(k.text, `"ed"`) {
			t.Errorf("kept %d times: %s", k.count(), k.text)
		}
	})
}

// TestKeptSeldom: however often JWTs have the issuer asked, the same keys are
// not written again and again, and a disk that is full stops nothing.
func TestKeptSeldom(t *testing.T) {
	sourceTest(t, false, func(t *testing.T, s *Source, i *standIn, _ *observer.ObservedLogs) {
		core, log := observer.New(zapcore.WarnLevel)
		k := &shelf{}
		s.Start(zap.New(core), k)
		for range 30 {
			s.must(t, noKey, errUnknownKey)
			time.Sleep(time.Second)
		}
		if k.count() != 1 {
			t.Errorf("written %d times in half a minute", k.count())
		}
		time.Sleep(2 * refreshDefault)
		before := k.count()
		if before < 2 {
			t.Errorf("written %d times in twenty minutes", before)
		}
		k.mu.Lock()
		k.err = errors.New("disk full")
		k.mu.Unlock()
		i.is(mustSet(t, jwksOf("p256")), nil, false)
		time.Sleep(2 * refreshDefault)
		s.must(t, newKey, nil)
		if k.count() != before || log.Len() == 0 {
			t.Errorf("written %d times, and logged %v", k.count()-before, log.All())
		}
	})
}

// keptTexts are such as no process has kept, or not for this one.
var keptTexts = map[string]string{
	"nothing":         ``,
	"no JSON":         `{`,
	"another form":    `[]`,
	"of another":      `{"issuer":"https://other.example","at":1,"keys":{"keys":[]}}`,
	"yet to come":     `{"issuer":"` + testIssuer + `","at":99999999999999,"keys":{"keys":[]}}`,
	"no number":       `{"issuer":"` + testIssuer + `","at":"1","keys":{"keys":[]}}`,
	"no keys":         `{"issuer":"` + testIssuer + `","at":1}`,
	"keys of no form": `{"issuer":"` + testIssuer + `","at":1,"keys":[]}`,
	"more":            `{"issuer":"` + testIssuer + `","at":1,"keys":{"keys":[]},"more":1}`,
	"twice":           `{"issuer":"` + testIssuer + `","at":1,"at":2,"keys":{"keys":[]}}`,
	"behind it":       `{"issuer":"` + testIssuer + `","at":1,"keys":{"keys":[]}} {}`,
}

func TestKeptRefused(t *testing.T) {
	for name, text := range keptTexts {
		if have, err := parseKept([]byte(text), testIssuer, time.Now()); err == nil {
			t.Errorf("%s: %+v", name, have)
		}
	}
	if _, err := parseKept([]byte(`{"issuer":"`+testIssuer+`","at":1,"keys":{"keys":[]}}`), testIssuer, time.Now()); err != nil {
		t.Error(err)
	}
	sourceTest(t, false, func(t *testing.T, s *Source, i *standIn, _ *observer.ObservedLogs) {
		core, log := observer.New(zapcore.WarnLevel)
		i.is(nil, errOut, false)
		s.Start(zap.New(core), &shelf{text: keptTexts["of another"]})
		s.must(t, oldKey, errUnavailable)
		if log.FilterMessageSnippet("kept").Len() != 1 {
			t.Errorf("the log says %v", log.All())
		}
	})
}

// FuzzKept: whatever is read back has keys that a key set may have, and a time
// that is past.
func FuzzKept(f *testing.F) {
	for _, text := range keptTexts {
		f.Add([]byte(text))
	}
	testKeys()
	f.Add([]byte(`{"issuer":"` + testIssuer + `","at":1700000000000,"keys":` + jwksOf("ed") + `}`))
	now := time.Now()
	f.Fuzz(func(t *testing.T, text []byte) {
		have, err := parseKept(text, testIssuer, now)
		if err != nil {
			return
		}
		if have.at.After(now) || have.keys == nil || len(have.keys.all) > maxKeys {
			t.Errorf("%s: %+v", text, have)
		}
		if again, err := parseKeySet(have.keys.document); err != nil || len(again.all) != len(have.keys.all) {
			t.Errorf("%s: %v", have.keys.document, err)
		}
	})
}
