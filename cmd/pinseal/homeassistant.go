package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"pinseal/agent"
	"pinseal/agent/homeassistant"
	"pinseal/internal/atomicfile"
)

// announcedFile remembers what Home Assistant was told, so that it can be told what is gone.
func (l layout) announced() string { return filepath.Join(l.state, "homeassistant.json") }

// discovery is what Home Assistant is told when the node starts; nil is nothing.
func (n *node) discovery() (*agent.Discovery, error) {
	before, err := readAnnounced(n.layout.announced())
	if err != nil {
		n.log.Warn("what Home Assistant was told is forgotten; entities that are gone stay there", "error", err)
	}
	var now *homeassistant.Config
	if n.config.HomeAssistant.Enable {
		now = new(n.config.homeAssistant())
	}
	messages, after, err := homeassistant.Announce(now, before)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	announcements := make([]agent.Announcement, len(messages))
	for i, m := range messages {
		announcements[i] = agent.Announcement(m)
	}
	d := &agent.Discovery{Announce: func() []agent.Announcement { return announcements }, Announced: func() { n.remember(after) }}
	if now != nil {
		d.Topic, d.Word = n.config.HomeAssistant.status(), agent.Online
	}
	return d, nil
}

func readAnnounced(path string) (homeassistant.Announced, error) {
	var a homeassistant.Announced
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &a)
	}
	if err != nil {
		return homeassistant.Announced{}, fmt.Errorf("reading what was announced: %w", err)
	}
	return a, nil
}

// remember keeps what the broker has confirmed. Until then the next start says it again.
func (n *node) remember(a homeassistant.Announced) {
	data, err := json.Marshal(a)
	if err == nil {
		err = atomicfile.Write(n.layout.announced(), append(data, '\n'), 0o600)
	}
	if err != nil {
		n.log.Warn("what Home Assistant was told will be forgotten", "error", err)
	}
}
