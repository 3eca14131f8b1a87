package main

import (
	"os"
	"runtime"
	"strconv"
	"strings"

	"pinseal/agent/actuator"
	"pinseal/internal/metrics"
	"pinseal/signing"
)

// collectors lists everybody who has something to tell at /metrics; who has more adds itself here.
func (n *node) collectors() []metrics.Collector {
	list := []metrics.Collector{collectBuild, n.collectNode, n.collectAgent}
	if n.broker != nil {
		list = append(list, n.collectBroker, n.collectCertificates)
	}
	return list
}

func collectBuild(w *metrics.Writer) {
	version, revision := buildVersion()
	w.Gauge("pinseal_build_info", "Always 1; the labels say what runs.", 1, "version", version, "revision", revision, "goversion", runtime.Version())
	w.Gauge("go_goroutines", "Goroutines there are.", float64(runtime.NumGoroutine()))
	if resident, ok := residentBytes(); ok {
		w.Gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.", resident)
	}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		w.Gauge("process_open_fds", "Open file descriptors.", float64(len(files)-1)) // one is the folder's own
	}
}

// residentBytes is the second number of /proc/self/statm (proc_pid_statm(5)), in pages there.
func residentBytes() (float64, bool) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	return float64(pages) * float64(os.Getpagesize()), err == nil
}

func (n *node) collectNode(w *metrics.Writer) {
	w.Gauge("pinseal_start_time_seconds", "When the node started, in seconds since 1970 by its own clock.", float64(n.started.UnixMilli())/1e3)
	w.Gauge("pinseal_clock_trusted", "Whether the wall clock is trusted.", metrics.Bool(n.clock.Trusted()))
	w.Gauge("pinseal_devices_expiring", "Devices whose certificates expire within 21 days, counted once a day.", float64(n.expiring.Load()))
	w.Gauge("pinseal_signers", "Signers whose keys are trusted.", float64(n.signers.Load()))
	for _, o := range n.outputs {
		w.Gauge("pinseal_output_on", "Whether an output is on.", metrics.Bool(o.Status().State == actuator.StateOn), "output", string(o.config.Name))
	}
	for _, in := range n.inputs {
		w.Gauge("pinseal_input_on", "Whether an input is on.", metrics.Bool(in.gpio.On()), "input", string(in.cfg.Name))
	}
	n.collectOutbox(w)
	commits, failed := n.replay.Commits()
	w.Counter("pinseal_replay_commits_total", "Ways to the disk with what was accepted.", commits)
	w.Counter("pinseal_replay_commit_failures_total", "Those of them that failed: the commands were not acted on, or telemetry is not recorded yet.", failed)
}

func (n *node) collectAgent(w *metrics.Writer) {
	counts := n.agent.Counters()
	for _, reason := range signing.Reasons() {
		w.Counter("pinseal_verdicts_total", "Messages by what was decided about them.", counts[reason], "reason", string(reason))
	}
}

func (n *node) collectBroker(w *metrics.Writer) {
	s := n.broker.Stats()
	w.Gauge("pinseal_broker_connections", "Network connections there are.", float64(s.Connections))
	w.Gauge("pinseal_broker_pending_connections", "Those of them that have not been let in yet.", float64(s.Pending))
	w.Gauge("pinseal_broker_sessions", "Sessions of connected and absent clients.", float64(s.Sessions))
	w.Gauge("pinseal_broker_subscriptions", "Subscriptions of all sessions.", float64(s.Subscriptions))
	w.Gauge("pinseal_broker_retained_messages", "Retained messages.", float64(s.Retained))
	w.Gauge("pinseal_broker_waiting_bytes", "What waits in memory for connected clients, as max_waiting_bytes counts it.", float64(s.WaitingBytes))
	w.Gauge("pinseal_broker_stored_messages", "Messages that sessions hold which outlive their connections, once for each session.", float64(s.StoredMessages))
	w.Gauge("pinseal_broker_stored_bytes", "What these sessions hold in all, as max_stored_bytes counts it.", float64(s.StoredBytes))
	w.Counter("pinseal_broker_accepted_total", "Clients that were let in.", s.Accepted)
	w.Counter("pinseal_broker_received_total", "PUBLISH packets received.", s.Received)
	w.Counter("pinseal_broker_sent_total", "PUBLISH packets sent.", s.Sent)
	for reason, count := range s.ByReason {
		w.Counter("pinseal_broker_refusals_total", "Connections refused or ended, and requests denied.", count, "reason", string(reason))
	}
}

func (n *node) collectCertificates(w *metrics.Writer) {
	const help = "When a certificate expires, in seconds since 1970."
	for _, s := range n.servers {
		if s == nil {
			continue // without TLS
		}
		own, authority := s.Expiry()
		w.Gauge("pinseal_certificate_expiry_timestamp_seconds", help, float64(own.Unix()), "certificate", "broker")
		w.Gauge("pinseal_certificate_expiry_timestamp_seconds", help, float64(authority.Unix()), "certificate", "authority")
		return // all listeners have the same
	}
}
