package readonly

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// This file has the series: so many, whatever the mesh has. What Envoy has of each listener or cluster is
// summed by the way it goes, with Envoy's own names, which dashboards for App Mesh ask for.

// scope is what some of Envoy's statistics are of.
type scope struct {
	name  string // of metrics and statistics, after envoy_
	label string // has the way, "" where there is none
	begin string // how the value of label begins, before the way
}

// The ways, as xds names its listeners' and clusters' statistics.
var ways = []string{"ingress", "egress"}

var (
	ofHTTP      = scope{name: "http", label: "envoy_http_conn_manager_prefix"}
	ofTCP       = scope{name: "tcp", label: "envoy_tcp_prefix"}
	ofClusters  = scope{name: "cluster", label: "envoy_cluster_name", begin: "cds_"}
	ofListeners = scope{name: "listener"}
	ofLimits    = scope{name: "connection_limit"}
	ofServer    = scope{name: "server"}
)

// The kinds of metrics.
const (
	counter   = "counter"
	gauge     = "gauge"
	histogram = "histogram"
)

// family is one metric.
type family struct {
	of   scope
	name string
	kind string
	help string
	// stats are its statistics at Envoy, as a regular expression, where those are not name.
	stats string
}

var families = []family{
	{ofHTTP, "downstream_rq_total", counter, "Requests.", ""},
	{ofHTTP, "downstream_rq_xx", counter, "Answers, by class.", "downstream_rq_[2-5]xx"},
	{ofHTTP, "downstream_rq_active", gauge, "Requests without a complete answer.", ""},
	{ofHTTP, "downstream_rq_time", histogram, "Time from a request to the end of its answer, in milliseconds.", ""},
	{ofHTTP, "downstream_cx_total", counter, "Connections.", ""},
	{ofHTTP, "downstream_cx_active", gauge, "Open connections.", ""},
	{ofTCP, "downstream_cx_total", counter, "Connections of listeners for tcp.", ""},
	{ofClusters, "upstream_cx_active", gauge, "Open connections to the application (ingress) and to backends (egress).", ""},
	{ofClusters, "upstream_cx_connect_fail", counter, "Connections that failed.", ""},
	{ofClusters, "upstream_rq_timeout", counter, "Requests that were not answered in time.", ""},
	{ofClusters, "upstream_rq_rx_reset", counter, "Requests that the other end reset.", ""},
	{ofClusters, "upstream_rq_retry", counter, "Requests that were sent again.", ""},
	{ofClusters, "upstream_rq_pending_overflow", counter, "Requests for which there was no room.", ""},
	{ofClusters, "membership_total", gauge, "Endpoints.", ""},
	{ofClusters, "membership_healthy", gauge, "Endpoints that are healthy.", ""},
	{ofListeners, "ssl_handshake", counter, "TLS handshakes with callers.", `ssl\.handshake`},
	{ofListeners, "ssl_connection_error", counter, "TLS handshakes with callers that failed.", `ssl\.connection_error`},
	{ofListeners, "ssl_fail_verify_error", counter, "Callers whose certificate was refused.", `ssl\.fail_verify_error`},
	{ofLimits, "limited_connections", counter, "Connections of the application that were closed, since a backend's listener had its share.", ""},
	{ofServer, "live", gauge, "1 while Envoy is not draining.", ""},
	{ofServer, "uptime", gauge, "Seconds since its start.", ""},
	{ofServer, "memory_allocated", gauge, "Bytes.", ""},
}

var (
	classes = []string{"2", "3", "4", "5"} // of answers
	// bounds of the histogram's buckets are some of Envoy's.
	bounds = []string{"5", "25", "100", "250", "1000", "5000", "+Inf"}
)

// filter is the query by which Envoy leaves out all else.
func filter() string {
	var all []string
	for _, f := range families {
		names := f.stats
		if names == "" {
			names = f.name
		}
		switch {
		case f.of == ofServer:
			all = append(all, `server\.`+names)
		case f.of.label == "":
			all = append(all, f.of.name+`\..*\.`+names)
		default:
			all = append(all, f.of.name+`\.`+f.of.begin+"("+strings.Join(ways, "|")+`).*\.`+names)
		}
	}
	return url.QueryEscape("^(" + strings.Join(all, "|") + ")$")
}

// metric is its name for a scraper.
func (f family) metric() string { return f.of.metrics() + f.name }

// metrics is how the names of a scope's metrics begin.
func (s scope) metrics() string { return "envoy_" + s.name + "_" }

// series are those of a family, in the order in which they are written.
func (f family) series() []string {
	sets := [][]string{nil}
	if f.of.label != "" {
		sets = nil
		for _, way := range ways {
			sets = append(sets, []string{f.of.label, way})
		}
	}
	var all []string
	for _, set := range sets {
		switch {
		case f.kind == histogram:
			for _, le := range bounds {
				all = append(all, f.metric()+"_bucket"+labels(slices.Concat(set, []string{"le", le})))
			}
			all = append(all, f.metric()+"_sum"+labels(set), f.metric()+"_count"+labels(set))
		case f.classes():
			for _, class := range classes {
				all = append(all, f.metric()+labels(slices.Concat([]string{classLabel, class}, set)))
			}
		default:
			all = append(all, f.metric()+labels(set))
		}
	}
	return all
}

// classes reports whether it has a series for each class of answers.
func (f family) classes() bool { return strings.HasSuffix(f.name, "_xx") }

const classLabel = "envoy_response_code_class"

// labels are pairs as they are written behind a name.
func labels(pairs []string) string {
	if len(pairs) == 0 {
		return ""
	}
	var all []string
	for pair := range slices.Chunk(pairs, 2) {
		all = append(all, pair[0]+"="+strconv.Quote(pair[1]))
	}
	return "{" + strings.Join(all, ",") + "}"
}
