// Package audit is the log of what the vault did: one append-only file of
// JSON lines, each chained to the one before by its SHA-256.
//
// Promises:
//
//   - What Append has acknowledged is on disk (or, with Async, written) and
//     stays part of the chain across crashes, full disks and failed syncs.
//
//   - One writer gives out sequence numbers. It evaluates an entry's guard as
//     it does so, and puts a revocation into force as that record gets its
//     number, so that in the log's own order nothing guarded stands behind
//     the revocation that forbids it.
//
//   - What cannot be written within the deadline is refused (ErrUnavailable),
//     and service returns by itself.
//
//   - A write or sync that failed is never tried again on the same file: the
//     lines go, byte for byte, to the head of a new segment.
//
//   - A line holds the listed fields of Record and nothing else: there is no
//     place for a body, a header or a map.
//
//   - A signed checkpoint over all records follows at most a second behind.
//     Open and Verify hold the log to it.
//
// Files, all in one directory: audit.log.jsonl is the newest segment,
// audit.log.<first seq>.jsonl are sealed ones, audit.torn.* is what was found
// and does not belong to the chain; audit.checkpoint, audit.key, audit.pub and
// audit.dropped are said to be what they are in checkpoint.go and
// retention.go. Only this package writes them, and only
// one process may have the directory open; holding a lock on it is the
// caller's part.
//
// The package knows nothing of HTTP, tokens, policy or Caddy.
package audit
