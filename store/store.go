// Package store is the one interface behind which everything lives that is
// state: services, agents, secrets (as ciphertexts), keysets, revocations.
//
// One machine with files and many machines on a shared engine differ in a
// driver and in nothing else. A driver promises what the Store interface
// says and shows it by passing the suite of package storetest. The package
// knows nothing of what the values mean, of HTTP, or of Caddy.
package store

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Prefixes of the keys. What follows the prefix is <name> for services,
// agents and keysets, <ref> for secrets, and <kind>/<id> for revocations.
const (
	Services    = "services/"
	Agents      = "agents/"
	Secrets     = "secrets/"
	Keysets     = "keyset/"
	Revocations = "revocations/"
)

// MaxKey is the longest key, in bytes.
const MaxKey = 512

// MaxValue is the largest value, in bytes.
const MaxValue = 1 << 20

// Rev is a revision of the whole store. Revisions only grow, also across a
// restart; there may be gaps. 0 is the revision of what does not exist.
type Rev uint64

// AnyRev as ifRev means: whatever the revision is now.
const AnyRev Rev = ^Rev(0)

// Entry is one key with its value.
type Entry struct {
	Key   string
	Value []byte

	// Rev is the revision of the last change of this entry.
	Rev Rev

	// Expires is when the entry stops existing; zero means never. Drivers
	// keep milliseconds, rounded up.
	Expires time.Time

	// Err says that the entry is there but broken, for example a service
	// file edited by hand that does not parse. Value is then the last good
	// one, or nil if there was none since the start.
	Err error
}

// ErrElsewhere is wrapped by an error of a file that is right in itself and
// names what cannot be used: that may be mended with the file untouched, so a
// driver looks at it again every so often.
var ErrElsewhere = errors.New("what is named elsewhere cannot be used")

// Cause returns what a server's log has of such an error beside its text, nil
// for another error.
func Cause(err error) error {
	if !errors.Is(err, ErrElsewhere) {
		return nil
	}
	return errors.Unwrap(err)
}

// Expired reports whether the entry has stopped existing at now.
func (e Entry) Expired(now time.Time) bool {
	return !e.Expires.IsZero() && !now.Before(e.Expires)
}

// EventType says what happened to an entry.
type EventType uint8

// The types of an event.
const (
	// Put is a new or changed entry, or one that broke or was mended.
	Put EventType = iota + 1
	// Delete is an entry that is gone; of Entry only Key and Rev are set.
	Delete
)

// String returns "put" or "delete".
func (t EventType) String() string {
	switch t {
	case Put:
		return "put"
	case Delete:
		return "delete"
	default:
		return "unknown"
	}
}

// Event is one change. Entry.Rev is the revision of the change.
type Event struct {
	Type EventType
	Entry
}

// Errors of a Store. They are wrapped; compare with errors.Is.
var (
	// ErrNotFound: there is no such entry, or it has expired.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the entry is not at the revision the caller named.
	ErrConflict = errors.New("changed meanwhile")
	// ErrInvalid: the key or value is not one this store takes.
	ErrInvalid = errors.New("invalid")
	// ErrCompacted: changes after the revision asked for are no longer
	// known. List anew, then watch from the revision of a Barrier taken
	// before that List.
	ErrCompacted = errors.New("changes are no longer known")
	// ErrSlow: a watcher fell so far behind that changes it had not seen
	// were dropped. The remedy is that of ErrCompacted.
	ErrSlow = errors.New("watcher fell behind")
	// ErrClosed: the store or the watcher has been closed.
	ErrClosed = errors.New("closed")
)

// Store keeps entries by key. All methods may be called concurrently.
//
// Expired entries are gone for every method without an event: whoever holds
// a copy knows its Expires.
type Store interface {
	// Get returns the entry at key, or ErrNotFound.
	Get(ctx context.Context, key string) (Entry, error)

	// List returns the entries whose keys begin with prefix, sorted by key.
	List(ctx context.Context, prefix string) ([]Entry, error)

	// Put sets the entry at key and returns its new revision once it is
	// durable and visible. ifRev is the revision the entry must have: 0 for
	// "must not exist", AnyRev for "whatever it is", else ErrConflict. A
	// zero expires means never. An error leaves the store as it was, except
	// that after an error of ctx the outcome is unknown.
	Put(ctx context.Context, key string, value []byte, ifRev Rev, expires time.Time) (Rev, error)

	// Delete removes the entry at key, with ifRev as in Put, and returns
	// the revision of the removal. ErrNotFound if there is none.
	Delete(ctx context.Context, key string, ifRev Rev) (Rev, error)

	// Watch delivers every change of a key beginning with prefix whose
	// revision is greater than from: once, in order, or the watcher ends
	// with an error that says why not. It returns ErrCompacted at once if
	// from is too old. The watcher ends with ctx.
	Watch(ctx context.Context, prefix string, from Rev) (Watcher, error)

	// Barrier returns a revision at or above that of every write
	// acknowledged before the call; all of them are visible after it.
	Barrier(ctx context.Context) (Rev, error)

	// Close ends all watchers with ErrClosed and releases what the store
	// holds. What was acknowledged stays. A second Close does nothing.
	Close() error
}

// Watcher delivers changes. It is for one goroutine.
type Watcher interface {
	// Next waits for the next change. An error other than that of ctx is
	// final: ErrSlow, ErrClosed, the error of the context of Watch.
	Next(ctx context.Context) (Event, error)

	// Close ends the watcher; a waiting Next returns ErrClosed.
	Close()
}

// Ranger is what a driver has beyond Store if it can walk entries without
// building a list of them, which matters at a million revocations.
type Ranger interface {
	// Range calls f for each live entry whose key begins with prefix, in no
	// promised order, until f returns false. Value is valid only during the
	// call. f must not call the store.
	Range(ctx context.Context, prefix string, f func(Entry) bool) error
}

// Range walks the entries of st below prefix by its Range method if it has
// one, else by List. See Ranger.
func Range(ctx context.Context, st Store, prefix string, f func(Entry) bool) error {
	if r, ok := st.(Ranger); ok {
		return r.Range(ctx, prefix, f)
	}
	entries, err := st.List(ctx, prefix)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !f(e) {
			return nil
		}
	}
	return nil
}

// Collection returns the part of key up to and including its first slash,
// for example Services; "" if it has none.
func Collection(key string) string {
	i := strings.IndexByte(key, '/')
	return key[:i+1]
}
