package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddyvault/caddyvault/policy"
	"github.com/caddyvault/caddyvault/refusal"
)

// checkSettings finds what would keep a service's proxy from being made, or
// the proxy from working. It reads the files that are named, asks nobody and
// starts nothing: whether an authority is there, Proxy.Check finds out.
func checkSettings(svc *policy.Compiled) *refusal.Refusal {
	h, t := new(reverseproxy.Handler), new(reverseproxy.HTTPTransport)
	if r := decodeSettings(svc.ReverseProxy, h, t); r != nil {
		return r
	}
	if r := checkNumbers(h, t); r != nil {
		return r
	}
	if r := checkHealth(h); r != nil {
		return r
	}
	o := new(outside)
	if t.TLS != nil {
		if r := o.checkTLS(t.TLS); r != nil {
			return r
		}
	}
	if t.LocalAddress != "" {
		if _, err := netip.ParseAddr(t.LocalAddress); err != nil { // a name would be looked up
			return wrong("reverseProxy.transport.local_address must be an IP address without a port, and is %s", shown(t.LocalAddress))
		}
	}
	if r := o.load(t.TLS); r != nil {
		return r
	}
	var ctx caddy.Context
	if t.TLS != nil && t.TLS.CARaw != nil {
		var cancel context.CancelFunc
		ctx, cancel = caddy.NewContext(caddy.Context{Context: context.Background()})
		defer cancel()
	}
	if _, err := newTransport(ctx, t, svc, nil); err != nil {
		return wrong("reverseProxy.transport cannot be used: %s", shown(err.Error())).WithCause(err)
	}
	if !o.empty() {
		svc.Outside = o
	}
	return nil
}

// load reads what files hold and puts it into the settings, less what only a
// configuration of Caddy's has.
func (o *outside) load(t *reverseproxy.TLSConfig) *refusal.Refusal {
	if t == nil {
		return nil
	}
	if o.hasFiles() {
		c, r := o.read(files)
		if r != nil {
			return r
		}
		o.kept.Store(c)
	}
	if o.foreign || len(o.authorities) > 0 {
		t.CARaw = nil
	}
	t.RootCAPool = nil //nolint:staticcheck // it has been looked at, and Caddy would warn of it
	if _, err := o.settle(t, nil); err != nil {
		return wrong("reverseProxy.transport.tls.ca cannot be used: %s", shown(err.Error())).WithCause(err)
	}
	t.RootCAPool = nil //nolint:staticcheck // see above
	return nil
}

// maxBuffer bounds a buffer of a connection or a stream.
const maxBuffer = 64 << 20

// checkNumbers refuses those that Caddy takes, and with which no call would
// come through, or which would take the process's memory.
func checkNumbers(h *reverseproxy.Handler, t *reverseproxy.HTTPTransport) *refusal.Refusal {
	type number struct {
		name        string
		is          int64
		least, most int64
	}
	numbers := []number{
		{"stream_buffer_size", int64(h.StreamBufferSize), math.MinInt64, maxBuffer},
		{"transport.write_buffer_size", int64(t.WriteBufferSize), math.MinInt64, maxBuffer},
		{"transport.read_buffer_size", int64(t.ReadBufferSize), math.MinInt64, maxBuffer},
		{"transport.max_response_header_size", t.MaxResponseHeaderSize, 0, math.MaxInt64},
		{"transport.dial_timeout", int64(t.DialTimeout), 0, math.MaxInt64},
	}
	if t.TLS != nil {
		numbers = append(numbers, number{"transport.tls.handshake_timeout", int64(t.TLS.HandshakeTimeout), 0, math.MaxInt64})
	}
	if hc := h.HealthChecks; hc != nil && hc.Active != nil {
		numbers = append(numbers, number{"health_checks.active.interval", int64(hc.Active.Interval), 0, math.MaxInt64})
	}
	for _, n := range numbers {
		if n.is < n.least {
			return wrong("reverseProxy.%s must not be negative", n.name)
		}
		if n.is > n.most {
			return wrong("reverseProxy.%s must be at most %d", n.name, n.most)
		}
	}
	return nil
}

func checkHealth(h *reverseproxy.Handler) *refusal.Refusal {
	if h.HealthChecks == nil || h.HealthChecks.Active == nil {
		return nil
	}
	const where = "reverseProxy.health_checks.active"
	active := h.HealthChecks.Active
	if _, err := url.Parse(active.URI); err != nil {
		return wrong("%s.uri must be a path, with a query if need be", where).WithCause(err)
	}
	if _, err := http.NewRequest(active.Method, "/", nil); err != nil {
		return wrong("%s.method must be a method of HTTP, and is %s", where, shown(active.Method)).WithCause(err)
	}
	return nil
}

