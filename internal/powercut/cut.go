package main

import (
	"cmp"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
)

const sector = 512 // what a disk writes whole or not at all

// form is how much is tried.
type form struct {
	subsets int  // up to how many lost or kept events all combinations are tried
	torn    bool // each write torn at each sector, not only at one of them
	random  int  // combinations of lost, kept and torn at random, for each cut
	again   int  // images of a life from which the same life is lived again
	first   bool // the first failure is enough
	kills   int  // moments at which the process is killed, before the power goes later
	faults  int  // calls that fail, of each way to fail
	stride  int  // after a fault, every so many cuts are tried
	heads   bool // of a torn write the beginning is there; see life
}

func shortForm() form { return form{subsets: 3, again: 1, kills: 16, faults: 8, stride: 8} }

func fullForm() form {
	return form{subsets: 7, torn: true, random: 24, again: 8, kills: 100, faults: math.MaxInt, stride: 1}
}

// troubledForm tries every call that can fail, and leaves torn writes to the lives in which none does.
func troubledForm() form {
	f := fullForm()
	f.subsets, f.torn, f.random = 3, false, 1
	return f
}

// cut is the machine at the moment when the power goes.
type cut struct {
	events  int // that had happened
	oldest  int // the first of them that is pending
	durable *disk
	certain []event  // durable too, but some that may be on disk came before
	pending []event  // written, and perhaps on disk
	marks   []string // what the child had said
}

// cuts are all moments of a life: before the first event and after each.
func cuts(before *disk, events []event) iter.Seq[cut] {
	return func(yield func(cut) bool) {
		durable, marks := before.clone(), []string(nil)
		var pending []int
		var certain []event
		lost := map[int]bool{} // the kernel believes that they are on disk
		for i := range len(events) + 1 {
			c := cut{events: i, oldest: i, durable: durable.clone(), certain: slices.Clone(certain), marks: slices.Clone(marks)}
			if len(pending) > 0 {
				c.oldest = pending[0]
			}
			for _, p := range pending {
				c.pending = append(c.pending, events[p])
			}
			if !yield(c) || i == len(events) {
				return
			}
			switch e := events[i]; e.kind {
			case mark:
				marks = append(marks, e.text)
			case sync:
				pending = slices.DeleteFunc(pending, func(p int) bool {
					settled := e.settles(p, events[p]) && !lost[p]
					switch {
					case settled && len(lost) > 0:
						certain = append(certain, events[p])
					case settled:
						durable.apply(events[p])
					}
					return settled
				})
			case failed:
				for _, p := range pending {
					// Names are in the journal of the file system, which tries again or gives up for good.
					if events[p].kind != rename && e.settles(p, events[p]) {
						lost[p] = true
					}
				}
			case write, truncate, rename:
				pending = append(pending, i)
			}
		}
	}
}

// images are what the disk may hold after a cut. What had been synced is
// there; of the rest, a disk may have written any part in any order.
func (c cut) images(f form, random *rand.Rand) iter.Seq[*disk] {
	return func(yield func(*disk) bool) {
		for kept := range c.survivals(f, random) {
			d := c.durable.clone()
			for _, e := range c.inOrder(kept) {
				d.apply(e)
			}
			if !yield(d) {
				return
			}
		}
	}
}

// inOrder adds what is certain to what has survived.
func (c cut) inOrder(kept []event) []event {
	if len(c.certain) == 0 {
		return kept
	}
	return slices.SortedStableFunc(slices.Values(slices.Concat(c.certain, kept)), func(a, b event) int { return cmp.Compare(a.number, b.number) })
}

// survivals are the events that reach the disk: all up to one of them, all but
// one, one alone, every combination where there are few, and with one of them torn.
func (c cut) survivals(f form, random *rand.Rand) iter.Seq[[]event] {
	p := c.pending
	return func(yield func([]event) bool) {
		ok := yield(nil)
		for i := range p {
			ok = ok && yield(p[:i+1]) && yield(without(p, i)) && yield(p[i:i+1])
		}
		if len(p) <= f.subsets {
			for set := range 1 << len(p) {
				ok = ok && yield(choose(p, func(i int) bool { return set>>i&1 == 1 }))
			}
		}
		for i, e := range p {
			for _, at := range boundaries(e, f.torn) {
				for n, half := range halves(e, at) {
					if n > 0 && f.heads {
						continue
					}
					before, all := slices.Clone(p[:i]), slices.Clone(p)
					all[i] = half
					ok = ok && yield([]event{half}) && yield(append(before, half)) && yield(all)
				}
			}
		}
		for range f.random {
			if f.heads {
				break
			}
			ok = ok && yield(shuffled(p, random))
		}
	}
}

func choose(p []event, keep func(i int) bool) []event {
	var kept []event
	for i, e := range p {
		if keep(i) {
			kept = append(kept, e)
		}
	}
	return kept
}

func without(p []event, i int) []event { return choose(p, func(j int) bool { return j != i }) }

// boundaries are the offsets in an event's data at which a disk can tear it.
func boundaries(e event, each bool) []int {
	var at []int
	for n := sector - int(e.offset%sector); n < len(e.data); n += sector {
		at = append(at, n)
	}
	if !each && len(at) > 1 {
		at = at[:1]
	}
	return at
}

// halves are the two parts of a torn write, of which one is there.
func halves(e event, at int) [2]event {
	head, tail := e, e
	head.data = e.data[:at]
	tail.data, tail.offset = e.data[at:], e.offset+int64(at)
	return [2]event{head, tail}
}

// shuffled keeps each sector with even chances.
func shuffled(p []event, random *rand.Rand) []event {
	var kept []event
	for _, e := range p {
		from := 0
		for _, to := range append(boundaries(e, true), len(e.data)) {
			if random.IntN(2) == 0 {
				part := e
				part.data, part.offset = e.data[from:to], e.offset+int64(from)
				if e.kind != write {
					part = e
				}
				kept = append(kept, part)
			}
			from = to
		}
	}
	return kept
}
