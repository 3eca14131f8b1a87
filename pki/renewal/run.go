package renewal

import (
	"context"
	"time"
)

const (
	// look is how often it is found out whether a renewal is due: the clock may
	// have been set meanwhile.
	look = time.Hour
	// again is how long to wait after a failed attempt at first; it doubles up to look.
	again = time.Minute
)

// Run renews whenever it is due, until ctx ends. renewed is called after each
// renewal, failed after each attempt that came to nothing, with the end of the
// certificate in force; both may take their time.
func (h *Holder) Run(ctx context.Context, renewed func(), failed func(err error, end time.Time)) {
	wait := time.Duration(0)
	for {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		current, err := h.Current()
		switch {
		case err != nil:
			failed(err, time.Time{})
		case h.Now().Before(Due(current)):
			wait = look
			continue
		default:
			if err = h.Renew(ctx); err == nil {
				wait = look
				renewed()
				continue
			}
			if ctx.Err() != nil {
				return
			}
			failed(err, current.NotAfter)
		}
		wait = min(max(again, 2*wait), look)
	}
}
