// Package policy keeps NetworkPolicies and ClusterNetworkPolicies for the pods of one
// node: who may begin a connection to them, and to whom they may.
//
// Kubernetes' objects, of the API ([Kubernetes]) or of files ([Directory]), become
// plain values ([Pod], [Namespace], [Policy]) with the faults that were found in them.
// A [Source] tells them to a [Controller], which knows for each address whose it is,
// makes a table of nftables of that, `inet flatnet-policy`, and writes what differs in
// one transaction. Then it ends the connections that are no longer allowed, and has
// pods opened that were closed until their rules were in place ([Gate]).
//
// What decides about a connection is computed from the objects as well ([Decision]):
// for who asks why, for which connections are to end, and for tests, which compare it
// with where packets end in the rules.
//
// docs/policies.md says what the objects mean, and docs/design.md why the rules are as
// they are.
package policy
