package audit

import "fmt"

// MinSegmentSize and MaxSegmentSize bound Options.SegmentSize where a user
// sets it.
const (
	MinSegmentSize = 4 << 10
	MaxSegmentSize = 1 << 30
)

// ParseDurability returns the durability of a name, "sync" or "async".
func ParseDurability(s string) (Durability, error) {
	switch s {
	case "sync":
		return Sync, nil
	case "async":
		return Async, nil
	}
	return 0, fmt.Errorf("durability is sync or async, not %q", s)
}

// Reconfigure takes over, of o, what may change while the log is open:
// Durability, SegmentSize, CheckpointEvery, OnCheckpoint, KeepFor and KeepBytes. It holds
// from the next batch on.
func (l *Log) Reconfigure(o Options) {
	o.setDefaults()
	l.set.Store(&o)
}

// Settings returns the options that hold now, with their defaults.
func (l *Log) Settings() Options { return *l.set.Load() }
