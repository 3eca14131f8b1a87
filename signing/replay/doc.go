// Package replay remembers which sealed messages a node accepted, over
// restarts and power cuts, so that none is accepted twice.
//
// What comes in is the identity of a verified message: its key (kid), what it
// is for (an output, or a telemetry topic), its sequence number and the
// SHA-256 digest of its signed bytes. What goes out is an [Outcome], decided in
// memory in the order of the calls, and for commands a [Commit] to wait for
// before acting.
//
// # Rules
//
//   - Commands: the number must be above the highest accepted of that key for
//     that output.
//   - Telemetry: the 64 highest accepted of that key on that topic are
//     remembered, so that reordering is tolerated. What is below all 64 is a
//     Replay; any other number not among them is New.
//   - Legacy: the last second of that key is remembered with the digests seen in
//     it, at most 64. An older second is a Replay, so is a 65th message of one second.
//   - A remembered number with the same digest is a Duplicate, with another one
//     an Equivocation.
//
// # Guarantees
//
// A command whose Commit succeeded is remembered after a power cut. Where the
// disk refuses (full, read-only, gone) the Commit fails: the caller does not
// act, and no other message may have the number. The same message is New again
// when it comes again, and then durable before anyone acts on it; after a
// restart it is a Duplicate if it has reached the disk all the same. What could
// not be written is written with the next commit that succeeds, and the files
// are opened anew for that, so that a disk that comes back needs no restart.
// Telemetry is written every few seconds and on Close: a power cut forgets the
// last of it. It has commits of its own, and after one that failed none before
// the next flush: what telemetry cannot get, commands may still have.
//
// Memory is bounded: at most 1024 outputs and topics a key; what a key seals
// for more of them is a Replay until [Store.Reset]. The number of keys is the
// caller's: only messages of trusted keys may come here.
//
// Not this package's: signatures, clocks, permissions. It knows no time of its own.
//
// # The files
//
// The store of record is a bbolt database. A commit to it is two syncs and
// several pages, so what must be durable at once goes to a log beside it,
// state.log for state.db: one sync and mostly one page for all that wait. A
// checkpoint brings the database up to date, in one commit, and thereby empties
// the log: the first time that something is to be written, when the log is
// full, with telemetry, on Reset and on Close. After an error too, so that
// nothing is written to the log behind what may not be on the disk.
//
// Both have mode 0600. The database is locked (flock) by the process that uses
// the two. Numbers are big-endian.
//
// # The database
//
// It has pages of 4096 bytes and no stored free list.
//
//	bucket     key               value
//	meta       "version"         uint32, 1; any other is refused
//	meta       "since"           int64, microseconds since 1970; absent: zero time
//	meta       "run"             16 random bytes of the process that wrote last
//	meta       "log"             28 bytes: id of the log, 16 random bytes; its epoch,
//	                             uint64; its pages, uint32, 0: it holds nothing
//	meta       "sum"             8 bytes, see below
//	commands   kid and output    entries, exactly 1
//	telemetry  kid and topic     entries, 1 to 64, ascending by number
//	legacy     kid and ""        entries, 1 to 64, all of one second
//
// A key is the kid's length (uint16), the kid, the output or topic. An entry is
// 40 bytes, number (uint64) and digest. The sum is over everything but itself:
// of each key and value the first 8 bytes of SHA-256 over bucket name, key
// length (uint16), key and value, all of them combined by exclusive or. It is
// there because bbolt has checksums on its two meta pages only: rotten bits and
// pages that an SD card confirmed and did not write are noticed. A meta page
// that rots looks like a commit torn by a power cut, which is undone.
//
// Before bbolt maps the file, its page structure is checked, because bbolt
// would die of SIGBUS on a truncated one.
//
// # The log
//
// A file of a fixed size, written with zeros when it is made, so that the file
// system has nothing to note when they are written over. It consists of batches,
// each beginning a page of 4096 bytes and filled up with zeros to the end of its
// last: what was confirmed is not written again until the database has it.
//
//	offset  bytes
//	0       8      epoch
//	8       4      page of the file at which the batch begins
//	12      4      length of the records
//	16      16     the first of SHA-256 over id of the log, bytes 0 to 15, records
//	32      …      records
//
// A record is a value of the database as it shall be:
//
//	0       1      'c': in bucket commands, 'l': legacy
//	1       2      length of the key
//	3       2      length of the value
//	5       …      key, value
//
// Page 0 holds a batch of epoch 0 without records, which tells whose log it is.
// From page 1 on, the batches of the epoch in the database are taken, one after
// the other, up to one that is not whole: it was being written when the power
// failed, and nobody was told that it is on disk. What follows belongs to former
// epochs. A whole batch of the epoch behind one that is not, one of a later
// epoch, a file of another size or another id, is damage, and refused. Rot in the
// last batch cannot be told from a power cut.
//
// A database without the log that it relies on has lost what was accepted since
// the last checkpoint. See [Options.Since] for what becomes of it.
package replay
