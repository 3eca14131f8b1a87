package main

import (
	"time"

	"pinseal/broker"
)

// limitsConfig is [limits]: what clients can make the broker hold or wait for. Zero is the default.
type limitsConfig struct {
	MaxPacketBytes           int            `toml:"max_packet_bytes"`
	MaxConnections           int            `toml:"max_connections"`
	MaxConnectionsPerAddress int            `toml:"max_connections_per_address"`
	MaxPending               int            `toml:"max_pending"`
	MaxPendingPerAddress     int            `toml:"max_pending_per_address"`
	ConnectTimeout           positiveLength `toml:"connect_timeout"`
	WriteTimeout             positiveLength `toml:"write_timeout"`
	MaxKeepAlive             positiveLength `toml:"max_keepalive"`
	MaxSessionExpiry         positiveLength `toml:"max_session_expiry"`
	MaxStoredSessions        int            `toml:"max_stored_sessions"`
	MaxSubscriptions         int            `toml:"max_subscriptions"`
	MaxFilters               int            `toml:"max_filters"`
	MaxTopicBytes            int            `toml:"max_topic_bytes"`
	MaxTopicLevels           int            `toml:"max_topic_levels"`
	MaxClientIDBytes         int            `toml:"max_client_id_bytes"`
	MaxUserProperties        int            `toml:"max_user_properties"`
	MaxInflight              int            `toml:"max_inflight"`
	MaxInflightBytes         int            `toml:"max_inflight_bytes"`
	ReceiveMaximum           int            `toml:"receive_maximum"`
	MaxQueuedMessages        int            `toml:"max_queued_messages"`
	MaxQueuedBytes           int            `toml:"max_queued_bytes"`
}

func (l limitsConfig) limits() broker.Limits {
	return broker.Limits{
		MaxPacketBytes:           l.MaxPacketBytes,
		MaxConnections:           l.MaxConnections,
		MaxConnectionsPerAddress: l.MaxConnectionsPerAddress,
		MaxPending:               l.MaxPending,
		MaxPendingPerAddress:     l.MaxPendingPerAddress,
		ConnectTimeout:           time.Duration(l.ConnectTimeout),
		WriteTimeout:             time.Duration(l.WriteTimeout),
		MaxKeepAlive:             time.Duration(l.MaxKeepAlive),
		MaxSessionExpiry:         time.Duration(l.MaxSessionExpiry),
		MaxStoredSessions:        l.MaxStoredSessions,
		MaxSubscriptions:         l.MaxSubscriptions,
		MaxFilters:               l.MaxFilters,
		MaxTopicBytes:            l.MaxTopicBytes,
		MaxTopicLevels:           l.MaxTopicLevels,
		MaxClientIDBytes:         l.MaxClientIDBytes,
		MaxUserProperties:        l.MaxUserProperties,
		MaxInflight:              l.MaxInflight,
		MaxInflightBytes:         l.MaxInflightBytes,
		ReceiveMaximum:           l.ReceiveMaximum,
		MaxQueuedMessages:        l.MaxQueuedMessages,
		MaxQueuedBytes:           l.MaxQueuedBytes,
	}
}
