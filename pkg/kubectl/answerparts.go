package kubectl

import "fmt"

// pathEBPF is the fast path, as agents name it.
const pathEBPF = "ebpf"

// dataPath is which way packets of established flows take on a node.
type dataPath struct {
	Wanted  string `json:"wanted,omitempty"` // by the configuration: kernel, ebpf, auto
	Path    string `json:"datapath"`         // ebpf or kernel
	Because string `json:"because,omitempty"`
	Flows   int    `json:"flows,omitempty"` // that are remembered
	Hits    uint64 `json:"hits,omitempty"`
	Misses  uint64 `json:"misses,omitempty"`
	// Without are pods for which it is switched off, Skipped interfaces that it is not at.
	Without []string  `json:"without,omitempty"`
	Skipped []skipped `json:"skipped,omitempty"`
}

// skipped is an interface without the fast path, and why.
type skipped struct {
	Interface string `json:"interface"`
	Reason    string `json:"reason"`
}

// takes reports whether flows may take the fast path.
func (p *dataPath) takes() bool { return p != nil && p.Path == pathEBPF }

// unwanted reports whether it is not the one that is wanted.
func (p *dataPath) unwanted() bool {
	return p != nil && p.Path != pathEBPF && p.Wanted != p.Path && p.Because != ""
}

// String is the path in words, with why it is not the one that is wanted.
func (p *dataPath) String() string {
	switch {
	case p == nil:
		return ""
	case p.unwanted():
		return p.Path + ", because " + p.Because
	}
	return p.Path
}

// sessions are those of a node with routers, by BGP.
type sessions struct {
	Peers       int `json:"peers"`
	Established int `json:"established"`
	Announced   int `json:"announced"`
	Learned     int `json:"learned"`
}

func (s *sessions) String() string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%d of %d", s.Established, s.Peers)
}

// answering is what a node says of addresses of load balancers: who gives them, and how
// many it answers for.
type answering struct {
	Leader    string `json:"leader,omitempty"` // node
	Here      int    `json:"here"`
	Elsewhere int    `json:"elsewhere"`
	Nobody    int    `json:"nobody"`
}
