package broker

// Policy says who may do what. Everything is denied that no rule allows.
type Policy struct {
	Rules []Rule
	// Reserved lists the filters that only Config.Node may publish to, whatever the rules say.
	Reserved []string
	// NoRetain lists the filters on which a retained publish is refused, whoever sends it.
	NoRetain []string
}

// Rule allows one identity to publish and subscribe.
type Rule struct {
	// Identity is a name, or "*" for every identity.
	Identity string
	// Publish and Subscribe are MQTT topic filters; %u stands for the identity. A subscription is allowed if every topic
	// it could match is covered by one of the filters in Subscribe. Topics that begin with $ are only matched by
	// filters that begin with the same level, and no client may publish to $SYS or $share.
	Publish, Subscribe []string
}
