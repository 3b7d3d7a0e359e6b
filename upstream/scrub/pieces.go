package scrub

// Pieces is a text that comes in pieces, and leaves without secrets. It is a
// Reader for whoever is handed what to look through, as with messages that are
// cut into frames. It belongs to one text at a time.
type Pieces struct {
	index *index
	redaction
	held  []byte // not decided yet
	clean []byte // what Next has returned
	found []match
}

// Pieces returns the pieces of a text.
func (s *Scrubber) Pieces() *Pieces { return &Pieces{index: s.index} }

// Next takes the next piece of the text and returns what is decided of it and
// of those before, until Next is called again. After the final piece another
// text may follow.
func (p *Pieces) Next(piece []byte, final bool) []byte {
	if p.index == nil {
		return piece
	}
	d := piece
	if len(p.held) > 0 {
		p.held = append(p.held, piece...)
		d = p.held
	}
	found, hold := p.index.find(d, final, p.found[:0])
	p.found = found
	p.clean = p.apply(p.clean[:0], d, hold, found)
	p.held = append(p.held[:0], d[hold:]...)
	if final {
		p.cover, p.ref = 0, ""
	}
	return p.clean
}

// Hits returns how many hits there were so far, in all texts.
func (p *Pieces) Hits() int { return p.hits }
