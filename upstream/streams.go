package upstream

import "sync/atomic"

// openStreams counts the streams under way in this process.
var openStreams atomic.Int64

// OpenStreams returns how many streams are under way: answers that come bit by
// bit by their media type, and WebSockets.
func OpenStreams() int64 { return openStreams.Load() }

// countStream counts the call as a stream until uncountStream.
func (c *call) countStream() {
	if !c.streaming {
		c.streaming = true
		openStreams.Add(1)
	}
}

func (c *call) uncountStream() {
	if c.streaming {
		openStreams.Add(-1)
	}
}
