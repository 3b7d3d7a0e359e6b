package caddyvault

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddyvault/caddyvault/refusal"
	"github.com/caddyvault/caddyvault/upstream"
	"github.com/caddyvault/caddyvault/vault"
)

// metrics are the figures of all vaults in this process, for Caddy's /metrics.
// They belong to the process and not to a configuration, so a reload does not
// set them back. No label holds what a client can choose: services are those
// that exist, and codes those of the program.
var metrics = newMeter()

// maxCodes bounds the codes that have a series of their own.
const maxCodes = 512

// meter implements vault.Meter.
type meter struct {
	calls      *prometheus.CounterVec
	upstream   *prometheus.HistogramVec
	added      prometheus.Histogram
	refusals   *prometheus.CounterVec
	redactions *prometheus.CounterVec
	hits, miss prometheus.Counter
	all        []prometheus.Collector

	// Checkpoints that were sent to checkpoint_url, and that could not be.
	posted, notPosted prometheus.Counter

	services sync.Map // name → *serviceMeter
	codes    sync.Map // code → prometheus.Counter
	nCodes   atomic.Int32
}

// serviceMeter holds the series of one service, so that a call looks up one
// name and hashes no labels.
type serviceMeter struct {
	outcomes   [len(outcomes)]prometheus.Counter
	upstream   prometheus.Observer
	redactions prometheus.Counter
}

// outcomes are how a call can end.
var outcomes = [...]string{
	"success",      // the upstream answered with a status below 400
	"client_error", // it answered with 4xx
	"server_error", // it answered with 5xx
	"broken",       // the answer broke off after its status
	"failed",       // there was no answer
}

func newMeter() *meter {
	m := &meter{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caddyvault_calls_total",
			Help: "Calls that were let through to a service, by how they ended.",
		}, []string{"service", "outcome"}),
		upstream: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "caddyvault_upstream_latency_seconds",
			Help:    "Time from sending a request to the header of its answer.",
			Buckets: []float64{.005, .025, .1, .25, .5, 1, 2.5, 10, 60},
		}, []string{"service"}),
		added: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "caddyvault_added_latency_seconds",
			Help:    "Time from the decision about a call to its sending, most of it waiting for the audit log.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, .25},
		}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caddyvault_refusals_total",
			Help: "Requests that were refused, by code.",
		}, []string{"code"}),
		redactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caddyvault_redactions_total",
			Help: "Places in answers where the secret was found and taken out.",
		}, []string{"service"}),
	}
	cache := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddyvault_token_cache_total",
		Help: "Good tokens, by whether they had been verified before.",
	}, []string{"result"})
	m.hits, m.miss = cache.WithLabelValues("hit"), cache.WithLabelValues("miss")
	streams := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "caddyvault_streams_open",
		Help: "Streams under way: server-sent events and the like, and WebSockets.",
	}, func() float64 { return float64(upstream.OpenStreams()) })
	posts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddyvault_audit_checkpoint_posts_total",
		Help: "Checkpoints of the audit log sent to checkpoint_url, by whether they arrived.",
	}, []string{"result"})
	m.posted, m.notPosted = posts.WithLabelValues("sent"), posts.WithLabelValues("failed")
	m.all = []prometheus.Collector{m.calls, m.upstream, m.added, m.refusals, m.redactions, cache, streams, posts}
	return m
}

// register adds the metrics to a configuration's registry. Another
// configuration may have done so before.
func (m *meter) register(registry *prometheus.Registry) error {
	if registry == nil {
		return nil
	}
	for _, c := range m.all {
		if err := registry.Register(c); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			return err
		}
	}
	return nil
}

func (m *meter) service(name string) *serviceMeter {
	if s, ok := m.services.Load(name); ok {
		return s.(*serviceMeter)
	}
	s := &serviceMeter{upstream: m.upstream.WithLabelValues(name), redactions: m.redactions.WithLabelValues(name)}
	for i, o := range outcomes {
		s.outcomes[i] = m.calls.WithLabelValues(name, o)
	}
	kept, _ := m.services.LoadOrStore(name, s)
	return kept.(*serviceMeter)
}

// forget drops the series of a service that is gone.
func (m *meter) forget(service string) {
	if _, ok := m.services.LoadAndDelete(service); !ok {
		return // it had none
	}
	for _, o := range outcomes {
		m.calls.DeleteLabelValues(service, o)
	}
	m.upstream.DeleteLabelValues(service)
	m.redactions.DeleteLabelValues(service)
}

// Ended implements vault.Meter.
func (m *meter) Ended(service string, c vault.Figures) {
	s := m.service(service)
	outcome := 0
	switch {
	case c.Status == 0:
		outcome = 4
	case c.Code != "":
		outcome = 3
	case c.Status >= 500:
		outcome = 2
	case c.Status >= 400:
		outcome = 1
	}
	s.outcomes[outcome].Inc()
	if c.Status != 0 {
		s.upstream.Observe(c.Latency.Seconds())
	}
	if c.Added > 0 {
		m.added.Observe(c.Added.Seconds())
	}
	if c.Redactions > 0 {
		s.redactions.Add(float64(c.Redactions))
	}
}

// Token implements vault.Meter.
func (m *meter) Token(cached bool) {
	if cached {
		m.hits.Inc()
	} else {
		m.miss.Inc()
	}
}

// refused counts a refusal.
func (m *meter) refused(code string) {
	code = refusal.Base(code)
	if c, ok := m.codes.Load(code); ok {
		c.(prometheus.Counter).Inc()
		return
	}
	if m.nCodes.Load() >= maxCodes {
		m.refusals.WithLabelValues("OTHER").Inc()
		return
	}
	c := m.refusals.WithLabelValues(code)
	c.Inc()
	if _, loaded := m.codes.LoadOrStore(code, c); !loaded {
		m.nCodes.Add(1)
	}
}
