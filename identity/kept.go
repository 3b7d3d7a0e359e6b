package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"
)

// A Keeper keeps a text of an issuer over a restart, where nobody else can
// write. Load returns fs.ErrNotExist if there is none.
type Keeper interface {
	Load() ([]byte, error)
	Save(text []byte) error
}

// keepEvery is how often the same keys are kept again: what is kept is that much
// older than what is known.
const keepEvery = time.Minute

// errBefore stands for the failure of an attempt that there was none of yet.
var errBefore = errors.New("the issuer has not been asked since the start")

// kept is what is kept: the key set as the issuer has given it, and when.
type kept struct {
	Issuer string         `json:"issuer"`
	At     int64          `json:"at"` // Unix time in milliseconds
	Keys   jsontext.Value `json:"keys"`
}

// recall takes up the keys that an earlier process had, so that a start in an
// issuer's outage costs nothing. They are as old as they were there.
func (s *Source) recall(k Keeper) {
	text, err := k.Load()
	var have *held
	if err == nil {
		have, err = parseKept(text, s.name, time.Now())
	}
	switch {
	case err == nil:
		s.mu.Lock()
		if s.held.CompareAndSwap(nil, have) {
			s.failure = errBefore
		}
		s.mu.Unlock()
	case !errors.Is(err, fs.ErrNotExist):
		s.logger.Load().Warn("the keys that are kept of an issuer of JWTs cannot be used", zap.String("issuer", s.name), zap.Error(err))
	}
}

func parseKept(text []byte, issuer string, now time.Time) (*held, error) {
	var k kept
	if err := json.Unmarshal(text, &k, json.RejectUnknownMembers(true)); err != nil {
		return nil, errors.New("this is not what was kept")
	}
	at := time.UnixMilli(k.At)
	switch {
	case k.Issuer != issuer:
		return nil, fmt.Errorf("they are of the issuer %q", clip(k.Issuer))
	case at.After(now):
		return nil, fmt.Errorf("they were kept at %s, which is yet to come", at.UTC().Format(time.RFC3339))
	}
	keys, err := parseKeySet(k.Keys)
	if err != nil {
		return nil, err
	}
	return &held{keys: keys, at: at}, nil // to be asked for at once
}

// remember keeps the keys that are known now.
func (s *Source) remember() {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	have := s.held.Load()
	if s.keeper == nil || have.keys.document == nil ||
		have.at.Sub(s.keptAt) < keepEvery && bytes.Equal(have.keys.document, s.keptKeys) {
		return
	}
	text, err := json.Marshal(kept{s.name, have.at.UnixMilli(), have.keys.document})
	if err == nil {
		err = s.keeper.Save(append(text, '\n'))
	}
	if err != nil {
		s.logger.Load().Warn("the keys of an issuer of JWTs cannot be kept for the next start", zap.String("issuer", s.name), zap.Error(err))
		return
	}
	s.keptAt, s.keptKeys = have.at, have.keys.document
}
