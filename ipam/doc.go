// Package ipam hands out IP addresses from ranges and remembers who holds
// them, in files. It knows nothing of the kernel and nothing of CNI.
//
// # Records
//
// An address that is held is a file of that name in Directory/Network, with
// the container's id and the interface's name as content. Directory, name,
// content, the lock and the last_reserved_ip cursor are those of the CNI
// project's host-local plugin, so either program can take over a directory
// from the other while pods are running.
//
// # Index
//
// The records are the truth, but finding an owner's among them would mean
// reading all of them. Everything that makes the cost of an operation
// independent of the number of records lives beside them, under .flatnet,
// and can be rebuilt from them:
//
//	.flatnet/state               counters of every range set, and what the record directory looked like
//	.flatnet/boot                the boot that the state belongs to
//	.flatnet/owners/<hash>       what one owner holds, its sandbox, and (mtime) since when
//	.flatnet/released/<address>  where a released address stands in its queue
//	.flatnet/sets/<key>/<number> a place in the queue of released addresses of one range set
//	.flatnet/sets/<key>/ranges   the ranges of that set
//
// All but state are symbolic links that lead nowhere and carry their data in
// the target text: one system call writes or reads one, and it is either
// there as a whole or not at all. host-local compares the content of every
// file of the tree with an owner's text; it cannot open these.
//
// The state is marked as busy before the first change of an operation and
// settled after the last one, together with a stamp (times, size) of the
// record directory. Whoever finds it busy, or finds another stamp, knows that
// an operation died halfway or that another program changed records, and
// rebuilds the index by reading every record, once.
//
// Nothing is synced to the disk. The state describes the pods of one boot
// and is worthless after it; a process that is killed loses nothing that it
// wrote, and state of another boot is discarded.
package ipam