// checkTLS looks at what can be known here, and notes what is elsewhere.
//
//nolint:staticcheck // a service may set what Caddy has named anew
func (o *outside) checkTLS(t *reverseproxy.TLSConfig) *refusal.Refusal {
	const where = "reverseProxy.transport.tls"
	switch {
	case t.ClientCertificateFile == "" && t.ClientCertificateKeyFile != "":
		return wrong("%s has client_certificate_key_file without client_certificate_file", where)
	case t.ClientCertificateFile != "" && t.ClientCertificateKeyFile == "":
		return wrong("%s has client_certificate_file without client_certificate_key_file", where)
	case t.CARaw != nil && len(t.RootCAPool)+len(t.RootCAPEMFiles) > 0:
		return wrong("%s has ca beside root_ca_pool or root_ca_pem_files", where)
	case !slices.Contains([]string{"", "never", "once", "freely"}, t.Renegotiation):
		return wrong("%s.renegotiation must be never, once or freely, and is %s", where, shown(t.Renegotiation))
	}
	for i, curve := range t.Curves {
		if _, ok := caddytls.SupportedCurves[curve]; !ok {
			return wrong("%s.curves[%d] must be one of %s, and is %s", where, i,
				strings.Join(slices.Sorted(maps.Keys(caddytls.SupportedCurves)), ", "), shown(curve))
		}
	}
	if r := checkCertificates(where+".root_ca_pool", t.RootCAPool); r != nil {
		return r
	}
	o.trusted = note(where+".root_ca_pem_files", t.RootCAPEMFiles)
	o.certificate = named{where + ".client_certificate_file", t.ClientCertificateFile}
	o.key = named{where + ".client_certificate_key_file", t.ClientCertificateKeyFile}
	return o.checkModules(where, reflect.ValueOf(t))
}

func note(where string, names []string) []named {
	all := make([]named, len(names))
	for i, name := range names {
		all[i] = named{fmt.Sprintf("%s[%d]", where, i), name}
	}
	return all
}

func checkCertificates(where string, certs []string) *refusal.Refusal {
	for i := range certs {
		pool := caddytls.InlineCAPool{TrustedCACerts: certs[i : i+1]}
		if err := pool.Provision(caddy.Context{}); err != nil {
			return wrong("%s[%d] must be a certificate: the base64 of its DER", where, i).WithCause(err)
		}
	}
	return nil
}

// checkModules looks at the modules of Caddy that settings name, and at those
// that the settings of these name.
func (o *outside) checkModules(where string, v reflect.Value) *refusal.Refusal {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return nil // nil, or nothing that could name one
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		here, inner := where, v.Field(i)
		if name != "" {
			here += "." + name
		}
		tag, err := caddy.ParseStructTag(f.Tag.Get("caddy"))
		if err != nil || tag["inline_key"] == "" {
			if r := o.checkModules(here, inner); r != nil {
				return r
			}
			continue
		}
		switch raw := inner.Interface().(type) {
		case json.RawMessage:
			if raw != nil {
				if r := o.checkModule(here, tag["namespace"], tag["inline_key"], raw); r != nil {
					return r
				}
			}
		case []json.RawMessage:
			for i := range raw {
				if r := o.checkModule(fmt.Sprintf("%s[%d]", here, i), tag["namespace"], tag["inline_key"], raw[i]); r != nil {
					return r
				}
			}
		}
	}
	return nil
}

// checkModule looks at one, whose name stands under key among its settings.
func (o *outside) checkModule(where, namespace, key string, raw json.RawMessage) *refusal.Refusal {
	var fields map[string]json.RawMessage
	if r := decode(where, raw, &fields); r != nil {
		return r
	}
	var name string
	if fields[key] != nil {
		if r := decode(where+"."+key, fields[key], &name); r != nil {
			return r
		}
	}
	if name == "" {
		return wrong("%s.%s is missing", where, key)
	}
	info, err := caddy.GetModule(namespace + "." + name)
	if err != nil {
		return wrong("%s.%s is %s, of which this build has no module", where, key, shown(name)).
			WithHint("caddyvault list-modules has those there are").WithCause(err)
	}
	delete(fields, key)
	rest, err := json.Marshal(fields)
	if err != nil {
		return wrong("%s cannot be read", where).WithCause(err)
	}
	module := info.New()
	if _, ok := module.(*caddytls.HTTPCertPool); ok {
		// The guard does not stand before it, and nobody vouches for the answer.
		return wrong("%s.%s may not be http: what it trusts would come over the network", where, key).
			WithHint("use inline or file")
	}
	if r := decode(where, rest, module); r != nil {
		return r
	}
	switch m := module.(type) {
	case *caddytls.InlineCAPool:
		if r := checkCertificates(where+".trusted_ca_certs", m.TrustedCACerts); r != nil {
			return r
		}
	case *caddytls.FileCAPool:
		o.trusted = append(o.trusted, note(where+".pem_files", m.TrustedCACertPEMFiles)...)
	case *caddytls.PKIRootCAPool:
		o.authorities = append(o.authorities, note(where+".authority", m.Authority)...)
	case *caddytls.PKIIntermediateCAPool:
		o.authorities = append(o.authorities, note(where+".authority", m.Authority)...)
	case *caddytls.CombinedCAPool, *caddytls.SystemCAPool:
	default:
		o.foreign = true
	}
	return o.checkModules(where, reflect.ValueOf(module))
}
