package broker

import "strings"

// tree holds values under topic names or filters, level by level.
type tree[T any] struct {
	children map[string]*tree[T]
	value    *T
}

// get returns the value at a path, nil if there is none.
func (n *tree[T]) get(path string) *T {
	for more := true; more; {
		var level string
		level, path, more = strings.Cut(path, "/")
		if n = n.children[level]; n == nil {
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
		child := n.children[level]
		if child == nil {
			child = &tree[T]{}
			if n.children == nil {
				n.children = map[string]*tree[T]{}
			}
			n.children[strings.Clone(level)] = child
		}
		n = child
	}
	n.value = value
}

// remove takes the value at a path away, with all levels that lead nowhere any more.
func (n *tree[T]) remove(path string) {
	level, rest, more := strings.Cut(path, "/")
	child := n.children[level]
	switch {
	case child == nil:
		return
	case more:
		child.remove(rest)
	default:
		child.value = nil
	}
	if child.value == nil && len(child.children) == 0 {
		delete(n.children, level)
	}
}

// match visits the values at all filters that match the topic name (MQTT 5.0 section 4.7).
func (n *tree[T]) match(topic string, visit func(*T)) {
	// A leading wildcard does not match names that begin with $ (section 4.7.2).
	n.matchLevel(topic, !strings.HasPrefix(topic, "$"), visit)
}

func (n *tree[T]) matchLevel(topic string, wildcards bool, visit func(*T)) {
	level, rest, more := strings.Cut(topic, "/")
	if child := n.children[level]; child != nil {
		child.matchRest(rest, more, visit)
	}
	if !wildcards {
		return
	}
	if child := n.children["+"]; child != nil {
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
	if child := n.children["#"]; child != nil && child.value != nil {
		visit(child.value)
	}
}

// each visits all values.
func (n *tree[T]) each(visit func(*T)) {
	if n.value != nil {
		visit(n.value)
	}
	for _, child := range n.children {
		child.each(visit)
	}
}

// search visits the values at all topic names that the filter matches.
func (n *tree[T]) search(filter string, visit func(*T)) { n.searchLevel(filter, true, visit) }

func (n *tree[T]) searchLevel(filter string, first bool, visit func(*T)) {
	level, rest, more := strings.Cut(filter, "/")
	if level != "+" && level != "#" {
		if child := n.children[level]; child != nil {
			child.searchRest(rest, more, visit)
		}
		return
	}
	if level == "#" && !first {
		n.each(visit)
		return
	}
	for name, child := range n.children {
		switch {
		case first && strings.HasPrefix(name, "$"):
		case level == "#":
			child.each(visit)
		default:
			child.searchRest(rest, more, visit)
		}
	}
}

func (n *tree[T]) searchRest(rest string, more bool, visit func(*T)) {
	switch {
	case more:
		n.searchLevel(rest, false, visit)
	case n.value != nil:
		visit(n.value)
	}
}
