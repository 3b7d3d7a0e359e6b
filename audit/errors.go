package audit

import (
	"errors"
	"fmt"

	"github.com/caddyvault/caddyvault/refusal"
)

// Errors that callers compare with.
var (
	// ErrUnavailable is wrapped when a record could not be made durable, or
	// taken at all. Service is refused until it can.
	ErrUnavailable = errors.New("audit log unavailable")

	// ErrClosed is returned after Close. It is ErrUnavailable, too.
	ErrClosed = fmt.Errorf("%w: closed", ErrUnavailable)

	// ErrLegacy is wrapped by Open if the log in the directory was written
	// by the older Node system, whose lines have no seq and no prev.
	ErrLegacy = errors.New("audit log of the older system")

	errQueueFull = errors.New("the queue is full")
)

// Denied is returned by Append when the entry's guard refused. The denial is
// on record.
type Denied struct {
	// Code is what the guard returned.
	Code string
}

// Error returns the code.
func (d *Denied) Error() string { return "denied by the audit guard: " + d.Code }

// UnavailableError is how Append and others say ErrUnavailable.
type UnavailableError struct {
	// Seq is not zero if the record had got its number before the caller
	// gave up: it may be on disk, now or later. Who began something with it
	// writes the record that ends it.
	Seq uint64

	// Cause is what stands in the way; nil if it is only slow.
	Cause error
}

// Error says what stands in the way.
func (e *UnavailableError) Error() string {
	if e.Cause == nil {
		return ErrUnavailable.Error() + ": not on disk within the deadline"
	}
	return ErrUnavailable.Error() + ": " + e.Cause.Error()
}

// Is makes it ErrUnavailable.
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Cause }

// Refusal returns the error as the vault's refusal.
func (e *UnavailableError) Refusal() *refusal.Refusal {
	return refusal.New(refusal.AuditUnavailable, "the audit log cannot be written").
		WithHint("try again in a moment").WithCause(e)
}

// Kind is a kind of damage.
type Kind string

// The kinds of damage to a chain.
const (
	Altered    Kind = "altered"    // its content is not what the chain says
	Missing    Kind = "missing"    // it is not there
	Duplicated Kind = "duplicated" // it is there twice
	Reordered  Kind = "reordered"  // it stands in another place
	Truncated  Kind = "truncated"  // the file ends before it, or within it
	Misnamed   Kind = "misnamed"   // the file's name gives another first seq

	// What only a checkpoint shows.
	RolledBack Kind = "rolled back"         // an older state of the whole log
	Forged     Kind = "a forged checkpoint" // not signed by the log's key
)

// Damage is the first place where a log is not what was written.
type Damage struct {
	// Seq is the first record concerned.
	Seq uint64

	// Last is not 0 if a checkpoint shows the damage, which cannot tell the
	// records that it has added to the one before apart: it is in some of
	// Seq to Last. Of a log that ends too early all of them are missing.
	Last uint64

	Kind Kind

	// File is the name of the file it is in, Offset where in it, in bytes.
	File   string
	Offset int64
}

// Error names the record, the kind of damage and the place.
func (d *Damage) Error() string {
	place := fmt.Sprintf("(%s, byte %d)", d.File, d.Offset)
	switch {
	case d.Seq == 0:
		return fmt.Sprintf("audit log damaged: %s is %s", d.File, d.Kind)
	case d.Kind == RolledBack:
		return fmt.Sprintf("audit log damaged: it was rolled back, records %d to %d are missing %s", d.Seq, d.Last, place)
	case d.Kind == Truncated && d.Last != 0:
		return fmt.Sprintf("audit log damaged: it was truncated or rolled back, records %d to %d are missing %s", d.Seq, d.Last, place)
	case d.Last > d.Seq:
		return fmt.Sprintf("audit log damaged: one of the records %d to %d is %s %s", d.Seq, d.Last, d.Kind, place)
	}
	return fmt.Sprintf("audit log damaged: record %d is %s %s", d.Seq, d.Kind, place)
}
