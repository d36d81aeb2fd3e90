package kubectl

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/version"
)

// farApart reports whether two versions are more than one minor release apart. Within one,
// each side understands the other; beyond that fields that this program needs may be gone,
// or mean something else. What is not the version of a release, as of a build out of a
// checkout, is not compared.
func farApart(own, other string) bool {
	a, err := version.ParseSemantic(own)
	b, failure := version.ParseSemantic(other)
	if err != nil || failure != nil {
		return false
	}
	apart := int(a.Minor()) - int(b.Minor())
	return a.Major() != b.Major() || apart < -1 || apart > 1
}

// skew says which of the nodes' versions are too far from this program's: a sentence each.
// versions are findings of which the text is a version.
func skew(own string, versions []finding) (sentences []string) {
	for _, v := range versions {
		if farApart(own, v.text) {
			sentences = append(sentences, fmt.Sprintf("kubectl-flatnet %s and flatnetd %s at %s are more than one minor release apart: what is said of them may be wrong or incomplete; use the kubectl-flatnet of their version",
				own, v.text, someOf(v.nodes, len(v.nodes))))
		}
	}
	return sentences
}
