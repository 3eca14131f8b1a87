package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"
)

type versionCmd struct{}

// Run prints the version, the commit it was built from and the target.
func (versionCmd) Run(std streams) error {
	version, revision := buildVersion()
	line := fmt.Sprintf("pinseal %s %s/%s %s", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
	if revision != "" {
		line += " " + revision
	}
	_, err := fmt.Fprintln(std.out, line)
	return err
}

// buildVersion is what this program was built from; the revision is empty where that is not known.
func buildVersion() (version, revision string) {
	version = "devel"
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" && info.Main.Version != "(devel)" {
			version = info.Main.Version
		}
		revision = buildSetting(info, "vcs.revision")
	}
	return version, revision
}

// buildTime is the earliest moment at which this program can be running: the commit's time,
// or, for a build without version control, the release its source belongs to.
func buildTime() time.Time {
	release := time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	commit, err := time.Parse(time.RFC3339, buildSetting(info, "vcs.time"))
	if err != nil {
		return release
	}
	return commit
}

func buildSetting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}
