package page

import "strings"

// ClusterMark begins the part of docs/benchmarks.md that `make bench-cluster`
// measures on a cluster, and `make bench` keeps. It is the last.
const ClusterMark = "<!-- measured by make bench-cluster -->\n"

// Cluster is that part of a document, with its mark; "" if there is none.
func Cluster(document string) string {
	_, rest, found := strings.Cut(document, ClusterMark)
	if !found {
		return ""
	}
	return ClusterMark + rest
}

// Explanation is the part of a document that was written by hand between the
// marks of a name, with the marks; only the marks if there is none.
func Explanation(document, name string) string {
	start, end := "<!-- explanation: "+name+" -->\n", "<!-- end of explanation -->\n"
	_, rest, _ := strings.Cut(document, start)
	kept, _, found := strings.Cut(rest, end)
	if !found {
		kept = ""
	}
	return start + kept + end
}
