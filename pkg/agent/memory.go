package agent

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/feature"
)

const (
	manyNodes = 500
	restAfter = time.Second
)

// newMemory returns the feature that gives memory back, and is what others ask for that:
// what reading and planning a long list took is not needed until the next change, and
// the node has better use for it.
func newMemory(s *feature.Shared) feature.Feature {
	rest := &feature.Task{
		Name: "rest", Gap: 10 * time.Second, Advice: "nothing depends on it",
		Run: func(context.Context) error {
			debug.FreeOSMemory()
			return nil
		},
	}
	s.Rest = rest.Ask
	return feature.Feature{
		Tasks: []*feature.Task{rest},
		Follow: func(n feature.News) error {
			if n == feature.FabricJoined && len(s.Nodes) > manyNodes {
				rest.By(time.Now().Add(restAfter))
			}
			return nil
		},
	}
}
