package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// homeAssistantRule lets Home Assistant see what is announced and command the outputs it was given, and nothing else.
func (c *deviceAddCmd) homeAssistantRule(cfg *config) string {
	publish, subscribe := cfg.homeAssistantTopics()
	return fmt.Sprintf("\n# Home Assistant: an output it may command must stand here with its plain_topic.\n[[acl]]\nidentity = %q\npublish = [%s]\nsubscribe = [%s]\n",
		c.Name, quoted(publish), quoted(subscribe))
}

func quoted(words []string) string {
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = fmt.Sprintf("%q", word)
	}
	return strings.Join(out, ", ")
}

// tellHomeAssistant says what to enter where.
func (c *deviceAddCmd) tellHomeAssistant(std streams, l layout, cfg *config) error {
	client, err := c.clientConfig(l, cfg)
	if err != nil {
		return err
	}
	b := bundle{dir: filepath.Base(c.Out)}
	_, err = fmt.Fprintf(std.out, `next, in Home Assistant: Settings, Devices & services, Add integration, MQTT; then
  Broker %s, Port %d, no user name and no password, Advanced options
  Use a client certificate: %s and %s
  Broker certificate validation: Custom, %s
`, client.Host, client.Port, b.clientCert(), b.clientKey(), b.caCert())
	return err
}
