package caddyvault

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"

	"github.com/caddyvault/caddyvault/audit"
)

// Audit says how the audit log is kept. All of it can change in a reload.
type Audit struct {
	// When a record counts as written: `sync`, when it is on disk, or
	// `async`, when the operating system has it, and on disk at most a second
	// later; then a power cut may cost the records of that second. Default:
	// `sync`.
	Durability string `json:"durability,omitempty"`

	// The size in bytes at which a segment of the log is sealed and a new one
	// begun, at most 1 GiB. Default: 64 MiB.
	SegmentSize int64 `json:"segment_size,omitempty"`

	// How long records are kept, such as `90d`, how much of them, such as
	// `10GiB`, or both, whichever is less: whole segments are dropped, the
	// oldest first, never one with a record of the last hour. Default:
	// everything.
	Keep []string `json:"keep,omitempty"`

	// How far behind the log its signed checkpoint may be, or `off` for none.
	// Default: `1s`.
	CheckpointEvery string `json:"checkpoint_every,omitempty"`

	// Where every new checkpoint is sent to (POST, the signed note as text),
	// so that somebody else holds it: an `https://` URL, or `http://` on this
	// machine. At most one in ten seconds, the newest, is sent, and again
	// until it arrives; no call waits for that. Default: nowhere.
	CheckpointURL string `json:"checkpoint_url,omitempty"`
	// The name of a logger of Caddy's that gets every record, for example for
	// a file that is rolled or for the network: `log <any name> { include
	// <this name>; … }`. It may fall behind, but is never waited for. Default:
	// none.
	Mirror string `json:"mirror,omitempty"`

	// What happens when a record cannot be written, for example on a full
	// disk. Only `refuse` is known: calls are refused until it can. Default:
	// `refuse`.
	OnFull string `json:"on_full,omitempty"`
}

// options checks the settings and returns them as the audit log takes them.
func (a *Audit) options() (*audit.Options, error) {
	o := new(audit.Options)
	if a == nil {
		return o, nil
	}
	var err error
	if a.Durability != "" {
		if o.Durability, err = audit.ParseDurability(a.Durability); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
	}
	if a.SegmentSize != 0 {
		if a.SegmentSize < audit.MinSegmentSize || a.SegmentSize > audit.MaxSegmentSize {
			return nil, fmt.Errorf("audit: segment_size: %d bytes is not between 4KiB and 1GiB", a.SegmentSize)
		}
		o.SegmentSize = a.SegmentSize
	}
	for _, s := range a.Keep {
		if err := parseKeep(o, s); err != nil {
			return nil, fmt.Errorf("audit: keep: %w", err)
		}
	}
	switch a.CheckpointEvery {
	case "":
	case "off":
		o.CheckpointEvery = -1
	default:
		d, err := caddy.ParseDuration(a.CheckpointEvery)
		if err != nil || d < 100*time.Millisecond || d > time.Hour {
			return nil, fmt.Errorf("audit: checkpoint_every: %q is not off, nor a duration between 100ms and 1h", a.CheckpointEvery)
		}
		o.CheckpointEvery = d
	}
	if a.CheckpointURL != "" {
		if _, err := checkpointURL(a.CheckpointURL); err != nil {
			return nil, fmt.Errorf("audit: checkpoint_url %w", err)
		}
		if o.CheckpointEvery < 0 {
			return nil, errors.New("audit: checkpoint_url has nothing to send while checkpoint_every is off")
		}
	}
	if o.CheckpointEvery < 0 && len(a.Keep) > 0 {
		return nil, errors.New("audit: keep needs checkpoints, which stand for what was dropped: checkpoint_every cannot be off")
	}
	if a.Mirror != "" {
		if err := checkMirror(a.Mirror); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
	}
	if a.OnFull != "" && a.OnFull != "refuse" {
		return nil, fmt.Errorf("audit: on_full is refuse, not %q", a.OnFull)
	}
	return o, nil
}

// parseKeep sets how long or how much is kept.
func parseKeep(o *audit.Options, s string) error {
	if d, err := caddy.ParseDuration(s); err == nil {
		switch {
		case o.KeepFor != 0:
			return fmt.Errorf("%s is the second duration", s)
		case d < audit.MinKeep:
			return fmt.Errorf("%s is shorter than an hour", s)
		}
		o.KeepFor = d
		return nil
	}
	n, err := humanize.ParseBytes(s)
	switch {
	case err != nil || n > 1<<62:
		return fmt.Errorf("%q is neither a duration such as 90d nor a size such as 10GiB", s)
	case o.KeepBytes != 0:
		return fmt.Errorf("%s is the second size", s)
	case n < 1<<20:
		return fmt.Errorf("%s is less than 1MiB", s)
	}
	o.KeepBytes = int64(n)
	return nil
}

func (a *Audit) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return eachSetting(d, func(setting string) (err error) {
		switch setting {
		case "durability":
			err = oneArg(d, &a.Durability)
		case "segment_size":
			err = sizeArg(d, &a.SegmentSize)
		case "keep":
			var s string
			if err = oneArg(d, &s); err == nil {
				a.Keep = append(a.Keep, s)
			}
		case "checkpoint_every":
			err = oneArg(d, &a.CheckpointEvery)
		case "checkpoint_url":
			err = oneArg(d, &a.CheckpointURL)
		case "mirror":
			err = oneArg(d, &a.Mirror)
		case "on_full":
			err = oneArg(d, &a.OnFull)
		default:
			err = d.Errf("unknown setting %q of audit", setting)
		}
		if err != nil {
			return err
		}
		if _, err := a.options(); err != nil { // here the line is known
			return d.WrapErr(err)
		}
		return nil
	}, "keep")
}

func sizeArg(d *caddyfile.Dispenser, into *int64) error {
	var s string
	setting := d.Val()
	if err := oneArg(d, &s); err != nil {
		return err
	}
	n, err := humanize.ParseBytes(s)
	if err != nil || n == 0 || n > 1<<62 {
		return d.Errf("%s: %q is not a size such as 64MiB", setting, s)
	}
	*into = int64(n)
	return nil
}
