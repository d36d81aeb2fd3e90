package host

import (
	"fmt"

	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// Problems returns what of the findings is not as needed on the node. Where no
// sysctl can be written that is one problem, from which the others follow.
func Problems(node string, findings []Finding) (all []problem.Problem) {
	for _, f := range findings {
		if f.ReadOnly != "" {
			all = append(all, problem.SysctlDirectory.Of(problem.Facts{
				Node: node, Object: "sysctls", Reason: "flatnetd may not write them: " + f.ReadOnly, Breaks: []problem.Thing{problem.Sysctls},
			}))
			break
		}
	}
	for _, f := range findings {
		if f.Problem != "" {
			all = append(all, f.problem(node))
		}
	}
	return all
}

func (f Finding) problem(node string) problem.Problem {
	facts := problem.Facts{Node: node, Object: f.Object, Reason: f.Problem, Advice: f.Hint}
	switch {
	case f.Found != "" && f.Wanted != "":
		facts.Reason = fmt.Sprintf("is %s instead of %s: %s", f.Found, f.Wanted, f.Problem)
	case f.Wanted != "":
		facts.Reason = fmt.Sprintf("is to be %s: %s", f.Wanted, f.Problem)
	}
	if f.ReadOnly != "" {
		facts.Needs = []problem.Thing{problem.Sysctls}
	}
	return f.Kind.Of(facts)
}
