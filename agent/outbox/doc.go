// Package outbox keeps sealed telemetry until the node that receives it has said so.
//
// What goes in is a [Message], sealed once, which is never sealed again. [Box.Run] publishes messages in the order they
// came in, no more than [Window] at a time unanswered, and again when there is no answer. What comes back goes into
// [Box.Accepted] and [Box.Refused].
//
// # Guarantees
//
//   - A message whose [Box.Put] returned nil outlives kill -9 of the process, and an orderly stop.
//   - It outlives a power cut once it has waited for [Options.FlushEvery] without an answer.
//   - It is published until it is answered or, the oldest first, given up for want of room ([Options.MaxBytes]), which is
//     counted.
//   - A disk that is full or broken costs none of that while the process lives: messages stay in memory, at most 8 MiB of
//     them, and go to the disk when it is back.
//
// The receiver knows a message again by its number, as long as fewer than 64 newer ones of the same key and topic were
// accepted. Window keeps that so; nobody else must publish with the key on a topic of the outbox. "replay" is therefore
// an answer that says: accepted long ago.
//
// # How little is written
//
// While the receiver answers, nothing is written to the disk: a message lives for a second, and is in the journal only,
// a file that belongs into a file system in memory, such as /run. Only what has waited for FlushEvery goes into the
// database, all that waits in one commit, compressed: a message of 450 bytes takes about 130.
//
// # The files
//
// The database is a bbolt file. It is a queue of chunks:
//
//	bucket   key                            value
//	chunks   position of the first, uint64  uint32 positions from the first to the last, uint32 CRC-32C of what follows;
//	                                        DEFLATE (RFC 1951) of the messages
//	state    "done"                         positions within chunks that wait no more, uint64 each
//
// Positions count from 1 in the order of Put. In a chunk a message is uvarint position less the chunk's, uvarint
// number, and with a uvarint length before each: topic, and the three parts of the sealed message without base64url,
// which costs a third and hides from DEFLATE how much one is like the other.
//
// The journal begins with a line that has the kernel's boot id, and after a boot it counts as empty. Then there is a
// sequence of records, each uint32 length, uint32 CRC-32C, then 'm', position, number, length of the
// topic (uint16), topic, sealed message; or 'd', position: it was answered. Numbers are big-endian. A record that is not
// whole ends the journal.
//
// A database that cannot be read is moved away, with ".damaged" added to its name, and told of: telemetry of former days
// is no reason not to drive outputs.
package outbox
