package vault

import "time"

// Meter is told what happens, for metrics. Its methods are called on the path
// of every call and must not wait.
type Meter interface {
	// Token is told of each good token, and whether it had been verified
	// before.
	Token(cached bool)

	// Ended is told of each call that was let through, once, when it is over.
	Ended(service string, f Figures)
}

// Figures are what is counted of a call.
type Figures struct {
	// Status is the upstream's, 0 if it did not answer, and Code why the call
	// did not end well, "" if it did.
	Status int
	Code   string

	// Added is how long the vault took from its decision to the sending, 0 if
	// nothing was sent; Latency is how long the upstream took to answer.
	Added, Latency time.Duration

	Redactions int
}

// meter tells the meter of a call's end. A service that is gone by then is not
// brought back to it.
func (v *Vault) meter(service string, f Figures) {
	if v.Meter != nil && v.services.get(service) != nil {
		v.Meter.Ended(service, f)
	}
}

// Has reports whether there is a service of a name.
func (st *State) Has(service string) bool { return st.services.get(service) != nil }

// ServiceNames are the names of all services there are.
func (st *State) ServiceNames() []string {
	var names []string
	for _, svc := range st.services.all() {
		names = append(names, svc.name)
	}
	return names
}
