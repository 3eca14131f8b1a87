package broker

import "runtime/debug"

// tidier gives back what handshakes leave behind. Each makes several times the garbage of what its connection keeps, and
// Go holds that until the heap has doubled, which in a broker where nothing happens may be never.
type tidier struct {
	seen, tidied uint64 // handshakes
}

// worthTidying is how many handshakes must have been; fewer leave little.
const worthTidying = 64

// due reports, asked once a second with the number of handshakes so far, whether a wave of them is over.
func (t *tidier) due(handshakes uint64) bool {
	still := handshakes == t.seen
	t.seen = handshakes
	if !still || handshakes-t.tidied < worthTidying {
		return false
	}
	t.tidied = handshakes
	return true
}

func (b *Broker) tidy() {
	if b.tidier.due(b.journal.traffic.sockets.Load()) {
		debug.FreeOSMemory()
	}
}
