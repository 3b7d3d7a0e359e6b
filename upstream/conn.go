package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
)

type connKey struct{}

// WithConn makes a client's connection known to the calls that come over it:
// one that is cut closes it, and does not wait until it has been unwound. A
// connection of a kind whose closing may wait is left alone.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	if ctx.Value(connKey{}) != nil {
		return ctx // another handler of the same server
	}
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn() // t itself would wait to say goodbye
	}
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// connOf returns the connection that a request has for itself, nil if it is
// not known or shared, as it is over HTTP/2.
func connOf(r *http.Request) net.Conn {
	if r == nil || r.ProtoMajor != 1 {
		return nil
	}
	c, _ := r.Context().Value(connKey{}).(net.Conn)
	return c
}
