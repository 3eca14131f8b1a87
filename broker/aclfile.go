package broker

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"pinseal/pki"
)

// ACLFile is an access control list in mosquitto's own format (mosquitto.conf(5), acl_file). It is immutable.
//
// As in mosquitto, what stands before the first user line is for clients without a name, topic lines are for the user
// above them, and pattern lines are for everyone, with %u and %c filled in. A client's topic lines are asked before the
// patterns, and among each of them those that deny before those that allow. The first line that matches decides.
type ACLFile struct {
	users    map[string][]aclLine // "": clients without a name
	patterns []aclLine
}

// access is what a line allows; nothing at all denies.
type access uint8

const (
	accessRead access = 1 << iota
	accessWrite
	accessDeny access = 0
)

type aclLine struct {
	filter string
	access access
	source string // file, line number and text
	always bool   // matches whatever is asked for
}

// ParseACLFile reads an ACL file; name is what errors and decisions call it. It refuses user names that no client can
// have, which mosquitto takes.
func ParseACLFile(name string, text []byte) (*ACLFile, error) {
	f := &ACLFile{users: map[string][]aclLine{}}
	user, number := "", 0
	for raw := range bytes.Lines(text) {
		number++
		line := strings.TrimSpace(string(raw))
		if line == "" || line[0] == '#' {
			continue
		}
		source := fmt.Sprintf("%s:%d: %s", name, number, line)
		word, rest := cutWord(line)
		var err error
		switch word {
		case "user":
			user, err = rest, checkUser(rest)
		case "topic", "pattern":
			err = f.add(user, word == "pattern", rest, source)
		default:
			err = fmt.Errorf("a line begins with user, topic or pattern, not %.40q", word)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, number, err)
		}
	}
	deniesFirst(f.patterns)
	for _, lines := range f.users {
		deniesFirst(lines)
	}
	return f, nil
}

func cutWord(line string) (word, rest string) {
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		return line[:i], strings.TrimLeft(line[i:], " \t")
	}
	return line, ""
}

func checkUser(user string) error {
	if !pki.ValidName(user) {
		return fmt.Errorf("no client can be named %.80q: names are letters, digits, _ and -, at most 64", user)
	}
	return nil
}

func (f *ACLFile) add(user string, pattern bool, rest, source string) error {
	l := aclLine{filter: rest, access: accessRead | accessWrite, source: source}
	if word, filter := cutWord(rest); filter != "" {
		l.filter = filter
		switch word {
		case "read":
			l.access = accessRead
		case "write":
			l.access = accessWrite
		case "readwrite":
		case "deny":
			l.access = accessDeny
		default:
			return fmt.Errorf("access is read, write, readwrite or deny, not %.40q", word)
		}
	}
	if err := checkFilters([]string{l.filter}); err != nil {
		return err
	}
	if pattern {
		f.patterns = append(f.patterns, l)
	} else {
		f.users[user] = append(f.users[user], l)
	}
	return nil
}

func deniesFirst(lines []aclLine) {
	slices.SortStableFunc(lines, func(a, b aclLine) int { return min(1, int(a.access)) - min(1, int(b.access)) })
}

// lines returns those that concern a client, in the order in which they are asked.
func (f *ACLFile) lines(identity, clientID string) []aclLine {
	if f == nil {
		return nil
	}
	out := slices.Clone(f.users[identity])
	if len(f.patterns) > 0 && strings.ContainsAny(clientID, "+#") {
		// Filled in, it would be a wildcard. mosquitto, too, denies such a client what only patterns could allow.
		return append(out, aclLine{source: "a client id with + or # where the ACL file has patterns", always: true})
	}
	fill := strings.NewReplacer("%u", identity, "%c", clientID)
	for _, p := range f.patterns {
		if identity == "" && strings.Contains(p.filter, "%u") {
			continue
		}
		filled := fill.Replace(p.filter)
		if filled == "" || filled[0] == '$' && p.filter[0] != '$' {
			continue // a client id must not lead to the broker's own topics
		}
		p.filter = filled
		out = append(out, p)
	}
	return out
}

// judge finds the line that decides about a topic or a filter, nil if none does. A subscription is allowed if a line
// allows some of it, because each message is judged again on its way, as mosquitto does it; it is denied where a line
// denies all of it.
func judge(lines []aclLine, wanted string, as access) *aclLine {
	for i := range lines {
		l := &lines[i]
		switch {
		case l.access == accessDeny && (l.always || covers(l.filter, wanted)):
			return l
		case l.access&as != 0 && overlaps(l.filter, wanted):
			return l
		}
	}
	return nil
}
