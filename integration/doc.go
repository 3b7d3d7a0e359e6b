// Package integration drives the built program over the network, as its
// clients and its operator do: every route with what it promises and what it
// refuses, reloads, kills, and the clients that exist already.
//
// A refusal is checked by one helper (refused), which looks at everything that
// must hold after any refusal: what the client got, what the log says, what the
// upstream saw, and where no secret may stand.
package integration
