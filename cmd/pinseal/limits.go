package main

import (
	"time"

	"pinseal/broker"
)

// limitsConfig is [limits]: what clients can make the broker hold or wait for. Zero is the default.
type limitsConfig struct {
	MaxPacketBytes              limit          `toml:"max_packet_bytes"`
	MaxConnections              limit          `toml:"max_connections"`
	MaxConnectionsPerAddress    limit          `toml:"max_connections_per_address"`
	MaxConnectRate              limit          `toml:"max_connect_rate"`
	MaxPending                  limit          `toml:"max_pending"`
	MaxPendingPerAddress        limit          `toml:"max_pending_per_address"`
	ConnectTimeout              positiveLength `toml:"connect_timeout"`
	WriteTimeout                positiveLength `toml:"write_timeout"`
	MaxKeepAlive                positiveLength `toml:"max_keepalive"`
	MaxSessionExpiry            positiveLength `toml:"max_session_expiry"`
	MaxStoredSessions           limit          `toml:"max_stored_sessions"`
	MaxSubscriptions            limit          `toml:"max_subscriptions"`
	MaxFilters                  limit          `toml:"max_filters"`
	MaxTopicBytes               limit          `toml:"max_topic_bytes"`
	MaxTopicLevels              limit          `toml:"max_topic_levels"`
	MaxTopicAliases             limit          `toml:"max_topic_aliases"`
	MaxClientIDBytes            limit          `toml:"max_client_id_bytes"`
	MaxUserProperties           limit          `toml:"max_user_properties"`
	MaxInflight                 limit          `toml:"max_inflight"`
	MaxInflightBytes            limit          `toml:"max_inflight_bytes"`
	MaxRetained                 limit          `toml:"max_retained"`
	MaxRetainedBytes            limit          `toml:"max_retained_bytes"`
	MaxRetainedPerIdentity      limit          `toml:"max_retained_per_identity"`
	MaxRetainedBytesPerIdentity limit          `toml:"max_retained_bytes_per_identity"`
	MaxStoredMessages           limit          `toml:"max_stored_messages"`
	MaxStoredBytes              limit          `toml:"max_stored_bytes"`
	ReceiveMaximum              limit          `toml:"receive_maximum"`
	MaxPublishRate              limit          `toml:"max_publish_rate"`
	MaxPublishBytesRate         limit          `toml:"max_publish_bytes_rate"`
	MaxQueuedMessages           limit          `toml:"max_queued_messages"`
	MaxQueuedBytes              limit          `toml:"max_queued_bytes"`
	MaxWaitingBytes             limit          `toml:"max_waiting_bytes"`
}

func (l limitsConfig) limits() broker.Limits {
	return broker.Limits{
		MaxPacketBytes:              int(l.MaxPacketBytes),
		MaxConnections:              int(l.MaxConnections),
		MaxConnectionsPerAddress:    int(l.MaxConnectionsPerAddress),
		MaxConnectRate:              int(l.MaxConnectRate),
		MaxPending:                  int(l.MaxPending),
		MaxPendingPerAddress:        int(l.MaxPendingPerAddress),
		ConnectTimeout:              time.Duration(l.ConnectTimeout),
		WriteTimeout:                time.Duration(l.WriteTimeout),
		MaxKeepAlive:                time.Duration(l.MaxKeepAlive),
		MaxSessionExpiry:            time.Duration(l.MaxSessionExpiry),
		MaxStoredSessions:           int(l.MaxStoredSessions),
		MaxSubscriptions:            int(l.MaxSubscriptions),
		MaxFilters:                  int(l.MaxFilters),
		MaxTopicBytes:               int(l.MaxTopicBytes),
		MaxTopicLevels:              int(l.MaxTopicLevels),
		MaxTopicAliases:             int(l.MaxTopicAliases),
		MaxClientIDBytes:            int(l.MaxClientIDBytes),
		MaxUserProperties:           int(l.MaxUserProperties),
		MaxInflight:                 int(l.MaxInflight),
		MaxInflightBytes:            int(l.MaxInflightBytes),
		MaxRetained:                 int(l.MaxRetained),
		MaxRetainedBytes:            int(l.MaxRetainedBytes),
		MaxRetainedPerIdentity:      int(l.MaxRetainedPerIdentity),
		MaxRetainedBytesPerIdentity: int(l.MaxRetainedBytesPerIdentity),
		MaxStoredMessages:           int(l.MaxStoredMessages),
		MaxStoredBytes:              int(l.MaxStoredBytes),
		ReceiveMaximum:              int(l.ReceiveMaximum),
		MaxPublishRate:              int(l.MaxPublishRate),
		MaxPublishBytesRate:         int(l.MaxPublishBytesRate),
		MaxQueuedMessages:           int(l.MaxQueuedMessages),
		MaxQueuedBytes:              int(l.MaxQueuedBytes),
		MaxWaitingBytes:             int(l.MaxWaitingBytes),
	}
}
