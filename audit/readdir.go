package audit

import (
	"context"
	"errors"
	"fmt"
)

// ReadDir calls f with the records in dir that match, the oldest first, byte
// for byte, as long as f returns nil. It works on copies and beside a running
// vault, changes nothing, and verifies nothing. Lines may not be kept.
func ReadDir(ctx context.Context, dir string, o FollowOptions, f func(line []byte) error) error {
	match, err := newFilters(o.Filters, o.Agents)
	if err != nil {
		return err
	}
	d, err := openDir(dir)
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	defer d.Close()
	parts, current, _, err := listParts(d)
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	if current {
		if n := len(parts) - 1; n >= 0 { // a live log may have just given it its second name
			if same, err := sameFile(d, parts[n].name, currentName); err == nil && same {
				parts = parts[:n]
			}
		}
		parts = append(parts, openPart{name: currentName})
	}
	if len(parts) == 0 {
		return fmt.Errorf("read audit log: there is none in %s", dir)
	}
	defer closeParts(parts)
	if err := openAll(d, dir, parts, d.OpenRead, false); err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	r := Follower{since: o.Since, until: o.Until}
	for _, p := range parts {
		var ended error
		err := readLines(p.f, p.size, func(_ int64, lines []byte) bool {
			if ended = context.Cause(ctx); ended != nil {
				return false
			}
			if !match.maybe(lines) {
				return true
			}
			for line := range linesOf(lines) {
				seq, _, ok := parseTail(line)
				if ok && seq > o.After && match.match(line) && r.inTime(line) {
					if ended = f(line); ended != nil {
						return false
					}
				}
			}
			return true
		})
		p.rest()
		if err := errors.Join(err, ended); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}
