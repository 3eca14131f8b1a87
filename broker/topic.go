package broker

import "strings"

// covers reports whether every topic that the filter wanted could match is matched by the filter allowed. A topic name is
// a filter that matches itself, so covers also answers whether a topic matches a filter. Both must be well formed
// (MQTT 5.0 section 4.7) and must not be those of shared subscriptions.
func covers(allowed, wanted string) bool {
	// A leading wildcard does not match topics that begin with $ (section 4.7.2).
	if wanted != "" && wanted[0] == '$' && allowed != "" && (allowed[0] == '+' || allowed[0] == '#') {
		return false
	}
	if wanted == "#" && allowed == "+/#" {
		return true // at the first level only, where # has no parent that +/# would miss
	}
	for {
		a, restA, moreA := strings.Cut(allowed, "/")
		w, restW, moreW := strings.Cut(wanted, "/")
		switch {
		case a == "#":
			return true
		case w == "#", a != "+" && a != w:
			return false
		case !moreW:
			return !moreA || restA == "#" // # covers its parent
		case !moreA:
			return false
		}
		allowed, wanted = restA, restW
	}
}

// overlaps reports whether there is a topic that both filters match. Both must be as for covers.
func overlaps(a, b string) bool {
	if strings.HasPrefix(a, "$") != strings.HasPrefix(b, "$") {
		return false
	}
	for {
		levelA, restA, moreA := strings.Cut(a, "/")
		levelB, restB, moreB := strings.Cut(b, "/")
		switch {
		case levelA == "#" || levelB == "#":
			return true
		case levelA != "+" && levelB != "+" && levelA != levelB:
			return false
		case !moreA || !moreB:
			return moreA == moreB || restA == "#" || restB == "#" // # covers its parent
		}
		a, b = restA, restB
	}
}

func anyCovers(allowed []string, wanted string) bool {
	for _, filter := range allowed {
		if covers(filter, wanted) {
			return true
		}
	}
	return false
}

// Matches reports whether a topic name matches a topic filter (MQTT 5.0 section 4.7).
func Matches(filter, topic string) bool { return covers(filter, topic) }

// splitShared returns the group and the filter of a shared subscription (section 4.8.2), or no group and any other filter
// as it is. Any other spelling of $share was refused before.
func splitShared(written string) (group, filter string) {
	rest, ok := strings.CutPrefix(written, "$share/")
	if !ok {
		return "", written
	}
	group, filter, ok = strings.Cut(rest, "/")
	if !ok {
		return "", written
	}
	return group, filter
}

// unshared returns the filter that a subscription is about.
func unshared(written string) string {
	_, filter := splitShared(written)
	return filter
}

// publishable reports whether clients may publish to the topic at all: what begins with $SYS is the broker's, and $share is
// no topic.
func publishable(topic string) bool {
	if topic == "" || topic[0] != '$' {
		return true
	}
	first, _, _ := strings.Cut(strings.ToUpper(topic), "/")
	return first != "$SHARE" && !strings.HasPrefix(first, "$SYS")
}

// checkFilter reports whether a filter of a policy is well formed.
func checkFilter(filter string) bool {
	if filter == "" || len(filter) > 65535 || strings.ContainsRune(filter, 0) {
		return false
	}
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if strings.ContainsAny(level, "+#") && len(level) > 1 || level == "#" && more {
			return false
		}
	}
	return true
}
