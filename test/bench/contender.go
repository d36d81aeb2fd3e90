package main

import "fmt"

// contender is a network configuration whose ADD and DEL are measured.
type contender struct {
	name      string
	directory string                          // of its programs
	programs  []string                        // that it executes
	plugins   func(state string) []pluginConf // its configuration; state is a directory of its own
	ports     []hostPort                      // of the node that are the pod's; the runtime asks for them
	bandwidth map[string]any                  // the runtime asks for it
	every     int                             // takes part in one of so many rounds, for what is very slow; 0 is 1
}

// pluginConf is the configuration of one plugin of a chain.
type pluginConf map[string]any

// families are the subnets and default routes of a contender's pods.
type families struct{ subnets, defaults []string }

var (
	single = families{[]string{"10.70.0.0/16"}, []string{"0.0.0.0/0"}}
	dual   = families{[]string{"10.70.0.0/16", "fd70::/64"}, []string{"0.0.0.0/0", "::/0"}}
)

// ipam is the same section for everybody: host-local's.
func (f families) ipam(program, state string) pluginConf {
	var ranges [][]pluginConf
	for _, subnet := range f.subnets {
		ranges = append(ranges, []pluginConf{{"subnet": subnet}})
	}
	var routes []pluginConf
	for _, destination := range f.defaults {
		routes = append(routes, pluginConf{"dst": destination})
	}
	return pluginConf{"type": program, "dataDir": state + "/ipam", "ranges": ranges, "routes": routes}
}

func (b *bench) flatnet(name string, f families, masquerade bool) contender {
	return contender{
		name: name, directory: b.ours, programs: []string{"flatnet"},
		plugins: func(state string) []pluginConf {
			return []pluginConf{{
				"type": "flatnet", "stateDir": state + "/state", "ipMasq": masquerade, "ipam": f.ipam("host-local", state),
			}}
		},
	}
}

func (b *bench) ptp(name string, f families, masquerade bool) contender {
	return contender{
		name: name, directory: b.peers, programs: []string{"ptp", "host-local"},
		plugins: func(state string) []pluginConf {
			return []pluginConf{{"type": "ptp", "ipMasq": masquerade, "ipam": f.ipam("host-local", state)}}
		},
	}
}

func (b *bench) bridge(name string, f families) contender {
	return contender{
		name: name, directory: b.peers, programs: []string{"bridge", "host-local"},
		plugins: func(state string) []pluginConf {
			return []pluginConf{{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": f.ipam("host-local", state),
			}}
		},
	}
}

// stub is a contender that looks at no configuration.
func (b *bench) stub(program string) contender {
	return contender{
		name: program, directory: b.floor, programs: []string{program},
		plugins: func(string) []pluginConf { return []pluginConf{{"type": program}} },
	}
}

// allocator is an IPAM plugin executed by itself.
func allocator(directory, program string, reservations int) contender {
	return contender{
		name: fmt.Sprintf("%s, %d reservations", program, reservations), directory: directory, programs: []string{program},
		plugins: func(state string) []pluginConf {
			return []pluginConf{{"type": program, "ipam": single.ipam(program, state)}}
		},
	}
}

// withCapability has a contender do what the runtime says: flatnet by itself, others by
// the CNI project's plugin for it behind them.
func withCapability(c contender, name, plugin string) contender {
	capability := map[string]bool{name: true}
	chain := c.plugins
	if c.programs[0] == "flatnet" {
		c.plugins = func(state string) []pluginConf {
			all := chain(state)
			all[0]["capabilities"] = capability
			return all
		}
		return c
	}
	c.name += " + " + plugin
	c.programs = append(c.programs, plugin)
	c.plugins = func(state string) []pluginConf {
		return append(chain(state), pluginConf{"type": plugin, "capabilities": capability})
	}
	return c
}
