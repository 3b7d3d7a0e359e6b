package caddyvault

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyvault/caddyvault/handlers"
	"github.com/caddyvault/caddyvault/vault"
)

// logRedacted writes the access log entry of a request that carries its token
// where Caddy's access log would show it, and takes the token out of the
// request. Caddy's entry is made from a copy of the request that was taken
// before any handler ran, so it is skipped, and this one has the same form.
func (h *Handler) logRedacted(r *http.Request, v *vault.Vault, rec caddyhttp.ResponseRecorder, start time.Time) {
	clear := r.Clone(r.Context())
	h.server.RedactToken(clear, v)
	defer hideToken(r, clear)
	skipped, _ := caddyhttp.GetVar(r.Context(), caddyhttp.LogSkipVar).(bool)
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || server.Logs == nil || skipped {
		return
	}
	level := zapcore.InfoLevel
	if rec.Status() >= http.StatusInternalServerError {
		level = zapcore.ErrorLevel
	}
	agent := ""
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		agent, _ = repl.GetString("http.auth.user.id")
	}
	for _, logger := range accessLoggers(server.Logs, r) {
		if entry := logger.Check(level, "handled request"); entry != nil {
			entry.Write(
				zap.Object("request", caddyhttp.LoggableHTTPRequest{Request: clear}),
				zap.String("user_id", agent),
				zap.Duration("duration", time.Since(start)),
				zap.Int("size", rec.Size()),
				zap.Int("status", rec.Status()),
				zap.Object("resp_headers", caddyhttp.LoggableHTTPHeader{Header: rec.Header()}),
			)
		}
	}
}

// accessLoggers returns the loggers that Caddy would use for a request.
func accessLoggers(logs *caddyhttp.ServerLogConfig, r *http.Request) []*zap.Logger {
	hosts := hostPatterns(r.Host)
	names, mapped := []string{logs.DefaultLoggerName}, false
	for _, host := range hosts {
		if named, ok := logs.LoggerNames[host]; ok {
			names, mapped = named, true
			break
		}
	}
	if !mapped {
		skipped := func(host string) bool { return slices.Contains(hosts, strings.ToLower(host)) }
		if logs.SkipUnmappedHosts || slices.ContainsFunc(logs.SkipHosts, skipped) {
			return nil
		}
	}
	if chosen, ok := caddyhttp.GetVar(r.Context(), caddyhttp.AccessLoggerNameVarKey).([]any); ok { // by log_name
		names = nil
		for _, name := range chosen {
			if name, ok := name.(string); ok {
				names = append(names, name)
			}
		}
	}
	access := caddy.Log().Named("http.log.access")
	out := make([]*zap.Logger, len(names))
	for i, name := range names {
		if out[i] = access; name != "" {
			out[i] = access.Named(name)
		}
	}
	return out
}

// hostPatterns are the names under which a host may be configured: its own, and
// those with stars for its first labels.
func hostPatterns(hostport string) []string {
	host := strings.ToLower(hostport)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	all := []string{host}
	labels := strings.Split(host, ".")
	for i := range labels {
		labels[i] = "*"
		all = append(all, strings.Join(labels, "."))
	}
	return all
}

// hideToken makes of a request that has been answered what clear is: handlers
// in front of the vault may still make log fields or attributes of a span out
// of it, by placeholders. The span of tracing has the path already.
func hideToken(r, clear *http.Request) {
	for name, values := range clear.Header {
		r.Header[name] = values
	}
	ctx, sent := r.Context(), r.RequestURI
	hide(r.URL, clear.RequestURI)
	r.RequestURI = clear.RequestURI
	if orig, ok := ctx.Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		before, ok := strings.CutSuffix(orig.RequestURI, sent)
		uri := before + clear.RequestURI
		if !ok { // it was rewritten
			uri = "/" + handlers.Redacted
		}
		hide(orig.URL, uri)
		if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
			repl.Set("http.request.orig_uri", uri)
		}
		if span := trace.SpanFromContext(ctx); span.IsRecording() {
			span.SetAttributes(attribute.String("url.path", orig.URL.Path))
		}
	}
}

// hide makes a URL's path and query those of a request's.
func hide(u *url.URL, uri string) {
	clear, err := url.ParseRequestURI(uri)
	if err != nil {
		clear = &url.URL{Path: "/" + handlers.Redacted}
	}
	u.Path, u.RawPath, u.RawQuery, u.ForceQuery = clear.Path, clear.RawPath, clear.RawQuery, clear.ForceQuery
}
