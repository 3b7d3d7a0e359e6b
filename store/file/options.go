// Package file is the store's driver for one machine: documented files in a
// data directory and directories of services and agents, that people may read
// and edit.
//
// Promises: what store.Store says; one process owns a data directory; a file
// is replaced whole or not at all; what cannot be read is refused by name and
// never replaced by something empty; a service's or agent's file dropped in,
// changed or deleted is noticed within two seconds, and a broken one leaves the last
// good version in place. Where an entry lives:
//
//	services/<name>        <services_dir>/<name>.json, the bytes as they are
//	agents/<name>          <agents_dir>/<name>.json, the same
//	secrets/, keyset/      <data_dir>/secrets.enc, one JSON file
//	revocations/<kind>/…   <data_dir>/revocations.log, append-only
//
// The driver may not know what a value means: whether a service or an
// agent is valid beyond being a JSON object is asked of the Options.
package file

import (
	"errors"
	"time"

	"github.com/caddyvault/caddyvault/store/fsx"
	"go.uber.org/zap"
)

// Names in the data directory.
const (
	lockName     = ".lock"
	revisionName = "revision"
	sealedName   = "secrets.enc"
	logName      = "revocations.log"
	legacyName   = "revocations.json"
)

// MaxService is the largest file of a service or an agent, in bytes.
const MaxService = 1 << 20

// Errors of Open. They are wrapped by an error that names the file.
var (
	// ErrLocked: another process, or another Store of this one, owns the
	// data directory.
	ErrLocked = errors.New("the data directory is in use by another process")
	// ErrLegacy: the data directory is one of the older Node system, which
	// a command imports into a new one.
	ErrLegacy = errors.New("this is data of the older Node system; " +
		"choose a new data_dir and run: caddyvault vault import <dir>")
	// ErrDamaged: a file is not what was written there.
	ErrDamaged = errors.New("damaged")
)

// Options of Open.
type Options struct {
	// DataDir holds secrets.enc and the revocations. It is made with mode
	// 0700 if missing and refused if others can enter it.
	DataDir string

	// ServicesDir holds one JSON file a service. It is made with mode 0700
	// if missing and refused if others can write it. Default:
	// <DataDir>/services.
	ServicesDir string

	// ValidateService decides whether a service is broken beyond not being
	// a JSON object. Its error is reported as Entry.Err and by Put; a file
	// with one that wraps store.ErrElsewhere is looked at again after five
	// times PollInterval, though it has not changed. It is called for several
	// services at once, and must not call the store.
	ValidateService func(name string, data []byte) error

	// AgentsDir and ValidateAgent are the same for agents. Default:
	// <DataDir>/agents.
	AgentsDir     string
	ValidateAgent func(name string, data []byte) error

	// PollInterval is how often service files, agent files and secrets.enc are looked at
	// besides the notices of the operating system. Default: one second.
	PollInterval time.Duration

	Logger *zap.Logger      // default: none
	Now    func() time.Time // default: time.Now

	// fault fails steps of writes, and noNotify turns the notices of the
	// operating system off; for tests.
	fault    fsx.Fault
	noNotify bool
}
