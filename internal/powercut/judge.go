package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// life is something that writes, and what must be true whenever it is cut short.
type life struct {
	name string
	// live writes in the folder, and says with tell what it has promised or done.
	live func(folder string, tell func(format string, args ...any)) error
	// judge opens what is in the folder after the cut, by the marks of what had
	// been said before. It returns errRefused where the state cannot be opened.
	judge func(folder string, marks []string) error
	// troubled says that it bears calls that fail.
	troubled bool
	// appends says that files only grow: what is appended is on the disk before
	// their size is, as ext4 has it (data=ordered), and so the end of a torn
	// write is not there without its beginning.
	appends bool
}

// errRefused says that what is on the disk was not accepted: nothing is done
// twice then, but a person is needed.
var errRefused = errors.New("refused")

// report counts.
type report struct {
	cuts, images, opened int
	faults               int // calls that failed
	refused, wrong       []string
}

func (r *report) String() string {
	text := fmt.Sprintf("%d cut points, %d images, %d opened, %d refused, %d wrong",
		r.cuts, r.images, r.opened, len(r.refused), len(r.wrong))
	if r.faults > 0 {
		text = fmt.Sprintf("%d calls that failed, ", r.faults) + text
	}
	return text
}

func (r *report) add(other report) {
	r.cuts, r.images, r.opened = r.cuts+other.cuts, r.images+other.images, r.opened+other.opened
	r.faults += other.faults
	r.refused, r.wrong = append(r.refused, other.refused...), append(r.wrong, other.wrong...)
}

// judge is one run over lives.
type judge struct {
	form   form
	base   string // a folder for everything
	random *rand.Rand
	report report
	// spoil changes what was recorded; its tests make a disk worse with it.
	spoil func([]event) []event
}

func newJudge(f form, folder string) *judge {
	// The same seed makes the same choices in every run.
	random := rand.New(rand.NewChaCha8([32]byte{1})) //nolint:gosec // chance, no secret
	return &judge{form: f, base: folder, random: random, spoil: func(e []event) []event { return e }}
}

// bootID is the id of a boot in which a child lives: none of them is the
// machine's, in which the images are opened.
func bootID(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// judgeLife enumerates one life; then lives that begin with what a power cut
// left; then lives that begin where a process was killed, so that what it had
// not synced is still pending.
func (j *judge) judgeLife(ctx context.Context, l life) error {
	first, err := j.recorder(&disk{})
	if err != nil {
		return err
	}
	if err := first.live(ctx, l.name, bootID(1), 0); err != nil {
		return err
	}
	pick := picker{most: j.form.again, random: j.random}
	if err := j.enumerate(ctx, l, first, nil, &pick, none); err != nil {
		return err
	}
	for i, s := range pick.starts {
		r, err := j.recorder(s.disk)
		if err != nil {
			return err
		}
		if err := r.live(ctx, l.name, bootID(2+i), 0); err != nil {
			return err
		}
		if err := j.enumerate(ctx, l, r, s.marks, nil, none); err != nil {
			return err
		}
	}
	return j.judgeKills(ctx, l, beforeSyncs(first))
}

// beforeSyncs are the moments of a life just before a sync.
func beforeSyncs(r *recorder) []int {
	var at []int
	for i, e := range r.events {
		if i > 0 && e.kind == sync {
			at = append(at, i)
		}
	}
	return at
}

// judgeKills kills at some of these moments, spread evenly.
func (j *judge) judgeKills(ctx context.Context, l life, events []int) error {
	kills := min(j.form.kills, len(events))
	for i := range kills {
		at := events[i*len(events)/kills]
		r, err := j.recorder(&disk{})
		if err != nil {
			return err
		}
		if err := r.live(ctx, l.name, bootID(1), at); err != nil {
			return err
		}
		if err := r.live(ctx, l.name, bootID(1), 0); err != nil {
			return err
		}
		if err := j.enumerate(ctx, l, r, nil, nil, func(c cut) bool { return c.events < at || c.oldest >= at }); err != nil {
			return err
		}
	}
	return nil
}

// recorder records in a folder that holds what the disk does.
func (j *judge) recorder(d *disk) (*recorder, error) {
	folder := filepath.Join(j.base, "life")
	if err := d.store(folder); err != nil {
		return nil, err
	}
	return newRecorder(folder)
}

// start is an image to live on from, and what had been said before.
type start struct {
	disk  *disk
	marks []string
}

// picker picks a few of many images, each with the same chance.
type picker struct {
	most   int
	random *rand.Rand
	starts []start
	seen   int
}

func (p *picker) offer(s start) {
	if p == nil {
		return
	}
	if p.seen++; len(p.starts) < p.most {
		p.starts = append(p.starts, s)
	} else if i := p.random.IntN(p.seen); i < p.most {
		p.starts[i] = s
	}
}

// none of the cuts is left out.
func none(cut) bool { return false }

// enumerate judges every image of every cut that is not to be left out. Where a
// process was killed at an event, cuts from there on matter at which something
// it had written is still pending: the others are those of other lives.
func (j *judge) enumerate(ctx context.Context, l life, r *recorder, marks []string, pick *picker, leaveOut func(cut) bool) error {
	seen := map[[32]byte]bool{}
	f := j.form
	f.heads = l.appends
	for c := range cuts(r.before, j.spoil(r.events)) {
		if leaveOut(c) {
			continue
		}
		j.report.cuts++
		said := append(append([]string(nil), marks...), c.marks...)
		for d := range c.images(f, j.random) {
			key := sha256.Sum256(fmt.Appendf(nil, "%x %d", d.sum(), len(said)))
			if seen[key] {
				continue
			}
			seen[key] = true
			if err := ctx.Err(); err != nil {
				return err
			}
			problem, err := j.judgeImage(l, d, said)
			if err != nil {
				return err
			}
			j.count(l, c, problem)
			if problem != nil && j.form.first {
				return nil
			}
			if problem == nil {
				pick.offer(start{d, said})
			}
		}
	}
	return nil
}

func (j *judge) judgeImage(l life, d *disk, marks []string) (problem, err error) {
	folder := filepath.Join(j.base, "image")
	if err := d.store(folder); err != nil {
		return nil, err
	}
	return l.judge(folder, marks), nil
}

func (j *judge) count(l life, c cut, problem error) {
	r := &j.report
	r.images++
	line := fmt.Sprintf("%s, cut after event %d with %d pending: %v", l.name, c.events, len(c.pending), problem)
	switch {
	case problem == nil:
		r.opened++
	case errors.Is(problem, errRefused):
		r.refused = append(r.refused, line)
	default:
		r.opened++
		r.wrong = append(r.wrong, line)
	}
}

// child is what a recorded process does: the life that the environment names.
func child(lives []life) error {
	name := os.Getenv(lifeVariable)
	for _, l := range lives {
		if l.name != name {
			continue
		}
		return l.live(os.Getenv(folderVariable), func(format string, args ...any) {
			// A mark is one write, or it would be two.
			_, _ = fmt.Fprintf(os.Stdout, format+"\n", args...) // to /dev/null
		})
	}
	return fmt.Errorf("no life %s", name)
}
