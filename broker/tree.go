package broker

import "strings"

// tree holds values under topic names or filters, level by level. Most levels of a long name lead to one other only, and
// a map for each would cost ten times what the name does: whoever makes up long names could fill the memory with few.
type tree[T any] struct {
	level    string
	only     *tree[T]            // the child, where there is one
	children map[string]*tree[T] // where there are or were more
	value    *T
}

// child returns the child for a level, nil if there is none.
func (n *tree[T]) child(level string) *tree[T] {
	if n.only != nil && n.only.level == level {
		return n.only
	}
	return n.children[level]
}

// grow adds a child.
func (n *tree[T]) grow(level string) *tree[T] {
	child := &tree[T]{level: strings.Clone(level)}
	switch {
	case n.children != nil:
		n.children[child.level] = child
	case n.only == nil:
		n.only = child
	default:
		n.children = map[string]*tree[T]{n.only.level: n.only, child.level: child}
		n.only = nil
	}
	return child
}

func (n *tree[T]) prune(child *tree[T]) {
	if n.only == child {
		n.only = nil
		return
	}
	if delete(n.children, child.level); len(n.children) == 0 {
		n.children = nil
	}
}

func (n *tree[T]) isLeaf() bool { return n.only == nil && len(n.children) == 0 }

// all visits the children.
func (n *tree[T]) all(visit func(*tree[T])) {
	if n.only != nil {
		visit(n.only)
	}
	for _, child := range n.children {
		visit(child)
	}
}

// get returns the value at a path, nil if there is none.
func (n *tree[T]) get(path string) *T {
	for more := true; more; {
		var level string
		level, path, more = strings.Cut(path, "/")
		if n = n.child(level); n == nil {
			return nil
		}
	}
	return n.value
}

// put sets the value at a path.
func (n *tree[T]) put(path string, value *T) {
	for more := true; more; {
		var level string
		level, path, more = strings.Cut(path, "/")
		child := n.child(level)
		if child == nil {
			child = n.grow(level)
		}
		n = child
	}
	n.value = value
}

// remove takes the value at a path away, with all levels that lead nowhere any more.
func (n *tree[T]) remove(path string) {
	level, rest, more := strings.Cut(path, "/")
	child := n.child(level)
	switch {
	case child == nil:
		return
	case more:
		child.remove(rest)
	default:
		child.value = nil
	}
	if child.value == nil && child.isLeaf() {
		n.prune(child)
	}
}

// match visits the values at all filters that match the topic name (MQTT 5.0 section 4.7).
func (n *tree[T]) match(topic string, visit func(*T)) {
	// A leading wildcard does not match names that begin with $ (section 4.7.2).
	n.matchLevel(topic, !strings.HasPrefix(topic, "$"), visit)
}

func (n *tree[T]) matchLevel(topic string, wildcards bool, visit func(*T)) {
	level, rest, more := strings.Cut(topic, "/")
	if child := n.child(level); child != nil {
		child.matchRest(rest, more, visit)
	}
	if !wildcards {
		return
	}
	if child := n.child("+"); child != nil {
		child.matchRest(rest, more, visit)
	}
	n.visitHash(visit)
}

func (n *tree[T]) matchRest(rest string, more bool, visit func(*T)) {
	if more {
		n.matchLevel(rest, true, visit)
		return
	}
	if n.value != nil {
		visit(n.value)
	}
	n.visitHash(visit) // # matches its parent too (section 4.7.1.2)
}

func (n *tree[T]) visitHash(visit func(*T)) {
	if child := n.child("#"); child != nil && child.value != nil {
		visit(child.value)
	}
}

// each visits all values, and returns how many levels it went through.
func (n *tree[T]) each(visit func(*T)) (levels int) {
	levels = 1
	if n.value != nil {
		visit(n.value)
	}
	n.all(func(child *tree[T]) { levels += child.each(visit) })
	return levels
}

// search visits the values at all topic names that the filter matches, and returns how many levels it went through to
// find them, which may be all there are for a filter that matches nothing.
func (n *tree[T]) search(filter string, visit func(*T)) (levels int) {
	return n.searchLevel(filter, true, visit)
}

func (n *tree[T]) searchLevel(filter string, first bool, visit func(*T)) (levels int) {
	level, rest, more := strings.Cut(filter, "/")
	if level != "+" && level != "#" {
		if child := n.child(level); child != nil {
			levels = child.searchRest(rest, more, visit)
		}
		return levels
	}
	if level == "#" && !first {
		return n.each(visit)
	}
	n.all(func(child *tree[T]) {
		switch {
		case first && strings.HasPrefix(child.level, "$"):
		case level == "#":
			levels += child.each(visit)
		default:
			levels += child.searchRest(rest, more, visit)
		}
	})
	return levels
}

func (n *tree[T]) searchRest(rest string, more bool, visit func(*T)) (levels int) {
	if more {
		return 1 + n.searchLevel(rest, false, visit)
	}
	if n.value != nil {
		visit(n.value)
	}
	return 1
}
