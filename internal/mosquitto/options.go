package mosquitto

// kind says whom an option is about.
type kind int

const (
	ofAll      kind = iota + 1
	ofListener      // the listener line above
	ofSecurity      // the listener above with per_listener_settings, all of them without
	ofBridge        // the connection line above
)

// options are those of mosquitto 2.0 (mosquitto.conf(5)).
func options() map[string]kind {
	all := map[string]kind{}
	for kind, names := range map[kind][]string{
		ofAll: {
			"allow_duplicate_messages", "autosave_interval", "autosave_on_changes", "check_retain_source", "connection_messages", "listener",
			"log_dest", "log_facility", "log_timestamp", "log_timestamp_format", "log_type", "max_inflight_bytes", "max_inflight_messages",
			"max_keepalive", "max_packet_size", "max_queued_bytes", "max_queued_messages", "memory_limit", "message_size_limit",
			"per_listener_settings", "persistence", "persistence_file", "persistence_location", "persistent_client_expiration", "pid_file",
			"queue_qos0_messages", "retain_available", "set_tcp_nodelay", "sys_interval", "upgrade_outgoing_qos", "user", "websockets_headers_size",
			"websockets_log_level", "store_clean_interval", "retry_interval", "clientid_prefixes",
		},
		ofListener: {
			"bind_address", "bind_interface", "port", "protocol", "http_dir", "max_connections", "max_qos", "max_topic_alias", "mount_point", "socket_domain",
			"use_username_as_clientid", "cafile", "capath", "certfile", "keyfile", "ciphers", "ciphers_tls1.3", "crlfile", "dhparamfile", "require_certificate",
			"tls_engine", "tls_engine_kpass_sha1", "tls_keyform", "tls_version", "use_identity_as_username", "use_subject_as_username", "psk_hint",
		},
		ofSecurity: {
			"acl_file", "allow_anonymous", "allow_zero_length_clientid", "auto_id_prefix", "password_file", "psk_file", "plugin", "auth_plugin",
			"auth_plugin_deny_special_chars",
		},
		ofBridge: {
			"connection", "address", "addresses", "bridge_alpn", "bridge_attempt_unsubscribe", "bridge_bind_address", "bridge_cafile", "bridge_capath",
			"bridge_certfile", "bridge_identity", "bridge_insecure", "bridge_keyfile", "bridge_max_packet_size", "bridge_outgoing_retain",
			"bridge_protocol_version", "bridge_psk", "bridge_require_ocsp", "bridge_tls_version", "cleansession", "local_cleansession", "clientid",
			"idle_timeout", "keepalive_interval", "local_clientid", "local_password", "local_username", "notification_topic", "notifications",
			"notifications_local_only", "password", "remote_clientid", "remote_password", "remote_username", "restart_timeout", "round_robin", "start_type",
			"threshold", "topic", "try_private", "username",
		},
	} {
		for _, name := range names {
			all[name] = kind
		}
	}
	return all
}

// uncounted are the options without a counterpart, with what happens instead. Those that are translated, and bridges, are
// not among them.
func uncounted() map[string]string {
	return map[string]string{ //nolint:gosec // G101: what is said about options is no secret
		"allow_duplicate_messages":       "nobody gets a message twice for overlapping subscriptions",
		"allow_zero_length_clientid":     "a client without an id gets a random one",
		"auth_plugin_deny_special_chars": "names with + and # are refused always",
		"auto_id_prefix":                 "a client without an id gets a random one",
		"autosave_interval":              `what is acknowledged is on disk; durability = "interval" in [persistence] saves now and then`,
		"autosave_on_changes":            "what is acknowledged is on disk",
		"check_retain_source":            "what is retained is judged when it is published, and when somebody is denied",
		"ciphers":                        "Go chooses them",
		"ciphers_tls1.3":                 "Go chooses them",
		"clientid_prefixes":              "sessions belong to names, so no client id is another's; client_id_is_identity demands that both are the same",
		"connection_messages":            "connects and disconnects are logged at level info, a few a second",
		"dhparamfile":                    "Go's TLS uses elliptic curves only",
		"http_dir":                       "the broker serves no files",
		"log_dest":                       "the log goes to standard error, which systemd keeps in its journal",
		"log_facility":                   "the log goes to standard error, which systemd keeps in its journal",
		"log_timestamp":                  "every line has its time",
		"log_timestamp_format":           "every line has its time as RFC 3339",
		"max_inflight_bytes":             "a client's receive maximum decides",
		"max_inflight_messages":          "a client's receive maximum decides how many are under way at once; it counts into max_inflight here",
		"max_topic_alias":                "max_topic_aliases in [limits] is for all listeners, and 10 where nothing is said, as in mosquitto",
		"memory_limit":                   "every client is bounded by [limits], the whole by the service's MemoryMax",
		"persistence_file":               "the file is broker.db",
		"persistence_location":           "the file is in the state folder; what mosquitto has kept is not taken over",
		"pid_file":                       "systemd knows the process",
		"psk_file":                       "Go's TLS has no pre-shared keys; stunnel can take them, see docs/broker.md",
		"queue_qos0_messages":            "messages of QoS 0 do not wait for absent clients",
		"retain_available":               "what may be retained is a matter of rules: nothing refuses it in general",
		"retry_interval":                 "messages are sent again when a client connects again, as the standard has it",
		"set_tcp_nodelay":                "is always so",
		"store_clean_interval":           "is not needed",
		"sys_interval":                   "$SYS is brought up to date every ten seconds",
		"tls_engine":                     "keys are files, or systemd's credentials",
		"tls_engine_kpass_sha1":          "keys are files, or systemd's credentials",
		"tls_keyform":                    "keys are files, or systemd's credentials",
		"upgrade_outgoing_qos":           "a message has the quality of service that it was published with, at most",
		"use_username_as_clientid":       "sessions belong to names; client_id_is_identity demands that the client id is the name",
		"user":                           "the service runs as the user pinseal",
		"websockets_headers_size":        "a handshake may have 8 KiB of headers",
		"websockets_log_level":           "log.level is for all parts",
	}
}
